package upstream

import (
	"errors"
	"net"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// dnsExchange is one question and its answer on a connection of the resolver's, which
// makes a new one for each and uses it from one goroutine.
type dnsExchange struct {
	watch    *dnsWatch
	id       uint16
	question dnsmessage.Question
	asked    bool
}

// sent looks at a question.
func (x *dnsExchange) sent(msg []byte) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil {
		return
	}
	q, err := p.Question()
	if err != nil {
		return
	}
	x.id, x.question, x.asked = h.ID, q, true
	x.watch.asked(q.Name.String())
}

// got looks at an answer, by the rules by which the resolver takes or ignores it.
func (x *dnsExchange) got(msg []byte, stream bool) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || !x.asked || !h.Response || h.ID != x.id || h.Truncated && !stream {
		return
	}
	if h.RCode != dnsmessage.RCodeSuccess && h.RCode != dnsmessage.RCodeNameError {
		return
	}
	q, err := p.Question()
	if err != nil || !sameQuestion(q, x.question) || p.SkipAllQuestions() != nil {
		return
	}
	var seen dnsRecords
	for {
		r, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil || p.SkipAnswer() != nil {
			return
		}
		ttl := time.Duration(r.TTL) * time.Second
		if r.TTL > 1<<31-1 { // RFC 2181 §8
			ttl = 0
		}
		if seen.count++; seen.count == 1 || ttl < seen.ttl {
			seen.ttl = ttl
		}
		seen.address = seen.address || r.Type == x.question.Type
	}
	if seen.count == 0 && !h.Authoritative && !h.RecursionAvailable { // a server that does not know
		return
	}
	x.watch.answered(x.question, seen)
}

func sameQuestion(a, b dnsmessage.Question) bool {
	return a.Type == b.Type && a.Class == b.Class && equalNames(a.Name, b.Name)
}

// equalNames compares without case, ASCII only.
func equalNames(a, b dnsmessage.Name) bool {
	if a.Length != b.Length {
		return false
	}
	for i := range a.Length {
		if lowerASCII(a.Data[i]) != lowerASCII(b.Data[i]) {
			return false
		}
	}
	return true
}

func lowerASCII(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// dnsPackets is a connection over UDP.
type dnsPackets struct {
	*net.UDPConn
	dnsExchange
}

// Write implements net.Conn.
func (c *dnsPackets) Write(b []byte) (int, error) {
	c.sent(b)
	return c.UDPConn.Write(b)
}

// Read implements net.Conn.
func (c *dnsPackets) Read(b []byte) (int, error) {
	n, err := c.UDPConn.Read(b)
	if err == nil {
		c.got(b[:n], false)
	}
	return n, err
}

// Close implements net.Conn.
func (c *dnsPackets) Close() error {
	c.watch.closed(c.UDPConn)
	return c.UDPConn.Close()
}

// dnsStream is a connection over TCP, where two bytes of length stand before each message.
type dnsStream struct {
	*net.TCPConn
	dnsExchange
	in []byte // so far; nil = the answer was seen
}

// Write implements net.Conn.
func (c *dnsStream) Write(b []byte) (int, error) {
	if len(b) > 2 {
		c.sent(b[2:])
	}
	return c.TCPConn.Write(b)
}

// Read implements net.Conn.
func (c *dnsStream) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	c.in = append(c.in, b[:min(n, maxDNSMessage-len(c.in))]...)
	if len(c.in) >= 2 {
		if end := 2 + int(c.in[0])<<8 + int(c.in[1]); len(c.in) == end {
			c.got(c.in[2:end], true)
		}
	}
	return n, err
}

// Close implements net.Conn.
func (c *dnsStream) Close() error {
	c.watch.closed(c.TCPConn)
	return c.TCPConn.Close()
}
