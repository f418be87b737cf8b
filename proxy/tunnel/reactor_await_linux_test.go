//go:build amd64 || arm64

package tunnel

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
)

// awaiting counts the tunnels that wait for an answer, and those of them that hold a
// set-up.
func (s *scene) awaiting() (tunnels, setups int) {
	sum := s.engine.reactors.each(func(r *reactor) int {
		n := 0
		r.slab.each(func(t *tunnel) {
			if t.phase != replying {
				return
			}
			n++
			if t.setup != nil {
				n += 1000
			}
		})
		return n
	})
	return sum % 1000, sum / 1000
}

// Who waits for an answer holds only what he cannot do without, and whatever then comes
// finds what it needs.
func TestAwaitingAnAnswerHoldsLittle(t *testing.T) {
	const half = len(accepted) / 2
	tests := map[string]struct {
		early, first string // bytes of the customer's; of the answer, before the rest
		setups       int
		rest         string // of the answer; empty = it ends
	}{
		"nothing":                    {"", "", 0, accepted},
		"early bytes":                {"early ", "", 1, accepted},
		"half an answer":             {"", accepted[:half], 1, accepted[half:]},
		"nothing, and no answer":     {"", "", 0, ""},
		"half, and no answer":        {"", accepted[:half], 1, ""},
		"early bytes, and no answer": {"early ", "", 1, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			asked, goOn := make(chan struct{}), make(chan struct{})
			slow := gateway(t, func(c *net.TCPConn) {
				if !readRequest(c) {
					return
				}
				_, _ = io.WriteString(c, test.first)
				close(asked)
				<-goOn
				if test.rest == "" {
					return
				}
				_, _ = io.WriteString(c, test.rest)
				_, _ = io.Copy(c, c)
				_ = c.CloseWrite()
			})
			j := newJourney(t, refusing(t), slow, gateway(t, echo(accepted)))
			var stood atomic.Int32
			j.job.connected = func() { stood.Add(1) }
			j.job.early = []byte(test.early)
			j.submit()
			<-asked
			until(t, func() bool {
				tunnels, setups := j.awaiting()
				return tunnels == 1 && setups == test.setups
			})
			if n := stood.Load(); n != 1 {
				t.Errorf("%d connections stood, want 1", n)
			}
			close(goOn)
			expect(t, j.client, greeting+test.early)
			j.talk()
			want := int32(1)
			if test.rest == "" {
				want = 2
			}
			if n := stood.Load(); n != want {
				t.Errorf("%d connections stood in the end, want %d", n, want)
			}
		})
	}
}
