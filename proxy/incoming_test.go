package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dealt is what an incoming has made of a customer's bytes.
type dealt struct {
	messages []string // those that are complete, in order
	begun    string   // of one that is not, or is broken
	refused  Outcome
	broken   bool
	tunnel   string // what followed a CONNECT's head
	head     int    // the most that a head's buffer held
	unread   int    // the most that was kept behind a message's end
}

// pieces is a stream whose reads end at the given sizes, over and over.
type pieces struct {
	rest  []byte
	sizes []byte // 0 = 256
	next  int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := len(b)
	if len(p.sizes) > 0 {
		size := int(p.sizes[p.next%len(p.sizes)])
		if p.next++; size == 0 {
			size = 256
		}
		n = min(n, size)
	}
	n = copy(b[:n], p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// dealOut reads all of s as a connection does, until the end or a refusal.
func dealOut(t testing.TB, s []byte, sizes []byte, buffer int) (d dealt) {
	t.Helper()
	in := &incoming{}
	stream := &pieces{rest: bytes.Clone(s), sizes: sizes}
	b := make([]byte, buffer)
	for {
		n, refused, err := in.next(stream, b)
		d.refused = refused
		if in.head != nil {
			d.head = max(d.head, cap(*in.head))
		}
		d.unread = max(d.unread, len(in.unread))
		for d.begun += string(b[:n]); len(in.whole) > 0; d.begun += string(b[:n]) {
			n = in.handOn(b)
		}
		d.broken = in.state == broken && d.refused == ""
		switch {
		case d.refused != "" || err != nil:
			in.dropHead()
			return d
		case in.state != atStart || d.begun == "":
			continue
		}
		d.messages, d.begun = append(d.messages, d.begun), ""
		in.dropHead()
		if strings.HasPrefix(d.messages[len(d.messages)-1], "CONNECT ") {
			d.tunnel = string(in.unread) + string(stream.rest)
			return d
		}
		if in.last {
			return d
		}
	}
}

// headForm is a head as RFC 9112 writes it, with none of what a reader may forgive.
var headForm = regexp.MustCompile("^([!#$%&'*+.^_`|~0-9A-Za-z-]+) [^\\x00-\\x20\\x7f]+ (HTTP/1\\.[01])\r\n" +
	"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\\x00-\\x08\\x0a-\\x1f\\x7f]*\r\n)*)\r\n$")

// inOrder reads a whole head in another way than takeHead does, and says whether it may pass.
func inOrder(head string) bool {
	parts := headForm.FindStringSubmatch(latin(head))
	if parts == nil {
		return false
	}
	values := map[string][]string{}
	for line := range strings.Lines(parts[3]) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\r\n"), ":")
		name = strings.ToLower(name)
		if alike := strings.ReplaceAll(name, "_", "-"); alike != name && (alike == "content-length" || alike == "transfer-encoding") {
			return false
		}
		values[name] = append(values[name], strings.Trim(value, " \t"))
	}
	hosts, lengths, codings := values["host"], values["content-length"], values["transfer-encoding"]
	connect, http10 := parts[1] == "CONNECT", parts[2] == "HTTP/1.0"
	switch {
	case len(hosts) > 1, len(hosts) == 0 && !http10 && !connect, len(lengths) > 1, len(codings) > 1:
		return false
	case len(codings) == 1:
		return strings.EqualFold(codings[0], "chunked") && len(lengths) == 0 && !http10 && !connect
	case len(lengths) == 1:
		return regexp.MustCompile(`^[0-9]{1,18}$`).MatchString(lengths[0]) && (!connect || strings.Trim(lengths[0], "0") == "")
	}
	return true
}

// latin makes each byte a character of its own, for patterns of bytes.
func latin(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		b.WriteRune(rune(c))
	}
	return b.String()
}

const (
	getHead  = "GET http://shop.example/a HTTP/1.1\r\nHost: shop.example\r\n"
	postHead = "POST http://shop.example/a HTTP/1.1\r\nHost: shop.example\r\n"
	chunkies = postHead + "Transfer-Encoding: chunked\r\n\r\n"
	follower = "GET http://shop.example/smuggled HTTP/1.1\r\nHost: shop.example\r\n\r\n"
)

// streams are whole customers' streams, good and bad.
var streams = []string{
	getHead + "\r\n" + follower,
	"\r\n" + getHead + "\r\n\r\n" + follower,
	"\r\n\r\n" + getHead + "\r\n",
	"\r" + getHead + "\r\n",
	"\n" + getHead + "\r\n",
	postHead + "Content-Length: 5\r\n\r\nhello" + follower,
	postHead + "Content-Length:\t005 \r\n\r\nhello\r\n" + follower,
	postHead + "Content-Length: 5\r\n\r\nhell",
	postHead + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello" + follower,
	postHead + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + follower,
	chunkies + "5\r\nhello\r\nA;name=\"value\"\r\n0123456789\r\n0\r\n\r\n" + follower,
	chunkies + "0\r\nX-Sum: 1\r\nX-More:\r\n\r\n" + follower,
	chunkies + "0\r\nContent-Length: 5\r\n\r\n" + follower,
	chunkies + "0\r\nX-Sum: 1\n\r\n" + follower,
	chunkies + "0\r\n X: 1\r\n\r\n" + follower,
	chunkies + "5\nhello\r\n0\r\n\r\n" + follower,
	chunkies + "5;\nhello\r\n0\r\n\r\n" + follower,
	chunkies + "5\r\nhello0\r\n\r\n" + follower,
	chunkies + "5\r\nhello\n0\r\n\r\n" + follower,
	chunkies + "5\rX\nhello\r\n0\r\n\r\n" + follower,
	chunkies + "0x5\r\nhello\r\n0\r\n\r\n" + follower,
	chunkies + "5 \r\nhello\r\n0\r\n\r\n" + follower,
	chunkies + "-5\r\nhello\r\n0\r\n\r\n" + follower,
	chunkies + "\r\nhello\r\n0\r\n\r\n" + follower,
	chunkies + "0000000000000005\r\nhello\r\n0\r\n\r\n" + follower,
	chunkies + "5;" + strings.Repeat("x", 300) + "\r\nhello\r\n0\r\n\r\n",
	chunkies + "0\r\n" + strings.Repeat("X: y\r\n", 1000) + "\r\n",
	chunkies + "0\r\n\rX" + follower,
	chunkies + "0\r\nX: y\rZ\r\n\r\n" + follower,
	"CONNECT shop.example:443 HTTP/1.1\r\n\r\n" + "\x16\x03\x01 early bytes\r\n",
	"CONNECT shop.example:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nearly",
	"CONNECT shop.example:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nearly",
	"CONNECT shop.example:443 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"GET http://shop.example/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + follower,
	"POST http://shop.example/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	getHead + "X: a\r\n b\r\n\r\n",
	getHead + "X : a\r\n\r\n",
	getHead + "X: a\x00\r\n\r\n",
	getHead + "X: a\rb\r\n\r\n",
	getHead + "X: a\n\r\n",
	getHead + "X\r\n\r\n",
	getHead + ": a\r\n\r\n",
	getHead + "Host: shop.example\r\n\r\n",
	"GET  http://shop.example/ HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET http://shop.example/ HTTP/1.1 \r\nHost: a\r\n\r\n",
	"GET http://shop.example/ HTTP/1.2\r\nHost: a\r\n\r\n",
	"GET http://shop.example/\tx HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET http://shop.example/\xe4 HTTP/1.1\r\nHost: a\r\n\r\n",
	"G\xe4T http://shop.example/ HTTP/1.1\r\nHost: a\r\n\r\n",
	"\x16\x03\x01\x02\x00",
	strings.Repeat(getHead+"\r\n", 40),
	postHead + "Content_Length: 5\r\n\r\nhello",
	postHead + "Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
}

// Wherever a stream is cut into reads, it means the same.
func TestIncomingAtEveryCut(t *testing.T) {
	for _, s := range streams {
		whole := dealOut(t, []byte(s), nil, 4<<10)
		checkDealt(t, s, &whole)
		for _, buffer := range []int{1, 2, 7, 64} {
			same(t, s, &whole, dealOut(t, []byte(s), nil, buffer))
		}
		for i := range min(len(s), 255) {
			same(t, s, &whole, dealOut(t, []byte(s), []byte{byte(i + 1), 0, 0, 0, 0, 0, 0, 0}, 4<<10))
		}
	}
}

// same checks that two readings of s agree. What is handed on of a message that is not in
// order may differ: the line that is refused need not have been begun.
func same(t *testing.T, s string, a *dealt, b dealt) {
	t.Helper()
	if !slices.Equal(a.messages, b.messages) || a.refused != b.refused || a.broken != b.broken || a.tunnel != b.tunnel ||
		a.refused == "" && a.begun != b.begun {
		t.Errorf("%q\n%+v\n%+v", s, *a, b)
	}
}

// checkDealt holds what was handed on to http.ReadRequest's reading, and to inOrder's.
func checkDealt(t *testing.T, s string, d *dealt) {
	t.Helper()
	rest := s
	for _, m := range d.messages {
		rest = strings.TrimPrefix(rest, "\r\n")
		if !strings.HasPrefix(rest, m) {
			t.Fatalf("of %q was made %q", rest, m)
		}
		head := m[:strings.Index(m, "\r\n\r\n")+4]
		if !inOrder(head) {
			t.Errorf("the head %q was taken", head)
		}
		if !readsAs(t, m, m) || !readsAs(t, rest, m) {
			return // net/http ends the connection here
		}
		rest = rest[len(m):]
	}
	if d.broken {
		if request, err := http.ReadRequest(bufio.NewReader(strings.NewReader(d.begun))); err == nil {
			if _, err = io.ReadAll(request.Body); err == nil {
				t.Errorf("%q was read to its end", d.begun)
			}
		}
	}
	rest = strings.TrimPrefix(rest, "\r\n")
	if end := strings.Index(rest, "\r\n\r\n"); d.refused == BadRequest && end >= 0 && inOrder(rest[:end+4]) {
		t.Errorf("the head %q was refused", rest[:end+4])
	}
	if d.head > 2*(maxHead+4<<10) || d.unread > 4<<10 {
		t.Errorf("buffers of %d and %d bytes", d.head, d.unread)
	}
}

// readsAs reports whether s begins with a request by http.ReadRequest; it is then message
// and nothing more.
func readsAs(t *testing.T, s, message string) bool {
	t.Helper()
	source := strings.NewReader(s)
	br := bufio.NewReader(source)
	request, err := http.ReadRequest(br)
	if err != nil {
		return false
	}
	if _, err := io.Copy(io.Discard, request.Body); err != nil {
		return false
	}
	if n := len(s) - source.Len() - br.Buffered(); n != len(message) {
		t.Errorf("of %q http.ReadRequest takes %d bytes, want %d", s, n, len(message))
	}
	return true
}

func FuzzIncoming(f *testing.F) {
	for _, s := range streams {
		f.Add([]byte(s), []byte{}, uint16(0))
		f.Add([]byte(s), []byte{1, 0, 3}, uint16(5))
	}
	f.Fuzz(func(t *testing.T, s, sizes []byte, buffer uint16) {
		whole := dealOut(t, s, nil, 4<<10)
		checkDealt(t, string(s), &whole)
		if whole.refused != HeadTooLarge { // of what is too large and not in order, either may be seen first
			same(t, string(s), &whole, dealOut(t, s, sizes, max(1, int(buffer)%(4<<10))))
		}
	})
}

// Heads beyond the bounds are refused before they have come to their end.
func TestIncomingBounds(t *testing.T) {
	lines := func(n int) string { return strings.Repeat("X: y\r\n", n) }
	for name, one := range map[string]struct {
		stream string
		want   Outcome
	}{
		"as many lines as may be": {getHead + lines(maxFieldLines-1) + "\r\n", ""},
		"a line more":             {getHead + lines(maxFieldLines), HeadTooLarge},
		"10,000 lines":            {getHead + lines(10_000), HeadTooLarge},
		"long target":             {"GET http://shop.example/" + strings.Repeat("p", 1<<20), HeadTooLarge},
		"long field":              {getHead + "X: " + strings.Repeat("p", 1<<20), HeadTooLarge},
		"long method":             {strings.Repeat("P", 1<<20), HeadTooLarge},
		"largest head":            {getHead + "X: " + strings.Repeat("p", maxHead-len(getHead)-7) + "\r\n\r\n", ""},
		"a byte more":             {getHead + "X: " + strings.Repeat("p", maxHead-len(getHead)-6) + "\r\n\r\n", HeadTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			for _, buffer := range []int{4 << 10, 1000, 1} {
				d := dealOut(t, []byte(one.stream), nil, buffer)
				if d.refused != one.want || (one.want == "") != (len(d.messages) == 1) {
					t.Errorf("reads of %d: refused as %q, %d messages", buffer, d.refused, len(d.messages))
				}
				if d.head > 128<<10 {
					t.Errorf("a buffer of %d bytes", d.head)
				}
			}
		})
	}
}

func TestFieldNames(t *testing.T) {
	var kept fieldNames // as a connection's are
	for head, want := range map[string][]string{
		"GET / HTTP/1.1\r\n\r\n":                                                 {},
		"GET / HTTP/1.1\r\nHost: a:80\r\n\r\n":                                   {"Host"},
		"GET / HTTP/1.1\r\nx-b:1\r\nHOST: a\r\nX-B: :\r\ncookie:\r\n\r\n":        {"x-b", "HOST", "X-B", "cookie"},
		"GET http://a:80/ HTTP/1.1\r\nDNT: 1\r\nHost: a\r\nsec-ch-ua: b\r\n\r\n": {"DNT", "Host", "sec-ch-ua"},
	} {
		for range 2 {
			if got := kept.of([]byte(head), strings.Count(head, "\r\n")-2); !slices.Equal(got, want) || got == nil {
				t.Errorf("%q: %q", head, got)
			}
		}
	}
	long := "GET / HTTP/1.1\r\n" + strings.Repeat(strings.Repeat("n", 31)+":\r\n", maxKeptNames/32+1) + "\r\n"
	if got := kept.of([]byte(long), maxKeptNames/32+1); len(got) != maxKeptNames/32+1 || kept.all != "" || kept.order != nil {
		t.Errorf("long names: %d of them, %d bytes kept", len(got), len(kept.all))
	}
}

// Whatever byte it is, and wherever it stands among the eight that are looked at together.
func TestIsText(t *testing.T) {
	for c := range 256 {
		for at := range 19 {
			for _, fill := range []byte{' ', 'a', '~', 0x80, 0xff, '\t'} {
				b := bytes.Repeat([]byte{fill}, 19)
				b[at] = byte(c)
				if want := c >= ' ' && c != 0x7f || c == '\t'; isText(b) != want {
					t.Fatalf("%q: %v", b, !want)
				}
			}
		}
	}
	if !isText(nil) {
		t.Error("nothing is refused")
	}
}

// A head is read without garbage, and names that a connection's last head had, too.
func TestIncomingLeavesLittleBehind(t *testing.T) {
	in := &incoming{}
	b := make([]byte, 4<<10)
	head := []byte(getHead + "User-Agent: a\r\nAccept: */*\r\n\r\n")
	n := testing.AllocsPerRun(100, func() {
		if n, refused := in.deal(b[:copy(b, head)]); n != len(head) || refused != "" {
			t.Fatal(n, refused)
		}
		in.dropHead()
	})
	if n > 0.5 { // the collector may empty the pool
		t.Errorf("%v allocations", n)
	}
	c := &frontConn{}
	if n := testing.AllocsPerRun(100, func() {
		_, _ = c.in.deal(b[:copy(b, head)])
		if c.order = nil; len(c.fieldOrder()) != 3 {
			t.Fatal("not three names")
		}
	}); n > 0.5 {
		t.Errorf("%v allocations with the names", n)
	}
	if c.in.head != nil {
		t.Error("the head's buffer is kept")
	}
}

// An error of the stream is not lost, and comes behind what was read with it.
func TestIncomingKeepsErrors(t *testing.T) {
	failed := errors.New("reset")
	c := &frontConn{prepared: true, stream: failing{Reader: strings.NewReader(getHead + "\r\n" + follower), err: failed}}
	b := make([]byte, 4<<10)
	for _, want := range []string{getHead + "\r\n", follower} {
		if n, err := c.readMessage(b); string(b[:n]) != want || err != nil {
			t.Errorf("got %q, %v", b[:n], err)
		}
	}
	if n, err := c.readMessage(b); n != 0 || !errors.Is(err, failed) {
		t.Errorf("got %q, %v", b[:n], err)
	}
}

// Of a connection of HTTP/1.0 nothing is read behind the first request, whatever net/http makes of it.
func TestIncomingEndsWithHTTP10(t *testing.T) {
	const first = "GET http://a/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
	c := &frontConn{prepared: true, stream: failing{Reader: strings.NewReader(first + follower), err: io.EOF}}
	b := make([]byte, 4<<10)
	if n, err := c.readMessage(b); string(b[:n]) != first || err != nil {
		t.Errorf("got %q, %v", b[:n], err)
	}
	if n, err := c.readMessage(b); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("got %q, %v", b[:n], err)
	}
}

// failing is a stream that ends with an error, for ever.
type failing struct {
	net.Conn
	*strings.Reader
	err error
}

func (f failing) Read(b []byte) (int, error) {
	n, _ := f.Reader.Read(b)
	if f.Len() == 0 {
		return n, f.err
	}
	return n, nil
}

func BenchmarkIncomingHead(b *testing.B) {
	in := &incoming{}
	head := []byte(getHead + login() + strings.Repeat("Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n", 10) + "\r\n")
	buf := make([]byte, 4<<10)
	b.SetBytes(int64(len(head)))
	b.ReportAllocs()
	for b.Loop() {
		if n, refused := in.deal(buf[:copy(buf, head)]); n != len(head) || refused != "" {
			b.Fatal(fmt.Errorf("%d bytes, %q", n, refused))
		}
		in.dropHead()
	}
}
