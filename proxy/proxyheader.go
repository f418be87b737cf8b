package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"

	"github.com/pires/go-proxyproto"
)

const (
	// proxyHeaderBuffer holds a PROXY header: 107 bytes of version 1, or version 2
	// with the TLVs that balancers send.
	proxyHeaderBuffer = 1 << 10
	maxProxyLine      = 107 // of a version 1 header, in bytes
	proxyFixed        = 16  // bytes of a version 2 header before its addresses
)

// errNoProxyHeader is that a balancer's connection begins with something else.
var errNoProxyHeader = errors.New("proxy: no PROXY header")

// proxySize returns how long the PROXY header is that b begins with: 0 while more is
// needed to tell or the header is not complete. The error is final.
func proxySize(b []byte) (int, error) {
	if n := min(len(b), len(proxyproto.SIGV1)); bytes.Equal(b[:n], proxyproto.SIGV1[:n]) {
		switch end := bytes.IndexByte(b[:min(len(b), maxProxyLine)], '\n'); {
		case end >= 0:
			return end + 1, nil
		case len(b) >= maxProxyLine:
			return 0, errNoProxyHeader
		}
		return 0, nil
	}
	if n := min(len(b), len(proxyproto.SIGV2)); !bytes.Equal(b[:n], proxyproto.SIGV2[:n]) {
		return 0, errNoProxyHeader
	}
	if len(b) < proxyFixed {
		return 0, nil
	}
	size := binary.BigEndian.Uint16(b[proxyFixed-2:])
	switch {
	case size > proxyproto.MaxV2HeaderSize:
		return 0, errNoProxyHeader
	case len(b) < proxyFixed+int(size):
		return 0, nil
	}
	return proxyFixed + int(size), nil
}

// proxyReader reads a PROXY header from memory.
type proxyReader struct {
	bytes    bytes.Reader
	buffered *bufio.Reader
}

var proxyReaders = sync.Pool{New: func() any {
	return &proxyReader{buffered: bufio.NewReaderSize(nil, proxyHeaderBuffer)}
}}

// parseProxyHeader reads the PROXY header, version 1 or 2, at the start of b; n is its
// length, 0 while it is incomplete. The source is invalid for LOCAL and UNKNOWN, a
// balancer's own checks. An error is final: the connection is not served.
func parseProxyHeader(b []byte) (source netip.AddrPort, n int, err error) {
	if n, err = proxySize(b); n == 0 || err != nil {
		return netip.AddrPort{}, 0, err
	}
	r := proxyReaders.Get().(*proxyReader)
	defer proxyReaders.Put(r)
	r.bytes.Reset(b[:n])
	r.buffered.Reset(&r.bytes)
	header, err := proxyproto.Read(r.buffered)
	r.bytes.Reset(nil)
	if err != nil {
		return netip.AddrPort{}, 0, err
	}
	return proxySource(header), n, nil
}

// readProxyHeader waits for a PROXY header. The source is as parseProxyHeader's.
func readProxyHeader(r *bufio.Reader) (netip.AddrPort, error) {
	if err := bufferLine(r); err != nil {
		return netip.AddrPort{}, err
	}
	header, err := proxyproto.Read(r)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return proxySource(header), nil
}

// bufferLine waits for the whole line of a version 1 header: the library refuses one
// that comes in two packets. Other beginnings are left to the library.
func bufferLine(r *bufio.Reader) error {
	for n := 1; n <= maxProxyLine; n = r.Buffered() + 1 {
		if _, err := r.Peek(n); err != nil {
			return err
		}
		b, err := r.Peek(r.Buffered())
		if err != nil || b[0] != 'P' || bytes.IndexByte(b, '\n') >= 0 {
			return err
		}
	}
	return nil
}

// proxySource is the address that the header names, invalid if there is none to trust.
func proxySource(h *proxyproto.Header) netip.AddrPort {
	source, _, ok := h.TCPAddrs()
	if !ok || !h.Command.IsProxy() {
		return netip.AddrPort{}
	}
	return plainAddr(source.AddrPort())
}

// plainAddr is ap with IPv4 as IPv4 and without a zone.
func plainAddr(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
