package proxy

import (
	"io"
	"strings"
	"testing"
	"time"
)

// A head that comes in parts is handed on when it is whole, with its body and what follows
// in order, wherever it is cut.
func TestHeadsInParts(t *testing.T) {
	first := "POST http://shop.example/a HTTP/1.1\r\nHost: shop.example\r\nX: " + strings.Repeat("x", 10<<10) + "\r\nContent-Length: 5\r\n\r\n"
	whole := first + "hello" + getHead + "\r\n"
	for _, cut := range []int{1, 40, 1000, 9 << 10, len(first) - 2, len(first), len(first) + 2} {
		in := &incoming{}
		stream := io.MultiReader(strings.NewReader(whole[:cut]), strings.NewReader(whole[cut:]))
		b := make([]byte, 4<<10)
		var got strings.Builder
		for got.Len() < len(whole) {
			n := in.handOn(b)
			if n == 0 {
				var refused Outcome
				var err error
				if n, refused, err = in.next(stream, b); refused != "" || err != nil {
					t.Fatalf("cut at %d: %q, %v after %d bytes", cut, refused, err, got.Len())
				}
			}
			got.Write(b[:n])
			if s := got.String(); len(s) > 0 && len(s) < len(first) && cut < len(first) && in.state == inHead {
				t.Fatalf("cut at %d: %d bytes of a head that is not whole", cut, len(s))
			}
		}
		if got.String() != whole {
			t.Errorf("cut at %d: other bytes", cut)
		}
		in.dropHead()
	}
}

// What the engine has read of a head is taken up where it lies, and its buffer comes back.
func TestEarlyHeads(t *testing.T) {
	long := getHead + "X: " + strings.Repeat("x", 20<<10) + "\r\n"
	for name, tc := range map[string]struct {
		early, more string
		refused     Outcome
	}{
		"whole":             {long + "\r\n" + follower, "", ""},
		"a part":            {long, "\r\n" + follower, ""},
		"an empty line":     {"\r\n", long + "\r\n" + follower, ""},
		"behind an empty":   {"\r\n" + long, "\r\n" + follower, ""},
		"no head":           {" " + long, "", BadRequest},
		"not in order":      {long + "X : y\r\n", "", BadRequest},
		"a part, too large": {long, strings.Repeat("x", maxHead), HeadTooLarge},
	} {
		in := &incoming{}
		in.early = takeHeadBuffer(len(tc.early))
		*in.early = append(*in.early, tc.early...)
		stream, b := strings.NewReader(tc.more), make([]byte, 4<<10)
		want, got := strings.TrimPrefix(tc.early+tc.more, "\r\n"), ""
		refused := Outcome("")
		for got != want && refused == "" {
			n := in.handOn(b)
			if n == 0 {
				var err error
				if n, refused, err = in.next(stream, b); err != nil {
					t.Fatalf("%s: %v after %d bytes", name, err, len(got))
				}
			}
			got += string(b[:n])
		}
		if refused != tc.refused || refused != "" && (got != "" || in.head != nil) {
			t.Errorf("%s: refused %q, %d bytes handed on", name, refused, len(got))
		}
		in.dropHead()
	}
}

// A long head that comes slowly takes one buffer, and leaves none behind but those of the
// steps to its size.
func TestSlowHeadsLeaveLittleBehind(t *testing.T) {
	head := []byte(getHead + "X: " + strings.Repeat("x", 30<<10))
	n := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			in := &incoming{}
			for i := 0; i < len(head); i += 100 {
				if n, refused := in.deal(head[i:min(i+100, len(head))]); n != 0 || refused != "" {
					b.Fatal(n, refused)
				}
			}
			in.dropHead()
		}
	}).AllocedBytesPerOp()
	if n > maxHead {
		t.Errorf("%d bytes a head", n)
	}
}

// The next head of a connection has its time from its first byte on, though nobody but the
// reader has seen that yet.
func TestNextHeadInTime(t *testing.T) { bothWays(t, testNextHeadInTime) }

func testNextHeadInTime(t *testing.T) {
	r := newRig(t, setup{config: func(c *Config) { c.HeaderTimeout = 300 * time.Millisecond }})
	c := r.dial()
	for range 2 { // the second one is net/http's for certain
		c.send("GET http://shop.example/ HTTP/1.1\r\nHost: a\r\n\r\n")
		c.expect(r.reply(AuthRequired, false))
	}
	c.send("GET http://shop.example/ HTTP/1.1\r\n")
	c.expect(r.reply(HeadTimeout, true))
	c.ends()
}
