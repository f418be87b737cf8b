package redislimit

import (
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// Redis's clock may go back, as when another machine takes over: a dead relay's slots are not lost until it is again what it was.
func TestClockSetBackKeepsNoDeadLease(t *testing.T) {
	const slots, ttl = 10, 30 * time.Second
	c := clocked{t: t, admin: admin(t, lab.StartRedis(t))}
	script := onTestClock(leaseSource)
	ask := func(node string, sequence, waiting int) int64 {
		t.Helper()
		answer, err := script.Run(t.Context(), c.admin, []string{"k"}, node, ttl.Milliseconds(), sequence, slots, 0, 0, 2, 0, 0, waiting).Int64Slice()
		if err != nil {
			t.Fatal(err)
		}
		return answer[0]
	}
	c.setClock(2 * time.Hour)
	if got := ask("dead", 1, slots); got != slots {
		t.Fatalf("%d slots were leased, want %d", got, slots)
	}
	c.setClock(time.Hour)
	if got := ask("me", 1, 1); got != 0 {
		t.Errorf("%d slots were leased beside a lease that may live", got)
	}
	c.setClock(time.Hour + ttl + time.Millisecond)
	if got := ask("me", 2, slots); got != slots {
		t.Errorf("%d slots were leased after a dead relay's time, want %d", got, slots)
	}
}

// Nor are addresses counted until then.
func TestClockSetBackKeepsNoAddress(t *testing.T) {
	l := newClocked(t, lab.StartRedis(t), "back:")
	wantAddress(t, l, "alice", addr(1), 1, true)
	wantAddress(t, l, "alice", addr(2), 1, false)
	l.Advance(-3 * defaultWindow)
	wantAddress(t, l, "alice", addr(3), 1, true)
}

// A script that ran twice, as one is that a cluster's client sends anew, gives tokens back once.
func TestTokensGoBackOnce(t *testing.T) {
	const burst = 100
	c := clocked{t: t, admin: admin(t, lab.StartRedis(t))}
	c.setClock(time.Hour)
	script := onTestClock(leaseSource)
	ask := func(sequence, tokens, back int) []int64 {
		t.Helper()
		answer, err := script.Run(t.Context(), c.admin, []string{"k"}, "me", 30_000, sequence, 10, 1, 1, 1, 0.001, burst, 0, 0, tokens, 0, back).Int64Slice()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	if got := ask(1, 40, 0); got[3] != 40 {
		t.Fatalf("%d tokens were taken, want 40", got[3])
	}
	ask(2, 0, 10)
	if got := ask(2, 0, 10); got[6] != burst-30 {
		t.Errorf("%d tokens are left after 10 of 40 came back, want %d", got[6], burst-30)
	}
}
