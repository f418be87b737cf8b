// Package usagetest is the suite that every usage.Ledger passes.
package usagetest

import (
	"math"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"

	"maskrelay/proxy/usage"
)

// Subject is one empty ledger and its clock.
type Subject struct {
	Ledger usage.Ledger
	SetNow func(time.Time)
}

// Run runs the suite; each test gets a Subject of its own.
func Run(t *testing.T, make func(t *testing.T) Subject) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *bench)
	}{
		{"adds each entry once", addsOnce},
		{"keeps nodes apart", keepsNodesApart},
		{"tells a crossing once", tellsOnce},
		{"tells a crossing again with the entry that made it", tellsAgain},
		{"arms crossings with a quota and a month", armsAnew},
		{"turns with the month", turnsMonth},
		{"takes an entry from before the turn", takesLate},
		{"reports from the start of a bucket", reports},
		{"drops what is too old", drops},
		{"stops at the largest figure", stopsAtLargest},
		{"is exact beyond 2^53", exact},
		{"books from many at once", concurrent},
		{"keeps many nodes", manyNodes},
		{"agrees with a plain sum", agrees},
		{"refuses what is no batch", refuses},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &bench{T: t, Subject: make(t)}
			b.at(start)
			c.test(t, b)
		})
	}
}

var start = time.Date(2026, 11, 21, 8, 30, 0, 0, time.UTC)

// bench is a ledger under test at a time.
type bench struct {
	*testing.T
	Subject
	now time.Time
}

func (b *bench) at(t time.Time) {
	b.now = t
	b.SetNow(t)
}

// book books one entry.
func (b *bench) book(node string, e usage.Entry) usage.Total {
	b.Helper()
	totals, err := b.Ledger.Book(b.Context(), usage.Batch{Node: node, At: b.now, Entries: []usage.Entry{e}})
	if err != nil || len(totals) != 1 {
		b.Fatalf("booked %v, error %v", totals, err)
	}
	return totals[0]
}

func (b *bench) total(name string) usage.Total {
	b.Helper()
	totals, err := b.Ledger.Totals(b.Context(), []string{name})
	if err != nil || len(totals) != 1 || totals[0].Account != name {
		b.Fatalf("totals %v, error %v", totals, err)
	}
	return totals[0]
}

func (b *bench) report(q usage.Query) []usage.Row {
	b.Helper()
	rows, err := b.Ledger.Report(b.Context(), q)
	if err != nil {
		b.Fatal(err)
	}
	return rows
}

func moved(account string, seq, sent, received, connections int64) usage.Entry {
	return usage.Entry{Account: account, Seq: seq, Sums: usage.Sums{Sent: sent, Received: received, Connections: connections}}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

func addsOnce(t *testing.T, b *bench) {
	equal(t, "before", b.total("alice").All, usage.Sums{})
	first := b.book("a", moved("alice", 1, 10, 20, 1))
	want := usage.Sums{Sent: 10, Received: 20, Connections: 1}
	equal(t, "first", first, usage.Total{Account: "alice", All: want, Month: "2026-11", InMonth: want})
	equal(t, "again", b.book("a", moved("alice", 1, 10, 20, 1)), first)
	b.book("a", moved("alice", 2, 1, 2, 0))
	want = usage.Sums{Sent: 11, Received: 22, Connections: 1}
	equal(t, "an old one", b.book("a", moved("alice", 1, 10, 20, 1)).All, want)
	equal(t, "totals", b.total("alice").All, want)
	equal(t, "month", b.total("alice").InMonth, want)
}

func keepsNodesApart(t *testing.T, b *bench) {
	b.book("a", moved("alice", 5, 1, 0, 0))
	b.book("b", moved("alice", 1, 2, 0, 0))
	b.book("a", moved("bob", 1, 4, 0, 0))
	equal(t, "alice", b.total("alice").All.Sent, int64(3))
	equal(t, "bob", b.total("bob").All.Sent, int64(4))
}

func withQuota(e usage.Entry, bytes int64, p usage.Period) usage.Entry {
	e.Quota = usage.Quota{Bytes: bytes, Period: p}
	return e
}

func tellsOnce(t *testing.T, b *bench) {
	lifetime := func(node string, seq, sent int64) []int64 {
		return b.book(node, withQuota(moved("alice", seq, sent, 0, 0), 1000, usage.Lifetime)).Crossed
	}
	equal(t, "799", lifetime("a", 1, 799), []int64(nil))
	equal(t, "800", lifetime("b", 1, 1), []int64{80})
	equal(t, "801", lifetime("a", 2, 1), []int64(nil))
	equal(t, "1000", lifetime("a", 3, 199), []int64{100})
	equal(t, "1001", lifetime("b", 2, 1), []int64(nil))
	both := b.book("a", withQuota(moved("bob", 1, 900, 900, 0), 1000, usage.Lifetime))
	equal(t, "both at once", both.Crossed, []int64{80, 100})
	equal(t, "without a quota", b.book("a", moved("carol", 1, 900, 900, 0)).Crossed, []int64(nil))
}

func tellsAgain(t *testing.T, b *bench) {
	e := withQuota(moved("alice", 1, 850, 0, 0), 1000, usage.Monthly)
	equal(t, "first", b.book("a", e).Crossed, []int64{80})
	equal(t, "again", b.book("a", e).Crossed, []int64{80})
	equal(t, "the next", b.book("a", withQuota(moved("alice", 2, 0, 0, 0), 1000, usage.Monthly)).Crossed, []int64(nil))
	equal(t, "another node's of the same number", b.book("b", e).Crossed, []int64{100})
}

func armsAnew(t *testing.T, b *bench) {
	e := moved("alice", 1, 1000, 0, 0)
	equal(t, "quota", b.book("a", withQuota(e, 1000, usage.Monthly)).Crossed, []int64{80, 100})
	empty := func(seq, quota int64, p usage.Period) []int64 {
		return b.book("a", withQuota(moved("alice", seq, 0, 0, 0), quota, p)).Crossed
	}
	equal(t, "raised", empty(2, 1250, usage.Monthly), []int64{80})
	equal(t, "as before", empty(3, 1000, usage.Monthly), []int64(nil))
	equal(t, "lifetime", empty(4, 1000, usage.Lifetime), []int64{80, 100})
	b.at(start.AddDate(0, 1, 0))
	equal(t, "a new month, nothing moved", empty(5, 1000, usage.Monthly), []int64(nil))
	equal(t, "a new month", b.book("a", withQuota(moved("alice", 6, 800, 0, 0), 1000, usage.Monthly)).Crossed, []int64{80})
	for i := range int64(40) { // what is remembered is bounded
		empty(7+i, 100+i, usage.Lifetime)
	}
	equal(t, "the latest is remembered", empty(100, 139, usage.Lifetime), []int64(nil))
}

func turnsMonth(t *testing.T, b *bench) {
	b.at(time.Date(2026, 11, 30, 23, 59, 59, 0, time.UTC))
	b.book("a", moved("alice", 1, 5, 0, 0))
	b.at(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC))
	total := b.total("alice")
	equal(t, "asked after the turn", total, usage.Total{Account: "alice", All: usage.Sums{Sent: 5}, Month: "2026-12"})
	equal(t, "booked after the turn", b.book("a", moved("alice", 2, 7, 0, 0)).InMonth.Sent, int64(7))
	equal(t, "of all time", b.total("alice").All.Sent, int64(12))
}

func takesLate(t *testing.T, b *bench) {
	before, after := time.Date(2026, 11, 30, 23, 59, 59, 0, time.UTC), time.Date(2026, 12, 1, 0, 0, 1, 0, time.UTC)
	b.at(before)
	b.book("a", moved("alice", 1, 1, 0, 0))
	b.at(after)
	b.book("b", moved("alice", 1, 2, 0, 0))
	b.at(before)
	late := b.book("a", moved("alice", 2, 4, 0, 0))
	equal(t, "the month goes on", late, usage.Total{Account: "alice", All: usage.Sums{Sent: 7}, Month: "2026-12", InMonth: usage.Sums{Sent: 2}})
	b.at(after)
	equal(t, "since December", b.report(usage.Query{Account: "alice", Since: after})[0].Sent, int64(2))
	equal(t, "since the hour before", b.report(usage.Query{Account: "alice", Since: before})[0].Sent, int64(7))
}

func reports(t *testing.T, b *bench) {
	for i, back := range []time.Duration{400 * 24 * time.Hour, 40 * 24 * time.Hour, 30 * time.Hour, 2 * time.Hour, 0} {
		b.at(start.Add(-back))
		b.book("a", moved("alice", int64(i+1), 1<<i, 0, 1))
	}
	b.book("a", moved("bob", 1, 0, 100, 0))
	for _, c := range []struct {
		name  string
		since time.Time
		from  time.Time
		sent  int64
	}{
		{"this hour", start, start.Truncate(time.Hour), 16},
		{"hours", start.Add(-150 * time.Minute), start.Add(-150 * time.Minute).Truncate(time.Hour), 24},
		{"the first of the hours", start.Add(-47 * time.Hour), start.Add(-47 * time.Hour).Truncate(time.Hour), 28},
		{"days", start.Add(-49 * time.Hour), time.Date(2026, 11, 19, 0, 0, 0, 0, time.UTC), 28},
		{"more days", start.AddDate(0, 0, -50), time.Date(2026, 10, 2, 0, 0, 0, 0, time.UTC), 30},
		{"months", start.AddDate(0, -4, 0), time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC), 30},
		{"more months", start.AddDate(-1, -3, 0), time.Date(2025, 8, 1, 0, 0, 0, 0, time.UTC), 31},
		{"longer than kept", start.AddDate(-3, 0, 0), time.Time{}, 31},
		{"all time", time.Time{}, time.Time{}, 31},
	} {
		rows := b.report(usage.Query{Account: "alice", Since: c.since})
		if len(rows) != 1 || rows[0].Sent != c.sent || !rows[0].From.Equal(c.from) || !rows[0].To.Equal(start) {
			t.Errorf("%s: %+v, want %d from %v", c.name, rows, c.sent, c.from)
		}
	}
	rows := b.report(usage.Query{})
	if len(rows) != 2 || rows[0].Account != "alice" || rows[0].Connections != 5 || rows[1].Account != "bob" || rows[1].Received != 100 {
		t.Errorf("all accounts: %+v", rows)
	}
	b.at(start.Add(3 * time.Hour))
	equal(t, "none moved since", len(b.report(usage.Query{Since: b.now})), 0)
	equal(t, "an account nobody knows", b.report(usage.Query{Account: "carol"})[0].Sums, usage.Sums{})
}

func drops(t *testing.T, b *bench) {
	const hours = 24 * 100
	for i := range int64(hours) {
		b.at(start.Add(time.Duration(i) * time.Hour))
		b.book("a", moved("alice", i+1, 1, 0, 0))
	}
	sent := func(since time.Duration) int64 {
		return b.report(usage.Query{Account: "alice", Since: b.now.Add(-since)})[0].Sent
	}
	equal(t, "all time", b.report(usage.Query{Account: "alice"})[0].Sent, int64(hours))
	equal(t, "the 48 hours", sent(47*time.Hour), int64(48))
	equal(t, "62 days", sent(61*24*time.Hour), int64(61*24+b.now.Hour()+1))
}

func stopsAtLargest(t *testing.T, b *bench) {
	b.book("a", moved("alice", 1, math.MaxInt64-5, 1, 0))
	total := b.book("a", withQuota(moved("alice", 2, 10, math.MaxInt64, 0), math.MaxInt64, usage.Lifetime))
	equal(t, "sent", total.All.Sent, int64(math.MaxInt64))
	equal(t, "received", total.InMonth.Received, int64(math.MaxInt64))
	equal(t, "crossed", total.Crossed, []int64{80, 100})
	equal(t, "in the hour", b.report(usage.Query{Account: "alice", Since: b.now})[0].Sent, int64(math.MaxInt64))
}

func exact(t *testing.T, b *bench) {
	sum := int64(0)
	for i, n := range []int64{1<<53 + 1, 1, 9_999_999_999, 1, 10_000_000_000, 999_999_999_999_999, 1 << 61, 3} {
		sum += n
		equal(t, strconv.FormatInt(n, 10), b.book("a", moved("alice", int64(i+1), n, 0, 0)).All.Sent, sum)
	}
	quota := withQuota(moved("alice", 100, 0, 0, 0), sum+1, usage.Lifetime)
	equal(t, "one byte below the quota", b.book("a", quota).Crossed, []int64{80})
	quota.Sent, quota.Seq = 1, 101
	equal(t, "at the quota", b.book("a", quota).Crossed, []int64{100})
}

func concurrent(t *testing.T, b *bench) {
	const nodes, batches, accounts = 8, 20, 10
	var all sync.WaitGroup
	var mu sync.Mutex // guards crossed
	crossed := make(map[string]int)
	for node := range nodes {
		all.Go(func() {
			for seq := range int64(batches) {
				batch := usage.Batch{Node: "n" + strconv.Itoa(node), At: b.now}
				for a := range accounts {
					batch.Entries = append(batch.Entries, withQuota(moved("acc"+strconv.Itoa(a), seq+1, 1, 2, 0), nodes*batches*2, usage.Lifetime))
				}
				for range 2 { // every entry is told twice, and its crossing counted once
					totals, err := b.Ledger.Book(t.Context(), batch)
					if err != nil {
						t.Error(err)
						return
					}
					if len(totals) != accounts {
						t.Errorf("%d totals", len(totals))
					}
					mu.Lock()
					for _, total := range totals {
						for _, percent := range total.Crossed {
							crossed[total.Account+" "+strconv.FormatInt(percent, 10)]++
						}
					}
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	for a := range accounts {
		name := "acc" + strconv.Itoa(a)
		equal(t, name, b.total(name).All, usage.Sums{Sent: nodes * batches, Received: 2 * nodes * batches})
		// Told by the entry that made it, both times that the entry came.
		equal(t, name+" crossings", [2]int{crossed[name+" 80"], crossed[name+" 100"]}, [2]int{2, 2})
	}
}

func manyNodes(t *testing.T, b *bench) {
	const nodes = 400
	for i := range nodes {
		b.at(start.Add(time.Duration(i) * time.Second))
		b.book("n"+strconv.Itoa(i), moved("alice", 1, 1, 0, 0))
	}
	for i := nodes - 200; i < nodes; i++ {
		b.book("n"+strconv.Itoa(i), moved("alice", 1, 1, 0, 0))
	}
	equal(t, "all, each once", b.total("alice").All.Sent, int64(nodes))
}

func refuses(t *testing.T, b *bench) {
	good := usage.Batch{Node: "a", At: b.now, Entries: []usage.Entry{moved("alice", 1, 1, 1, 1)}}
	for name, spoil := range map[string]func(*usage.Batch){
		"no node":         func(b *usage.Batch) { b.Node = "" },
		"no time":         func(b *usage.Batch) { b.At = time.Time{} },
		"no account":      func(b *usage.Batch) { b.Entries[0].Account = "" },
		"no number":       func(b *usage.Batch) { b.Entries[0].Seq = 0 },
		"below 0":         func(b *usage.Batch) { b.Entries[0].Received = -1 },
		"a long name":     func(b *usage.Batch) { b.Entries[0].Account = string(make([]byte, usage.MaxName+1)) },
		"one bad of many": func(b *usage.Batch) { b.Entries = append(b.Entries, moved("bob", 1, -1, 0, 0)) },
	} {
		batch := good
		batch.Entries = append([]usage.Entry(nil), good.Entries...)
		spoil(&batch)
		if _, err := b.Ledger.Book(t.Context(), batch); err == nil {
			t.Errorf("%s: booked", name)
		}
	}
	equal(t, "nothing is booked", b.total("alice").All, usage.Sums{})
	if totals, err := b.Ledger.Book(t.Context(), usage.Batch{Node: "a", At: b.now}); err != nil || len(totals) != 0 {
		t.Errorf("an empty batch: %v, %v", totals, err)
	}
}
