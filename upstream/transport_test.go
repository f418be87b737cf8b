package upstream

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"maskrelay/upstream/upstreamtest"
)

func serverTLS(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
}

func startJudge(t *testing.T) *upstreamtest.Judge {
	t.Helper()
	j, err := upstreamtest.StartJudge(upstreamtest.JudgeConfig{})
	must(t, err)
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func newTransport(t *testing.T, o Options) *Transport {
	t.Helper()
	tr := NewTransport(newPool(t, o), nil)
	t.Cleanup(tr.Close)
	return tr
}

func get(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, err)
	return r
}

func drain(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	must(t, err)
	must(t, r.Body.Close())
	return string(b)
}

func TestTransportSendsEveryRequestWithTheLogin(t *testing.T) {
	judge := startJudge(t)
	ca, err := upstreamtest.NewCA()
	must(t, err)
	cert, err := ca.Server("localhost")
	must(t, err)
	for _, secured := range []bool{false, true} {
		name := map[bool]string{false: "http", true: "https"}[secured]
		t.Run(name, func(t *testing.T) {
			c := upstreamtest.VendorConfig{Username: "u", Password: "p"}
			if secured {
				c.TLS = serverTLS(cert)
			}
			v := startVendor(t, c)
			g := gatewayOf(t, "", strings.Replace(v.URL(), "127.0.0.1", "localhost", 1))
			if secured {
				g.roots = ca.Pool()
			}
			tr := newTransport(t, Options{Gateways: []Gateway{g}})
			for range 3 {
				response, gateway, err := tr.Do(PlainRequest{Request: get(t, judge.URL()+"/notype"), Key: "alice"})
				must(t, err)
				if drain(t, response.Response); response.StatusCode != 200 || gateway != "localhost" {
					t.Errorf("status %d through %s", response.StatusCode, gateway)
				}
			}
			if n := v.Accepted(); n != 1 {
				t.Errorf("%d connections for three requests of one customer", n)
			}
			for _, r := range v.Conns()[0].Requests() {
				if r.Header.Get("Proxy-Authorization") != "Basic dTpw" || !strings.HasPrefix(r.Target, judge.URL()) {
					t.Errorf("the vendor got %q", r.Raw)
				}
			}
			if strings.Contains(string(judge.Received()), "Proxy-Authorization") {
				t.Error("the login reached the target")
			}
		})
	}
}

func TestTransportKeepsCustomersApart(t *testing.T) {
	judge := startJudge(t)
	v := startVendor(t, upstreamtest.VendorConfig{})
	tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
	for _, key := range []string{"alice", "bob", "alice"} {
		response, _, err := tr.Do(PlainRequest{Request: get(t, judge.URL()+"/"), Key: key})
		must(t, err)
		drain(t, response.Response)
	}
	if n := v.Accepted(); n != 2 {
		t.Errorf("%d connections for two customers", n)
	}
	if strings.Contains(string(v.Received()), "alice") {
		t.Error("the key was sent")
	}
}

func TestTransportFailsOver(t *testing.T) {
	judge := startJudge(t)
	good := startVendor(t, upstreamtest.VendorConfig{})
	made := func(r *http.Response) bool { return r.StatusCode == 407 || r.Header.Get("X-Supervendor-Error") != "" }
	tests := map[string]struct {
		first  upstreamtest.Behaviour // nil = nobody listens
		method string
		want   bool
	}{
		"refused":                 {nil, http.MethodGet, true},
		"refused, with body":      {nil, http.MethodPost, true}, // nothing was sent yet
		"gateway's error":         {upstreamtest.Loud(503, "NO_RAY"), http.MethodGet, true},
		"gateway's error, a POST": {upstreamtest.Loud(503, "NO_RAY"), http.MethodPost, false},
		"closed, a POST":          {upstreamtest.CloseBeforeReply(), http.MethodPost, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			first := "http://" + closedAddr(t)
			if test.first != nil {
				first = startVendor(t, upstreamtest.VendorConfig{Behaviour: test.first}).URL()
			}
			tr := newTransport(t, Options{
				Gateways:    []Gateway{gatewayOf(t, "first", first), gatewayOf(t, "second", good.URL())},
				GatewayMade: made,
			})
			var body io.Reader
			if test.method == http.MethodPost {
				body = strings.NewReader("a body")
			}
			r, err := http.NewRequestWithContext(t.Context(), test.method, judge.URL()+"/digest", body)
			must(t, err)
			before := good.Accepted()
			response, gateway, err := tr.Do(PlainRequest{Request: r})
			if !test.want {
				if err == nil || good.Accepted() != before {
					t.Errorf("error %v; the second gateway was asked", err)
				}
				return
			}
			must(t, err)
			drain(t, response.Response)
			if gateway != "second" {
				t.Errorf("through %s", gateway)
			}
		})
	}
}

func TestTransportTimesOut(t *testing.T) {
	v := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.Silent()})
	tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}, ConnectTimeout: 50 * time.Millisecond})
	_, _, err := tr.Do(PlainRequest{Request: get(t, "http://target.example/")})
	var failure *ConnectError
	if !errors.As(err, &failure) || failure.Cause != CauseTimeout {
		t.Errorf("error %v", err)
	}
}

func TestTransportCountsConnections(t *testing.T) {
	judge := startJudge(t)
	v := startVendor(t, upstreamtest.VendorConfig{})
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
	tr := NewTransport(p, nil)
	response, _, err := tr.Do(PlainRequest{Request: get(t, judge.URL()+"/")})
	must(t, err)
	drain(t, response.Response)
	if n := p.gateways[0].conns.Load(); n != 1 {
		t.Errorf("%d connections, want the idle one", n)
	}
	tr.Close()
	waitFor(t, func() bool { return p.gateways[0].conns.Load() == 0 })
}

// Idle connections are reused by their customer and make room for the others.
func TestTransportWithinTheGatewaysLimit(t *testing.T) {
	judge, echo := startJudge(t), startEcho(t)
	v := startVendor(t, upstreamtest.VendorConfig{})
	g := gatewayOf(t, "", v.URL())
	g.MaxConns = 1
	p := newPool(t, Options{Gateways: []Gateway{g}})
	tr := NewTransport(p, nil)
	t.Cleanup(tr.Close)
	for _, key := range []string{"alice", "alice", "bob"} {
		response, _, err := tr.Do(PlainRequest{Request: get(t, judge.URL()+"/"), Key: key})
		must(t, err)
		drain(t, response.Response)
	}
	if n := v.Accepted(); n != 2 {
		t.Errorf("%d connections, want one a customer", n)
	}
	c, err := p.Connect(t.Context(), Request{Target: echo.Addr()})
	must(t, err)
	_, _, err = tr.Do(PlainRequest{Request: get(t, judge.URL()+"/"), Key: "alice"})
	var failure *ConnectError
	if !errors.As(err, &failure) || failure.Cause != CauseNone {
		t.Errorf("beyond the limit: %v", err)
	}
	echoThrough(t, c)
	if n := p.gateways[0].conns.Load(); n != 0 {
		t.Errorf("%d connections counted at the end", n)
	}
}

// Silent gateways must not add up their timeouts.
func TestTransportBoundsAllAttempts(t *testing.T) {
	gateways := make([]Gateway, 8)
	for i := range gateways {
		v := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.Silent()})
		gateways[i] = gatewayOf(t, string(rune('a'+i)), v.URL())
	}
	tr := newTransport(t, Options{Gateways: gateways, DialTimeout: 200 * time.Millisecond, ConnectTimeout: 200 * time.Millisecond})
	before := time.Now()
	_, _, err := tr.Do(PlainRequest{Request: get(t, "http://target.example/")})
	if took := time.Since(before); err == nil || took > 1200*time.Millisecond {
		t.Errorf("error %v after %s", err, took)
	}
}

func TestTransportDirectKeepsCustomersApart(t *testing.T) {
	judge := startJudge(t)
	tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", Direct)}})
	for _, key := range []string{"alice", "bob"} {
		response, _, err := tr.Do(PlainRequest{Request: get(t, judge.URL()+"/"), Key: key})
		must(t, err)
		drain(t, response.Response)
	}
	if n := judge.Accepted(); n != 2 {
		t.Errorf("%d connections for two customers", n)
	}
}

func TestTransportDirectUsesOriginForm(t *testing.T) {
	judge := startJudge(t)
	tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", Direct)}})
	r := get(t, judge.URL()+"/notype")
	r.URL.Opaque = "//" + r.URL.Host + "/notype"
	response, _, err := tr.Do(PlainRequest{Request: r, Authorization: "Basic eDp5"})
	must(t, err)
	drain(t, response.Response)
	if got := string(judge.Received()); !strings.HasPrefix(got, "GET /notype HTTP/1.1\r\n") || strings.Contains(got, "Proxy-Authorization") {
		t.Errorf("the target got %q", got)
	}
}
