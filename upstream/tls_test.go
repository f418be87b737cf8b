package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"maskrelay/upstream/upstreamtest"
)

// A gateway that cannot prove its name gets no login, and neither its customers' targets.
func TestTLSRefusals(t *testing.T) {
	tests := map[string]func(w *securedWorld){
		"unknown authority": func(w *securedWorld) { w.g.tls.RootCAs = nil },
		"other name":        func(w *securedWorld) { w.g.tls.ServerName = "other.example" },
		"expired":           func(w *securedWorld) { w.g.tls.Time = func() time.Time { return time.Now().AddDate(1, 0, 0) } },
		"not yet valid":     func(w *securedWorld) { w.g.tls.Time = func() time.Time { return time.Now().AddDate(-1, 0, 0) } },
		"old TLS":           func(w *securedWorld) { w.g.tls.MinVersion = tls.VersionTLS13 },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			w := newSecuredWorld(t, 0, upstreamtest.VendorConfig{TLS: &tls.Config{MaxVersion: tls.VersionTLS12}}, func(g *Gateway, _ *Options) {
				g.username, g.password, g.logins = "u", "p", gatewayOf(t, "", "http://u:p@gw.example:1").logins
			})
			spoil(w)
			tr := NewTransport(w.p, nil)
			defer tr.Close()
			_, connect := w.p.Connect(t.Context(), Request{Target: "target.example:443"})
			_, _, plain := tr.Do(PlainRequest{Request: get(t, "http://target.example/")})
			for _, err := range []error{connect, plain} {
				var failure *ConnectError
				if !errors.As(err, &failure) || failure.Phase != PhaseTLS || failure.Cause != CauseTLS {
					t.Errorf("error %v", err)
				}
			}
			waitFor(t, func() bool { return w.v.Open() == 0 })
			if received := w.v.Received(); len(received) > 0 || w.v.Accepted() != 2 {
				t.Errorf("of %d connections it was told %q", w.v.Accepted(), received)
			}
			wantNothingHeld(t, w.p)
		})
	}
}

// The second handshake with a gateway resumes the first one's session, whatever came
// between, and the protocol is HTTP/1.1 by ALPN.
func TestTLSResumption(t *testing.T) {
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			echo := startEcho(t)
			var mu sync.Mutex
			var resumed []bool
			w := newSecuredWorld(t, 0, upstreamtest.VendorConfig{TLS: &tls.Config{MinVersion: version, MaxVersion: version,
				VerifyConnection: func(s tls.ConnectionState) error {
					mu.Lock()
					defer mu.Unlock()
					resumed = append(resumed, s.DidResume)
					if s.NegotiatedProtocol != "http/1.1" {
						t.Errorf("protocol %q", s.NegotiatedProtocol)
					}
					return nil
				}}}, nil)
			for range 3 {
				c, err := w.p.Connect(t.Context(), Request{Target: echo.Addr()})
				must(t, err)
				echoThrough(t, c)
			}
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(resumed, []bool{false, true, true}) {
				t.Errorf("resumed: %v", resumed)
			}
		})
	}
}

// BenchmarkTLSConnect opens tunnels through a gateway that speaks TLS, in turn with a full
// handshake, a resumed one, and on a connection that stood ready. The ratios are to the first.
func BenchmarkTLSConnect(b *testing.B) {
	ca, err := upstreamtest.NewCA()
	if err != nil {
		b.Fatal(err)
	}
	cert, err := ca.Server("localhost")
	if err != nil {
		b.Fatal(err)
	}
	v, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{TLS: serverTLS(cert), RecordLimit: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	echo, err := upstreamtest.StartEcho()
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = echo.Close() }()
	pools := make([]*Pool, 3) // full, resumed, warm
	for i, warm := range []int{0, 0, 1} {
		pools[i] = benchmarkPool(b, v.Addr(), ca, warm)
	}
	pools[0].gateways[0].tls.ClientSessionCache = nil
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { pools[2].Run(ctx) })
	defer func() { cancel(); running.Wait() }()
	var took [3]time.Duration
	for b.Loop() {
		for i, p := range pools {
			for deadline := time.Now().Add(5 * time.Second); i == 2 && p.gateways[0].warm.ready() < 1; time.Sleep(100 * time.Microsecond) {
				if time.Now().After(deadline) {
					b.Fatal("nothing stands ready")
				}
			}
			start := time.Now()
			c, err := p.Connect(context.Background(), Request{Target: echo.Addr()})
			took[i] += time.Since(start)
			if err != nil {
				b.Fatal(err)
			}
			_ = c.Close()
			c.Release()
		}
	}
	for i, name := range []string{"full-µs", "resumed-µs", "warm-µs"} {
		b.ReportMetric(float64(took[i].Microseconds())/float64(b.N), name)
	}
	b.ReportMetric(float64(took[1])/float64(took[0]), "resumed/full")
	b.ReportMetric(float64(took[2])/float64(took[0]), "warm/full")
}

// benchmarkPool is a pool of one gateway that listens at addr.
func benchmarkPool(b *testing.B, addr string, ca *upstreamtest.CA, warm int) *Pool {
	b.Helper()
	g, err := ParseGateway(GatewayConfig{Name: "gw", URL: "https://localhost:" + addr[strings.LastIndexByte(addr, ':')+1:]})
	if err != nil {
		b.Fatal(err)
	}
	g.roots, g.Warm = ca.Pool(), warm
	p, err := NewPool(Options{Gateways: []Gateway{g}, DialTimeout: 5 * time.Second, ConnectTimeout: 5 * time.Second})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	return p
}
