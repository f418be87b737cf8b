package redisusage

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/proxy/usage"
)

// BenchmarkBook books an entry of each of 10,000 accounts, of which every tenth has a quota.
func BenchmarkBook(b *testing.B) {
	server := lab.StartRedis(b)
	l := openLedger(b, server.Addr, "")
	batch := usage.Batch{Node: "relay-1~abcdef", At: time.Now()}
	names := make([]string, 10_000)
	for i := range names {
		names[i] = fmt.Sprintf("account%05d", i)
		e := usage.Entry{Account: names[i], Sums: usage.Sums{Sent: 1e6, Received: 1e7, Connections: 3}}
		if i%10 == 0 {
			e.Quota = usage.Quota{Bytes: 1 << 60, Period: usage.Monthly}
		}
		batch.Entries = append(batch.Entries, e)
	}
	b.Run("book", func(b *testing.B) {
		before := cpu(b, l)
		for b.Loop() {
			for i := range batch.Entries {
				batch.Entries[i].Seq++
			}
			if _, err := l.Book(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
		}
		perBatch(b, cpu(b, l)-before)
	})
	b.Run("totals", func(b *testing.B) {
		before := cpu(b, l)
		for b.Loop() {
			if _, err := l.Totals(b.Context(), names); err != nil {
				b.Fatal(err)
			}
		}
		perBatch(b, cpu(b, l)-before)
	})
	b.Run("report", func(b *testing.B) {
		before := cpu(b, l)
		for b.Loop() {
			if _, err := l.Report(b.Context(), usage.Query{Since: time.Now().Add(-24 * time.Hour)}); err != nil {
				b.Fatal(err)
			}
		}
		perBatch(b, cpu(b, l)-before)
	})
}

// perBatch reports how long a batch takes, and how much of a core of Redis's.
func perBatch(b *testing.B, redis float64) {
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/batch")
	b.ReportMetric(redis*1000/float64(b.N), "redis-ms/batch")
}

// cpu is the time, in seconds, that Redis has spent computing.
func cpu(b *testing.B, l *Ledger) float64 {
	b.Helper()
	info := l.redis.InfoMap(b.Context(), "cpu").Val()["CPU"]
	sum := 0.0
	for _, part := range []string{"used_cpu_user", "used_cpu_sys"} {
		seconds, err := strconv.ParseFloat(info[part], 64)
		if err != nil {
			b.Fatalf("%s: %v", part, err)
		}
		sum += seconds
	}
	return sum
}
