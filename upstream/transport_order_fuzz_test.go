package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var canonicalLength = regexp.MustCompile(`^(0|[1-9][0-9]*)$`)

// checkHead asserts of a written head: net/http reads it as one request, the same; its
// framing is minimal and canonical; each field line is one of the request's or of ours, and
// none is there twice; and the customer's order is kept.
func checkHead(t *testing.T, h *requestHead, head string) {
	t.Helper()
	lines := strings.Split(head, "\r\n")
	if len(lines) < 4 || strings.Join(lines[len(lines)-2:], "") != "" || slices.Contains(lines[:len(lines)-2], "") ||
		strings.ContainsAny(strings.Join(lines, ""), "\r\n\x00") {
		t.Fatalf("lines of %q", head)
	}
	lines = lines[1 : len(lines)-2]
	br := bufio.NewReader(strings.NewReader(head))
	r, err := http.ReadRequest(br)
	if err != nil {
		t.Fatalf("%q: %v", head, err)
	}
	if r.Method != h.Method || r.Host != h.Host || br.Buffered() > 0 || r.Proto != "HTTP/1.1" {
		t.Fatalf("%q is read as %s to %s, %d bytes left", head, r.Method, r.Host, br.Buffered())
	}
	checkFraming(t, h, head, lines)
	checkFields(t, h, head, lines)
	checkOrder(t, h, head, lines)
}

// checkFraming: none, or one length, or chunks.
func checkFraming(t *testing.T, h *requestHead, head string, lines []string) {
	t.Helper()
	lengths, codings := valuesOf(lines, "Content-Length"), valuesOf(lines, "Transfer-Encoding")
	switch {
	case hasBody(h.Request) && h.ContentLength > 0:
		if len(codings) > 0 || len(lengths) != 1 || lengths[0] != fmt.Sprint(h.ContentLength) {
			t.Fatalf("%q has %d bytes to come", head, h.ContentLength)
		}
	case hasBody(h.Request):
		if len(lengths) > 0 || len(codings) != 1 || codings[0] != "chunked" {
			t.Fatalf("%q has chunks to come", head)
		}
	case len(codings) > 0 || len(lengths) > 1 || len(lengths) == 1 && lengths[0] != "0":
		t.Fatalf("%q has no body", head)
	}
	if len(lengths) == 1 && !canonicalLength.MatchString(lengths[0]) {
		t.Fatalf("length in %q", head)
	}
}

// valuesOf are the values of a field among lines, by a reading of its own.
func valuesOf(lines []string, name string) (values []string) {
	for _, line := range lines {
		if n, value, _ := strings.Cut(line, ": "); strings.EqualFold(n, name) {
			values = append(values, value)
		}
	}
	return values
}

// checkFields: all that the request has, once, and nothing else but what is ours.
func checkFields(t *testing.T, h *requestHead, head string, lines []string) {
	t.Helper()
	left := map[string][]string{}
	for name, values := range h.Header {
		if !h.owns(name) {
			left[name] = slices.Clone(values)
		}
	}
	seen := map[string]bool{}
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ": ")
		key := textproto.CanonicalMIMEHeaderKey(name)
		if !ok || h.owns(key) {
			if !ok || seen[key] {
				t.Fatalf("%q in %q", line, head)
			}
			seen[key] = true
			continue
		}
		if len(left[key]) == 0 || left[key][0] != value {
			t.Fatalf("%q in %q is not his, or not in its turn", line, head)
		}
		left[key] = left[key][1:]
	}
	for name, values := range left {
		if len(values) > 0 {
			t.Fatalf("%q lacks %s: %q", head, name, values)
		}
	}
	inOrder := func(names ...string) bool {
		return slices.ContainsFunc(h.order, func(n string) bool {
			return slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(n, name) })
		})
	}
	if seen["Proxy-Authorization"] != (h.form == absoluteForm && h.login != "") || !seen["Host"] ||
		seen["Connection"] != (h.form == originFormOnce && (h.order == nil || inOrder("Connection", "Proxy-Connection"))) ||
		seen["Content-Length"] && !hasBody(h.Request) && h.order != nil && !inOrder("Content-Length") {
		t.Fatalf("our fields in %q", head)
	}
}

// checkOrder: the names are those of the order, as spelled, some left out; the rest is sorted.
func checkOrder(t *testing.T, h *requestHead, head string, lines []string) {
	t.Helper()
	if h.order == nil {
		return
	}
	var rest []string
	at := 0
	for _, line := range lines {
		name, _, _ := strings.Cut(line, ": ")
		own := h.owns(textproto.CanonicalMIMEHeaderKey(name))
		i := slices.IndexFunc(h.order[at:], func(n string) bool {
			return n == name || own && h.placeOf(n) != 0 && h.placeOf(n) == h.placeOf(name)
		})
		switch {
		case i >= 0 && len(rest) == 0:
			at += i + 1
		case own: // it has no place
			if slices.ContainsFunc(h.order, func(n string) bool { return h.placeOf(n) == h.placeOf(name) }) {
				t.Fatalf("%s in %q does not stand where it did in %q", name, head, h.order)
			}
		default:
			rest = append(rest, name)
		}
	}
	if !slices.IsSorted(rest) {
		t.Fatalf("%q does not keep %q: then %q", head, h.order, rest)
	}
}

// customerHead reads a head that a customer may send, as net/http does, and the names in it;
// false for one that would not come so far.
func customerHead(raw string) (*requestHead, bool) {
	br := bufio.NewReader(strings.NewReader(raw))
	r, err := http.ReadRequest(br)
	if err != nil || r.URL.Scheme != "http" || r.URL.Host == "" || r.URL.User != nil || r.URL.Opaque != "" || !r.ProtoAtLeast(1, 1) {
		return nil, false
	}
	h := &requestHead{Request: r}
	head, _, _ := strings.Cut(strings.ReplaceAll(raw, "\r\n", "\n"), "\n\n")
	for i, line := range strings.Split(head, "\n") {
		if name, _, ok := strings.Cut(line, ":"); ok && i > 0 {
			h.order = append(h.order, name)
		}
	}
	r.Host = r.URL.Host
	r.Header = r.Header.Clone()
	return h, true
}

// FuzzRequestHead writes what net/http makes of arbitrary heads, with arbitrary orders.
func FuzzRequestHead(f *testing.F) {
	for i, raw := range []string{
		"GET http://t.example/ HTTP/1.1\r\nhost: t.example\r\nUser-Agent: x\r\naccept: */*\r\n\r\n",
		"POST http://t.example/a?b HTTP/1.1\r\nContent-length: 5\r\nHost: t.example\r\nX-A: 1\r\nx-a: 2\r\n\r\nhello",
		"PUT http://t.example HTTP/1.1\r\nTE: trailers\r\nTRANSFER-ENCODING: chunked\r\nTrailer: X-Sum\r\nHost: x\r\n\r\n0\r\n\r\n",
		"GET http://t.example/ HTTP/1.1\r\nHost: t.example\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: x\r\nConnection: a\r\n\r\n",
		"POST http://t.example/ HTTP/1.1\r\nHost: t.example\r\nContent-Length: 0\r\nPragma: no-cache\r\n\r\n",
	} {
		f.Add([]byte(raw), uint8(i), "")
		f.Add([]byte(raw), uint8(i+4), "HOST|x-a|Content-Length|X-A|Accept")
	}
	f.Fuzz(func(t *testing.T, raw []byte, kind uint8, order string) {
		h, ok := customerHead(string(raw))
		if !ok {
			return
		}
		h.form = requestForm(kind % 4)
		if kind&4 != 0 {
			h.login = "Basic dTpw"
		}
		if order != "" {
			h.order = strings.Split(order, "|")
		}
		b, err := appendRequest(nil, h)
		if err != nil {
			return
		}
		checkHead(t, h, string(b))
		h.order = nil
		b, err = appendRequest(nil, h)
		if err != nil {
			t.Fatalf("only in an order: %v", err)
		}
		checkHead(t, h, string(b))
	})
}

// randomCustomer makes requests as customers may send them.
type randomCustomer struct{ *rand.Rand }

func (c randomCustomer) one(of ...string) string { return of[c.IntN(len(of))] }

// spelled is a name in another case.
func (c randomCustomer) spelled(name string) string {
	b := []byte(name)
	switch c.IntN(4) {
	case 0:
		return strings.ToLower(name)
	case 1:
		for i := range b {
			if c.IntN(2) == 0 {
				b[i] = strings.ToUpper(string(b[i]))[0]
			}
		}
	}
	return string(b)
}

// request is a whole request, and its body.
func (c randomCustomer) request() (raw, body string) {
	method := c.one("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY")
	target := "http://target.example" + c.one("", "/", "/a%20b//c", "/?", "/x?y=z&%zz", "/{}|\"", "/a;b=c")
	lines := []string{c.spelled("Host") + ": " + c.one("target.example", "other.example")}
	for range c.IntN(12) {
		name := c.one("Accept", "User-Agent", "Cookie", "X-A", "X-B", "sec-ch-ua", "Accept-Language", "DNT", "X_y", "Pragma", "Proxy-Connection", "Proxy-Authorization", "Connection")
		lines = append(lines, c.spelled(name)+c.one(":", ": ", ":\t ")+c.one("", "v", "a b", "\xff", "x, y", "keep-alive"))
	}
	body = strings.Repeat("b", c.IntN(3)*c.IntN(9000))
	switch c.IntN(4) {
	case 0:
		body = ""
	case 1:
		lines = append(lines, c.spelled("Content-Length")+": "+c.one("", "00")+fmt.Sprint(len(body)))
	default:
		lines = append(lines, c.spelled("Transfer-Encoding")+": chunked")
		if c.IntN(2) == 0 {
			lines = append(lines, c.spelled("Trailer")+": X-Sum")
		}
	}
	c.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	raw = method + " " + target + " HTTP/1.1\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
	if !strings.Contains(strings.ToLower(raw), "transfer-encoding") {
		return raw + body, body
	}
	if body != "" {
		raw += fmt.Sprintf("%x;ext=\"1\"\r\n%s\r\n", len(body), body)
	}
	return raw + "0\r\n" + c.one("", "X-Sum: 1\r\n") + "\r\n", body
}

// requestListener takes one request on each connection, and then all that still comes.
type requestListener struct {
	net.Listener
	heard chan []byte
}

func listenForRequests(t *testing.T) *requestListener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	rl := &requestListener{l, make(chan []byte, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			rl.heard <- hearRequest(c)
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return rl
}

func hearRequest(c net.Conn) []byte {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	var all bytes.Buffer
	r, err := http.ReadRequest(bufio.NewReader(io.TeeReader(c, &all)))
	if err != nil {
		return all.Bytes()
	}
	_, _ = io.Copy(io.Discard, r.Body) // the test reads it again
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	_, _ = io.Copy(&all, c)
	return all.Bytes()
}

// Whatever a customer sends: what leaves is one request, with his body, and nothing after it.
func TestOneRequestLeaves(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	customer := randomCustomer{rand.New(rand.NewPCG(seed, 1))}
	l := listenForRequests(t)
	schemes := map[string]*Transport{}
	for _, scheme := range []string{"http://u:p@", "http://"} {
		schemes[scheme] = newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", scheme+l.Addr().String())}})
	}
	taken := 0
	for range 400 {
		raw, body := customer.request()
		h, ok := customerHead(raw)
		if !ok {
			continue
		}
		taken++
		oneRequestLeaves(t, schemes[customer.one("http://u:p@", "http://")], l, h, raw, body)
	}
	if taken < 200 {
		t.Errorf("only %d requests", taken)
	}
}

func oneRequestLeaves(t *testing.T, tr *Transport, l *requestListener, h *requestHead, raw, body string) {
	t.Helper()
	h.login = tr.pool.plain.login(tr.pool.gateways[0])
	if h.ContentLength == 0 {
		h.Body = http.NoBody
	}
	response, _, err := tr.Do(PlainRequest{Request: h.Request, Order: h.order})
	if err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	must(t, response.Body.Close())
	out := <-l.heard
	head, rest, _ := bytes.Cut(out, []byte("\r\n\r\n"))
	checkHead(t, h, string(head)+"\r\n\r\n")
	br := bufio.NewReader(bytes.NewReader(out))
	r, err := http.ReadRequest(br)
	must(t, err)
	got, err := io.ReadAll(r.Body)
	must(t, err)
	if _, err := br.ReadByte(); !errors.Is(err, io.EOF) || string(got) != body {
		t.Fatalf("%q: left as %q", raw, out)
	}
	if hasBody(h.Request) && h.ContentLength < 0 && !regexp.MustCompile(`(?s)^([1-9a-f][0-9a-f]*\r\n.*\r\n)*0\r\n(X-Sum: 1\r\n)?\r\n$`).Match(rest) {
		t.Fatalf("%q: chunks %q", raw, rest)
	}
}
