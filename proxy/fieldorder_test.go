package proxy

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
)

// orderedRequests are what customers send, and what then stands behind the request line.
// {host} is the target's, {login} the field with the customer's login, {vendor} the one with
// the vendor's.
var orderedRequests = map[string]struct{ method, sent, body, want, wantBody string }{
	"odd spelling": {method: "GET",
		sent: "user-AGENT: shop/1.0|{login}|host: {host}|x-a: 1|ACCEPT: */*|Cookie: a=b|X-A: 2|cookie: c=d",
		want: "user-AGENT: shop/1.0|{vendor}|host: {host}|x-a: 1|ACCEPT: */*|Cookie: a=b|X-A: 2|cookie: c=d"},
	"what the mask removes": {method: "GET",
		sent: "Host: {host}|Proxy-Connection: keep-alive|X-Forwarded-For: 192.0.2.7|Connection: X-Trail, keep-alive|A: 1|X-Trail: x|TE: trailers|B: 2|{login}",
		want: "Host: {host}|{vendor}|A: 1|B: 2"},
	"Cache-Control is not made up":  {method: "GET", sent: "Host: {host}|Pragma: no-cache|{login}", want: "Host: {host}|Pragma: no-cache|{vendor}"},
	"Cache-Control of his own":      {method: "GET", sent: "Host: {host}|cache-control: no-cache|Pragma: no-cache|{login}", want: "Host: {host}|cache-control: no-cache|Pragma: no-cache|{vendor}"},
	"length":                        {method: "POST", sent: "{login}|content-length: 3|Host: {host}|B: 1", body: "abc", want: "{vendor}|content-length: 3|Host: {host}|B: 1", wantBody: "abc"},
	"length with zeros":             {method: "POST", sent: "Host: {host}|Content-Length: 003|{login}", body: "abc", want: "Host: {host}|Content-Length: 3|{vendor}", wantBody: "abc"},
	"length of nothing":             {method: "DELETE", sent: "Host: {host}|Content-Length: 0|{login}", want: "Host: {host}|Content-Length: 0|{vendor}"},
	"nothing said of no body":       {method: "POST", sent: "Host: {host}|{login}|Accept: */*", want: "Host: {host}|{vendor}|Accept: */*"},
	"chunks":                        {method: "PUT", sent: "TRANSFER-ENCODING: chunked|Host: {host}|trailer: X-Sum|{login}", body: "3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n", want: "Transfer-Encoding: chunked|Host: {host}|trailer: X-Sum|{vendor}", wantBody: "3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"},
	"a second request is his again": {method: "GET", sent: "b: 1|Host: {host}|{login}", want: "b: 1|Host: {host}|{vendor}"},
}

// What leaves is in the customer's order and spelling, on a connection with many requests.
func TestFieldOrder(t *testing.T) { bothWays(t, testFieldOrder) }

func testFieldOrder(t *testing.T) {
	r := newRig(t, setup{})
	c := r.dial()
	host := r.judge.Addr()
	fill := func(lines string) string {
		vendor := "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(vendorUsername+":"+vendorPassword))
		lines = strings.NewReplacer("{host}", host, "{login}", strings.TrimSuffix(login(), "\r\n"), "{vendor}", vendor, "|", "\r\n").Replace(lines)
		return lines + "\r\n\r\n"
	}
	for name, test := range orderedRequests {
		t.Run(name, func(t *testing.T) {
			before := string(r.vendor.Received())
			line := test.method + " http://" + host + "/digest HTTP/1.1\r\n"
			c.send(line + fill(test.sent) + test.body)
			if response, _ := c.answer(test.method); response.StatusCode != http.StatusOK {
				t.Fatalf("answer %s", response.Status)
			}
			// All that was added is this request, on whichever connection.
			got, want := string(r.vendor.Received()), line+fill(test.want)+test.wantBody
			if strings.Count(got, want) != strings.Count(before, want)+1 || len(got) != len(before)+len(want) {
				t.Errorf("%q has arrived after %q, want\n%q", got, before, want)
			}
		})
	}
}

// A websocket handshake is a request like others, and Connection and Upgrade stand where
// the customer has them.
func TestFieldOrderOfHandshakes(t *testing.T) { bothWays(t, testFieldOrderOfHandshakes) }

func testFieldOrderOfHandshakes(t *testing.T) {
	r := newRig(t, setup{})
	c := r.dial()
	host := r.judge.Addr()
	c.send("GET http://" + host + "/ws?raw=1&x={y} HTTP/1.1\r\nhost: " + host + "\r\nUPGRADE: websocket\r\nPragma: no-cache\r\n" + login() +
		"Sec-WebSocket-Key: " + websocketKey + "\r\nConnection: keep-alive, Upgrade\r\nsec-websocket-version: 13\r\nOrigin: http://x.example\r\n\r\n")
	c.head()
	want := "GET /ws?raw=1&x={y} HTTP/1.1\r\nhost: " + host + "\r\nUPGRADE: websocket\r\nPragma: no-cache\r\n" +
		"Sec-WebSocket-Key: " + websocketKey + "\r\nConnection: Upgrade\r\nsec-websocket-version: 13\r\nOrigin: http://x.example\r\n\r\n"
	if got := r.judge.Received(); !bytes.Equal(got, []byte(want)) {
		t.Errorf("left as\n%q, want\n%q", got, want)
	}
}

func TestDropAdded(t *testing.T) {
	for name, test := range map[string]struct {
		header http.Header
		order  []string
		kept   bool
	}{
		"added":               {http.Header{"Pragma": {"no-cache"}, "Cache-Control": {"no-cache"}}, []string{"Pragma"}, false},
		"his own":             {http.Header{"Pragma": {"no-cache"}, "Cache-Control": {"no-cache"}}, []string{"cache-control", "Pragma"}, true},
		"without Pragma":      {http.Header{"Cache-Control": {"no-cache"}}, []string{"Host"}, true},
		"order is not known":  {http.Header{"Pragma": {"no-cache"}, "Cache-Control": {"no-cache"}}, nil, true},
		"nothing to be added": {http.Header{}, []string{"Host"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dropAdded(test.header, test.order)
			if _, kept := test.header["Cache-Control"]; kept != test.kept {
				t.Errorf("left with %v", test.header)
			}
		})
	}
}
