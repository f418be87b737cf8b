package proxy

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"

	"maskrelay/upstream"
	"maskrelay/upstream/upstreamtest"
)

// A field's value that net/http writes in pieces must not be taken for an interim head: what
// stands before and behind it would come together.
func TestAnswerOrderOfALongValue(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		const piece = 4096 // net/http's buffer
		const ahead = "HTTP/1.1 200 OK\r\nA: "
		interim := "HTTP/1.1 103 Early Hints"
		value := strings.Repeat("a", piece-len(ahead)-len("Super")) + "Super" + interim + strings.Repeat("b", piece-len(interim)) + "Vendor"
		answer := ahead + value + "\r\nContent-Length: 0\r\n\r\n"
		r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: says(answer)}})
		c := r.dial()
		c.send(request("GET", "http://shop.example/"))
		c.expect(answer)
	})
}

// Interim answers of a gateway that then fails are not the target's, whatever they say.
func TestInterimAnswersWaitForTheFinalOne(t *testing.T) {
	const interim = "HTTP/1.1 103 Early Hints\r\nX-Node: eu-7\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
	const fine = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	for name, final := range map[string]string{
		"407":       "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
		"its page":  "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html\r\nContent-Length: 11\r\n\r\nSuperVendor",
		"malformed": "HTTP/1.1 OK\r\n\r\n",
		"closed":    "",
		"101":       "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			for _, method := range []string{"GET", "POST"} {
				r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: sayAndClose(interim + final)}})
				c := r.dial()
				c.send(request(method, "http://shop.example/", "Content-Length: 0\r\n"))
				c.expect(r.reply(UpstreamFailed, false))
			}
		})
	}
	t.Run("served", func(t *testing.T) {
		r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: says(interim + fine)}})
		c := r.dial()
		c.send(request("GET", "http://shop.example/"))
		c.expect(interim + fine)
	})
	t.Run("too many", func(t *testing.T) {
		r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: says(strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 10000) + fine)}})
		c := r.dial()
		c.send(request("GET", "http://shop.example/"))
		for range 10000 {
			if head := c.head(); head == fine {
				if n := len(c.received()); n > 64<<10 {
					t.Errorf("%d bytes were kept", n)
				}
				return
			}
		}
		t.Error("no answer")
	})
	t.Run("another gateway", func(t *testing.T) {
		bad, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{Behaviour: sayAndClose(interim + "HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")})
		must(t, err)
		t.Cleanup(func() { must(t, bad.Close()) })
		good, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{Behaviour: sayAndClose(fine)})
		must(t, err)
		t.Cleanup(func() { must(t, good.Close()) })
		r := newRig(t, setup{gateways: []upstream.GatewayConfig{{Name: "bad", URL: bad.URL()}, {Name: "good", URL: good.URL()}}})
		for range 4 {
			c := r.dial()
			c.send(request("GET", "http://shop.example/"))
			c.expect(fine)
		}
	})
}

// Who speaks to the target itself passes its hints on when they come.
func TestInterimAnswersOfTheTargetComeAtOnce(t *testing.T) {
	proceed := make(chan struct{})
	target := upstreamtest.Func(func(ctx context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
		_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
		select {
		case <-proceed:
		case <-ctx.Done():
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	s := direct(true)
	s.vendor.Behaviour, s.unlike = target, true
	r := newRig(t, s)
	c := r.dial()
	c.send(request("GET", "http://"+r.vendor.Addr()+"/"))
	c.expect("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
	close(proceed)
	c.expect("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
}

// A gateway or target that folds case must not be asked what we would have refused: TRACE
// shows the gateway's login.
func TestMethodsInOtherSpellings(t *testing.T) {
	r := newRig(t, setup{})
	for _, method := range []string{"TRACE", "trace", "Trace", "TRACK", "track", "connect", "Connect", "CONNECt"} {
		r.run(method, func(*testing.T) {
			c := r.dial()
			c.send(request(method, "http://shop.example/"))
			c.expect(r.reply(BadRequest, true))
		})
	}
	if b := r.vendor.Received(); len(b) > 0 {
		t.Errorf("the vendor received %q", b)
	}
}

// customersLogin is what the vendor is sent for the customer, by template.
const customersLogin, customersSecret = "zone-customer-cc-us-77", "t3mplate-secret"

// The login of the exchange is not in any part of an answer's head or trailers, however it
// is written.
func TestLoginIsNotEchoed(t *testing.T) {
	token := base64.StdEncoding.EncodeToString([]byte(customersLogin + ":" + customersSecret))
	forms := map[string]string{
		"username": customersLogin, "password": customersSecret, "token": token,
		"percent":             strings.ReplaceAll(customersLogin, "-", "%2D"),
		"percent, twice":      strings.ReplaceAll(url.QueryEscape("user="+customersLogin), "-", "%252d"),
		"username in base64":  base64.StdEncoding.EncodeToString([]byte("user=" + customersLogin)),
		"URL base64, shifted": "x" + base64.RawURLEncoding.EncodeToString([]byte("?>"+customersLogin+"?>")),
		"token, URL alphabet": strings.TrimRight(token, "="),
	}
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			said := "HTTP/1.1 103 Early Hints\r\nLink: </a>; " + form + "\r\nX-Kept: 1\r\n\r\n" +
				"HTTP/1.1 200 OK\r\nX-Who: " + form + "\r\nX-Kept: 2\r\nTrailer: X-End, X-Kept\r\nTransfer-Encoding: chunked\r\n\r\n" +
				"2\r\nok\r\n0\r\nX-End: " + form + "\r\nX-Kept: 3\r\n\r\n"
			r := newRig(t, setup{username: customersLogin, password: customersSecret, vendor: upstreamtest.VendorConfig{Behaviour: says(said)}})
			c := r.dial()
			c.send(request("GET", "http://shop.example/"))
			c.expect("HTTP/1.1 103 Early Hints\r\nX-Kept: 1\r\n\r\n")
			response, body := c.answer("GET")
			if body != "ok" || response.Header.Get("X-Kept") != "2" || response.Trailer.Get("X-Kept") != "3" {
				t.Errorf("%q, %v, %v", body, response.Header, response.Trailer)
			}
			if got := string(c.received()); strings.Contains(got, form) {
				t.Errorf("the customer received %q", got)
			}
		})
	}
}

// A gateway that looks into tunnels to port 80 may repeat its login there.
func TestLoginIsNotEchoedInAHandshake(t *testing.T) {
	for name, answer := range map[string]string{
		"switched": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Who: " + customersLogin + "\r\n\r\n",
		"refused":  "HTTP/1.1 404 Not Found\r\nX-Who: " + customersLogin + "\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n2\r\nok\r\n0\r\nX-End: " + customersLogin + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{username: customersLogin, password: customersSecret, vendor: upstreamtest.VendorConfig{Behaviour: insideTunnel(answer)}})
			c := r.dial()
			c.send(handshake("http://shop.example/"))
			if head := c.head(); !strings.HasPrefix(head, answer[:len("HTTP/1.1 404")]) || strings.Contains(head, customersLogin) {
				t.Errorf("%q", head)
			}
			_, _ = io.CopyN(io.Discard, c.br, int64(c.br.Buffered()))
			c.fin()
			if got := string(c.received()) + c.breaks(); strings.Contains(got, customersLogin) {
				t.Errorf("the customer received %q", got)
			}
		})
	}
}

// insideTunnel opens a tunnel and answers in it itself.
func insideTunnel(answer string) upstreamtest.Behaviour {
	return upstreamtest.Func(func(_ context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		if _, err := c.ReadRequest(); err == nil {
			_, _ = io.WriteString(c, answer)
		}
		_ = c.Close()
	})
}

// What an answer's head calls the connection's own is not in its trailers either.
func TestNominatedTrailers(t *testing.T) {
	r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: says(
		"HTTP/1.1 200 OK\r\nConnection: X-Node\r\nTrailer: X-Node, X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Node: eu-7\r\nX-Sum: 1\r\n\r\n")}})
	response, _ := r.dial().get("http://shop.example/")
	if _, ok := response.Trailer["X-Node"]; ok || response.Trailer.Get("X-Sum") != "1" {
		t.Errorf("trailers %v", response.Trailer)
	}
	r = newRig(t, setup{})
	c := r.dial()
	c.send(request("POST", r.judge.URL()+"/digest", "Connection: X-Node\r\n", "Transfer-Encoding: chunked\r\n", "Trailer: X-Sum, X-Node\r\n") +
		"5\r\nHELLO\r\n0\r\nX-Sum: 42\r\nX-Node: customer-agent\r\n\r\n")
	if _, body := c.answer("POST"); !strings.Contains(body, "X-Sum") || strings.Contains(body, "X-Node") {
		t.Errorf("the target saw %s", body)
	}
}

// A mark that a field says in other letters is a mark.
func TestMarksInOtherForms(t *testing.T) {
	for name, value := range map[string]string{
		"percent":                "https://block.example/?by=Super%56endor",
		"percent, twice":         "https://block.example/?by=Super%2556endor",
		"all percent":            "%53%75%70%65%72%56%65%6e%64%6F%72",
		"base64":                 base64.StdEncoding.EncodeToString([]byte("by SuperVendor")),
		"base64, upper case":     base64.StdEncoding.EncodeToString([]byte("SUPERVENDOR-1")),
		"base64 within":          "id=ab" + base64.RawURLEncoding.EncodeToString([]byte("~~supervendor~~")) + "; x",
		"base64, percent":        url.QueryEscape(base64.StdEncoding.EncodeToString([]byte("??SuperVendor??>"))),
		"a form that is no mark": "",
	} {
		t.Run(name, func(t *testing.T) {
			said := "HTTP/1.1 200 OK\r\nX-Note: " + value + "\r\nSet-Cookie: a=" + value + "\r\nContent-Length: 0\r\nETag: \"c3VwZXI=\"\r\n\r\n"
			r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: says(said)}})
			response, _ := r.dial().get("http://shop.example/")
			if _, ok := response.Header["X-Note"]; ok != (value == "") || response.Header.Get("Etag") == "" {
				t.Errorf("the customer received %v", response.Header)
			}
		})
	}
}

func zipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, s)
	_ = z.Close()
	return b.String()
}

func deflated(s string) string {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	_, _ = io.WriteString(z, s)
	_ = z.Close()
	return b.String()
}

// An error page is read however it is packed and whatever it says that it is.
func TestErrorPagesInOtherForms(t *testing.T) {
	const page = "<html>ask SuperVendor</html>"
	long := strings.Repeat("<p>wrong</p>", 16000) + page
	for name, test := range map[string]struct{ fields, body string }{
		"gzip":              {"Content-Encoding: gzip\r\n", zipped(page)},
		"x-gzip":            {"Content-Encoding: X-GZIP\r\n", zipped(page)},
		"gzip, far in":      {"Content-Encoding: gzip\r\n", zipped(long)},
		"gzip twice":        {"Content-Encoding: gzip, gzip\r\n", zipped(zipped(page))},
		"identity":          {"Content-Encoding: identity\r\n", page},
		"deflate":           {"Content-Encoding: deflate\r\n", deflated(page)},
		"not gzip":          {"Content-Encoding: gzip\r\n", page},
		"an image":          {"Content-Type: image/png\r\n", page},
		"octets":            {"Content-Type: application/octet-stream\r\n", page},
		"a script":          {"Content-Type: application/javascript\r\n", page},
		"a proxy's program": {"Content-Encoding: gzip\r\n", zipped("Generated by tinyproxy")},
	} {
		t.Run(name, func(t *testing.T) {
			said := fmt.Sprintf("HTTP/1.1 403 Forbidden\r\n%sContent-Length: %d\r\n\r\n%s", test.fields, len(test.body), test.body)
			r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: says(said)}})
			c := r.dial()
			c.send(request("GET", "http://shop.example/", "Accept-Encoding: gzip\r\n"))
			c.expect(r.reply(UpstreamFailed, false))
		})
	}
	t.Run("the target's own", func(t *testing.T) {
		body := zipped("not here")
		said := fmt.Sprintf("HTTP/1.1 404 Not Found\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: says(said)}})
		c := r.dial()
		c.send(request("GET", "http://shop.example/"))
		c.expect(said)
	})
}

// A proxy program's page that drips is cut off where it gives itself away.
func TestLatePageOfAProxyProgram(t *testing.T) {
	chunk := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
	r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: inParts(
		"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"+chunk(strings.Repeat("x", 20<<10)),
		chunk("Generated by tiny"), chunk("proxy (1.11)"), chunk(""))}})
	c := r.dial()
	c.send(request("GET", "http://shop.example/"))
	if got := c.breaks(); strings.Contains(got, "Generated by") || strings.HasSuffix(got, "0\r\n\r\n") {
		t.Errorf("got … %q", got[max(0, len(got)-60):])
	}
}

// A SOCKS5 gateway that looks into its tunnels to port 80 answers there in the target's place.
func TestSOCKSGatewayAnswersInTheTargetsPlace(t *testing.T) {
	for name, answer := range map[string]string{
		"407":      "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n",
		"its page": "HTTP/1.1 503 Busy\r\nContent-Type: text/html\r\nContent-Length: 11\r\n\r\nSuperVendor",
		"squid's":  "HTTP/1.1 403 Forbidden\r\nServer: squid/5.7\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			target, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{Behaviour: sayAndClose(answer)})
			must(t, err)
			t.Cleanup(func() { must(t, target.Close()) })
			r, _ := newSOCKSRig(t, upstreamtest.SOCKSConfig{}, setup{})
			for _, method := range []string{"GET", "POST"} {
				c := r.dial()
				c.send(request(method, "http://"+target.Addr()+"/", "Content-Length: 0\r\n"))
				c.expect(r.reply(UpstreamFailed, false))
			}
		})
	}
}

// No length is announced of what can have no body: a reader could wait for it.
func TestNoLengthWithoutABody(t *testing.T) {
	for name, said := range map[string]string{
		"204": "HTTP/1.1 204 No Content\r\nA: 1\r\nContent-Length: 5\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: says(said)}})
			c := r.dial()
			c.send(request("GET", "http://shop.example/"))
			c.expect("HTTP/1.1 204 No Content\r\nA: 1\r\n\r\n")
		})
	}
	t.Run("101", func(t *testing.T) {
		r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: insideTunnel(
			"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n")}})
		c := r.dial()
		c.send(handshake("http://shop.example/"))
		c.expect("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		c.fin()
	})
}

// A plain answer's reason phrase is the standard one, or none, whatever was sent.
func TestReasonPhrases(t *testing.T) {
	for status, want := range map[int]string{200: "OK", 404: "Not Found", 520: "", 301: "Moved Permanently", 299: ""} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: says(fmt.Sprintf("HTTP/1.1 %d Peer of node eu-7\r\nContent-Length: 0\r\n\r\n", status))}})
			c := r.dial()
			c.send(request("GET", "http://shop.example/"))
			c.expect(fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Length: 0\r\n\r\n", status, want))
		})
	}
}

// What leaves has one reading though a reader folds names, splits lines where he should not,
// or takes the first or the last of two.
func TestOneReadingForSloppyVendors(t *testing.T) {
	r := newRig(t, setup{})
	for name, lines := range map[string][]string{
		"dots in names":        {"Content.Length: 5\r\n", "Transfer.Encoding: chunked\r\n"},
		"other marks in names": {"Content~Length: 5\r\n", "Transfer*Encoding: chunked\r\n", "Content!Length: 7\r\n"},
		"login":                {"Proxy_Authorization: Basic eDp5\r\n", "proxy.authorization: Basic eDp5\r\n"},
		"nominated length":     {"Connection: Content-Length, Host, Proxy-Authorization\r\n"},
		"host":                 {"X-Host: other.test\r\n"},
	} {
		r.run(name, func(t *testing.T) {
			c := r.dial()
			c.send(request("GET", r.judge.URL()+"/", lines...))
			c.answer("GET")
			conns := r.vendor.Conns()
			requests := conns[len(conns)-1].Requests()
			head := string(requests[len(requests)-1].Raw)
			folded := strings.NewReplacer("_", "-", ".", "-", "~", "-", "*", "-", "!", "-")
			seen := map[string]int{}
			for _, line := range strings.Split(head, "\r\n")[1:] {
				field, _, _ := strings.Cut(line, ":")
				seen[strings.ToLower(folded.Replace(field))]++
			}
			for _, field := range []string{"content-length", "transfer-encoding", "x-host"} {
				if seen[field] > 0 {
					t.Errorf("%s in %q", field, head)
				}
			}
			if seen["host"] != 1 || seen["proxy-authorization"] != 1 {
				t.Errorf("%v in %q", seen, head)
			}
		})
	}
}
