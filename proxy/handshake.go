package proxy

import (
	"crypto/tls"
	"errors"
	"net"
	"time"
)

// maxHandshakeBytes bounds what a customer may send before his TLS handshake is over. Browsers send 2 KB, and crypto/tls
// would keep 64.
const maxHandshakeBytes = 16 << 10

var errHandshakeTooLong = errors.New("proxy: TLS handshake too long")

// handshakeConn is what a TLS handshake is spoken on: it bounds what is read, and has its connection's turn of the
// server's handshakes while there is something to compute. Once the handshake is over it only passes on.
type handshakeConn struct {
	net.Conn
	front    *frontConn
	deadline time.Time
	left     int  // bytes that may still come
	turn     bool // has one
	over     bool // the handshake
}

// shakeHands does the server's part of a TLS handshake on c's stream.
func (c *frontConn) shakeHands(deadline time.Time) (*tls.Conn, error) {
	h := &handshakeConn{Conn: c.stream, front: c, deadline: deadline, left: maxHandshakeBytes}
	defer h.giveTurn()
	// net/http has set the deadline for what is read.
	if err := c.raw.SetWriteDeadline(deadline); err != nil {
		return nil, err
	}
	secured := tls.Server(h, c.server.tls)
	if err := secured.Handshake(); err != nil {
		if errors.Is(err, errNoTurn) {
			c.server.noTurn(c)
		}
		return nil, err
	}
	h.over = true
	h.giveTurn()
	h.front = nil // its memory is not kept for a tunnel's life
	return secured, c.raw.SetWriteDeadline(time.Time{})
}

// Unwrap returns the connection underneath.
func (h *handshakeConn) Unwrap() net.Conn { return h.Conn }

// Read implements net.Conn.
func (h *handshakeConn) Read(b []byte) (int, error) {
	if h.over {
		return h.Conn.Read(b)
	}
	h.giveTurn()
	if h.left == 0 {
		return 0, errHandshakeTooLong
	}
	n, err := h.Conn.Read(b[:min(len(b), h.left)])
	h.left -= n
	return n, err
}

// Write implements net.Conn. crypto/tls writes when all is computed, or nothing is to be.
func (h *handshakeConn) Write(b []byte) (int, error) {
	if !h.over {
		h.giveTurn()
	}
	return h.Conn.Write(b)
}

// takeTurn is called by crypto/tls when a ClientHello has come and before it signs anything.
func takeTurn(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	h, ok := hello.Conn.(*handshakeConn)
	if !ok || h.turn {
		return nil, nil
	}
	s := h.front.server
	err := s.handshakes.take(&h.front.stranger, s.originOf(h.front.client.Addr()), h.deadline)
	h.turn = err == nil
	return nil, err
}

func (h *handshakeConn) giveTurn() {
	if h.turn {
		h.turn = false
		h.front.server.handshakes.give()
	}
}
