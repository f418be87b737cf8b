package upstreamtest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http/httputil"
	"slices"
	"strings"
)

// meddling is what a vendor who serves does to the answers that pass him: his own 200 to
// a CONNECT, and the target's to a plain request, its 101 included. In the strings
// {brand} and the other words of expand are replaced. The zero value does nothing.
type meddling struct {
	// before are heads sent ahead of the answer's.
	before string
	// reason replaces the reason phrase; "" = as it is.
	reason string
	// lines are added to the head, as they are.
	lines []string
	// extension is added to the line of every chunk, trailers behind the last one. With
	// either, the answer to a plain request is sent chunked.
	extension string
	trailers  []string
	// behind follows the answer to a plain request, unasked for.
	behind string
	// half ends the answer to a plain request in the middle of its body, as ending says.
	half   bool
	ending Ending
	// upgrade leaves all answers alone but a target's 101 inside a tunnel, as a gateway
	// does that looks into tunnels to port 80.
	upgrade bool
	// pace is how head and body are cut into writes.
	pace pace
}

// serves is a gateway that serves and meddles.
func serves(m meddling) Behaviour { return Relay{meddle: &m} }

// established is the reply to a CONNECT.
func (m *meddling) established(v *Vendor) []byte {
	own := splitHead(v.established())
	if m.upgrade {
		return own.bytes()
	}
	return m.head(v, own)
}

// head is an answer's head after meddling, what comes before it included.
func (m *meddling) head(v *Vendor, answer message) []byte {
	if m == nil || m.upgrade {
		return answer.bytes()
	}
	if m.reason != "" {
		version, rest, _ := strings.Cut(answer.first, " ")
		status, _, _ := strings.Cut(rest, " ")
		answer.first = version + " " + status + " " + m.reason
	}
	answer.lines = slices.Concat(answer.lines, m.lines)
	if len(m.trailers) > 0 {
		answer.lines = append(answer.lines, "Trailer: "+fieldNames(m.trailers))
	}
	return v.expand(m.before + string(answer.bytes()))
}

// fieldNames lists the names of lines.
func fieldNames(lines []string) string {
	names := make([]string, len(lines))
	for i, line := range lines {
		names[i], _, _ = strings.Cut(line, ":")
	}
	return strings.Join(names, ", ")
}

// at is the pace of a head.
func (m *meddling) at() pace {
	if m == nil {
		return pace{}
	}
	return m.pace
}

// reframes reports whether answers to plain requests are sent chunked.
func (m *meddling) reframes() bool {
	return m != nil && (m.extension != "" || len(m.trailers) > 0)
}

// maxMeddled is how much of an answer's body a meddling vendor passes on, in bytes.
const maxMeddled = 64 << 20

// body passes the body of a target's answer on and reports whether the connection can go on.
func (m *meddling) body(ctx context.Context, f *forward, framing framing) bool {
	if !m.reframes() && !m.half && m.pace == (pace{}) {
		return copyBody(f.c, f.target.br, framing) == nil && m.poison(f.c)
	}
	if framing.kind == noBody {
		return m.poison(f.c)
	}
	wire, err := m.onTheWire(f, framing)
	if err != nil {
		return false
	}
	if m.half {
		if writePaced(ctx, f.c, wire[:len(wire)/2], m.pace) == nil {
			finish(ctx, f.c, m.ending)
		}
		return false
	}
	return writePaced(ctx, f.c, wire, m.pace) == nil && m.poison(f.c)
}

// poison sends what nobody asked for.
func (m *meddling) poison(c *Conn) bool {
	return m.behind == "" || c.write(c.vendor.expand(m.behind)) == nil
}

// onTheWire is the body as it is to be sent: as it came, or in chunks of the vendor's making.
func (m *meddling) onTheWire(f *forward, framing framing) ([]byte, error) {
	var b bytes.Buffer
	if !m.reframes() {
		err := copyBody(limitedWriter{&b}, f.target.br, framing)
		return b.Bytes(), err
	}
	var src io.Reader = f.target.br
	switch framing.kind {
	case chunked:
		src = httputil.NewChunkedReader(f.target.br)
	case byLength:
		src = io.LimitReader(f.target.br, framing.length)
	}
	if err := copyAsItComes(limitedWriter{&b}, src); err != nil {
		return nil, err
	}
	body, v := b.Bytes(), f.c.vendor
	var wire bytes.Buffer
	for part := range slices.Chunk(body, max(1, (len(body)+1)/2)) {
		fmt.Fprintf(&wire, "%x%s\r\n%s\r\n", len(part), v.expand(m.extension), part)
	}
	fmt.Fprintf(&wire, "0%s\r\n", v.expand(m.extension))
	for _, line := range m.trailers {
		wire.Write(append(v.expand(line), "\r\n"...))
	}
	wire.WriteString("\r\n")
	return wire.Bytes(), nil
}

// limitedWriter is a buffer that takes no more than maxMeddled.
type limitedWriter struct{ b *bytes.Buffer }

func (w limitedWriter) Write(p []byte) (int, error) {
	if w.b.Len()+len(p) > maxMeddled {
		return 0, io.ErrShortBuffer
	}
	return w.b.Write(p)
}

// inside is the target's end of a tunnel, meddled with if the vendor looks into tunnels.
func (m *meddling) inside(v *Vendor, target *peer) duplex {
	if m == nil || !m.upgrade {
		return target
	}
	return &lookedInto{peer: target, m: m, v: v}
}

// lookedInto is a target whose 101 gets the vendor's lines.
type lookedInto struct {
	*peer
	m    *meddling
	v    *Vendor
	read bool   // the head was
	head []byte // and this is left of it
}

// Read reads the head, and then what follows it.
func (l *lookedInto) Read(p []byte) (int, error) {
	if !l.read {
		l.read = true
		l.br = bufio.NewReader(l.Conn)
		raw, err := readHead(l.br)
		l.head = raw
		if m := splitHead(raw); err == nil && m.status() == 101 {
			m.lines = append(m.lines, l.v.forwardLines()...)
			plain := *l.m
			plain.upgrade = false
			l.head = plain.head(l.v, m)
		}
	}
	if len(l.head) > 0 {
		n := copy(p, l.head)
		l.head = l.head[n:]
		return n, nil
	}
	return l.peer.Read(p)
}
