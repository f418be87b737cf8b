package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/upstream/upstreamtest"
)

// errorDomain is below the targets whose first label names what the vendor answers.
const errorDomain = ".errors.example"

// replyBook is every reply that customers got, by method and status: there must be one for each. Only a CONNECT's connection ends with it.
type replyBook struct {
	mu  sync.Mutex
	raw map[string][]byte
}

// enter compares a reply with the first of its kind.
func (b *replyBook) enter(t *testing.T, what, kind string, raw []byte) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	first, ok := b.raw[kind]
	if !ok {
		b.raw[kind] = raw
		return
	}
	if !bytes.Equal(raw, first) {
		t.Errorf("%s: the customer got %q, others got %q", what, raw, first)
	}
}

// TestPresetErrors has every vendor refuse in each of the ways that are known of him: the customer gets one of our fixed replies, whoever the
// vendor is, and the operator the cause, in log and metrics, and advice.
func TestPresetErrors(t *testing.T) {
	t.Parallel()
	book := &replyBook{raw: map[string][]byte{}}
	for preset, way := range vendorWays {
		t.Run(preset, func(t *testing.T) {
			t.Parallel()
			answers := map[string]upstreamtest.PresetAnswer{}
			for _, a := range upstreamtest.PresetErrors(preset) {
				answers[a.Name] = a
			}
			s := startStandIn(t, preset, [2]int{}, answerByName(answers))
			relay := startRelay(t, s.env(t, preset, way.login))
			r := &refusals{preset: preset, relay: relay, book: book, want: map[string]string{}, failures: map[string]int{}}
			for name, a := range answers {
				r.addr = tapRefusal(t, relay, r.marks(a)...)
				r.try(t, name, a)
			}
			r.checkLog(t)
		})
	}
}

// answerByName answers each request as the first label of its target says.
func answerByName(answers map[string]upstreamtest.PresetAnswer) upstreamtest.Behaviour {
	return upstreamtest.Func(func(_ context.Context, c *upstreamtest.Conn, req *upstreamtest.RecordedRequest) {
		for {
			name, _, _ := strings.Cut(hostOf(req.Target), errorDomain)
			answer := answers[name]
			if _, err := c.Write(answer.Bytes()); err != nil {
				return
			}
			var err error
			if req, err = c.ReadRequest(); err != nil {
				return
			}
		}
	})
}

// refusals are one vendor's, and what the relay must say of them.
type refusals struct {
	preset   string
	relay    *lab.Relay
	addr     string
	book     *replyBook
	want     map[string]string // causes by method and target
	failures map[string]int    // by cause
}

// marks are the vendor's words that no reply of ours has.
func (r *refusals) marks(a upstreamtest.PresetAnswer) []string {
	words := []string{r.preset}
	for _, line := range a.Header {
		name, value, _ := strings.Cut(line, ": ")
		if words = append(words, name+":"); len(value) > 11 && name != "Proxy-Status" {
			words = append(words, value)
		}
		if name == "Proxy-Status" {
			words[len(words)-1] = value[:20] // ours has the name alone
		}
	}
	if body := strings.TrimSpace(a.Body); body != "" {
		words = append(words, body)
	}
	if strings.ContainsRune(a.Reason, '_') {
		words = append(words, a.Reason)
	}
	return words
}

// shows reports whether an answer tells that a gateway made it and not a target: one that is a bare status passes in
// plain HTTP, but for the one of a quota, which the customer would take for his own.
func shows(a upstreamtest.PresetAnswer) bool {
	return len(a.Header) > 0 || a.Status == http.StatusProxyAuthRequired || strings.ContainsRune(a.Reason, '_') ||
		a.Body != "" || slices.Contains([]int{402, 466, 490, 522, 525}, a.Status)
}

// try meets one refusal in the three ways that customers have.
func (r *refusals) try(t *testing.T, name string, a upstreamtest.PresetAnswer) {
	t.Helper()
	host := name + errorDomain
	upgrade := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="}
	for _, ask := range []struct {
		method, target, log string
		lines               []string
		passes              bool
	}{
		{"CONNECT", host + ":443", "CONNECT " + host + ":443", nil, false},
		{"GET", "http://" + host + ":8080/", "GET " + host + ":8080", nil, !shows(a)},
		{"GET", "http://" + host + ":9090/ws", "GET " + host + ":9090", upgrade, false},
	} {
		var raw bytes.Buffer
		c := mustDial(t, r.addr)
		c.r = bufio.NewReader(io.TeeReader(c.Conn, &raw))
		got := c.mustAsk(t, ask.method, ask.target, basic(customerName+"-country-us", customerPassword), ask.lines...)
		if ask.passes {
			if got.status != a.Status || got.body != a.Body {
				t.Errorf("%s: an answer that may be a target's came as %+v", ask.log, got)
			}
			continue
		}
		status := http.StatusBadGateway
		if a.Cause == "timeout" {
			status = http.StatusGatewayTimeout
		}
		checkOurReply(t, got, status)
		r.book.enter(t, r.preset+": "+ask.log, fmt.Sprint(ask.method, got.status), raw.Bytes())
		r.want[ask.log] = a.Cause
		r.failures[a.Cause]++
	}
}

// troubleLine is what the relay says to the operator of a gateway.
type troubleLine struct {
	Upstream, Event, Cause, Advice string
}

// operatorCauses are those that only the operator can do something about.
var operatorCauses = []string{"auth", "quota", "rate", "threads", "params", "no_exit", "forbidden"}

// checkLog finds each cause where operators look.
func (r *refusals) checkLog(t *testing.T) {
	t.Helper()
	causes := map[string]string{}
	lab.Wait(t, 10*time.Second, "the log", func() bool {
		list, err := r.relay.Exchanges()
		if err != nil {
			t.Fatal(err)
		}
		clear(causes)
		for _, e := range list {
			if e.Cause != "" {
				causes[e.Method+" "+e.Target] = e.Cause
			}
		}
		return len(causes) >= len(r.want)
	})
	for exchange, want := range r.want {
		if causes[exchange] != want {
			t.Errorf("%s: the cause is %q, want %q", exchange, causes[exchange], want)
		}
	}
	for cause, want := range r.failures {
		if n, _ := r.relay.Metric(t, fmt.Sprintf(`maskrelay_upstream_failures_total{cause=%q,upstream="shop-a"}`, cause)); int(n) != want {
			t.Errorf("maskrelay_upstream_failures_total has %v for %s, want %d", n, cause, want)
		}
	}
	for _, cause := range operatorCauses {
		if r.failures[cause] == 0 {
			continue
		}
		lab.Wait(t, 10*time.Second, "the log to tell of "+cause, func() bool {
			return slices.ContainsFunc(r.troubles(t), func(l troubleLine) bool {
				return l.Upstream == "shop-a" && l.Event == "trouble" && l.Cause == cause && l.Advice != ""
			})
		})
	}
}

// troubles are the lines about gateways.
func (r *refusals) troubles(t *testing.T) (lines []troubleLine) {
	t.Helper()
	for text := range bytes.Lines(r.relay.Stderr.Bytes()) {
		var l troubleLine
		if err := json.Unmarshal(text, &l); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if l.Event != "" {
			lines = append(lines, l)
		}
	}
	return lines
}
