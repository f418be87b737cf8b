package upstreamtest

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestSOCKS speaks as a client does, byte by byte as RFC 1928 and RFC 1929 have it.
func TestSOCKS(t *testing.T) {
	t.Parallel()
	echo := startEcho(t)
	_, port, _ := net.SplitHostPort(echo.Addr())
	const greeting, login = "\x05\x01\x02", "\x01\x01u\x01p"
	portBytes := func() string {
		a := echo.st.ln.Addr().(*net.TCPAddr)
		return string([]byte{byte(a.Port >> 8), byte(a.Port)})
	}()
	connect := "\x05\x01\x00\x03\x0btarget.test" + portBytes
	established := string(socksEstablished)
	tests := map[string]struct {
		b          SOCKSBehaviour
		say        []string // each is answered by what follows it
		hear       []string
		end        bool // the gateway closes
		wantTarget string
	}{
		"honest": {say: []string{greeting, login, connect, "ping"}, hear: []string{"\x05\x02", "\x01\x00", established, "ping"},
			wantTarget: "target.test:" + port},
		"no method in common": {say: []string{"\x05\x01\x00"}, hear: []string{"\x05\xff"}, end: true},
		"wrong login":         {say: []string{greeting, "\x01\x01u\x01q"}, hear: []string{"\x05\x02", "\x01\x01"}, end: true},
		"refuses": {b: SOCKSBehaviour{Rep: 2}, say: []string{greeting, login, connect},
			hear: []string{"\x05\x02", "\x01\x00", "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"}, end: true, wantTarget: "target.test:" + port},
		"IPv4": {say: []string{greeting, login, "\x05\x01\x00\x01\x7f\x00\x00\x01" + portBytes}, hear: []string{"\x05\x02", "\x01\x00", established},
			wantTarget: "127.0.0.1:" + port},
		"early": {b: SOCKSBehaviour{Early: []byte("220 ready")}, say: []string{greeting, login, connect},
			hear: []string{"\x05\x02", "\x01\x00", established + "220 ready"}, wantTarget: "target.test:" + port},
		"its own words": {b: SOCKSBehaviour{Say: map[SOCKSStep][]byte{SOCKSMethod: []byte("\x04\x02")}, Chunk: 1, Delay: time.Microsecond},
			say: []string{greeting, login}, hear: []string{"\x04\x02", "\x01\x00"}},
		"ends before the login's answer": {b: SOCKSBehaviour{Until: SOCKSLogin, Then: Close}, say: []string{greeting, login}, hear: []string{"\x05\x02", ""}, end: true},
		"version 4":                      {say: []string{"\x04\x01"}, hear: []string{""}, end: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := StartSOCKS(SOCKSConfig{Username: "u", Password: "p", Behaviour: test.b,
				Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
					var d net.Dialer
					return d.DialContext(ctx, network, strings.Replace(addr, "target.test", "127.0.0.1", 1))
				}})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			c := dial(t, s.Addr())
			for i, message := range test.say {
				c.send(message)
				answer := make([]byte, len(test.hear[i]))
				if _, err := io.ReadFull(c, answer); err != nil || string(answer) != test.hear[i] {
					t.Fatalf("%q was answered with %q, %v; want %q", message, answer, err, test.hear[i])
				}
			}
			if test.end {
				if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
					t.Error("the connection goes on")
				}
			}
			if test.wantTarget != "" {
				if r := s.Requests(); len(r) != 1 || r[0].Target != test.wantTarget || r[0].Username != "u" || r[0].Password != "p" {
					t.Errorf("asked for %+v", r)
				}
			}
			if got, want := string(s.Received()), strings.Join(test.say, ""); got != want {
				t.Errorf("received %q, want %q", got, want)
			}
		})
	}
}
