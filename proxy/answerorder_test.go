package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"maskrelay/upstream/upstreamtest"
)

// What a target says, behind its status line, and what of that the customer gets. | ends a line.
var orderedAnswers = map[string]struct{ status, said, body, want, wantBody string }{
	"odd spelling": {said: "x-b: 1|SERVER: nginx|content-length: 2|Set-Cookie: a=b|date: now|X-A: 1|set-cookie: c=d|Content-type: x", body: "ok",
		want: "x-b: 1|SERVER: nginx|content-length: 2|Set-Cookie: a=b|date: now|X-A: 1|set-cookie: c=d|Content-type: x", wantBody: "ok"},
	"what the mask removes": {said: "X-Z: 1|Via: 1.1 vendor|Connection: X-Y, keep-alive|X-Y: 2|Content-Length: 0|A: 1", want: "X-Z: 1|Content-Length: 0|A: 1"},
	"chunks": {said: "Z: 1|transfer-ENCODING: chunked|A: 1", body: "2\r\nok\r\n0\r\n\r\n",
		want: "Z: 1|transfer-ENCODING: chunked|A: 1", wantBody: "2\r\nok\r\n0\r\n\r\n"},
	"no phrase":     {status: "520 ", said: "Z: 1|Content-Length: 2|A: 1", body: "ok", want: "Z: 1|Content-Length: 2|A: 1", wantBody: "ok"},
	"hints first":   {status: "200 OK", said: "Z: 1|Content-Length: 2|A: 1", body: "ok", want: "Z: 1|Content-Length: 2|A: 1", wantBody: "ok"},
	"a large field": {said: "Z: " + strings.Repeat("z", 9000) + "|content-length: 2|A: 1", body: "ok", want: "Z: " + strings.Repeat("z", 9000) + "|content-length: 2|A: 1", wantBody: "ok"},
	"a large body":  {said: "Z: 1|Content-Length: 40000|A: 1", body: strings.Repeat("b", 40000), want: "Z: 1|Content-Length: 40000|A: 1", wantBody: strings.Repeat("b", 40000)},
}

// The customer gets the target's fields in the target's order and spelling.
func TestAnswerOrder(t *testing.T) { bothWays(t, testAnswerOrder) }

func testAnswerOrder(t *testing.T) {
	for name, test := range orderedAnswers {
		t.Run(name, func(t *testing.T) {
			line := "HTTP/1.1 " + test.status + "\r\n"
			if test.status == "" {
				line = "HTTP/1.1 200 OK\r\n"
			}
			fill := func(lines string) string { return line + strings.ReplaceAll(lines, "|", "\r\n") + "\r\n\r\n" }
			said := fill(test.said) + test.body
			if name == "hints first" {
				said = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + said
			}
			r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: says(said)}})
			c := r.dial()
			c.send(request("GET", "http://shop.example/"))
			if name == "hints first" {
				c.expect("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
			}
			c.expect(fill(test.want) + test.wantBody)
		})
	}
}

// net/http's 100 is no answer's head.
func TestAnswerOrderAfterContinue(t *testing.T) {
	r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Func(
		func(ctx context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
			if _, err := io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
				return
			}
			if _, err := io.ReadFull(c, make([]byte, 3)); err != nil {
				return
			}
			if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nz: 1\r\nContent-Length: 0\r\na: 1\r\n\r\n"); err == nil {
				<-ctx.Done()
			}
		})}})
	c := r.dial()
	c.send(request("PUT", "http://shop.example/", "Content-Length: 3\r\n", "Expect: 100-continue\r\n"))
	c.expect("HTTP/1.1 100 Continue\r\n\r\n")
	c.send("abc")
	c.expect("HTTP/1.1 200 OK\r\nz: 1\r\nContent-Length: 0\r\na: 1\r\n\r\n")
}

// FuzzAppendInOrder: whatever the order says, the head's lines are the same but for the
// letters' case of names, and a head that has no order stays as it is.
func FuzzAppendInOrder(f *testing.F) {
	f.Add("A: 1|B: 2|B: 3|Content-Length: 4", "content-length|B|a|B")
	f.Add("A-B: 1|:|x|a-b: 2", "A-b|A-B|a-b||x")
	many := "Z: 1|Z: 2"
	for i := range 2 * fewFields {
		many += fmt.Sprintf("|X%d: %d", 2*i, i)
	}
	f.Add(many, "x4|Z|x0|z|X5|x46")
	f.Fuzz(func(t *testing.T, lines, order string) {
		head := "HTTP/1.1 200 OK\r\n"
		for line := range strings.SplitSeq(lines, "|") {
			head += strings.NewReplacer("\r", "", "\n", "").Replace(line) + "\r\n"
		}
		got := string(appendInOrder([]byte("before "), []byte(head), strings.Split(order, "|")))
		got, ok := strings.CutPrefix(got, "before HTTP/1.1 200 OK\r\n")
		if !ok || len(got)+len("HTTP/1.1 200 OK\r\n") != len(head) {
			t.Fatalf("%q became %q", head, got)
		}
		was := strings.SplitAfter(head, "\n")[1:]
		is := strings.SplitAfter(got, "\n")
		for _, all := range [][]string{was, is} {
			for i, line := range all {
				if name, value, ok := strings.Cut(line, ":"); ok {
					all[i] = strings.ToLower(name) + ":" + value
				}
			}
			slices.Sort(all)
		}
		if !slices.Equal(was, is) {
			t.Fatalf("%q became %q", head, got)
		}
	})
}

// However net/http cuts the head it comes out whole, and what is behind it untouched.
func TestAnswerOrderInPieces(t *testing.T) {
	const head, want = "HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\n\r\n", "HTTP/1.1 200 OK\r\nb: 2\r\nA: 1\r\n\r\n"
	for cut := range len(head) + 3 {
		stream := &pipeEnd{}
		c := &frontConn{stream: stream}
		c.setPhase(phaseHandling)
		c.ordered.Store(&answerOrder{names: []string{"b", "A"}})
		for _, piece := range []string{(head + "body")[:cut], (head + "body")[cut:]} {
			if n, err := c.Write([]byte(piece)); n != len(piece) || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
		}
		if got := stream.String(); got != want+"body" {
			t.Errorf("cut at %d: %q", cut, got)
		}
	}
	long := fmt.Sprintf("HTTP/1.1 200 OK\r\nB: 1\r\nA: %0*d", maxAnswerHead, 1)
	stream := &pipeEnd{}
	c := &frontConn{stream: stream}
	c.setPhase(phaseHandling)
	c.ordered.Store(&answerOrder{names: []string{"A", "B"}})
	for _, piece := range []string{long[:4096], long[4096:], "\r\n\r\nbody"} {
		_, err := c.Write([]byte(piece))
		must(t, err)
	}
	if got := stream.String(); got != long+"\r\n\r\nbody" {
		t.Errorf("a head of %d bytes became one of %d", len(long), len(got))
	}
}

// Many lines are sorted to be found.
func TestAppendInOrderOfMany(t *testing.T) {
	head, names, want := "HTTP/1.1 200 OK\r\n", []string(nil), "HTTP/1.1 200 OK\r\n"
	for i := range 3 * fewFields {
		head += fmt.Sprintf("X%d: %d\r\n", i, i)
		names = append(names, fmt.Sprintf("x%d", 3*fewFields-1-i))
		want += fmt.Sprintf("x%d: %d\r\n", 3*fewFields-1-i, 3*fewFields-1-i)
	}
	if got := string(appendInOrder(nil, []byte(head), names)); got != want {
		t.Errorf("%q", got)
	}
}

func BenchmarkAppendInOrder(b *testing.B) {
	const head = "HTTP/1.1 200 OK\r\nCache-Control: private\r\nEtag: \"x\"\r\nServer: nginx\r\nSet-Cookie: a=b\r\nVary: Accept-Encoding\r\nContent-Length: 1024\r\nContent-Type: text/html\r\nDate: Sat, 21 Nov 2026 14:02:00 GMT\r\n"
	names := []string{"Server", "Date", "Content-Type", "Content-Length", "Connection", "Vary", "Cache-Control", "ETag", "Set-Cookie"}
	if _, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(append(appendInOrder(nil, []byte(head), names), "\r\n"...))), nil); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	buf, in := make([]byte, 0, 4096), []byte(head)
	for b.Loop() {
		_ = appendInOrder(buf, in, names)
	}
}

// pipeEnd keeps what is written to it.
type pipeEnd struct {
	net.Conn
	bytes.Buffer
}

func (p *pipeEnd) Read(b []byte) (int, error)  { return p.Buffer.Read(b) }
func (p *pipeEnd) Write(b []byte) (int, error) { return p.Buffer.Write(b) }
