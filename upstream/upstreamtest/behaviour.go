package upstreamtest

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Ending is what a scripted vendor does after its last byte.
type Ending int

// The endings of a script.
const (
	KeepOpen  Ending = iota // read on, until the peer ends
	Close                   // FIN
	HalfClose               // FIN, and read on
	RST                     // reset
	Stall                   // neither read nor write, until the vendor is closed
)

// Raw answers every connection's first request with exactly Bytes, whatever was
// asked and without a look at credentials. The zero value is a silent vendor.
type Raw struct {
	Bytes []byte
	Then  Ending
	// Chunk sends Bytes in writes of so many bytes; 0 means in one.
	Chunk int
	// Delay is the wait before every write.
	Delay time.Duration
}

// Serve sends the bytes and ends as told.
func (r Raw) Serve(ctx context.Context, c *Conn, _ *RecordedRequest) {
	if err := writePaced(ctx, c, r.Bytes, pace{chunk: r.Chunk, delay: r.Delay}); err != nil {
		return
	}
	finish(ctx, c, r.Then)
}

// finish ends a connection; the caller returns next, which closes it.
func finish(ctx context.Context, c duplex, how Ending) {
	switch how {
	case KeepOpen:
		drain(c)
	case HalfClose:
		if c.CloseWrite() == nil {
			drain(c)
		}
	case RST:
		_ = c.Reset() // nothing follows
	case Stall:
		<-ctx.Done()
	case Close:
	}
}

// Func makes a function a Behaviour.
type Func func(ctx context.Context, c *Conn, req *RecordedRequest)

// Serve calls f.
func (f Func) Serve(ctx context.Context, c *Conn, req *RecordedRequest) { f(ctx, c, req) }

// Silent reads and never answers, until the peer ends.
func Silent() Behaviour { return Raw{} }

// CloseBeforeReply reads the request and closes.
func CloseBeforeReply() Behaviour { return Raw{Then: Close} }

// ResetBeforeReply reads the request and resets.
func ResetBeforeReply() Behaviour { return Raw{Then: RST} }

// Status answers every request on a connection with this status, reason phrase,
// header and body. Content-Length is added unless header has it or a Transfer-Encoding;
// nothing else is.
func Status(code int, reason string, header http.Header, body string) Behaviour {
	m := message{first: strings.TrimRight(fmt.Sprintf("HTTP/1.1 %d %s", code, reason), " ")}
	names := make([]string, 0, len(header))
	for name := range header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range header[name] {
			m.lines = append(m.lines, name+": "+value)
		}
	}
	if header.Get("Content-Length") == "" && header.Get("Transfer-Encoding") == "" {
		m.lines = append(m.lines, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	reply := append(m.bytes(), body...)
	return eachRequest(func(*Vendor) []byte { return reply })
}

// Loud answers every request on a connection with the vendor's own error page:
// the brand and text in reason, headers and body, and in the challenge of a 407.
func Loud(code int, text string) Behaviour {
	return eachRequest(func(v *Vendor) []byte { return v.loudReply(code, text) })
}

// eachRequest answers one request after the other, and closes after one with a body.
func eachRequest(reply func(*Vendor) []byte) Behaviour {
	return Func(func(_ context.Context, c *Conn, req *RecordedRequest) {
		for {
			if c.write(reply(c.vendor)) != nil || req.HasBody() {
				return
			}
			next, err := c.ReadRequest()
			if err != nil {
				return
			}
			req = next
		}
	})
}

// once answers the first request with what reply makes, then ends as told.
func once(reply func(*Vendor) []byte, then Ending) Behaviour {
	return Func(func(ctx context.Context, c *Conn, _ *RecordedRequest) {
		if c.write(reply(c.vendor)) == nil {
			finish(ctx, c, then)
		}
	})
}

// unframed answers with the vendor's loud error but no Content-Length, then ends as told.
func unframed(code int, text string, then Ending) Behaviour {
	return once(func(v *Vendor) []byte {
		head, body, _ := strings.Cut(string(v.loudReply(code, text)), "\r\n\r\n")
		m := splitHead([]byte(head))
		m.drop("Content-Length")
		return append(m.bytes(), body...)
	}, then)
}

// Refuse407NoLength refuses with a 407 that has a body but no length, and keeps the connection open.
func Refuse407NoLength() Behaviour { return unframed(407, "AUTH_FAILED", KeepOpen) }

// Slow relays, with its reply to a CONNECT sent step bytes at a time, delay before each.
func Slow(step int, delay time.Duration) Behaviour { return Relay{Chunk: step, Delay: delay} }

// SplitReply relays, with every byte of its reply to a CONNECT a write of its own.
func SplitReply() Behaviour { return Relay{Chunk: 1, Delay: 100 * time.Microsecond} }

// EarlyData answers a CONNECT with its 200 and banner in one write, as when a
// server-first target's greeting is there already, and echoes from then on.
func EarlyData(banner []byte) Behaviour {
	return Func(func(_ context.Context, c *Conn, _ *RecordedRequest) {
		if c.write(append(c.vendor.established(), banner...)) == nil && copyAsItComes(c, c) == nil {
			finish(context.Background(), c, HalfClose)
		}
	})
}

// InformationalFirst relays, with 103 and 100 before the 200 to a CONNECT.
func InformationalFirst() Behaviour {
	return relayReply("HTTP/1.1 103 {brand} Hints\r\nX-{brand}-Hint: 1\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 {brand} OK\r\n\r\n")
}

// No200Tunnel relays, with a 204 in place of the 200: every 2xx opens a tunnel (RFC 9110 §9.3.6).
func No200Tunnel() Behaviour {
	return relayReply("HTTP/1.1 204 {brand} No Content\r\nX-{brand}-Session: 1\r\n\r\n")
}

// relayReply is Relay with the given reply, {brand} replaced.
func relayReply(reply string) Behaviour {
	return Func(func(ctx context.Context, c *Conn, req *RecordedRequest) {
		Relay{Reply: c.vendor.expand(reply)}.Serve(ctx, c, req)
	})
}

// expand replaces {brand} in s; {lower}, the same in small letters; {host}, {exit} and {trace}.
func (v *Vendor) expand(s string) []byte {
	return []byte(strings.NewReplacer("{brand}", v.config.Brand, "{lower}", strings.ToLower(v.config.Brand),
		"{host}", v.host(), "{exit}", exitIP, "{trace}", vendorTrace,
		"{base64}", base64.RawURLEncoding.EncodeToString([]byte("by "+v.config.Brand)), "{escaped}", escaped(v.config.Brand)).Replace(s))
}

// escaped is s with every byte percent-escaped.
func escaped(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02x", s[i])
	}
	return b.String()
}

// text answers the first request with s, {brand} replaced, then ends as told.
func text(s string, then Ending) Behaviour {
	return once(func(v *Vendor) []byte { return v.expand(s) }, then)
}

// ConnectWithBody answers a CONNECT with a 200 that announces a body, by
// Content-Length or chunked, and sends one that names the vendor.
func ConnectWithBody(chunked bool) Behaviour {
	return once(func(v *Vendor) []byte {
		body := v.config.Brand + " welcomes you\n"
		m := message{first: "HTTP/1.1 200 OK", lines: []string{fmt.Sprintf("Content-Length: %d", len(body))}}
		if chunked {
			m.lines = []string{"Transfer-Encoding: chunked"}
			body = fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
		}
		return append(m.bytes(), body...)
	}, KeepOpen)
}

// Reset answers a CONNECT with a 200, reads n bytes of the tunnel and resets it.
func Reset(n int64) Behaviour { return afterBytes(n, RST) }

// Cut answers a CONNECT with a 200, reads n bytes of the tunnel and closes it.
func Cut(n int64) Behaviour { return afterBytes(n, Close) }

// afterBytes opens a tunnel, reads n bytes from it and ends as told.
func afterBytes(n int64, then Ending) Behaviour {
	return Func(func(ctx context.Context, c *Conn, _ *RecordedRequest) {
		if c.write(c.vendor.established()) != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, c, n); err == nil {
			finish(ctx, c, then)
		}
	})
}

// CloseMidHead closes in the middle of a 200's head.
func CloseMidHead() Behaviour { return midHead(Close) }

// midHead sends half of the vendor's 200 and ends as told.
func midHead(then Ending) Behaviour {
	return once(func(v *Vendor) []byte {
		head := v.established()
		return head[:len(head)/2]
	}, then)
}

// HugeHead answers with a 200 whose head has n bytes more than usual, then waits.
func HugeHead(n int) Behaviour {
	return once(func(v *Vendor) []byte {
		m := message{first: "HTTP/1.1 200 OK", lines: []string{"X-" + v.config.Brand + "-Padding: " + strings.Repeat("p", n)}}
		return m.bytes()
	}, KeepOpen)
}

// endlessLimit is after how many bytes an endless reply gives up and falls silent.
const endlessLimit = 64 << 20

// Endless answers with a head that never ends, as fast as the peer reads.
func Endless() Behaviour {
	return endless("HTTP/1.1 200 OK\r\n", "X-{brand}-Line: "+strings.Repeat("l", 1000)+"\r\n")
}

// EndlessInformational answers with one 100 after the other.
func EndlessInformational() Behaviour {
	return endless("", strings.Repeat("HTTP/1.1 100 {brand}\r\n\r\n", 40))
}

// endless sends first once and then more, over and over.
func endless(first, more string) Behaviour {
	return Func(func(ctx context.Context, c *Conn, _ *RecordedRequest) {
		block := c.vendor.expand(more)
		if c.write(c.vendor.expand(first)) != nil {
			return
		}
		for sent := 0; sent < endlessLimit; sent += len(block) {
			if c.write(block) != nil {
				return
			}
		}
		finish(ctx, c, KeepOpen)
	})
}

// StaleKeepAlive relays one request honestly, reads the next one and closes
// without an answer, as a gateway whose idle timeout has just struck.
func StaleKeepAlive() Behaviour {
	return Func(func(ctx context.Context, c *Conn, req *RecordedRequest) {
		if (Relay{}).exchange(ctx, c, req) {
			_, _ = c.ReadRequest() // recorded; whatever it is, this is the end
		}
	})
}
