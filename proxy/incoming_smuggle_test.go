package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"maskrelay/upstream"
)

// recorder is a gateway that answers every request, and shows what has come.
type recorder struct {
	l       net.Listener
	serving sync.WaitGroup

	mu    sync.Mutex // guards what follows
	open  map[net.Conn]bool
	bytes []*bytes.Buffer // by connection
	asked []string        // "METHOD target body", by the end of each request
	wrong []error         // what is no request
}

func startRecorder(t *testing.T) *recorder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	g := &recorder{l: l, open: map[net.Conn]bool{}}
	g.serving.Go(g.accept)
	t.Cleanup(func() {
		_ = l.Close()
		g.mu.Lock()
		for conn := range g.open {
			_ = conn.Close()
		}
		g.mu.Unlock()
		g.serving.Wait()
	})
	return g
}

func (g *recorder) accept() {
	for {
		conn, err := g.l.Accept()
		if err != nil {
			return
		}
		came := &bytes.Buffer{}
		g.mu.Lock()
		g.open[conn] = true
		g.bytes = append(g.bytes, came)
		g.mu.Unlock()
		g.serving.Go(func() { g.serve(conn, came) })
	}
}

func (g *recorder) serve(conn net.Conn, came *bytes.Buffer) {
	defer func() { _ = conn.Close() }()
	br := bufio.NewReader(&lockedTee{conn, came, &g.mu})
	for {
		if _, err := br.Peek(1); err != nil {
			return
		}
		request, err := http.ReadRequest(br)
		var body []byte
		if err == nil {
			body, err = io.ReadAll(request.Body)
		}
		g.mu.Lock()
		if err == nil {
			g.asked = append(g.asked, request.Method+" "+request.RequestURI+" "+string(body))
		} else {
			g.wrong = append(g.wrong, err)
		}
		g.mu.Unlock()
		if err != nil {
			return
		}
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil {
			return
		}
	}
}

// lockedTee keeps what is read through it.
type lockedTee struct {
	io.Reader
	kept *bytes.Buffer
	mu   *sync.Mutex
}

func (t *lockedTee) Read(b []byte) (int, error) {
	n, err := t.Reader.Read(b)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept.Write(b[:n])
	return n, err
}

// left returns what has come since the last call: the requests, and all of their bytes.
func (g *recorder) left() (asked []string, raw string, wrong []error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range g.bytes {
		raw += b.String()
		b.Reset()
	}
	asked, wrong = g.asked, g.wrong
	g.asked, g.wrong = nil, nil
	return asked, raw, wrong
}

func recorderRig(t *testing.T) (*rig, *recorder) {
	t.Helper()
	g := startRecorder(t)
	r := newRig(t, setup{
		gateways: []upstream.GatewayConfig{{Name: "gateway", URL: "http://" + vendorUsername + ":vendorpw@" + g.l.Addr().String()}},
		config: func(c *Config) {
			var err error
			c.Targets, err = NewTargets(TargetsConfig{DenyHosts: []string{"denied.example"}})
			must(t, err)
		},
	})
	return r, g
}

// plainPost is a POST of the customer's with what follows its fields.
func plainPost(rest string) string {
	return "POST http://shop.example/a HTTP/1.1\r\nHost: shop.example\r\n" + login() + rest
}

func plainGet(rest string) string {
	return "GET http://shop.example/a HTTP/1.1\r\nHost: shop.example\r\n" + login() + rest
}

// hidden is the request that a smuggler hides in another.
func hidden() string { return request("GET", "http://shop.example/smuggled") }

const (
	askedGet      = "GET http://shop.example/a "
	askedPost     = "POST http://shop.example/a "
	askedSmuggled = "GET http://shop.example/smuggled "
	hello         = "5\r\nhello\r\n0\r\n\r\n"
)

// smugglers are what two readers could take differently.
var smugglers = []struct {
	name   string
	send   string
	leaves []string // the requests that the gateway gets; nil: refused with our 400
}{
	{"CL.TE", plainPost("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG" + hidden()), nil},
	{"TE.CL", plainPost("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n8\r\nSMUGGLED\r\n0\r\n\r\n" + hidden()), nil},
	{"TE.TE two lines", plainPost("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + hello), nil},
	{"TE.TE and identity", plainPost("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + hello), nil},
	{"TE.TE identity first", plainPost("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n" + hello), nil},
	{"TE list", plainPost("Transfer-Encoding: chunked, identity\r\n\r\n" + hello), nil},
	{"TE list, chunked last", plainPost("Transfer-Encoding: gzip, chunked\r\n\r\n" + hello), nil},
	{"TE chunked twice", plainPost("Transfer-Encoding: chunked, chunked\r\n\r\n" + hello), nil},
	{"TE identity", plainPost("Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello"), nil},
	{"TE empty", plainPost("Transfer-Encoding:\r\n\r\n" + hello), nil},
	{"TE unknown", plainPost("Transfer-Encoding: xchunked\r\n\r\n" + hello), nil},
	{"TE with a parameter", plainPost("Transfer-Encoding: chunked;q=1\r\n\r\n" + hello), nil},
	{"TE quoted", plainPost("Transfer-Encoding: \"chunked\"\r\n\r\n" + hello), nil},
	{"TE with a comma", plainPost("Transfer-Encoding: ,chunked\r\n\r\n" + hello), nil},
	{"TE with a vertical tab", plainPost("Transfer-Encoding: \x0bchunked\r\n\r\n" + hello), nil},
	{"TE with a form feed behind", plainPost("Transfer-Encoding: chunked\x0c\r\n\r\n" + hello), nil},
	{"TE with NUL", plainPost("Transfer-Encoding: chunked\x00\r\n\r\n" + hello), nil},
	{"TE with a no-break space", plainPost("Transfer-Encoding: \xa0chunked\r\n\r\n" + hello), nil},
	{"TE space before the colon", plainPost("Transfer-Encoding : chunked\r\n\r\n" + hello), nil},
	{"TE tab before the colon", plainPost("Transfer-Encoding\t: chunked\r\n\r\n" + hello), nil},
	{"TE space before the name", plainPost(" Transfer-Encoding: chunked\r\n\r\n" + hello), nil},
	{"TE folded", plainPost("Transfer-Encoding:\r\n chunked\r\n\r\n" + hello), nil},
	{"TE folded name", plainPost("Transfer-Encoding\r\n : chunked\r\n\r\n" + hello), nil},
	{"TE behind a bare LF", plainPost("X: y\nTransfer-Encoding: chunked\r\n\r\n" + hello), nil},
	{"TE behind a bare CR", plainPost("X: y\rTransfer-Encoding: chunked\r\n\r\n" + hello), nil},
	{"TE behind CR CR LF", plainPost("X: y\r\r\nTransfer-Encoding: chunked\r\n\r\n" + hello), nil},
	{"TE underscore", plainPost("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello"), nil},
	{"TE in HTTP/1.0", strings.Replace(plainPost("Transfer-Encoding: chunked\r\n\r\n"+hello), "HTTP/1.1", "HTTP/1.0", 1), nil},
	{"TE of a CONNECT", "CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\n" + login() + "Transfer-Encoding: chunked\r\n\r\n" + hello, nil},
	{"TE odd case", plainPost("tRANSFER-eNCODING:\tChUnKeD \t\r\n\r\n" + hello), []string{askedPost + "hello"}},
	{"TE named by Connection", plainPost("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n" + hello), []string{askedPost + "hello"}},

	{"CL twice", plainPost("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), nil},
	{"CL.CL", plainPost("Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello"), nil},
	{"CL list", plainPost("Content-Length: 5, 5\r\n\r\nhello"), nil},
	{"CL sign", plainPost("Content-Length: +5\r\n\r\nhello"), nil},
	{"CL below 0", plainPost("Content-Length: -5\r\n\r\nhello"), nil},
	{"CL inner space", plainPost("Content-Length: 5 0\r\n\r\nhello"), nil},
	{"CL hexadecimal", plainPost("Content-Length: 0x5\r\n\r\nhello"), nil},
	{"CL fraction", plainPost("Content-Length: 5.0\r\n\r\nhello"), nil},
	{"CL empty", plainPost("Content-Length:\r\n\r\nhello"), nil},
	{"CL overflow", plainPost("Content-Length: 18446744073709551621\r\n\r\nhello"), nil},
	{"CL vertical tab", plainPost("Content-Length: \x0b5\r\n\r\nhello"), nil},
	{"CL space before the colon", plainPost("Content-Length : 5\r\n\r\nhello"), nil},
	{"CL folded", plainPost("Content-Length:\r\n 5\r\n\r\nhello"), nil},
	{"CL underscore", plainPost("Content_Length: 5\r\n\r\nhello"), nil},
	{"CL of a CONNECT", "CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\n" + login() + "Content-Length: 5\r\n\r\nhello", nil},
	{"CL leading zeros", plainPost("Content-Length: 0005\r\n\r\nhello"), []string{askedPost + "hello"}},
	{"CL of a GET", plainGet("Content-Length: 5\r\n\r\nhello"), []string{askedGet + "hello"}},
	{"CL named by Connection", plainPost("Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello"), []string{askedPost + "hello"}},
	{"CL.0", plainPost("Content-Length: 0\r\n\r\n" + hidden()), []string{askedPost, askedSmuggled}}, // honest pipelining
	{"GET without a length", plainGet("\r\n" + hidden()), []string{askedGet, askedSmuggled}},

	{"bare LF all over", strings.ReplaceAll(plainGet("\r\n"), "\r\n", "\n"), nil},
	{"bare LF behind the request line", strings.Replace(plainGet("\r\n"), "\r\n", "\n", 1), nil},
	{"bare LF at the head's end", plainGet("\n"), nil},
	{"bare CR at the head's end", plainGet("\rX\n\r\n"), nil},
	{"folded line", plainGet("X: y\r\n z\r\n\r\n"), nil},
	{"folded first line", "GET http://shop.example/a HTTP/1.1\r\n X: y\r\nHost: shop.example\r\n" + login() + "\r\n", nil},
	{"no colon", plainGet("X\r\n\r\n"), nil},
	{"empty name", plainGet(": y\r\n\r\n"), nil},
	{"control byte", plainGet("X: \x01\r\n\r\n"), nil},
	{"8 bits in a name", plainGet("X\xff: y\r\n\r\n"), nil},
	{"two spaces", strings.Replace(plainGet("\r\n"), "GET ", "GET  ", 1), nil},
	{"tab in the request line", strings.Replace(plainGet("\r\n"), " HTTP/1.1", "\tHTTP/1.1", 1), nil},
	{"space behind the version", strings.Replace(plainGet("\r\n"), "HTTP/1.1", "HTTP/1.1 ", 1), nil},
	{"two versions", strings.Replace(plainGet("\r\n"), "HTTP/1.1", "HTTP/1.1 HTTP/1.0", 1), nil},
	{"HTTP/0.9", "GET http://shop.example/a\r\n\r\n", nil},
	{"HTTP/1.2", strings.Replace(plainGet("\r\n"), "HTTP/1.1", "HTTP/1.2", 1), nil},
	{"HTTP/01.1", strings.Replace(plainGet("\r\n"), "HTTP/1.1", "HTTP/01.1", 1), nil},
	{"lower-case version", strings.Replace(plainGet("\r\n"), "HTTP/1.1", "http/1.1", 1), nil},
	{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", nil},
	{"HTTP/2 preface as 1.1", "PRI * HTTP/1.1\r\nHost: shop.example\r\n" + login() + "\r\nSM\r\n\r\n", nil},
	{"two empty lines first", "\r\n\r\n" + plainGet("\r\n"), nil},
	{"bare LF first", "\n" + plainGet("\r\n"), nil},
	{"one empty line first", "\r\n" + plainGet("\r\n"), []string{askedGet}},
	{"an empty line behind a body", plainPost("Content-Length: 5\r\n\r\nhello\r\n" + hidden()), []string{askedPost + "hello", askedSmuggled}},

	{"two Hosts", plainGet("Host: shop.example\r\n\r\n"), nil},
	{"no Host", "GET http://shop.example/a HTTP/1.1\r\n" + login() + "\r\n", nil},
	{"Host space before the colon", "GET http://shop.example/a HTTP/1.1\r\nHost : shop.example\r\n" + login() + "\r\n", nil},
	{"another Host", "GET http://shop.example/a HTTP/1.1\r\nHost: other.example\r\n" + login() + "\r\n", []string{askedGet}},
	{"empty Host", "GET http://shop.example/a HTTP/1.1\r\nHost:\r\n" + login() + "\r\n", []string{askedGet}},

	{"h2c", plainGet("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"), []string{askedGet}},
	{"h2c with a body", plainPost("Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello"), []string{askedPost + "hello"}},

	{"chunk extension", plainPost("Transfer-Encoding: chunked\r\n\r\n5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n"), []string{askedPost + "hello"}},
	{"trailer", plainPost("Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n"), []string{askedPost + "hello"}},
	{"leading zeros in a chunk's size", plainPost("Transfer-Encoding: chunked\r\n\r\n0005\r\nhello\r\n000\r\n\r\n"), []string{askedPost + "hello"}},
}

// brokenBodies are chunked bodies that nobody may take for whole.
var brokenBodies = map[string]string{
	"LF behind a size":               "5\nhello\r\n0\r\n\r\n",
	"LF behind an extension":         "5;a\nhello\r\n0\r\n\r\n",
	"LF behind data":                 "5\r\nhello\n0\r\n\r\n",
	"LF behind the last size":        "5\r\nhello\r\n0\n\r\n",
	"LF at the end":                  "5\r\nhello\r\n0\r\n\n",
	"CR in an extension":             "5;a\rb\r\nhello\r\n0\r\n\r\n",
	"NUL in an extension":            "5;a\x00\r\nhello\r\n0\r\n\r\n",
	"nothing behind data":            "5\r\nhello0\r\n\r\n",
	"more data than was said":        "5\r\nhelloXX\r\n0\r\n\r\n",
	"space behind a size":            "5 \r\nhello\r\n0\r\n\r\n",
	"space before a size":            " 5\r\nhello\r\n0\r\n\r\n",
	"0x":                             "0x5\r\nhello\r\n0\r\n\r\n",
	"sign":                           "+5\r\nhello\r\n0\r\n\r\n",
	"below 0":                        "-5\r\nhello\r\n0\r\n\r\n",
	"underscore":                     "0_5\r\nhello\r\n0\r\n\r\n",
	"no size":                        "\r\nhello\r\n0\r\n\r\n",
	"extension without a size":       ";a\r\nhello\r\n0\r\n\r\n",
	"size that overflows":            "10000000000000005\r\nhello\r\n0\r\n\r\n",
	"size of too many digits":        "0000000000000005\r\nhello\r\n0\r\n\r\n", // net/http would take it
	"extension a byte too long":      "5;" + strings.Repeat("a", 257) + "\r\nhello\r\n0\r\n\r\n",
	"long extension":                 "5;" + strings.Repeat("a", 5000) + "\r\nhello\r\n0\r\n\r\n",
	"framing in the trailer":         "5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
	"coding in the trailer":          "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
	"Host in the trailer":            "5\r\nhello\r\n0\r\nHost: other.example\r\n\r\n",
	"request line as a trailer":      "5\r\nhello\r\n0\r\nGET http://shop.example/smuggled HTTP/1.1\r\n\r\n",
	"space before a trailer's colon": "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
	"folded trailer":                 "5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n",
	"LF behind a trailer":            "5\r\nhello\r\n0\r\nX: y\n\r\n",
	"trailer without an end":         "5\r\nhello\r\n0\r\n" + strings.Repeat("X: y\r\n", 1000) + "\r\n",
}

// framingLine finds lines that could frame a body.
var framingLine = regexp.MustCompile(`(?im)^\s*(content.length|transfer.encoding)\s*:(.*)$`)

// canonical checks what left the relay: requests and nothing else, each with one framing
// in its shortest form, or with none.
func canonical(t *testing.T, g *recorder, want []string) {
	t.Helper()
	asked, raw, wrong := g.left()
	if len(wrong) > 0 || !slices.Equal(asked, want) {
		t.Errorf("left: %q, and %v\nwant: %q", asked, wrong, want)
	}
	if strings.Contains(strings.ReplaceAll(raw, "\r\n", ""), "\n") || strings.Contains(raw, "\r\n ") || strings.Contains(raw, ";a=b") {
		t.Errorf("not in order: %q", raw)
	}
	lengths := regexp.MustCompile(`^ (0|[1-9][0-9]*)$`)
	for head := range strings.SplitSeq(raw, " HTTP/1.1\r\n") {
		found := framingLine.FindAllStringSubmatch(strings.ReplaceAll(head, "\r", ""), -1)
		if len(found) > 1 || len(found) == 1 && found[0][2] != " chunked" && !lengths.MatchString(found[0][2]) {
			t.Errorf("framed by %q", found)
		}
	}
	for line := range strings.Lines(raw) {
		if strings.HasPrefix(strings.ToLower(line), "host:") && line != "Host: shop.example\r\n" ||
			strings.Contains(strings.ToLower(line), "h2c") || strings.Contains(strings.ToLower(line), "http2") {
			t.Errorf("left: %q", line)
		}
	}
}

// sentInBytes sends each byte on its own.
func (c *customer) sentInBytes(s string) {
	for i := range len(s) {
		if _, err := c.Write([]byte{s[i]}); err != nil {
			return // refused before its end
		}
	}
}

func TestSmuggling(t *testing.T) { bothWays(t, testSmuggling) }

func testSmuggling(t *testing.T) {
	r, g := recorderRig(t)
	for _, one := range smugglers {
		for way, send := range map[string]func(*customer, string){"": (*customer).send, " byte by byte": (*customer).sentInBytes} {
			r.run(one.name+way, func(t *testing.T) {
				c := r.dial()
				send(c, one.send)
				for range one.leaves {
					if response, body := c.answer(""); response.StatusCode != 200 || body != "ok" {
						t.Fatalf("got %s %q", response.Status, body)
					}
				}
				if one.leaves == nil {
					c.expect(r.reply(BadRequest, true))
					c.ends()
				}
				must(t, c.Close())
				canonical(t, g, one.leaves)
			})
		}
	}
}

// A body that is malformed ends the connection, and what it hides is never served.
func TestBrokenChunks(t *testing.T) { bothWays(t, testBrokenChunks) }

func testBrokenChunks(t *testing.T) {
	r, g := recorderRig(t)
	for name, body := range brokenBodies {
		r.run(name, func(t *testing.T) {
			c := r.dial()
			c.send(plainPost("Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n") + body + hidden())
			c.expect(r.reply(BadRequest, true))
			c.ends()
			must(t, c.Close())
			r.settled()
			if asked, raw, _ := g.left(); len(asked) > 0 || strings.Contains(raw, "smuggled") || strings.Contains(raw, "\r\n0\r\n") {
				t.Errorf("left: %q, %q", asked, raw)
			}
		})
	}
}

// settled waits until the relay holds no connection of a customer's.
func (r *rig) settled() {
	r.t.Helper()
	eventually(r.t, "customers gone", func() bool { return r.server.open.Load() == 0 })
}
