package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"maskrelay/upstream/upstreamtest"
)

func startSOCKS(t *testing.T, c upstreamtest.SOCKSConfig) *upstreamtest.SOCKS {
	t.Helper()
	s, err := upstreamtest.StartSOCKS(c)
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// toLoopback is a gateway's resolver: every name is this host's.
func toLoopback(ctx context.Context, network, addr string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
}

func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	must(t, err)
	return port
}

type behaviour = upstreamtest.SOCKSBehaviour

func say(step upstreamtest.SOCKSStep, s string) behaviour {
	return behaviour{Say: map[upstreamtest.SOCKSStep][]byte{step: []byte(s)}}
}

func endsAt(step upstreamtest.SOCKSStep, then upstreamtest.Ending) behaviour {
	return behaviour{Until: step, Then: then}
}

var socksBehaviours = map[string]struct {
	b     behaviour
	login string // the gateway's; "" = the right one
	cause Cause  // "" = open
	again bool   // another gateway is tried
	quiet bool   // it ends in a timeout
}{
	"honest":                  {},
	"byte by byte":            {b: behaviour{Chunk: 1, Delay: 100 * time.Microsecond}},
	"slow":                    {b: behaviour{Delay: 20 * time.Millisecond}},
	"early":                   {b: behaviour{Early: []byte("220 ready\r\n")}},
	"wrong login":             {login: "other", cause: CauseAuth, again: true},
	"no method":               {b: say(upstreamtest.SOCKSMethod, "\x05\xff"), cause: CauseAuth, again: true},
	"method not offered":      {b: say(upstreamtest.SOCKSMethod, "\x05\x00"), cause: CauseMalformed, again: true},
	"an HTTP server":          {b: say(upstreamtest.SOCKSMethod, "HTTP/1.1 400 x\r\n\r\n"), cause: CauseMalformed, again: true},
	"oversized choice":        {b: say(upstreamtest.SOCKSMethod, "\x05\x02\x00"), cause: CauseMalformed, again: true},
	"version 4":               {b: say(upstreamtest.SOCKSReply, "\x04\x00\x00\x01\x00\x00\x00\x00\x00\x00"), cause: CauseMalformed, again: true},
	"general failure":         {b: behaviour{Rep: 1}, cause: CauseServer, again: true},
	"ruleset":                 {b: behaviour{Rep: 2}, cause: CauseForbidden},
	"network unreachable":     {b: behaviour{Rep: 3}, cause: CauseUnreachable},
	"host unreachable":        {b: behaviour{Rep: 4}, cause: CauseUnreachable},
	"refused":                 {b: behaviour{Rep: 5}, cause: CauseUnreachable},
	"TTL":                     {b: behaviour{Rep: 6}, cause: CauseTimeout, again: true},
	"command":                 {b: behaviour{Rep: 7}, cause: CauseStatus},
	"address type":            {b: behaviour{Rep: 8}, cause: CauseStatus},
	"unknown":                 {b: behaviour{Rep: 0x5b}, cause: CauseStatus},
	"closes at once":          {b: endsAt(upstreamtest.SOCKSMethod, upstreamtest.Close), cause: CauseClosed, again: true},
	"closes after the choice": {b: endsAt(upstreamtest.SOCKSLogin, upstreamtest.Close), cause: CauseClosed, again: true},
	"closes after the login":  {b: endsAt(upstreamtest.SOCKSReply, upstreamtest.Close), cause: CauseClosed, again: true},
	"resets after the login":  {b: endsAt(upstreamtest.SOCKSReply, upstreamtest.RST), cause: CauseClosed, again: true},
	"silent":                  {b: endsAt(upstreamtest.SOCKSMethod, upstreamtest.KeepOpen), cause: CauseTimeout, again: true, quiet: true},
	"silent after the login":  {b: endsAt(upstreamtest.SOCKSReply, upstreamtest.Stall), cause: CauseTimeout, again: true, quiet: true},
}

// Both ways of setting up come to the same with whatever a SOCKS5 gateway does.
func TestSOCKSSetupIsConnectInSteps(t *testing.T) {
	for name, test := range socksBehaviours {
		for _, alone := range []bool{true, false} {
			t.Run(map[bool]string{true: "alone/", false: "with another/"}[alone]+name, func(t *testing.T) {
				t.Parallel()
				password := "p" + test.login
				w := world{alone: alone, timeout: 20 * time.Second,
					socks: &upstreamtest.SOCKSConfig{Username: "u", Password: password, Behaviour: test.b}}
				if test.quiet {
					w.timeout = time.Second
				}
				want, got := endingOf(t, w, blocking), endingOf(t, w, stepwise)
				want.early, got.early = "", ""
				if want != got {
					t.Errorf("Connect %+v\nsteps   %+v", want, got)
				}
				switch {
				case got.open != (test.cause == "" || test.again && !alone):
					t.Errorf("came to %+v", got)
				case !got.open && (got.cause != test.cause || got.status != int(test.b.Rep) || got.gateway != "first"):
					t.Errorf("came to %+v, want %s", got, test.cause)
				}
			})
		}
	}
}

// Names go to the gateway as they are, and are never resolved here.
func TestSOCKSTargets(t *testing.T) {
	echo := startEcho(t)
	port := portOf(t, echo.Addr())
	for target, kind := range map[string]byte{
		"no-such-name.invalid:" + port: 3, "127.0.0.1:" + port: 1, "[2001:db8::7]:" + port: 4, "Mixed.Case.Example:" + port: 3,
	} {
		for name, connect := range map[string]func(context.Context, *Pool, Request) (*Conn, error){"blocking": blocking, "steps": stepwise} {
			t.Run(name+" "+target, func(t *testing.T) {
				s := startSOCKS(t, upstreamtest.SOCKSConfig{Username: "u", Password: "p", Dial: toLoopback})
				p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "gw", s.URL())}})
				c, err := connect(t.Context(), p, Request{Target: target})
				must(t, err)
				echoThrough(t, c)
				want := upstreamtest.SOCKSRequest{Username: "u", Password: "p", Kind: kind, Target: target}
				if r := s.Requests(); len(r) != 1 || r[0] != want {
					t.Errorf("asked for %+v, want %+v", r, want)
				}
				wantNothingHeld(t, p)
			})
		}
	}
}

// A customer's own login is taken apart, in the place of the gateway's.
func TestSOCKSPassthrough(t *testing.T) {
	echo := startEcho(t)
	s := startSOCKS(t, upstreamtest.SOCKSConfig{Username: "customer", Password: "own:colon"})
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "gw", "socks5://"+s.Addr())}})
	for _, connect := range []func(context.Context, *Pool, Request) (*Conn, error){blocking, stepwise} {
		c, err := connect(t.Context(), p, Request{Target: echo.Addr(), Authorization: basic("customer", "own:colon")})
		must(t, err)
		echoThrough(t, c)
	}
	_, err := stepwise(t.Context(), p, Request{Target: echo.Addr(), Authorization: basic("customer", strings.Repeat("x", 256))})
	var failure *ConnectError
	if !errors.As(err, &failure) || failure.Cause != CauseAuth || strings.Contains(err.Error(), "xxx") {
		t.Errorf("a password of 256 bytes: %v", err)
	}
}

// The target's first words may come with the gateway's reply.
func TestSOCKSEarlyBytes(t *testing.T) {
	echo := startEcho(t)
	s := startSOCKS(t, upstreamtest.SOCKSConfig{Behaviour: upstreamtest.SOCKSBehaviour{Early: []byte("220 ready\r\n")}})
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "gw", s.URL())}})
	for _, connect := range []func(context.Context, *Pool, Request) (*Conn, error){blocking, stepwise} {
		c, err := connect(t.Context(), p, Request{Target: echo.Addr()})
		must(t, err)
		rest := make([]byte, len("220 ready\r\n")-len(c.Early))
		_, err = io.ReadFull(c, rest)
		must(t, err)
		if got := string(c.Early) + string(rest); got != "220 ready\r\n" {
			t.Errorf("early %q", got)
		}
		echoThrough(t, c)
	}
}

// Plain requests go through a tunnel to their target, in origin-form, and the tunnel is
// kept for the next one of the same customer, login and target.
func TestTransportThroughSOCKS(t *testing.T) {
	judge, other := startJudge(t), startJudge(t)
	s := startSOCKS(t, upstreamtest.SOCKSConfig{Username: "u", Password: "p", Dial: toLoopback})
	made := func(r *http.Response) bool { return r.StatusCode != http.StatusOK }
	tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "gw", s.URL())}, GatewayMade: made})
	ask := func(key, url string) {
		t.Helper()
		response, gateway, err := tr.Do(PlainRequest{Request: get(t, url), Key: key})
		must(t, err)
		if drain(t, response.Response); gateway != "gw" {
			t.Errorf("through %s", gateway)
		}
	}
	first := "http://one.invalid:" + portOf(t, judge.Addr()) + "/"
	second := "http://two.invalid:" + portOf(t, other.Addr()) + "/"
	for range 3 {
		ask("alice", first)
	}
	if n := s.Accepted(); n != 1 {
		t.Errorf("%d connections for three requests of one customer to one target", n)
	}
	ask("alice", second)
	ask("bob", first)
	if n := s.Accepted(); n != 3 {
		t.Errorf("%d connections, want one for each customer and target", n)
	}
	if n := tr.pool.gateways[0].conns.Load(); n != 3 {
		t.Errorf("%d connections counted", n)
	}
	got := string(judge.Received())
	if !strings.HasPrefix(got, "GET / HTTP/1.1\r\nHost: one.invalid:") || strings.Contains(got, "Proxy-") || strings.Contains(got, "Connection:") {
		t.Errorf("the target got %q", got)
	}
	for _, r := range s.Requests() {
		if r.Kind != 3 || !strings.Contains(r.Target, ".invalid:") {
			t.Errorf("the gateway was asked for %+v", r)
		}
	}
	tr.Close()
	wantNothingHeld(t, tr.pool)
}

// What comes through a SOCKS5 gateway is the target's, unless the mask knows it for a gateway's that looks into its tunnels.
// Nobody is to blame then: a target can say such a thing.
func TestTransportThroughSOCKSBelievesTheTarget(t *testing.T) {
	tests := map[string]struct {
		answer string
		status int   // 0 = none
		cause  Cause // then
	}{
		"407":     {"HTTP/1.1 407 x\r\nContent-Length: 0\r\n\r\n", 407, ""},
		"503":     {"HTTP/1.1 503 x\r\nX-SuperVendor-Error: y\r\nContent-Length: 0\r\n\r\n", 503, ""},
		"marked":  {"HTTP/1.1 599 x\r\nContent-Length: 0\r\n\r\n", 0, CauseStatus},
		"not now": {"SSH-2.0-x\r\n\r\n", 0, CauseUnreachable},
		"closes":  {"", 0, CauseUnreachable},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			target := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.Raw{Bytes: []byte(test.answer), Then: upstreamtest.Close}})
			s := startSOCKS(t, upstreamtest.SOCKSConfig{})
			tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "gw", s.URL())}, GatewayMade: func(r *http.Response) bool { return r.StatusCode == 599 }})
			response, _, err := tr.Do(PlainRequest{Request: get(t, "http://"+target.Addr()+"/")})
			if test.status != 0 {
				must(t, err)
				if drain(t, response.Response); response.StatusCode != test.status {
					t.Errorf("status %d", response.StatusCode)
				}
				return
			}
			var failure *ConnectError
			if !errors.As(err, &failure) || failure.Cause != test.cause || failure.Phase != PhaseRequest || !tr.pool.Usable() {
				t.Errorf("error %v, want %s", err, test.cause)
			}
		})
	}
}

// A tunnel that a SOCKS5 gateway refuses is no answer: another gateway may have one.
func TestTransportThroughSOCKSFailsOver(t *testing.T) {
	judge := startJudge(t)
	for name, b := range map[string]upstreamtest.SOCKSBehaviour{
		"failure": {Rep: 1}, "no method": {Say: map[upstreamtest.SOCKSStep][]byte{upstreamtest.SOCKSMethod: []byte("\x05\xff")}},
		"closes": {Until: upstreamtest.SOCKSReply, Then: upstreamtest.Close},
	} {
		t.Run(name, func(t *testing.T) {
			first, second := startSOCKS(t, upstreamtest.SOCKSConfig{Behaviour: b}), startSOCKS(t, upstreamtest.SOCKSConfig{})
			tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "first", first.URL()), gatewayOf(t, "second", second.URL())}})
			request := get(t, judge.URL()+"/")
			request.Method, request.Body, request.ContentLength = http.MethodPost, io.NopCloser(strings.NewReader("x")), 1
			response, gateway, err := tr.Do(PlainRequest{Request: request})
			must(t, err)
			if drain(t, response.Response); gateway != "second" || first.Accepted() != 1 {
				t.Errorf("through %s after %d tries", gateway, first.Accepted())
			}
			tr.Close()
			wantNothingHeld(t, tr.pool)
		})
	}
}

// A target that talks first does so in its answer's place, whenever its words come.
func TestTransportThroughSOCKSEarlyBytes(t *testing.T) {
	s := startSOCKS(t, upstreamtest.SOCKSConfig{Behaviour: upstreamtest.SOCKSBehaviour{Early: []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")}})
	tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "gw", s.URL())}})
	response, _, err := tr.Do(PlainRequest{Request: get(t, "http://"+startEcho(t).Addr()+"/")})
	must(t, err)
	if body := drain(t, response.Response); body != "hi" {
		t.Errorf("body %q", body)
	}
}
