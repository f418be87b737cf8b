package soak

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// begin starts a report.
func begin(s spec, account string) *report {
	return &report{Side: customerSide, Name: s.String(), Account: account, Start: time.Now().UnixNano()}
}

func (w *customer) tell(r *report) {
	r.Stop = time.Now().UnixNano()
	w.reporter.tell(*r)
}

// trouble notes an error before the tunnel was open.
func (r *report) trouble(err error) {
	r.End = endOf(err)
	if errors.Is(err, errWrongByte) {
		r.Bad = err.Error()
	}
}

// tunnel opens one, does what its mode says, and reports.
func (w *customer) tunnel(m mode, account string) {
	s := w.newSpec(m)
	r := begin(s, account)
	defer w.tell(r)
	l, err := w.dial()
	if err != nil {
		r.trouble(err)
		return
	}
	defer closeQuietly(l.raw)
	w.tunnelOn(l, s, r)
}

// tunnelOn makes a connection a tunnel and uses it.
func (w *customer) tunnelOn(l *line, s spec, r *report) {
	r.TLS = l.conn != halfCloser(l.raw)
	c, err := w.openTunnel(l, s, r)
	if err != nil {
		r.trouble(err)
		return
	}
	if c != nil {
		w.use(c, s, r)
	}
}

// openTunnel asks for a tunnel, sometimes with the wrong password first, sometimes with the first bytes in the same packet. Without an error the
// carrier is nil when the relay refused.
func (w *customer) openTunnel(l *line, s spec, r *report) (*carrier, error) {
	c := &carrier{conn: l.conn, raw: l.raw, in: l.r, rng: w.rng, out: w.streams.of(s.ID, upward), want: w.streams.of(s.ID, downward)}
	head := connectHead(s, r.Account, password)
	if s.Mode == upgrade {
		head = upgradeHead(s, r.Account, password)
	}
	refusedFirst := s.Mode != upgrade && w.rng.IntN(6) == 0
	if refusedFirst {
		head = connectHead(s, r.Account, "wrong") + head
	}
	if s.Mode != downFirst && s.Mode != upgrade && w.rng.IntN(3) == 0 {
		early := c.out.next(int(min(s.Up, 1+w.rng.Int64N(8<<10))))
		c.sent = int64(len(early))
		head += string(early)
	}
	if w.write(l, head) != nil {
		c.cut = true // a tunnel may have been opened and have broken already, with the head's end still to come; the reply tells
	}
	// One who has sent all of his may say so at once; but who has sent nothing is taken for one who leaves.
	if s.Mode.orderly() && c.sent > 0 && c.sent == s.Up && w.rng.IntN(2) == 0 {
		c.closeWrite()
	}
	for {
		status, closes, err := l.reply()
		if err != nil {
			return nil, err
		}
		if refusedFirst && status == http.StatusProxyAuthRequired && r.Auth == 0 && !closes {
			r.Auth++
			continue
		}
		r.Status = status
		if status == http.StatusOK || status == http.StatusSwitchingProtocols {
			return c, nil
		}
		r.Sent = c.sent
		return nil, nil
	}
}

// write sends a head, sometimes in small pieces with pauses between them.
func (w *customer) write(l *line, head string) error {
	if w.rng.IntN(12) == 0 {
		for range 1 + w.rng.IntN(30) {
			n := min(len(head), 1+w.rng.IntN(40))
			if _, err := io.WriteString(l.conn, head[:n]); err != nil {
				return err
			}
			head = head[n:]
			time.Sleep(time.Duration(w.rng.Int64N(int64(3 * time.Millisecond)))) // so that the pieces come apart
		}
	}
	_, err := io.WriteString(l.conn, head)
	return err
}

// use plays the customer's part of an open tunnel.
func (w *customer) use(c *carrier, s spec, r *report) {
	rest := s.Up - c.sent
	switch s.Mode {
	case downFirst:
		end := c.drain(forever)
		if end == endOrderly {
			c.sendAll(rest)
		}
		c.fill(r, end)
	case clientReset:
		_ = c.drain(min(s.Down, w.rng.Int64N(s.Down+1))) // what it is cut off from is lost by our own will
		_ = c.send(w.rng.Int64N(rest + 1))
		c.reset()
		c.fill(r, endBroken)
	case idle:
		c.pause = time.Duration(w.rng.Int64N(int64(w.Pause)))
		c.fill(r, c.exchange(rest))
	case clientStall:
		c.stall = w.Pause/4 + time.Duration(w.rng.Int64N(int64(w.Pause)))
		c.fill(r, c.exchange(rest))
	default:
		c.fill(r, c.exchange(rest))
	}
}

// refused asks for what the vendor does not give: 502 and the end of the connection.
func (w *customer) refused() {
	w.expectRefusal(refusing[w.rng.IntN(len(refusing))])
}

// tooSilent waits for a vendor that says nothing.
func (w *customer) tooSilent() { w.expectRefusal(silent) }

func (w *customer) expectRefusal(m mode) {
	s := w.newSpec(m)
	r := begin(s, usual)
	defer w.tell(r)
	l, err := w.dial()
	if err != nil {
		r.trouble(err)
		return
	}
	defer closeQuietly(l.raw)
	if c, err := w.openTunnel(l, s, r); err != nil {
		r.trouble(err)
		return
	} else if c != nil {
		r.Bad = "a tunnel that the vendor did not open"
		return
	}
	n, err := io.Copy(io.Discard, l.r)
	r.Got, r.End = n, endOf(err)
	if n > 0 {
		r.Bad = fmt.Sprintf("%d bytes after the refusal", n)
	}
}

// leaves goes away during the handshake: with a reset, or by closing.
func (w *customer) leaves() {
	s := w.newSpec(leave)
	r := begin(s, usual)
	defer w.tell(r)
	l, err := w.dial()
	if err != nil {
		r.trouble(err)
		return
	}
	defer closeQuietly(l.raw)
	_, err = io.WriteString(l.conn, connectHead(s, usual, password))
	r.trouble(err)
	time.Sleep(time.Duration(w.rng.Int64N(int64(200 * time.Millisecond)))) // somewhere in the handshake
	if w.rng.IntN(2) == 0 {
		_ = l.raw.SetLinger(0) // the close sees what is wrong
	}
}

// lurks sends no whole head, and waits to be turned away, or leaves.
func (w *customer) lurks() {
	s := w.newSpec(both)
	l, err := w.dial()
	if err != nil {
		return // the tunnels report what is wrong with dialling
	}
	defer closeQuietly(l.raw)
	head := connectHead(s, usual, password)
	if _, err := io.WriteString(l.conn, head[:w.rng.IntN(len(head)-1)]); err != nil {
		return
	}
	if w.rng.IntN(2) == 0 {
		_, _ = io.Copy(io.Discard, l.r) // 408, or nothing
	}
}

// atTheCap opens a tunnel of the account that has too many customers, asking on the same connection until it is let in.
func (w *customer) atTheCap() {
	s := w.newSpec(both)
	r := begin(s, capped)
	defer w.tell(r)
	l, err := w.dial()
	if err != nil {
		r.trouble(err)
		return
	}
	defer closeQuietly(l.raw)
	for until := time.Now().Add(tunnelLimit / 2); time.Now().Before(until); {
		if _, err := io.WriteString(l.conn, connectHead(s, capped, password)); err != nil {
			r.trouble(err)
			return
		}
		var closes bool
		if r.Status, closes, err = l.reply(); err != nil {
			r.trouble(err)
			return
		}
		if r.Status != http.StatusTooManyRequests || closes {
			break
		}
		r.Cap++
		time.Sleep(time.Duration(w.rng.Int64N(int64(100 * time.Millisecond)))) // as Retry-After would have it, but sooner
	}
	if r.Status != http.StatusOK {
		return
	}
	if n := w.open.Add(1); n > connCap {
		r.Bad = fmt.Sprintf("%d tunnels are open under a cap of %d", n, connCap)
	}
	c := &carrier{conn: l.conn, raw: l.raw, in: l.r, rng: w.rng, out: w.streams.of(s.ID, upward), want: w.streams.of(s.ID, downward)}
	time.Sleep(time.Duration(w.rng.Int64N(int64(100 * time.Millisecond)))) // holding on to it
	w.open.Add(-1)                                                         // before the relay can know of an end, so never too many by our own count
	w.use(c, s, r)
}

// plain sends a few requests on one connection.
func (w *customer) plain() {
	l, err := w.dial()
	if err != nil {
		return // the tunnels report what is wrong with dialling
	}
	defer closeQuietly(l.raw)
	for range 1 + w.rng.IntN(4) {
		m := []mode{get, get, post, abandoned}[w.rng.IntN(4)]
		s := w.newSpec(m)
		if m != post {
			s.Up = 0
		}
		r := begin(s, usual)
		again := w.request(l, s, r)
		w.tell(r)
		if !again {
			return
		}
	}
	if w.rng.IntN(2) == 0 { // and then a tunnel on the same connection
		s := w.newSpec([]mode{both, upFirst, downFirst, clientReset, vendorReset, upgrade}[w.rng.IntN(6)])
		r := begin(s, usual)
		w.tunnelOn(l, s, r)
		w.tell(r)
	}
}

// request sends one plain request and reads its answer; true if the connection goes on.
func (w *customer) request(l *line, s spec, r *report) bool {
	body := &streamBody{stream: w.streams.of(s.ID, upward), left: s.Up, told: &r.Sent}
	var framing string
	switch {
	case s.Up > 0 && w.rng.IntN(2) == 0:
		framing = "Transfer-Encoding: chunked\r\n"
	case s.Mode == post:
		framing = fmt.Sprintf("Content-Length: %d\r\n", s.Up)
	}
	method := strings.ToUpper(string(get))
	if s.Mode == post {
		method = strings.ToUpper(string(post))
	}
	_, err := fmt.Fprintf(l.conn, "%s http://%s/ HTTP/1.1\r\nHost: %s\r\nProxy-Authorization: %s\r\nX-Forwarded-For: 192.0.2.1\r\n%s\r\n",
		method, s.host(), s.host(), authorization(s.username(usual), password), framing)
	if err == nil {
		err = writeBody(l.conn, body, strings.HasPrefix(framing, "T"))
	}
	if err != nil {
		r.trouble(err)
		return false
	}
	response, err := http.ReadResponse(l.r, nil)
	if err != nil {
		r.trouble(err)
		return false
	}
	defer closeQuietly(response.Body)
	if r.Status = response.StatusCode; r.Status != http.StatusOK {
		n, err := io.Copy(io.Discard, response.Body)
		r.trouble(err)
		return n < 4<<10 && err == nil && !response.Close
	}
	want := w.streams.of(s.ID, downward)
	from := io.Reader(response.Body)
	if s.Mode == abandoned {
		from = io.LimitReader(from, w.rng.Int64N(s.Down+1))
	}
	_, err = io.Copy(&want, from)
	r.trouble(err)
	r.Got = want.at
	if s.Mode == abandoned {
		_ = l.raw.SetLinger(0) // the close sees what is wrong
		return false
	}
	return err == nil && !response.Close
}

// writeBody writes a request's body, in chunks of one piece each if chunked.
func writeBody(to io.Writer, body *streamBody, chunked bool) error {
	if !chunked {
		_, err := io.Copy(to, body)
		return err
	}
	buffer := make([]byte, 9000)
	for body.left > 0 {
		n, _ := body.Read(buffer) // it has bytes, and no errors
		if _, err := fmt.Fprintf(to, "%x\r\n%s\r\n", n, buffer[:n]); err != nil {
			return err
		}
	}
	_, err := io.WriteString(to, "0\r\n\r\n")
	return err
}
