package integration

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// headerV2 is a PROXY header of version 2: command 0 is LOCAL and 1 is PROXY, for TCP over IPv4, with more bytes behind the addresses.
func headerV2(command byte, more string) string {
	addresses := string([]byte{100, 64, 1, 1, 10, 4, 5, 6, 0x10, 0x00, 0x1f, 0x90}) + more
	b := []byte("\r\n\r\n\x00\r\nQUIT\n")
	b = append(b, 0x20|command, 0x11)
	b = binary.BigEndian.AppendUint16(b, uint16(len(addresses)))
	return string(b) + addresses
}

// TestProxyHeaderFlood has a load balancer's address send PROXY headers as fast as it goes, good ones and others.
func TestProxyHeaderFlood(t *testing.T) {
	tlv := "\xea\x00\x01x"
	s := startScene(t, fromBalancer, calmHeader)
	for name, texts := range map[string][]string{
		"valid": {
			"PROXY TCP4 100.64.1.1 10.4.5.6 1000 8080\r\n", "PROXY UNKNOWN\r\n", headerV2(1, ""), headerV2(0, ""), headerV2(0, ""), headerV2(1, strings.Repeat(tlv, 120)),
		},
		"others": {
			"PROXY " + strings.Repeat("x", 200), "\r\n\r\n\x00\r\nQUIT\nxxxxxxxxxxxx", strings.Repeat("\x00", 4096), "GET / HTTP/1.1\r\n\r\n",
			headerV2(1, strings.Repeat("\x00", 65_000)), headerV2(0, strings.Repeat(tlv, 15_000)), headerV2(1, strings.Repeat(tlv, 5000)),
			"\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x04\x00",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.endure(t, func(m *mob) {
				m.work(mobWorkers, func(w int) {
					addr := s.relay.Addr
					if w%4 == 3 {
						addr = s.secure
					}
					c, err := m.say(addr, "127.0.0.1", texts[int(m.opened.Load())%len(texts)])
					if err != nil {
						return
					}
					defer m.leave(c)
					_ = c.SetReadDeadline(time.Now().Add(2 * time.Millisecond)) // most are waited for: the next
					_, _ = c.Read(make([]byte, 64))
				})
				lab.Wait(t, mobLimit, "the flood", func() bool { return m.opened.Load() > 100 })
			})
		})
	}
}
