package upstreamtest

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"strings"
	"time"
)

// page is an answer of the vendor's own. In its strings the words of expand are replaced.
type page struct {
	status int
	reason string
	lines  []string
	body   string
	coding string // "" = by length; or chunked, close (until the end), gzip (by length)
}

// bytes is the page on the wire.
func (p page) bytes(v *Vendor) []byte {
	m := message{first: strings.TrimRight(fmt.Sprintf("HTTP/1.1 %d %s", p.status, p.reason), " "), lines: p.lines}
	m = splitHead(v.expand(string(m.bytes())))
	body := v.expand(p.body)
	switch p.coding {
	case "chunked":
		m.lines = append(m.lines, "Transfer-Encoding: chunked")
		body = v.expand(fmt.Sprintf("%x;by={brand}\r\n%s\r\n0;{lower}\r\nX-{brand}-Checksum: 1\r\n\r\n", len(body), body))
	case "close":
		m.lines = append(m.lines, "Connection: close")
	case "gzip":
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(body) // into memory: cannot fail
		_ = z.Close()
		body = b.Bytes()
		m.lines = append(m.lines, "Content-Encoding: gzip", fmt.Sprintf("Content-Length: %d", len(body)))
	default:
		m.lines = append(m.lines, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	return append(m.bytes(), body...)
}

// answer gives the page to every request on a connection, or to one if it has no other end than the connection's.
func (p page) answer() Behaviour {
	if p.coding == "close" {
		return once(p.bytes, HalfClose)
	}
	return eachRequest(p.bytes)
}

// refusedPages are refusals with the brand in one place each, where a relay has to know it. All
// of them can be told from a target's own answer.
var refusedPages = map[string]page{
	"reason":            {status: 502, reason: "{brand} no peer"},
	"reason-code":       {status: 503, reason: "NO_HOST_CONNECTION"},
	"reason-8bit":       {status: 502, reason: "{brand} \xfcberlastet"},
	"realm":             {status: 407, reason: "Proxy Authentication Required", lines: []string{`Proxy-Authenticate: Basic realm="{brand} residential"`}},
	"realm-neutral":     {status: 407, reason: "Proxy Authentication Required", lines: []string{`Proxy-Authenticate: Basic realm="Proxy Manager"`}},
	"realm-401":         {status: 401, reason: "Unauthorized", lines: []string{`WWW-Authenticate: Basic realm="{brand}"`}},
	"realm-digest":      {status: 407, reason: "Proxy Authentication Required", lines: []string{`Proxy-Authenticate: Digest realm="{brand}", nonce="{trace}", qop="auth"`}},
	"text":              {status: 502, reason: "Bad Gateway", lines: []string{"Content-Type: text/plain"}, body: "{brand}: no peer for this country\n"},
	"html":              {status: 502, reason: "Bad Gateway", lines: []string{"Content-Type: text/html"}, body: `<html><a href="https://{host}/">{brand}</a></html>`},
	"json":              {status: 403, reason: "Forbidden", lines: []string{"Content-Type: application/json"}, body: `{"vendor":"{brand}","code":"blocked"}`},
	"xml":               {status: 500, reason: "Internal Server Error", lines: []string{"Content-Type: application/xml"}, body: "<error by=\"{host}\"/>"},
	"untyped":           {status: 500, reason: "Internal Server Error", body: "{lower} is sorry"},
	"body-at-12k":       {status: 502, reason: "Bad Gateway", body: strings.Repeat("padding ", 1500) + "{brand}"},
	"body-at-20k":       {status: 502, reason: "Bad Gateway", lines: []string{"Server: {brand}"}, body: strings.Repeat("padding ", 2500) + "{brand}"},
	"body-chunked":      {status: 502, reason: "Bad Gateway", body: "{brand} says no", coding: "chunked"},
	"body-until-close":  {status: 502, reason: "Bad Gateway", body: "{brand} says no", coding: "close"},
	"body-gzip":         {status: 502, reason: "Bad Gateway", lines: []string{"X-{brand}-Error: gone"}, body: "{brand} says no", coding: "gzip"},
	"body-gzip-alone":   {status: 403, reason: "Forbidden", body: "{brand} says no", coding: "gzip"},
	"body-octets":       {status: 403, reason: "Forbidden", lines: []string{"Content-Type: application/octet-stream"}, body: "{brand} says no"},
	"location-escaped":  {status: 302, reason: "Found", lines: []string{"Location: https://login.example/?of={escaped}"}},
	"trailers":          {status: 502, reason: "Bad Gateway", lines: []string{"X-{brand}-Error: 1"}, body: "no", coding: "chunked"},
	"location-301":      {status: 301, reason: "Moved Permanently", lines: []string{"Location: https://{host}/billing"}},
	"location-302":      {status: 302, reason: "Found", lines: []string{"Location: https://{host}/billing"}},
	"location-303":      {status: 303, reason: "See Other", lines: []string{"Location: //{host}/"}},
	"location-307":      {status: 307, reason: "Temporary Redirect", lines: []string{"Location: http://login.{lower}.example/"}},
	"location-308":      {status: 308, reason: "Permanent Redirect", lines: []string{"Location: https://{host}/"}},
	"refresh":           {status: 503, reason: "Service Unavailable", lines: []string{"Refresh: 5; url=https://{host}/"}},
	"cookie":            {status: 403, reason: "Forbidden", lines: []string{"Set-Cookie: {lower}=1"}},
	"field-name":        {status: 502, reason: "Bad Gateway", lines: []string{"X-{brand}-Error: 7"}},
	"proxy-status":      {status: 502, reason: "Bad Gateway", lines: []string{`Proxy-Status: {host}; error=destination_unavailable; details="{brand}"`}},
	"proxy-agent":       {status: 502, reason: "Bad Gateway", lines: []string{"Proxy-Agent: gw/1"}},
	"server":            {status: 504, reason: "Gateway Timeout", lines: []string{"Server: {brand}"}},
	"link":              {status: 503, reason: "Service Unavailable", lines: []string{"Link: <https://{host}/status>; rel=help"}},
	"spaced-field":      {status: 502, reason: "Bad Gateway", lines: []string{"Proxy Connection: {brand}", "Server: {brand}"}},
	"folded":            {status: 502, reason: "Bad Gateway", lines: []string{"X-Node: a\r\n {brand}"}},
	"200":               {status: 200, reason: "OK", lines: []string{"X-{brand}-Err-Code: client_10000"}, body: "{brand} says no"},
	"200-chunked":       {status: 200, reason: "OK", lines: []string{"X-{brand}-Err-Code: client_10000"}, body: "{brand} says no", coding: "chunked"},
	"brightdata":        {status: 502, reason: "Proxy Error", lines: []string{"x-brd-err-code: peer_40100", "x-brd-err-msg: see catalog", "x-brd-error: Proxy Error", "x-brd-error-code: peer_40100"}},
	"brightdata-rfc":    {status: 407, reason: "Auth Failed", lines: []string{`Proxy-Status: brd.superproxy.io; received-status=407; error=http_request_denied; details="client_10000: no"`}},
	"brightdata-legacy": {status: 502, reason: "Proxy Error", lines: []string{"x-luminati-error: Proxy Error", "x-luminati-error-code: peer_40100", "Proxy Connection: close"}},
	"proxy-manager":     {status: 502, reason: "Proxy Error", lines: []string{"x-lpm-error: no peer", "x-hola-context: PROXY"}},
	"oxylabs":           {status: 502, reason: "Bad Gateway", lines: []string{"X-Error-Description: Bad gateway: session failed"}},
	"webshare":          {status: 402, reason: "Payment Required", lines: []string{"X-Webshare-Error-Reason: bandwidthlimit", "X-Webshare-Error: 1"}},
	"dataimpulse-407":   {status: 407, reason: "TRAFFIC_EXHAUSTED"},
	"dataimpulse-403":   {status: 403, reason: "PORT_BLOCKED"},
	"dataimpulse-503":   {status: 503, reason: "NO_RAY"},
	"anyip":             {status: 407, reason: "Bad Auth Format"},
	"proxies-fo-452":    {status: 452, reason: "", body: "You have no bandwidth left\n"},
	"proxies-fo-455":    {status: 455, reason: "", body: "Bad TTL\n"},
	"zyte":              {status: 503, reason: "Service Unavailable", lines: []string{"X-Crawlera-Error: noslaves"}, body: "No available proxies"},
	"squid": {status: 503, reason: "Service Unavailable", lines: []string{"Server: squid/5.7", "X-Squid-Error: ERR_DNS_FAIL 0", "Content-Type: text/html",
		"Via: 1.1 {host} (squid/5.7)"}, body: "<!DOCTYPE html><body id=ERR_DNS_FAIL><p>Generated by {host} (squid/5.7)</body>"},
	"squid-page-alone": {status: 404, reason: "Not Found", lines: []string{"Content-Type: text/html"}, body: "<html><body id=ERR_DNS_FAIL>Your cache administrator is gone</body>"},
	"tinyproxy":        {status: 500, reason: "Unable to connect", lines: []string{"Server: tinyproxy/1.11"}, body: "Tinyproxy was unable to connect"},
	"mark-of-a-vendor": {status: 403, reason: "Forbidden", body: "see https://brightdata.com/cp\n"},
}

// refusalHostilities are vendors who say no, each in a way of his own.
func refusalHostilities() []Hostility {
	var all []Hostility
	refuses := func(name string, b Behaviour) {
		all = append(all, Hostility{Name: name, Ways: everyWay, HTTP: b})
	}
	for name, p := range refusedPages {
		refuses("refused-"+name, p.answer())
	}
	// To a CONNECT that would be a tunnel.
	all = append(all, Hostility{Name: "refused-brightdata-200", Ways: ByPlain,
		HTTP: page{status: 200, reason: "OK", lines: []string{"x-brd-err-code: client_10000"}}.answer()})
	hints := once(func(v *Vendor) []byte {
		return append(v.expand("HTTP/1.1 103 {brand}\r\nLink: <https://{host}/>\r\n\r\nHTTP/1.1 199 {brand}\r\n\r\n"), v.loudReply(502, "NO_PEER")...)
	}, KeepOpen)
	all = append(all, Hostility{Name: "refused-1xx-first", Ways: byTunnels, HTTP: hints}, Hostility{Name: "refused-1xx-first-plain", Ways: ByPlain, HTTP: hints})
	refuses("refused-1xx-of-no-name", once(func(v *Vendor) []byte {
		return append([]byte("HTTP/1.1 103 Early Hints\r\nX-Node: eu-7\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"), v.loudReply(502, "NO_PEER")...)
	}, KeepOpen))
	refuses("refused-http10", text("HTTP/1.0 502 {brand}\r\nServer: {brand}\r\n\r\n{brand} has no peer", HalfClose))
	refuses("refused-bare-lf", text("HTTP/1.1 502 {brand}\nServer: {brand}\nContent-Length: 7\n\n{lower}", HalfClose))
	refuses("refused-split", inPieces(pace{chunk: 1, delay: 50 * time.Microsecond}))
	refuses("refused-slowly", inPieces(pace{chunk: 32, delay: time.Millisecond}))
	refuses("407-forever-new-nonce", challenges())
	refuses("407-forever-no-challenge", page{status: 407, reason: "{brand}"}.answer())
	refuses("407-forever-negotiate", page{status: 407, reason: "{brand}", lines: []string{"Proxy-Authenticate: Negotiate", "Proxy-Authenticate: NTLM TlRMTVNTUAACAAAA",
		`Proxy-Authenticate: Basic realm="{brand}", charset="UTF-8"`}}.answer())
	refuses("407-forever-connection-close", page{status: 407, reason: "{brand}", lines: []string{`Proxy-Authenticate: Basic realm="{brand}"`, "Proxy-Connection: close"}, coding: "close"}.answer())
	return all
}

// inPieces refuses at a pace of its own.
func inPieces(at pace) Behaviour {
	return Func(func(ctx context.Context, c *Conn, _ *RecordedRequest) {
		if writePaced(ctx, c, c.vendor.loudReply(502, "NO_PEER"), at) == nil {
			finish(ctx, c, KeepOpen)
		}
	})
}

// challenges asks for other credentials each time, whatever it is given.
func challenges() Behaviour {
	return Func(func(_ context.Context, c *Conn, req *RecordedRequest) {
		for n := 1; n <= maxChallenges; n++ {
			p := page{status: 407, reason: "{brand} again", lines: []string{
				fmt.Sprintf(`Proxy-Authenticate: Digest realm="{brand}", nonce="{trace}-%d", stale=true, qop="auth"`, n),
				`Proxy-Authenticate: Basic realm="{brand}"`}}
			if c.write(p.bytes(c.vendor)) != nil || req.HasBody() {
				return
			}
			var err error
			if req, err = c.ReadRequest(); err != nil {
				return
			}
		}
	})
}

// maxChallenges ends a client that never tires.
const maxChallenges = 1000
