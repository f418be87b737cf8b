package upstream

import (
	"context"
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"maskrelay/upstream/upstreamtest"
	"maskrelay/upstream/vendor"
)

// TestDiagnosePresets: what each vendor answers is read and advised on as its preset says.
func TestDiagnosePresets(t *testing.T) {
	p := startPatient(t, upstreamtest.VendorConfig{})
	for _, name := range upstreamtest.PresetNames() {
		for _, answer := range upstreamtest.PresetErrors(name) {
			if answer.Cause == "status" { // which means no more than the status
				continue
			}
			p.vendor.SetBehaviour(answer.Behaviour())
			g, err := ParseGateway(GatewayConfig{Name: name, URL: p.vendor.URL(), Vendor: name})
			must(t, err)
			_, d := diagnose(t, p.config(t, g))
			h := d.Failed()
			if h == nil || h.Name != HopConnect || string(h.Cause) != answer.Cause || h.Status != answer.Status || h.Advice == "" || !strings.Contains(h.Vendor, answer.Reason) {
				t.Errorf("%s, %s: %+v, want %s", name, answer.Name, h, answer.Cause)
			}
		}
	}
	p.vendor.SetBehaviour(upstreamtest.Status(407, "TRAFFIC_EXHAUSTED", nil, ""))
	g, err := ParseGateway(GatewayConfig{Name: "g", URL: p.vendor.URL(), Vendor: "dataimpulse"})
	must(t, err)
	_, d := diagnose(t, p.config(t, g))
	if h := d.Failed(); h == nil || h.Cause != CauseQuota || !strings.HasPrefix(h.Vendor, "407 TRAFFIC_EXHAUSTED") || !strings.Contains(h.Advice, "top up") {
		t.Errorf("DataImpulse without traffic: %+v", h)
	}
}

// TestDiagnoseSOCKS5 is a gateway of the other protocol.
func TestDiagnoseSOCKS5(t *testing.T) {
	p := startPatient(t, upstreamtest.VendorConfig{})
	v := startSOCKS(t, upstreamtest.SOCKSConfig{Username: diagnosedUser, Password: diagnosedPassword})
	url := func(password string) string {
		return "socks5://" + diagnosedUser + ":" + url.QueryEscape(password) + "@" + v.Addr()
	}
	c := p.config(t, gatewayOf(t, "g", url(diagnosedPassword)))
	if hops, d := diagnose(t, c); !slices.Equal(hops, []string{"dns ok", "tcp ok", "connect ok", "target ok"}) {
		t.Errorf("%v: %+v", hops, d.Hops)
	}
	c.Target = parseURL(t, p.plain.URL())
	if hops, d := diagnose(t, c); !slices.Equal(hops, []string{"dns ok", "tcp ok", "request ok"}) {
		t.Errorf("plain: %v: %+v", hops, d.Hops)
	}
	c = p.config(t, gatewayOf(t, "g", url("wrong")))
	if _, d := diagnose(t, c); d.Failed() == nil || d.Failed().Cause != CauseAuth || d.Failed().Vendor != "" {
		t.Errorf("wrong password: %+v", d.Failed())
	}
	c = p.config(t, gatewayOf(t, "g", strings.Replace(p.vendor.URL(), "http:", "socks5:", 1)))
	p.vendor.SetBehaviour(upstreamtest.Loud(400, "WHAT"))
	c.Options.ConnectTimeout = 500 * time.Millisecond
	if _, d := diagnose(t, c); d.Failed() == nil || d.Failed().Name != HopConnect {
		t.Errorf("an HTTP port: %+v", d.Failed())
	}
}

// TestDiagnoseShowsNoTemplate has a vendor that repeats the login that a template made.
func TestDiagnoseShowsNoTemplate(t *testing.T) {
	const userPart, passwordPart = "secretzone77", "fixedSecret8"
	echo := upstreamtest.Func(func(_ context.Context, c *upstreamtest.Conn, req *upstreamtest.RecordedRequest) {
		token := strings.TrimPrefix(req.Header.Get("Proxy-Authorization"), "Basic ")
		plain, _ := base64.StdEncoding.DecodeString(token)
		username, password, _ := strings.Cut(string(plain), ":")
		_, _ = c.Write([]byte("HTTP/1.1 407 no " + username + "\r\nX-Token: " + token + "\r\nX-Password: " + password + "\r\nX-Part: zone " + userPart + "\r\nContent-Length: 200\r\n\r\n" + string(plain)))
	})
	p := startPatient(t, upstreamtest.VendorConfig{Behaviour: echo})
	g, err := ParseGateway(GatewayConfig{
		Name: "g", URL: p.vendor.URL(), Username: "{login}-" + userPart + "{?country:-cc-{country}}", Password: passwordPart + "-{password}{?country:-x}",
	})
	must(t, err)
	params, fault := vendor.ParseParams("country-us")
	if fault != nil {
		t.Fatal(fault)
	}
	for _, target := range []string{p.plain.URL(), p.secure.URL(), "tcp://shop.example:443"} {
		c := p.config(t, g)
		c.Target, c.Account, c.Params = parseURL(t, target), "alice", params
		_, d := diagnose(t, c)
		refused := 0
		for _, h := range d.Hops {
			if h.Result == HopFailed {
				refused++
			}
			for _, secret := range []string{userPart, passwordPart, "-cc-"} {
				if text := h.Detail + h.Vendor + h.Advice; strings.Contains(text, secret) {
					t.Errorf("%s, %s: %q shows %q", target, h.Name, text, secret)
				}
			}
		}
		if refused != 2 {
			t.Errorf("%s: %+v", target, d.Hops)
		}
	}
}
