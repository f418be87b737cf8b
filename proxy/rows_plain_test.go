package proxy

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"maskrelay/upstream/upstreamtest"
)

// TestPlainRows drives the hazards that a plain request meets in goproxy and net/http.
func TestPlainRows(t *testing.T) { bothWays(t, testPlainRows) }

func testPlainRows(t *testing.T) {
	rows(t, []row{
		{"P1 no error text", plainNoErrorText},
		{"P2 nothing of the vendor's", plainNothingOfVendors},
		{"P3 no telling request fields", plainRequestFields},
		{"P4 no gunzip", plainNoGunzip},
		{"P5 request target byte for byte", plainTargetAsSent},
		{"P6 no user agent of ours", plainNoUserAgent},
		{"P7 bounded pools, apart", plainPools},
		{"P8 streams flushed", plainFlush},
		{"P9 1xx and Expect", plainInformational},
		{"P10 trailers", plainTrailers},
		{"P11 no date, no sniffed type", plainNothingAdded},
		{"P12 customer's close is his own", plainClose},
		{"P13 websocket", websocketRow},
		{"P14 replies without a body", plainNoBody},
		{"P15 no request URL in the log", plainNoURLInLog},
		{"P16 stale connections", plainStale},
	})
}

func plainNoErrorText(t *testing.T) {
	r := newRig(t, setup{})
	must(t, r.vendor.Close())
	c := r.dial()
	for range 2 { // the connection lives on
		c.send(request("GET", "http://target.test/"))
		c.expect(r.reply(UpstreamFailed, false))
	}
}

func plainNothingOfVendors(t *testing.T) {
	t.Run("forwarded", func(t *testing.T) {
		r := newRig(t, setup{})
		response, _ := r.dial().get(r.judge.URL() + "/status?code=404")
		if response.StatusCode != 404 {
			t.Errorf("the target's 404 became %s", response.Status)
		}
		for _, name := range []string{"Via", "X-Cache", "X-Cache-Lookup", "Proxy-Agent", "Proxy-Status", "Proxy-Connection"} {
			if v, ok := response.Header[name]; ok {
				t.Errorf("%s: %s", name, v)
			}
		}
	})
	for _, status := range []int{407, 402, 403, 429, 500, 502, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Loud(status, "WORDS_OF_THE_VENDOR")}})
			c := r.dial()
			c.send(request("GET", "http://target.test/"))
			c.expect(r.reply(UpstreamFailed, false))
		})
	}
	t.Run("504", func(t *testing.T) {
		r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Loud(504, "WORDS_OF_THE_VENDOR")}})
		c := r.dial()
		c.send(request("GET", "http://target.test/"))
		c.expect(r.reply(UpstreamTimeout, false))
	})
}

// seen asks the judge what reached it.
func (c *customer) seen(url string, lines ...string) upstreamtest.Seen {
	c.t.Helper()
	response, body := c.get(url, lines...)
	if response.StatusCode != http.StatusOK {
		c.t.Fatalf("the judge said %s", response.Status)
	}
	var seen upstreamtest.Seen
	must(c.t, json.Unmarshal([]byte(body), &seen))
	return seen
}

func plainRequestFields(t *testing.T) {
	r := newRig(t, setup{})
	host := strings.TrimPrefix(r.judge.URL(), "http://")
	seen := r.dial().seen(r.judge.URL()+"/", "Accept: text/html\r\n", "Cookie: a=b\r\n", "Authorization: Bearer site\r\n",
		"X-Forwarded-For: 192.0.2.7\r\n", "Forwarded: for=192.0.2.7\r\n", "Via: 1.1 customers-gateway\r\n", "X-Real-IP: 192.0.2.7\r\n",
		"Keep-Alive: timeout=5\r\n", "TE: trailers\r\n", "Upgrade: h2c\r\n", "Proxy-Connection: keep-alive\r\n",
		"X-Secret: customer-agent\r\n", "Connection: keep-alive, X-Secret\r\n")
	if seen.Host != host {
		t.Errorf("Host %q, want %q", seen.Host, host)
	}
	want := []string{"Accept: text/html", "Authorization: Bearer site", "Cookie: a=b", "Host: " + host}
	got := slices.DeleteFunc(slices.Sorted(slices.Values(seen.Lines)), func(l string) bool { return l == "Connection: close" }) // the vendor's own
	if !slices.Equal(got, want) {
		t.Errorf("the target saw\n%q\nwant\n%q", got, want)
	}
	c := r.dial()
	c.send("GET " + r.judge.URL() + "/ HTTP/1.1\r\nHost: other.test\r\n" + login() + "\r\n")
	if _, body := c.answer("GET"); !strings.Contains(body, `"host":"`+host+`"`) {
		t.Errorf("Host is not the target's: %s", body)
	}
}

func plainNoGunzip(t *testing.T) {
	r := newRig(t, setup{})
	c := r.dial()
	response, body := c.get(r.judge.URL()+"/gzip", "Accept-Encoding: gzip\r\n")
	if response.Header.Get("Content-Encoding") != "gzip" || response.ContentLength != int64(len(body)) {
		t.Errorf("not as the target sent it: %v", response.Header)
	}
	z, err := gzip.NewReader(strings.NewReader(body))
	must(t, err)
	plain, err := io.ReadAll(z)
	must(t, err)
	response, body = c.get(r.judge.URL() + "/gzip")
	if response.Header.Get("Content-Encoding") != "" || body != string(plain) {
		t.Error("the relay asked for gzip by itself")
	}
}

func plainTargetAsSent(t *testing.T) {
	r := newRig(t, setup{})
	c := r.dial()
	for _, path := range []string{
		"/", "/a%2fb%2Fc", "/a;b=c,d", "/~u/(x)[y]{z}|^", "/?q=%zz&r=a+b&s=[1]|{}", "/?", "/a//b/../c/./", "/ü?ö", "/%41", "?q=1",
	} {
		c.send(request("GET", r.judge.URL()+path))
		c.answer("GET")
		requests := r.vendor.Conns()[0].Requests()
		want := path
		if path[0] == '?' {
			want = "/" + path
		}
		if got := requests[len(requests)-1].Target; got != r.judge.URL()+want {
			t.Errorf("%q went out as %q", path, got)
		}
	}
}

func plainNoUserAgent(t *testing.T) {
	r := newRig(t, setup{})
	c := r.dial()
	for _, line := range c.seen(r.judge.URL() + "/").Lines {
		if strings.HasPrefix(line, "User-Agent") || strings.HasPrefix(line, "Accept-Encoding") {
			t.Errorf("added: %s", line)
		}
	}
	if seen := c.seen(r.judge.URL()+"/", "User-Agent: curl/8\r\n"); !slices.Contains(seen.Lines, "User-Agent: curl/8") {
		t.Errorf("the customer's own agent is lost: %q", seen.Lines)
	}
}

func plainPools(t *testing.T) {
	r := newRig(t, setup{accounts: customerName + ":" + customerPassword + ",second:other"})
	c, other := r.dial(), r.dial()
	for range 3 {
		c.get(r.judge.URL() + "/notype")
	}
	if n := r.vendor.Accepted(); n != 1 {
		t.Errorf("%d connections for 3 requests in a row", n)
	}
	other.send("GET " + r.judge.URL() + "/notype HTTP/1.1\r\nHost: x\r\n" + basic("second", "other") + "\r\n")
	other.answer("GET")
	if n := r.vendor.Accepted(); n != 2 {
		t.Errorf("two accounts share a connection: %d accepted", n)
	}
	var busy sync.WaitGroup
	for range 24 {
		one := r.dial()
		busy.Go(func() { one.get(r.judge.URL() + "/slow?delay=50ms") })
	}
	busy.Wait()
	eventually(t, "few idle connections", func() bool { return r.vendor.Open() <= 8+1 })
}

func plainFlush(t *testing.T) {
	for _, kind := range []string{"application/x-ndjson", "text/plain", "application/octet-stream"} {
		t.Run(kind, func(t *testing.T) {
			headRead, lineRead := make(chan struct{}), make(chan struct{})
			stepwise := upstreamtest.Func(func(ctx context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
				for _, step := range []struct {
					text string
					then <-chan struct{}
				}{
					{"HTTP/1.1 200 OK\r\nContent-Type: " + kind + "\r\nTransfer-Encoding: chunked\r\n\r\n", headRead},
					{"8\r\n{\"a\":1}\n\r\n", lineRead},
					{"0\r\n\r\n", nil},
				} {
					if _, err := io.WriteString(c, step.text); err != nil || step.then == nil {
						return
					}
					select {
					case <-step.then:
					case <-ctx.Done():
						return
					}
				}
			})
			r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: stepwise}})
			c := r.dial()
			c.send(request("GET", "http://target.test/"))
			if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n") {
				t.Errorf("got %q", head)
			}
			close(headRead)
			c.expect("8\r\n{\"a\":1}\n\r\n")
			close(lineRead)
			c.expect("0\r\n\r\n")
		})
	}
}

func plainInformational(t *testing.T) {
	r := newRig(t, setup{})
	c := r.dial()
	c.send(request("GET", r.judge.URL()+"/earlyhints"))
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 103 Early Hints\r\nLink: </style.css>;") {
		t.Errorf("got %q, want the target's 103", head)
	}
	if response, body := c.answer("GET"); response.StatusCode != 200 || body != "after early hints\n" || response.Header.Get("Link") == "" {
		t.Errorf("got %s %q", response.Status, body)
	}
	r.run("continue", func(t *testing.T) {
		c := r.dial()
		c.send(request("POST", r.judge.URL()+"/continue", "Expect: 100-continue\r\n", "Content-Length: 5\r\n"))
		c.expect("HTTP/1.1 100 Continue\r\n\r\n")
		c.send("HELLO")
		if response, body := c.answer("POST"); response.StatusCode != 200 || !strings.Contains(body, `"bytes":5`) {
			t.Errorf("got %s %s", response.Status, body)
		}
	})
	r.run("417 before the body", func(t *testing.T) {
		c := r.dial()
		c.send(request("POST", r.judge.URL()+"/continue?refuse=1", "Expect: 100-continue\r\n", "Content-Length: 5\r\n"))
		if response, _ := c.answer("POST"); response.StatusCode != http.StatusExpectationFailed {
			t.Errorf("got %s, want the target's 417 and no 100", response.Status)
		}
	})
}

func plainTrailers(t *testing.T) {
	r := newRig(t, setup{})
	c := r.dial()
	response, body := c.get(r.judge.URL() + "/trailers")
	if body != "body before trailers\n" || response.Trailer.Get("X-Checksum") != "c0ffee" {
		t.Errorf("got %q with trailers %v", body, response.Trailer)
	}
	c.send(request("POST", r.judge.URL()+"/digest", "Transfer-Encoding: chunked\r\n", "Trailer: X-Sum, X-Forwarded-For\r\n") +
		"5\r\nHELLO\r\n0\r\nX-Sum: 42\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n")
	_, body = c.answer("POST")
	var seen upstreamtest.Body
	must(t, json.Unmarshal([]byte(body), &seen))
	if seen.Bytes != 5 || !slices.Equal(seen.Trailers, []string{"X-Sum: 42"}) {
		t.Errorf("the target saw %+v", seen)
	}
}

func plainNothingAdded(t *testing.T) {
	r := newRig(t, setup{})
	response, body := r.dial().get(r.judge.URL() + "/notype")
	for _, name := range []string{"Date", "Content-Type", "Server"} {
		if v, ok := response.Header[name]; ok {
			t.Errorf("added: %s: %s", name, v)
		}
	}
	if body != "<html>untyped and undated</html>\n" {
		t.Errorf("body %q", body)
	}
}

func plainClose(t *testing.T) {
	r := newRig(t, setup{})
	for range 3 {
		c := r.dial()
		response, _ := c.get(r.judge.URL()+"/notype", "Connection: close\r\n")
		if !response.Close {
			t.Error("the customer's close is not honoured")
		}
		c.ends()
	}
	if n := r.vendor.Accepted(); n != 1 {
		t.Errorf("%d connections to the vendor for 3 requests", n)
	}
}

func plainNoBody(t *testing.T) {
	r := newRig(t, setup{})
	c := r.dial()
	for _, code := range []string{"204", "304"} {
		if response, body := c.get(r.judge.URL() + "/status?code=" + code); fmt.Sprint(response.StatusCode) != code || body != "" {
			t.Errorf("%s: got %s %q", code, response.Status, body)
		}
	}
	c.send(request("HEAD", r.judge.URL()+"/bytes?n=1000"))
	if response, _ := c.answer("HEAD"); response.ContentLength != 1000 {
		t.Errorf("HEAD: length %d", response.ContentLength)
	}
	must(t, r.vendor.Close())
	c.send(request("HEAD", "http://target.test/"))
	head, _, _ := strings.Cut(r.reply(UpstreamFailed, false), "\r\n\r\n")
	c.expect(head + "\r\n\r\n")
	c.send(request("GET", "http://target.test/"))
	c.expect(r.reply(UpstreamFailed, false))
}

func plainNoURLInLog(t *testing.T) {
	r := newRig(t, setup{})
	r.dial().get(r.judge.URL() + "/status?code=404&token=sentinel-in-query")
	must(t, r.vendor.Close())
	c := r.dial()
	c.send(request("GET", "http://target.test/sentinel-in-path"))
	c.expect(r.reply(UpstreamFailed, false))
	r.outcome(2)
	if log := r.log.text(); strings.Contains(log, "sentinel") || strings.Contains(log, customerPassword) {
		t.Errorf("the log has more than host and port: %s", log)
	}
}

func plainStale(t *testing.T) {
	r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.StaleKeepAlive()}})
	c := r.dial()
	for range 3 { // every second one meets a connection that is just being closed
		if response, _ := c.get(r.judge.URL() + "/notype"); response.StatusCode != 200 {
			t.Errorf("GET: got %s", response.Status)
		}
	}
	c.send(request("POST", r.judge.URL()+"/digest", "Content-Length: 5\r\n") + "HELLO")
	c.expect(r.reply(UpstreamFailed, true)) // it may have had its effect: not sent twice
	posts := 0
	for _, conn := range r.vendor.Conns() {
		for _, q := range conn.Requests() {
			if q.Method == "POST" {
				posts++
			}
		}
	}
	if posts != 1 {
		t.Errorf("the POST was sent %d times", posts)
	}
	eventually(t, "logged", func() bool { return len(r.log.exchanges()) == 4 })
}
