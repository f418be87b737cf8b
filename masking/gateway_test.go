package masking

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestGatewayRecorded reads answers of squid 5.7 and tinyproxy 1.11.1, recorded on loopback as vendors with their own users: a
// refused connection, a denied name, an unknown name, bad credentials, and a target's own 404 and 502 passed on.
func TestGatewayRecorded(t *testing.T) {
	p := mustPolicy(t, PolicyConfig{Marks: []string{"gw.vendor.example"}})
	files, err := filepath.Glob("testdata/gateway/*.http")
	if err != nil || len(files) < 13 {
		t.Fatalf("%d recorded answers, %v", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".http"), func(t *testing.T) {
			raw, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			want := !strings.Contains(f, "-target")
			if got := p.GatewayMade(resp.StatusCode, resp.Header); got != want {
				t.Errorf("GatewayMade %v", got)
			}
			if got := names(p.ErrorMarks(true), body[:min(len(body), 4096)]); got != want {
				t.Errorf("ErrorMarks %v", got)
			}
			p.Response(resp.Header)
			for _, l := range lines(resp.Header) {
				if strings.Contains(l, "gw.vendor") {
					t.Errorf("%q passed", l)
				}
			}
		})
	}
}

func TestGatewayMade(t *testing.T) {
	p := mustPolicy(t, PolicyConfig{Marks: []string{"gw.vendor.example"}})
	for _, c := range []struct {
		name   string
		status int
		lines  []string
		want   bool
	}{
		{"bare 407", 407, nil, true},
		{"Bright Data, error on 200", 200, []string{"X-Brd-Err-Code: client_10000"}, true},
		{"Bright Data, error on 200, older", 200, []string{"X-Luminati-Error: x"}, true},
		{"Bright Data, 502", 502, []string{"X-Brd-Error-Code: peer", "Content-Type: text/plain"}, true},
		{"Bright Data, Proxy-Status", 502, []string{`Proxy-Status: brd.superproxy.io; received-status=502; error=http_protocol_error; details="x"`}, true},
		{"Oxylabs", 502, []string{"X-Error-Description: no exit"}, true},
		{"Webshare", 402, []string{"X-Webshare-Error-Reason: quota"}, true},
		{"Webshare, other name", 402, []string{"X-Webshare-Reason: quota"}, true},
		{"Zyte", 503, []string{"X-Crawlera-Error: banned"}, true},
		{"any vendor's error field", 500, []string{"X-Netnut-Error: 1"}, true},
		{"401 with a proxy's challenge", 401, []string{"Proxy-Authenticate: Basic realm=x"}, true},
		{"402 with a proxy's challenge", 402, []string{"Proxy-Authenticate: Basic realm=x"}, true},
		{"429 with a proxy's challenge", 429, []string{"Server: nginx", "Proxy-Authenticate: Basic realm=x"}, true},
		{"redirect with a proxy's challenge", 302, []string{"Proxy-Authenticate: Basic realm=x"}, false},
		{"squid behind a filter", 503, []string{"X-Squid-Error: ERR_DNS_FAIL 0"}, true},
		{"squid by Server", 403, []string{"Server: squid/6.6"}, true},
		{"vendor's own redirect", 302, []string{"Location: https://dashboard.iproyal.com/topup"}, true},
		{"privoxy", 503, []string{"Server: Privoxy 3.0"}, true},
		{"proxy.py", 502, []string{"Server: proxy.py v2.4"}, true},
		{"Proxy-Agent", 502, []string{"Proxy-Agent: x"}, true},
		{"Proxy-Connection alone", 502, []string{"Proxy-Connection: close"}, true},
		{"DataImpulse quota", 453, nil, true},
		{"Geonode bandwidth", 466, nil, true},
		{"NetNut", 490, nil, true},
		{"522 of a vendor", 522, []string{"Server: nginx"}, true},
		{"499 of a vendor", 499, nil, true},
		{"status beyond HTTP", 613, nil, true},
		{"status below HTTP", 99, nil, true},
		{"mark in a value", 403, []string{"Server: nginx", "Set-Cookie: x; Domain=.oxylabs.io"}, true},
		{"configured mark in a value", 500, []string{"Content-Location: http://GW.vendor.example/e"}, true},
		{"mark in an unknown name", 500, []string{"My-Decodo-Reason: x"}, true},

		{"nginx 404", 404, []string{"Server: nginx/1.22.1", "Content-Type: text/html", "Connection: keep-alive"}, false},
		{"nginx 502", 502, []string{"Server: nginx", "Content-Type: text/html"}, false},
		{"Apache 403", 403, []string{"Server: Apache/2.4.57 (Debian)", "Content-Type: text/html; charset=iso-8859-1"}, false},
		{"Apache 503 behind mod_proxy", 503, []string{"Server: Apache", "Retry-After: 3"}, false},
		{"IIS 500", 500, []string{"Server: Microsoft-IIS/10.0", "X-Powered-By: ASP.NET"}, false},
		{"Cloudflare 403", 403, []string{"Server: cloudflare", "Cf-Ray: 8-FRA", "Cf-Mitigated: challenge"}, false},
		{"Cloudflare 522", 522, []string{"Server: cloudflare", "Cf-Ray: 8-FRA"}, false},
		{"Cloudflare 525, Server removed", 525, []string{"Cf-Ray: 8-FRA"}, false},
		{"Baidu 522", 522, []string{"Server: yunjiasu-nginx"}, false},
		{"499 through CloudFront", 499, []string{"X-Amz-Cf-Id: x", "Via: 1.1 x.cloudfront.net (CloudFront)"}, false},
		{"CloudFront 403", 403, []string{"Server: CloudFront", "X-Cache: Error from cloudfront", "Via: 1.1 x.cloudfront.net (CloudFront)"}, false},
		{"Express 404", 404, []string{"X-Powered-By: Express", "Content-Security-Policy: default-src 'none'"}, false},
		{"S3 503", 503, []string{"Server: AmazonS3", "X-Amz-Request-Id: 1", "X-Amz-Id-2: x"}, false},
		{"Fastly 503", 503, []string{"Server: Varnish", "Via: 1.1 varnish", "X-Served-By: cache-fra", "X-Cache: MISS"}, false},
		{"Traffic Server 502", 502, []string{"Server: ATS/9.2", "Via: http/1.1 x (ApacheTrafficServer/9.2)"}, false},
		{"HAProxy 503", 503, []string{"Cache-Control: no-cache", "Content-Type: text/html", "Connection: close"}, false},
		{"Envoy 503", 503, []string{"Server: envoy", "Content-Type: text/plain"}, false},
		{"Facebook 400", 400, []string{`Proxy-Status: http_request_error; e_fb_vipaddr="AcL; error=no"`, "Server: proxygen-bolt"}, false},
		{"GitHub 429", 429, []string{"Server: GitHub.com", "Retry-After: 60"}, false},
		{"registry 401", 401, []string{"Www-Authenticate: Bearer realm=\"x\""}, false},
		{"no field at all", 500, nil, false},
		{"target's 404, Bright Data's timing", 404, []string{"Server: nginx", "X-Brd-Ip: 1", "X-Luminati-Timeline: 2"}, false},
		{"target's 404 through an old squid", 404, []string{"Server: nginx", "Via: 1.0 gw.vendor.example (squid)", "Proxy-Connection: keep-alive", "X-Cache: MISS from gw.vendor.example"}, false},
		{"target's mail-like 404", 404, []string{"Server: Domino", "Mime-Version: 1.0"}, false},
		{"200 that mentions a vendor", 200, []string{"Server: squid", "Content-Location: https://oxylabs.io/"}, false},
		{"target behind a network that hides Server", 403, []string{"Mime-Version: 1.0", "Content-Type: text/html"}, false},
		{"target's redirect", 301, []string{"Location: https://geonode.wfp.org/"}, false},
		{"LinkedIn to a robot", 999, []string{"Server: Play"}, false},
		{"stale answer of a network", 200, []string{"Proxy-Status: edge; error=connection_timeout"}, false},
		{"error in another parameter's text", 502, []string{`Proxy-Status: edge; details="a\"; error=x"`}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := p.GatewayMade(c.status, head(c.lines...)); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestGatewayReason(t *testing.T) {
	p := mustPolicy(t, PolicyConfig{Marks: []string{"SuperVendor"}})
	for reason, want := range map[string]bool{
		"NO_HOST_CONNECTION": true, "NO_RAY": true, "TRAFFIC_EXHAUSTED": true, "SuperVendor says no": true,
		"": false, "Bad Gateway": false, "FORBIDDEN": false, "_": false, "A_": false, "_A": false, "Not_Found": false, "I'm a teapot": false,
	} {
		if got := p.GatewayReason(reason); got != want {
			t.Errorf("%q: %t", reason, got)
		}
	}
}

// A customer who names a vendor's site himself gets its own redirects; the operator's own marks are never lifted.
func TestPolicyForAVendorsOwnSite(t *testing.T) {
	p := mustPolicy(t, PolicyConfig{Marks: []string{"acmeproxy.com"}, StripResponse: []string{"X-Acmeproxy-*"}})
	tests := map[string]struct {
		host, location string
		own            bool
	}{
		"built-in":                {"www.OxyLabs.io", "https://oxylabs.io/login", true},
		"built-in, other's place": {"oxylabs.io", "https://iproyal.com/", false},
		"configured":              {"www.acmeproxy.com", "https://www.acmeproxy.com/login", false},
		"made up by the customer": {"oxylabs.test", "https://www.acmeproxy.com/login", false},
		"any other":               {"shop.example", "https://oxylabs.io/", false},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			h := head("Location: "+c.location, "X-Acmeproxy-Session: 1", "Etag: x")
			q := p.For(c.host)
			if made := q.GatewayMade(302, h); made == c.own {
				t.Errorf("GatewayMade %t", made)
			}
			q.Response(h)
			if _, kept := h["Location"]; kept != c.own {
				t.Errorf("Location kept: %t", kept)
			}
			if _, kept := h["X-Acmeproxy-Session"]; kept || len(h["Etag"]) != 1 {
				t.Errorf("left %v", h)
			}
			if q.For(c.host) != q || p.For(c.host) != q {
				t.Error("For is not stable")
			}
		})
	}
}

// names reports whether a body holds one of the marks.
func names(m *Marks, body []byte) bool {
	_, _, found := m.Find(body)
	return found
}

func TestErrorMarks(t *testing.T) {
	p := mustPolicy(t, PolicyConfig{Marks: []string{"gw.vendor.example"}})
	for _, c := range []struct {
		name, body string
		want       bool
	}{
		{"vendor named", `{"error":"Oxylabs: no exit"}`, true},
		{"configured mark", "could not reach GW.VENDOR.EXAMPLE", true},
		{"squid", "<!-- ERR_DNS_FAIL -->", true},
		{"polipo", "<p>Generated Mon by Polipo on <em>x", true},
		{"nginx", "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center><hr><center>nginx</center>", false},
		{"HAProxy", "<html><body><h1>503 Service Unavailable</h1>\nNo server is available to handle this request.\n", false},
		{"an article", "The illuminati like squid and tinyproxies", false},
		{"empty", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := names(p.ErrorMarks(true), []byte(c.body)); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
