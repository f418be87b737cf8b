package redisaccounts

import (
	"fmt"
	"testing"

	"maskrelay/integration/lab"
	"maskrelay/proxy/account"
)

// BenchmarkLook is what each relay does every second when nothing has changed, with the
// processor time that it costs Redis.
func BenchmarkLook(b *testing.B) {
	s, server := stored(b)
	fill(b, s, 10_000)
	c, err := s.changes(b.Context(), point{})
	if err != nil {
		b.Fatal(err)
	}
	before := server.CPU(b)
	for b.Loop() {
		if now, err := s.changes(b.Context(), c.at); err != nil || len(now.entries) > 0 {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((server.CPU(b)-before).Nanoseconds())/float64(b.N), "redis-ns/op")
}

// BenchmarkStart is a relay's first look at 10,000 accounts.
func BenchmarkStart(b *testing.B) {
	s, server := stored(b)
	fill(b, s, 10_000)
	client := opened(b, server)
	source := Source(New(client), client)
	for b.Loop() {
		if accounts, err := account.NewStore(account.StoreConfig{Source: source}); err != nil || accounts.Len() != 10_000 {
			b.Fatal(err)
		}
	}
}

// BenchmarkImport writes 10,000 accounts whose passwords are hashed already.
func BenchmarkImport(b *testing.B) {
	var accounts []*account.Account
	for i := range 10_000 {
		name := fmt.Sprintf("a%05d", i)
		a, err := account.ParseJSON(name, record(name, 1))
		if err != nil {
			b.Fatal(err)
		}
		accounts = append(accounts, a)
	}
	lab.Need(b, "redis-server")
	for b.Loop() {
		b.StopTimer()
		s, server := stored(b)
		b.StartTimer()
		if added, _, _, _, err := Import(b.Context(), s, accounts, false); err != nil || added != len(accounts) {
			b.Fatal(added, err)
		}
		b.StopTimer()
		server.Kill(b)
		b.StartTimer()
	}
}
