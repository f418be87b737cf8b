package upstream

import (
	"context"
	"errors"
	"io"
	"time"
)

const (
	maxAskedHead = 64 << 10        // bytes of an answer that are read
	maxAskedBody = 4 << 10         // and of its body
	askedBody    = 2 * time.Second // that a body is waited for
)

// ErrNoHead means that a gateway answers without a head that could show anything: SOCKS5 knows codes alone.
var ErrNoHead = errors.New("upstream: the gateway's protocol has no header")

// Shown is an answer as a gateway gives it to a client of its own: it names the vendor, and
// is for the operator's eyes. Secrets are blotted out.
type Shown struct {
	Status int
	Line   string      // without the version: "407 Payment needed"
	Fields [][2]string // in their order
	Body   string      // the beginning
}

// Question is a request's first line without the version, "CONNECT host:443", and its Host.
type Question struct{ Line, Host string }

// Ask sends one request without a body to a gateway, on a connection of its own, with the
// operator's login as for those who ask for nothing, and returns what it answers. o gives time
// limits, sources and name server.
func Ask(ctx context.Context, o Options, g Gateway, q Question) (*Shown, error) {
	if g.Scheme != SchemeHTTP && g.Scheme != SchemeHTTPS {
		return nil, ErrNoHead
	}
	g.Warm, g.MaxConns = 0, 0
	o.Gateways = []Gateway{g}
	pool, err := NewPool(o)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	ctx, cancel := context.WithTimeout(ctx, o.DialTimeout+o.ConnectTimeout)
	defer cancel()
	l, failure := pool.gateways[0].connect(ctx, q.Host, 0, true)
	if failure != nil {
		return nil, failure
	}
	defer l.held.Release()
	defer func() { _ = l.Close() }() // one answer is all that is wanted
	stop := context.AfterFunc(ctx, func() { _ = l.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	head := q.Line + " HTTP/1.1\r\nHost: " + q.Host + "\r\n"
	if login := g.authorization(); login != "" {
		head += "Proxy-Authorization: " + login + "\r\n"
	}
	if _, err := io.WriteString(l, head+"User-Agent: Mozilla/5.0\r\nAccept: */*\r\n\r\n"); err != nil {
		return nil, err
	}
	heard, err := hear(&l)
	if len(heard) == 0 {
		return nil, err
	}
	return show(parseHeard(heard), newBlotter(g, "")), nil
}

// hear reads a head, and what soon comes of a body.
func hear(l *link) ([]byte, error) {
	var heard []byte
	buf := make([]byte, 4<<10)
	end := 0
	for len(heard) < maxAskedHead {
		n, err := l.Read(buf)
		heard = append(heard, buf[:n]...)
		if end == 0 {
			if a := parseHeard(heard); a.status >= 200 && a.complete(heard) {
				end = len(heard)
				_ = l.SetReadDeadline(time.Now().Add(askedBody))
			}
		}
		if err != nil || end > 0 && (len(heard) >= end+maxAskedBody || parseHeard(heard).done()) {
			return heard, err
		}
	}
	return heard, nil
}

// complete reports whether the head of the last answer in heard has ended.
func (a *http11Answer) complete(heard []byte) bool {
	for {
		size, _ := headSize(heard, 0)
		if size == 0 {
			return false
		}
		if status := parseAnswerHead(heard[:size]).status; status >= 200 {
			return true
		}
		heard = heard[size:]
	}
}

// done reports whether nothing more is to come: an open tunnel, or a body of the length announced.
func (a *http11Answer) done() bool {
	length := a.field("Content-Length")
	return length == "0" || length == "" && a.status/100 == 2 && a.field("Transfer-Encoding") == "" && a.field("Content-Type") == ""
}

func show(a *http11Answer, blot *blotter) *Shown {
	s := &Shown{Status: a.status, Line: blot.short(a.line), Body: blot.shortEnd(a.body)}
	if a.status == 0 {
		s.Line, s.Body = "no HTTP", blot.shortEnd(string(a.raw))
	}
	for i, f := range a.fields {
		if i == maxShown {
			break
		}
		s.Fields = append(s.Fields, [2]string{blot.short(f[0]), blot.short(f[1])})
	}
	return s
}

// maxShown bounds the fields that are shown of an answer.
const maxShown = 100
