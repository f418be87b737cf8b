package usage_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"maskrelay/proxy/usage"
)

func BenchmarkMoved(b *testing.B) {
	b.Run("own account", func(b *testing.B) {
		m := usage.NewMeter()
		var n atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			c := m.Of(strconv.FormatInt(n.Add(1), 10))
			for sent := false; pb.Next(); sent = !sent {
				c.Moved(sent, 1400)
			}
		})
	})
	b.Run("one account", func(b *testing.B) {
		c := usage.NewMeter().Of("alice")
		b.RunParallel(func(pb *testing.PB) {
			for sent := false; pb.Next(); sent = !sent {
				c.Moved(sent, 1400)
			}
		})
	})
}

// BenchmarkAdmission is what one connection costs: its counter, whether it may, one more.
func BenchmarkAdmission(b *testing.B) {
	for _, accounts := range []int{1, 1000, 100_000} {
		b.Run(strconv.Itoa(accounts), func(b *testing.B) {
			m := usage.NewMeter()
			names := make([]string, accounts)
			for i := range names {
				names[i] = "account" + strconv.Itoa(i)
				m.Of(names[i])
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					c := m.Of(names[i%accounts])
					if c.Exhausted() {
						b.Error("exhausted")
					}
					c.Opened()
				}
			})
		})
	}
}

// BenchmarkBook books an entry of each of 10,000 accounts, of which every tenth has a quota.
func BenchmarkBook(b *testing.B) {
	for name, open := range map[string]func() (usage.Ledger, error){
		"memory": func() (usage.Ledger, error) { return usage.NewMemory(), nil },
		"file":   func() (usage.Ledger, error) { return usage.OpenFile(filepath.Join(b.TempDir(), "usage.db")) },
	} {
		b.Run(name, func(b *testing.B) {
			l, err := open()
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := l.Close(); err != nil {
					b.Error(err)
				}
			}()
			batch := usage.Batch{Node: "relay-1~abcdef", At: time.Now()}
			for i := range 10_000 {
				e := usage.Entry{Account: fmt.Sprintf("account%05d", i), Sums: usage.Sums{Sent: 1e6, Received: 1e7, Connections: 3}}
				if i%10 == 0 {
					e.Quota = usage.Quota{Bytes: 1 << 60, Period: usage.Monthly}
				}
				batch.Entries = append(batch.Entries, e)
			}
			for b.Loop() {
				for i := range batch.Entries {
					batch.Entries[i].Seq++
				}
				if _, err := l.Book(context.Background(), batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/batch")
		})
	}
}

// BenchmarkLook is what every second costs while one of a hundred accounts moves something.
func BenchmarkLook(b *testing.B) {
	for _, accounts := range []int{10_000, 200_000} {
		b.Run(strconv.Itoa(accounts), func(b *testing.B) {
			m := usage.NewMeter()
			books := usage.NewBooks(usage.BooksConfig{Meter: m, Ledger: usage.NewMemory(), Node: "a",
				Quota: func(string) (usage.Quota, bool) { return usage.Quota{Bytes: 1 << 60}, true }})
			counters := make([]*usage.Counter, accounts)
			for i := range counters {
				counters[i] = m.Of("account" + strconv.Itoa(i))
			}
			books.Look()
			for b.Loop() {
				for i := 0; i < accounts; i += 100 {
					counters[i].Moved(true, 1)
				}
				books.Look()
			}
		})
	}
}
