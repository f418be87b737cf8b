package upstreamtest

import (
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestBudgetIsExactUnderContention(t *testing.T) {
	t.Parallel()
	var b budget
	b.left.Store(1000)
	var wg sync.WaitGroup
	kept := make([]int, 8)
	for i := range kept {
		wg.Go(func() {
			for range 100 {
				kept[i] += b.take(7)
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range kept {
		total += n
	}
	if total > 1000 || int64(total)+b.dropped.Load() != 8*100*7 {
		t.Errorf("kept %d, dropped %d", total, b.dropped.Load())
	}
}

func TestLedgerKeepsTheOldest(t *testing.T) {
	t.Parallel()
	l := newLedger(10)
	a, b := l.opened("a"), l.opened("b")
	l.add(a, []byte("12345678"))
	l.add(b, []byte("abcd"))
	l.add(b, []byte("efgh"))
	if got := string(l.received()); got != "12345678ab" || l.dropped() != 6 {
		t.Errorf("kept %q, dropped %d", got, l.dropped())
	}
}

func TestLedgerWithoutLimitOrRecord(t *testing.T) {
	t.Parallel()
	none := newLedger(-1)
	r := none.opened("a")
	none.add(r, []byte("x"))
	if len(none.received()) != 0 || none.dropped() != 1 {
		t.Errorf("kept %q, dropped %d", none.received(), none.dropped())
	}
	if got := newLedger(0).bytes.left.Load(); got != DefaultRecordLimit {
		t.Errorf("default limit %d", got)
	}
}

func TestLedgerBoundsItsLists(t *testing.T) {
	t.Parallel()
	l := newLedger(0)
	var last *ConnRecord
	for range MaxRecords + 5 {
		last = l.opened("a")
	}
	if n := len(l.list()); n != MaxRecords {
		t.Errorf("%d records", n)
	}
	l.closed(last)
	l.closed(last)
	if accepted, open := l.counts(); accepted != MaxRecords+5 || open != MaxRecords+4 {
		t.Errorf("accepted %d, open %d", accepted, open)
	}
	for range MaxRequests + 5 {
		l.request(last, &RecordedRequest{Raw: []byte("GET")})
	}
	if n := len(last.Requests()); n != MaxRequests {
		t.Errorf("%d requests", n)
	}
}

func TestEndings(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		errs []error
		want End
	}{
		{"nothing", nil, EndOpen},
		{"fin", []error{io.EOF}, EndEOF},
		{"reset", []error{syscall.ECONNRESET}, EndReset},
		{"broken pipe", []error{syscall.EPIPE}, EndReset},
		{"reset after fin", []error{io.EOF, syscall.ECONNRESET}, EndReset},
		{"fin after reset", []error{syscall.ECONNRESET, io.EOF}, EndReset},
		{"own trouble", []error{io.ErrClosedPipe}, EndOpen},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLedger(0)
			r := l.opened("a")
			for _, err := range tt.errs {
				r.ended(err)
			}
			if r.End() != tt.want {
				t.Errorf("got %s", r.End())
			}
			l.closed(r)
			if want := strings.ReplaceAll(string(tt.want), "open", "local"); string(r.End()) != want {
				t.Errorf("after close: %s, want %s", r.End(), want)
			}
		})
	}
}
