package fleet_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"maskrelay/integration/lab"
	"maskrelay/proxy/fleet"
)

// BenchmarkCall is what watching a call costs beside the library alone.
func BenchmarkCall(b *testing.B) {
	server := lab.StartRedis(b)
	c, err := fleet.Open(fleet.Config{URL: server.URL()})
	if err != nil {
		b.Fatal(err)
	}
	bare := redis.NewClient(&redis.Options{Addr: server.Addr, Protocol: 2, DisableIdentity: true, PoolSize: 32})
	b.Cleanup(func() {
		if err := c.Close(); err != nil {
			b.Error(err)
		}
		if err := bare.Close(); err != nil {
			b.Error(err)
		}
	})
	// Without a deadline a call has CallTimeout, which a busy machine can take away.
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	for name, client := range map[string]redis.UniversalClient{"fleet": c.Redis(), "bare": bare} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := client.Ping(ctx).Err(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"-parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := client.Ping(ctx).Err(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
