package upstreamtest

import (
	"bufio"
	"crypto/sha1" // #nosec: RFC 6455 §4.2.2 wants it
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
)

// maxFrame is the largest websocket payload that is echoed, in bytes.
const maxFrame = 1 << 20

// websocketGUID is the constant of RFC 6455 §1.3.
const websocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// Opcodes of RFC 6455 §5.2 that the echo treats specially.
const (
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xa
)

var errFrame = errors.New("upstreamtest: websocket frame refused")

// AcceptKey returns the Sec-WebSocket-Accept for a Sec-WebSocket-Key.
func AcceptKey(key string) string {
	sum := sha1.Sum([]byte(key + websocketGUID)) // #nosec: see the import
	return base64.StdEncoding.EncodeToString(sum[:])
}

// serveWebsocket upgrades, and echoes frames, or with ?raw=1 bytes, until the peer ends.
func serveWebsocket(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Sec-WebSocket-Key")
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || key == "" ||
		!strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade") {
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "a websocket handshake is needed", http.StatusUpgradeRequired)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer func() { _ = conn.Close() }() // the echo is over
	c, ok := conn.(*recorded)
	if !ok {
		return
	}
	_, err = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: "+AcceptKey(key)+"\r\n\r\n")
	if err != nil {
		return
	}
	if r.URL.Query().Get("raw") == "" {
		echoFrames(c, rw.Reader)
		return
	}
	if copyAsItComes(c, rw.Reader) == nil && c.CloseWrite() == nil {
		drain(c)
	}
}

// echoFrames echoes frames as they are until a close frame or an error.
func echoFrames(w io.Writer, br *bufio.Reader) {
	for {
		first, payload, err := readFrame(br)
		if err != nil {
			return
		}
		switch first & 0x0f {
		case opPong:
			continue
		case opPing:
			first = first&0xf0 | opPong
		}
		if _, err := w.Write(frame(first, payload)); err != nil || first&0x0f == opClose {
			return
		}
	}
}

// readFrame reads a client's frame, unmasked (RFC 6455 §5.2, §5.3).
func readFrame(br *bufio.Reader) (first byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(br, head[:]); err != nil {
		return 0, nil, err
	}
	if head[1]&0x80 == 0 {
		return 0, nil, errFrame // a client has to mask
	}
	size := uint64(head[1] & 0x7f)
	if ext := map[uint64]int{126: 2, 127: 8}[size]; ext > 0 {
		var long [8]byte
		if _, err := io.ReadFull(br, long[8-ext:]); err != nil {
			return 0, nil, err
		}
		size = binary.BigEndian.Uint64(long[:])
	}
	if size > maxFrame {
		return 0, nil, errFrame
	}
	buf := make([]byte, 4+size) // mask, payload
	if _, err := io.ReadFull(br, buf); err != nil {
		return 0, nil, err
	}
	mask, payload := buf[:4], buf[4:]
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return head[0], payload, nil
}

// frame builds a server's frame, which is never masked.
func frame(first byte, payload []byte) []byte {
	n := len(payload)
	var b []byte
	switch {
	case n < 126:
		b = []byte{first, byte(n)}
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(n))
	default:
		b = binary.BigEndian.AppendUint64([]byte{first, 127}, uint64(n))
	}
	return append(b, payload...)
}
