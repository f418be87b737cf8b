package upstream

import (
	"context"
	"errors"
	"strings"
	"testing"

	"maskrelay/upstream/upstreamtest"
)

// presetPool is a pool of one gateway of a vendor, whose answer to everything is given.
func presetPool(t *testing.T, preset, answer string) *Pool {
	t.Helper()
	v := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.Raw{Bytes: []byte(answer), Then: upstreamtest.Close}})
	g, err := ParseGateway(GatewayConfig{Name: "gw", URL: "http://" + v.Addr(), Username: "user", Password: "password", Vendor: preset})
	must(t, err)
	return newPool(t, Options{Gateways: []Gateway{g}})
}

// A refusal is sorted by the vendor's preset, whose words say more than the status: in
// the answer to CONNECT, in steps and blocking, and in that to a plain request, which is
// not taken for a target's.
func TestRefusalsAreThePresets(t *testing.T) {
	tests := map[string]struct {
		preset, answer string
		cause          Cause
		plain          bool // the gateway's own among plain answers, too
	}{
		"by a header":             {"oxylabs", "HTTP/1.1 502 Bad Gateway\r\nX-Error-Description: session failed\r\nContent-Length: 0\r\n\r\n", CauseSession, true},
		"by another value":        {"oxylabs", "HTTP/1.1 502 Bad Gateway\r\nX-Error-Description: no exit node found\r\nContent-Length: 0\r\n\r\n", CauseNoExit, true},
		"by the status":           {"oxylabs", "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", CauseThreads, false},
		"with a body":             {"oxylabs", "HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\nbody", CauseParams, false},
		"of nobody in particular": {"", "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", CauseRate, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for way, connect := range map[string]func(context.Context, *Pool, Request) (*Conn, error){"blocking": blocking, "steps": stepwise} {
				p := presetPool(t, test.preset, test.answer)
				_, err := connect(t.Context(), p, Request{Target: "target.example:443"})
				var failure *ConnectError
				if !errors.As(err, &failure) || failure.Cause != test.cause {
					t.Errorf("%s: %v, want %s", way, err, test.cause)
				}
			}
			p := presetPool(t, test.preset, test.answer)
			tr := NewTransport(p, nil)
			defer tr.Close()
			response, _, err := tr.Do(PlainRequest{Request: get(t, "http://target.example/")})
			if err == nil {
				drain(t, response.Response)
			}
			var failure *ConnectError
			switch {
			case test.plain && (!errors.As(err, &failure) || failure.Cause != test.cause || failure.Phase != PhaseRequest):
				t.Errorf("plain: %v, want %s", err, test.cause)
			case !test.plain && err != nil:
				t.Errorf("plain: %v, want it passed on", err)
			}
		})
	}
}

// The advice of a preset goes with the error.
func TestRefusalsCarryAdvice(t *testing.T) {
	p := presetPool(t, "oxylabs", "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
	_, err := p.Connect(t.Context(), Request{Target: "target.example:443"})
	var failure *ConnectError
	if !errors.As(err, &failure) || failure.Cause != CauseAuth || !strings.Contains(failure.Advice, "dashboard") || strings.Contains(err.Error(), "password") {
		t.Errorf("%v, advice %q", err, failure.Advice)
	}
}
