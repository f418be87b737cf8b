package usagetest

import (
	"math/rand/v2"
	"reflect"
	"strconv"
	"testing"
	"time"

	"maskrelay/proxy/usage"
)

// model is a plain account of what an account should have: every entry with its time.
type model struct {
	entries []entryAt
	told    map[string]bool
}

type entryAt struct {
	at time.Time
	usage.Sums
}

// since adds up what lies in the buckets from first on.
func (m *model) since(g usage.Grain, first int64) (s usage.Sums) {
	for _, e := range m.entries {
		if g == usage.AllTime || g.Index(e.at) >= first {
			s = s.Plus(e.Sums)
		}
	}
	return s
}

// book returns the crossings that the entry should tell.
func (m *model) book(at time.Time, e usage.Entry) (crossed []int64) {
	m.entries = append(m.entries, entryAt{at, e.Sums})
	month := int64(0)
	for _, e := range m.entries {
		month = max(month, usage.Months.Index(e.at))
	}
	used, window := m.since(usage.AllTime, 0).Bytes(), "lifetime"
	if e.Quota.Period == usage.Monthly {
		used, window = m.since(usage.Months, month).Bytes(), strconv.FormatInt(month, 10)
	}
	for _, percent := range usage.Crossings {
		key := window + strconv.FormatInt(e.Quota.Bytes, 10) + "/" + strconv.FormatInt(percent, 10)
		if e.Quota.Bytes > 0 && used >= e.Quota.Mark(percent) && !m.told[key] {
			m.told[key] = true
			crossed = append(crossed, percent)
		}
	}
	return crossed
}

// figure is small as often as it needs more than 53 bits.
func figure(r *rand.Rand) int64 { return r.Int64N(1 << (1 + r.IntN(55))) }

// agrees books in an order of times as relays' clocks may have it, and compares with a plain sum.
func agrees(t *testing.T, b *bench) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for round := range 10 {
		name := "account" + strconv.Itoa(round)
		now := start
		m := &model{told: make(map[string]bool)}
		for seq := int64(1); seq <= 100; seq++ {
			now = now.Add(time.Duration(r.Int64N(int64(20 * time.Minute))))
			if r.IntN(10) == 0 {
				now = now.Add(time.Duration(r.Int64N(int64(4 * 24 * time.Hour))))
			}
			b.at(now)
			compareOne(b, m, r, moved(name, seq, figure(r), figure(r), r.Int64N(100)))
		}
	}
}

// compareOne books the entry at about this time, and reports since any.
func compareOne(b *bench, m *model, r *rand.Rand, e usage.Entry) {
	b.Helper()
	if r.IntN(2) == 0 {
		e.Quota = usage.Quota{Bytes: 1 << 58, Period: []usage.Period{usage.Lifetime, usage.Monthly}[r.IntN(2)]}
	}
	at := b.now.Add(time.Duration(r.Int64N(int64(8*time.Minute))) - 4*time.Minute)
	totals, err := b.Ledger.Book(b.Context(), usage.Batch{Node: "n" + strconv.Itoa(r.IntN(3)), At: at, Entries: []usage.Entry{e}})
	if err != nil {
		b.Fatal(err)
	}
	if crossed := m.book(at, e); !reflect.DeepEqual(totals[0].Crossed, crossed) {
		b.Fatalf("crossed %v, want %v", totals[0].Crossed, crossed)
	}
	if want := m.since(usage.AllTime, 0); totals[0].All != want {
		b.Fatalf("all %+v, want %+v", totals[0].All, want)
	}
	since := b.now.Add(-time.Duration(r.Int64N(int64(70 * 24 * time.Hour))))
	grain, first := usage.Cover(since, b.now)
	if got, want := b.report(usage.Query{Account: e.Account, Since: since})[0].Sums, m.since(grain, first); got != want {
		b.Fatalf("since %v, at %v: %+v, want %+v", since, b.now, got, want)
	}
}
