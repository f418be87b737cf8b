package main

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"

	"maskrelay/upstream/vendor"
)

// A gateway may echo the login that it was sent, or what it calls the operator.
func TestEchoedLoginsReachNobody(t *testing.T) {
	cfg, err := LoadConfig(environ(goodEnv(), map[string]string{
		"UPSTREAM": "-", "UPSTREAMS_0_VENDOR": "oxylabs", "UPSTREAMS_0_USERNAME": "acme42", "UPSTREAMS_0_PASSWORD": "s3cret+pass",
		"UPSTREAMS_1_URL": "http://bob:s3cret+pass@gw.example:1", "UPSTREAMS_1_USERNAME": "{login}{?country:-cc-{country}}",
		"UPSTREAMS_2_URL": "http://kept:kept@gw2.example:1",
	}))
	if err != nil {
		t.Fatal(err)
	}
	token := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, value := range []string{
		"customer-acme42-cc-US-sessid-abc", "ACME42", "pass=s3cret+pass", "Basic " + token("customer-acme42:s3cret+pass"), token("bob:s3cret+pass"),
	} {
		h := http.Header{"X-Debug": {value}, "Etag": {"kept"}, "X-Kept": {"bob is kept"}}
		cfg.Policy.Response(h)
		if h["X-Debug"] != nil || h["Etag"] == nil || h["X-Kept"] == nil {
			t.Errorf("%s: %v", value, h)
		}
	}
}

// Whatever a vendor is known to add to an answer, and whatever names him, is taken out of
// one that passes through his preset's gateway.
func TestNoPresetShows(t *testing.T) {
	known := strings.Fields(`x-brd-err-code x-brd-err-msg x-brd-error x-brd-error-code x-brd-status-code x-brd-ip x-brd-gip x-brd-timeline
		x-brd-peer-timeline x-brd-debug x-luminati-ip x-luminati-timeline x-luminati-tun-timeline x-luminati-error x-luminati-error-code
		x-luminati-status-code x-hola-context x-hola-ip x-lpm-port x-debug-bw-in proxy-status x-error-description x-webshare-error-reason
		x-webshare-reason x-webshare-error x-crawlera-error x-squid-error x-cache x-cache-lookup via proxy-agent proxy-connection x-proxy-id
		x-oxylabs-client-id x-oxylabs-job-id x-smartproxy-id x-su-id x-subuser zyte-request-id proxy-authenticate`)
	for _, name := range vendor.Names() {
		preset, err := vendor.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		vars := map[string]string{"UPSTREAM": "-", "UPSTREAMS_0_VENDOR": name, "UPSTREAMS_0_USERNAME": "bob", "UPSTREAMS_0_PASSWORD": "pw"}
		if name == vendor.Generic {
			vars["UPSTREAMS_0_URL"] = "http://gw.acmeproxy.example:1"
		}
		cfg, err := LoadConfig(environ(goodEnv(), vars))
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{"Etag": {"kept"}, "Proxy Connection": {"close"}}
		for _, field := range append(slices.Clone(known), preset.Headers()...) {
			h.Add(strings.TrimSuffix(field, "*"), "1")
			if prefix, ok := strings.CutSuffix(field, "*"); ok {
				h.Add(prefix+"Something-New", "1")
			}
		}
		for i, mark := range preset.Marks() {
			h.Add("X-Value-"+string(rune('a'+i)), "by "+strings.ToUpper(mark)+".")
			h.Add("X-"+strings.NewReplacer(".", "-").Replace(mark)+"-Session", "by "+mark)
		}
		if host, _, ok := strings.Cut(strings.TrimPrefix(preset.DefaultURL("http"), "http://"), ":"); ok {
			h.Add("X-Node", "node1."+host)
		}
		cfg.Policy.Response(h)
		if len(h) != 1 {
			t.Errorf("%s: a customer sees %v", name, h)
		}
	}
}
