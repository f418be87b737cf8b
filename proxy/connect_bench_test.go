package proxy

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"maskrelay/masking"
	"maskrelay/proxy/account"
	"maskrelay/proxy/limit"
	"maskrelay/upstream"
)

// BenchmarkConnect opens a tunnel, has a byte echoed and closes it, once for each
// iteration, with the engine receiving customers and with net/http. Customers and
// vendor are in the same process and cost the same both ways, so that the difference is
// the front's: CPU, and garbage.
func BenchmarkConnect(b *testing.B) {
	for _, way := range []struct {
		name    string
		netHTTP bool
	}{{"engine", false}, {"net-http", true}} {
		b.Run(way.name, func(b *testing.B) { benchmarkConnect(b, way.netHTTP) })
	}
}

func benchmarkConnect(b *testing.B, netHTTP bool) {
	vendor, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	var serving sync.WaitGroup
	serving.Go(func() { tersely(vendor, &serving) })
	defer serving.Wait()
	defer func() { _ = vendor.Close() }()
	s := benchServer(b, "http://u:p@"+vendor.Addr().String(), netHTTP)
	head := []byte(plainHeadOf("shop.example:443"))
	b.ReportAllocs()
	b.SetParallelism(16)
	before := cpuTime(b)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		buf := make([]byte, 256)
		for pb.Next() {
			if err := throughTunnel(s.Addrs()[0].String(), head, buf); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(cpuTime(b)-before)/1e3/float64(b.N), "cpu-µs/op")
}

// tersely is a vendor that grants every tunnel and echoes one byte.
func tersely(l net.Listener, serving *sync.WaitGroup) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		serving.Go(func() {
			defer func() { _ = conn.Close() }()
			buf := make([]byte, 512)
			if _, err := conn.Read(buf); err != nil { // the head comes in one packet
				return
			}
			if _, err := io.WriteString(conn, masking.Established); err != nil {
				return
			}
			if n, err := conn.Read(buf); err == nil {
				_, _ = conn.Write(buf[:n])
				_, _ = conn.Read(buf)
			}
		})
	}
}

func throughTunnel(addr string, head, buf []byte) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write(head); err != nil {
		return err
	}
	n, err := io.ReadFull(conn, buf[:len(masking.Established)])
	if err != nil || string(buf[:n]) != masking.Established {
		return fmt.Errorf("got %q, %w", buf[:n], err)
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, buf[:1])
	return err
}

// benchServer is a running relay that ends with the benchmark.
func benchServer(b *testing.B, gateway string, netHTTP bool) *Server {
	b.Helper()
	list, err := account.ParseList(customerName + ":" + customerPassword)
	must(b, err)
	store, err := account.NewStore(account.StoreConfig{List: list})
	must(b, err)
	targets, err := NewTargets(TargetsConfig{})
	must(b, err)
	policy, err := masking.NewPolicy(masking.PolicyConfig{})
	must(b, err)
	g, err := upstream.ParseGateway(upstream.GatewayConfig{Name: "gateway", URL: gateway})
	must(b, err)
	pool, err := upstream.NewPool(upstream.Options{
		Gateways: []upstream.Gateway{g}, DialTimeout: time.Second, ConnectTimeout: time.Second,
	})
	must(b, err)
	s, err := New(Config{
		Listen: []string{"127.0.0.1:0"}, Auth: AuthAccounts, Accounts: store, Limiter: limit.NewMemory(), MaxConns: 10_000,
		Targets: targets, Policy: policy, Brand: testBrand, Upstream: pool, HeaderTimeout: patience, ConnectTimeout: patience,
		IdleTimeout: patience, Log: zerolog.New(io.Discard).With().Timestamp().Logger(), netHTTPAccepts: netHTTP,
	})
	must(b, err)
	must(b, s.Listen(b.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(b.Context(), b.Context()) }()
	b.Cleanup(func() { must(b, <-ended) })
	return s
}

// cpuTime is what the process has used.
func cpuTime(b *testing.B) time.Duration {
	runtime.GC()
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
