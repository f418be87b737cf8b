package redisusage

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"maskrelay/integration/lab"
	"maskrelay/proxy/fleet"
	"maskrelay/proxy/usage"
	"maskrelay/proxy/usage/usagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial returns a client of the Redis at addr that runs until the end of the test.
func dial(t testing.TB, addr, prefix string) *fleet.Client {
	t.Helper()
	up := make(chan bool, 64)
	c, err := fleet.Open(fleet.Config{URL: "redis://" + addr + "/0", Prefix: prefix, Changed: func(is bool, _ error) {
		select {
		case up <- is:
		default:
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-done
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-up:
	case <-time.After(10 * time.Second):
		t.Fatal("Redis did not answer")
	}
	return c
}

// openLedger returns a ledger that always asks Redis: on a busy machine the client's probe may
// be late, which is not what most tests are about.
func openLedger(t testing.TB, addr, prefix string) *Ledger {
	t.Helper()
	l := New(dial(t, addr, prefix))
	l.up = func() bool { return true }
	return l
}

func TestConformance(t *testing.T) {
	t.Parallel()
	server := lab.StartRedis(t)
	var n atomic.Int32
	usagetest.Run(t, func(t *testing.T) usagetest.Subject {
		l := openLedger(t, server.Addr, fmt.Sprintf("t%d:", n.Add(1)))
		var now atomic.Pointer[time.Time]
		l.now = func(context.Context) (time.Time, error) { return *now.Load(), nil }
		return usagetest.Subject{Ledger: l, SetNow: func(t time.Time) { now.Store(&t) }}
	})
}

func entry(account string, seq, sent int64) usage.Entry {
	return usage.Entry{Account: account, Seq: seq, Sums: usage.Sums{Sent: sent}}
}

func sentOf(t testing.TB, l *Ledger, account string) int64 {
	t.Helper()
	totals, err := l.Totals(t.Context(), []string{account})
	if err != nil || len(totals) != 1 {
		t.Fatalf("%v, %v", totals, err)
	}
	return totals[0].All.Sent
}

func TestAnOddClockIsNotTaken(t *testing.T) {
	server := lab.StartRedis(t)
	l := openLedger(t, server.Addr, "")
	for name, c := range map[string]struct {
		off   time.Duration
		taken bool
	}{
		"right":        {0, true},
		"a bit behind": {-4 * time.Minute, true},
		"a bit ahead":  {4 * time.Minute, true},
		"far behind":   {-100 * 24 * time.Hour, false},
		"far ahead":    {100 * 24 * time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			at := time.Now().Add(c.off)
			if _, err := l.Book(t.Context(), usage.Batch{Node: "a", At: at, Entries: []usage.Entry{entry(name, 1, 5)}}); err != nil {
				t.Fatal(err)
			}
			text, err := l.redis.HGet(t.Context(), l.client.Key(usageKey, name), "now").Result()
			if err != nil {
				t.Fatal(err)
			}
			n, err := parseRunning(name, text)
			if err != nil {
				t.Fatal(err)
			}
			if taken := n.index[usage.Hours] == usage.Hours.Index(at); taken != c.taken {
				t.Errorf("booked in hour %d, the relay's clock says %d", n.index[usage.Hours], usage.Hours.Index(at))
			}
		})
	}
}

// One account that Redis refuses, or whose record makes no sense, must not hold up the others.
func TestOneBadAccountDoesNotHoldUpOthers(t *testing.T) {
	server := lab.StartRedis(t)
	l := openLedger(t, server.Addr, "")
	ctx := t.Context()
	if err := l.redis.Set(ctx, l.client.Key(usageKey, "text"), "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := l.redis.HSet(ctx, l.client.Key(usageKey, "short"), "now", "1 2 3").Err(); err != nil {
		t.Fatal(err)
	}
	var entries []usage.Entry
	for _, name := range []string{"alice", "text", "bob", "short", "carol"} {
		entries = append(entries, entry(name, 1, 1))
	}
	totals, err := l.Book(ctx, usage.Batch{Node: "a", At: time.Now(), Entries: entries})
	if err == nil || !strings.Contains(err.Error(), `"text"`) || !strings.Contains(err.Error(), `"short"`) {
		t.Errorf("error %v names neither or one", err)
	}
	var booked []string
	for _, total := range totals {
		booked = append(booked, total.Account)
	}
	if got := strings.Join(booked, " "); got != "alice bob carol" {
		t.Errorf("booked %q", got)
	}
	if totals, err := l.Totals(ctx, []string{"alice", "text", "short"}); err == nil || len(totals) != 1 || totals[0].All.Sent != 1 {
		t.Errorf("totals %v, error %v", totals, err)
	}
}

func TestRedisThatForgot(t *testing.T) {
	server := lab.StartRedis(t)
	l := openLedger(t, server.Addr, "")
	book := func(seq int64) {
		t.Helper()
		if _, err := l.Book(t.Context(), usage.Batch{Node: "a", At: time.Now(), Entries: []usage.Entry{entry("alice", seq, 1)}}); err != nil {
			t.Fatal(err)
		}
	}
	rows := func() int {
		t.Helper()
		rows, err := l.Report(t.Context(), usage.Query{})
		if err != nil {
			t.Fatal(err)
		}
		return len(rows)
	}
	book(1)
	if err := l.redis.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	book(2)
	if got := sentOf(t, l, "alice"); got != 2 {
		t.Errorf("after the scripts went: %d", got)
	}
	if err := l.redis.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	book(3)
	if rows() != 1 {
		t.Error("the account is missing in reports after Redis was emptied")
	}
}

func TestDown(t *testing.T) {
	t.Parallel()
	server := lab.StartRedis(t)
	c := dial(t, server.Addr, "")
	l := New(c)
	server.Freeze(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	batch := usage.Batch{Node: "a", At: time.Now(), Entries: []usage.Entry{entry("alice", 1, 1)}}
	for {
		_, err := l.Book(ctx, batch)
		if err == nil {
			t.Fatal("booked in a Redis that does not answer")
		}
		if errors.Is(err, ErrDown) {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("never taken as down")
		}
	}
	if _, err := l.Totals(ctx, []string{"alice"}); !errors.Is(err, ErrDown) {
		t.Errorf("totals: %v", err)
	}
	server.Thaw(t)
	lab.Wait(t, 10*time.Second, "Redis to be back", c.Up)
	if _, err := l.Book(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if got := sentOf(t, l, "alice"); got != 1 {
		t.Errorf("%d bytes, want the 1 that was told several times", got)
	}
}

// Accounts keep what a ledger keeps and no more, so that their size has a bound.
func TestSizeIsBounded(t *testing.T) {
	t.Parallel()
	server := lab.StartRedis(t)
	l := openLedger(t, server.Addr, "")
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now := start
	l.now = func(context.Context) (time.Time, error) { return now, nil }
	for i := range int64(24 * 120) {
		now = start.Add(time.Duration(i) * time.Hour)
		e := entry("alice", i+1, 1)
		e.Quota = usage.Quota{Bytes: i + 1, Period: usage.Lifetime}
		if _, err := l.Book(t.Context(), usage.Batch{Node: "n" + strconv.FormatInt(i, 10), At: now, Entries: []usage.Entry{e}}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 400 { // relays that start anew all the time
		e := entry("alice", 1, 1)
		if _, err := l.Book(t.Context(), usage.Batch{Node: "restart " + strconv.Itoa(i), At: now, Entries: []usage.Entry{e}}); err != nil {
			t.Fatal(err)
		}
	}
	for key, most := range map[string]int64{usageKey: 1 + 256 + 16, pastKey: 48 + 62 + 24} {
		n, err := l.redis.HLen(t.Context(), l.client.Key(key, "alice")).Result()
		if err != nil || n > most {
			t.Errorf("%s has %d fields, error %v; %d are kept at most", key, n, err, most)
		}
	}
	bytes, err := l.redis.MemoryUsage(t.Context(), l.client.Key(pastKey, "alice"), 0).Result()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the past of an account takes %d bytes", bytes)
}
