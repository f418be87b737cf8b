package upstreamtest

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

// connectLine is a CONNECT without credentials.
func connectLine(addr string) string {
	return "CONNECT " + addr + " HTTP/1.1\r\nHost: " + addr + "\r\n\r\n"
}

func TestConnectIsLoudAndRecorded(t *testing.T) {
	t.Parallel()
	echo := startEcho(t)
	v := startVendor(t, VendorConfig{Brand: "MegaProxy"})
	c := dial(t, v.Addr())
	request := connectLine(echo.Addr())
	c.send(request + "early")
	head := c.head()
	for _, want := range []string{"HTTP/1.1 200 MegaProxy", "X-MegaProxy-Session:", "Via: 1.1 gw-3.megaproxy.example", "Proxy-Agent: MegaProxy"} {
		if !strings.Contains(head, want) {
			t.Errorf("no %q in %q", want, head)
		}
	}
	c.send(" late")
	c.fin()
	if got := c.rest(); got != "early late" {
		t.Errorf("tunnel gave %q", got)
	}
	record := v.Conns()[0]
	awaitClosed(t, record)
	if got := string(v.Received()); got != request+"early late" {
		t.Errorf("vendor received %q", got)
	}
	if got := string(echo.Received()); got != "early late" {
		t.Errorf("target received %q", got)
	}
	reqs := record.Requests()
	if len(reqs) != 1 || string(reqs[0].Raw) != request || reqs[0].Method != "CONNECT" || reqs[0].Target != echo.Addr() {
		t.Errorf("requests %+v", reqs)
	}
	if record.End() != EndEOF || record.Remote() != c.LocalAddr().String() {
		t.Errorf("record ends %s, from %s", record.End(), record.Remote())
	}
	if v.Accepted() != 1 || v.Open() != 0 || v.Dropped() != 0 {
		t.Errorf("accepted %d, open %d, dropped %d", v.Accepted(), v.Open(), v.Dropped())
	}
}

func TestServerFirstBytesComeThrough(t *testing.T) {
	t.Parallel()
	banner, err := StartBanner([]byte("220 ready\r\n"))
	banner = closing(t, banner, err)
	v := startVendor(t, VendorConfig{})
	c := dial(t, v.Addr())
	c.send(connectLine(banner.Addr()))
	c.head()
	if got := c.exactly(11); got != "220 ready\r\n" {
		t.Errorf("got %q", got)
	}
}

func TestHalfCloseFromTheTargetKeepsTheOtherWayOpen(t *testing.T) {
	t.Parallel()
	source, err := StartSource(1 << 20)
	source = closing(t, source, err)
	v := startVendor(t, VendorConfig{})
	c := dial(t, v.Addr())
	c.send(connectLine(source.Addr()))
	c.head()
	sum, n, err := digest(c.br)
	if err != nil || n != 1<<20 || sum != PatternDigest(1<<20) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	c.send("after your FIN")
	c.fin()
	awaitClosed(t, source.Conns()[0])
	if got := string(source.Received()); got != "after your FIN" {
		t.Errorf("target received %q", got)
	}
}

func TestResetsArePassedOn(t *testing.T) {
	t.Parallel()
	t.Run("from the target", func(t *testing.T) {
		t.Parallel()
		reset, err := StartReset(4)
		reset = closing(t, reset, err)
		v := startVendor(t, VendorConfig{})
		c := dial(t, v.Addr())
		c.send(connectLine(reset.Addr()))
		c.head()
		c.send("ping")
		if !c.isReset() {
			t.Error("no reset")
		}
	})
	t.Run("from the client", func(t *testing.T) {
		t.Parallel()
		echo := startEcho(t)
		v := startVendor(t, VendorConfig{})
		c := dial(t, v.Addr())
		c.send(connectLine(echo.Addr()) + "x")
		c.head()
		c.exactly(1)
		if err := errors.Join(c.SetLinger(0), c.Close()); err != nil {
			t.Fatal(err)
		}
		for _, r := range []*ConnRecord{v.Conns()[0], echo.Conns()[0]} {
			awaitClosed(t, r)
			if r.End() != EndReset {
				t.Errorf("ended %s", r.End())
			}
		}
	})
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	echo := startEcho(t)
	v := startVendor(t, VendorConfig{Username: "customer-x", Password: "p:a@s%s w"})
	tests := []struct {
		name, line string
		status     int
	}{
		{"right", "Proxy-Authorization: Basic " + v.basic() + "\r\n", 200},
		{"lower-case scheme", "proxy-authorization: basic " + v.basic() + "\r\n", 200},
		{"none", "", 407},
		{"wrong", "Proxy-Authorization: Basic " + v.basic()[2:] + "\r\n", 407},
		{"other scheme", "Proxy-Authorization: Bearer " + v.basic() + "\r\n", 407},
		{"in the wrong field", "Authorization: Basic " + v.basic() + "\r\n", 407},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, v.Addr())
			c.send("CONNECT " + echo.Addr() + " HTTP/1.1\r\n" + tt.line + "\r\n")
			if tt.status == 200 {
				if head := splitHead([]byte(c.head())); head.status() != 200 {
					t.Errorf("got %q", head.first)
				}
				return
			}
			resp, body := c.response("CONNECT")
			if resp.StatusCode != tt.status {
				t.Fatalf("got %s", resp.Status)
			}
			if realm := resp.Header.Get("Proxy-Authenticate"); realm != `Basic realm="`+v.realm()+`"` {
				t.Errorf("challenge %q", realm)
			}
			if !strings.Contains(body, v.Brand()) || !strings.Contains(resp.Status, v.Brand()) {
				t.Error("the refusal is not loud")
			}
			// The connection takes a second try.
			c.send("CONNECT " + echo.Addr() + " HTTP/1.1\r\nProxy-Authorization: Basic " + v.basic() + "\r\n\r\n")
			if head := splitHead([]byte(c.head())); head.status() != 200 {
				t.Errorf("second try: %q", head.first)
			}
		})
	}
}

func TestURLCarriesCredentials(t *testing.T) {
	t.Parallel()
	const name, password = "user-x:y@z", `p:a@s%s/ w?#ü`
	v := startVendor(t, VendorConfig{Username: name, Password: password})
	u := must(url.Parse(v.URL()))(t)
	given, _ := u.User.Password()
	if u.Scheme != "http" || u.Host != v.Addr() || u.User.Username() != name || given != password {
		t.Errorf("%s became %q %q", v.URL(), u.User.Username(), given)
	}
	if plain := startVendor(t, VendorConfig{}); plain.URL() != "http://"+plain.Addr() {
		t.Errorf("without credentials: %s", plain.URL())
	}
}

func TestMarksNameEverything(t *testing.T) {
	t.Parallel()
	v := startVendor(t, VendorConfig{Brand: "MegaProxy", Username: "user-x", Password: "pass-y"})
	all := strings.Join(v.Marks(), "\n")
	for _, want := range []string{"MegaProxy", "megaproxy", "gw-3.megaproxy.example", v.realm(), v.Addr(), "user-x", "pass-y", v.basic()} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not among the marks", want)
		}
	}
	for _, m := range startVendor(t, VendorConfig{}).Marks() {
		if m == "" {
			t.Error("an empty mark matches everything")
		}
	}
}

func TestDialFailures(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		dial    func(context.Context, string, string) (net.Conn, error)
		request string
		status  int
	}{
		{"refused", func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") },
			connectLine("a.example.test:443"), 502},
		{"timeout", func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, connectLine("a.example.test:443"), 504},
		{"plain", func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") },
			"GET http://a.example.test/ HTTP/1.1\r\nHost: a.example.test\r\n\r\n", 502},
		{"origin form", nil, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"malformed", nil, "nonsense\r\n\r\n", 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := startVendor(t, VendorConfig{Dial: tt.dial, DialTimeout: 20 * time.Millisecond})
			c := dial(t, v.Addr())
			c.send(tt.request)
			if resp, body := c.response("CONNECT"); resp.StatusCode != tt.status || !showsMark(body, v.Marks()) {
				t.Errorf("got %s %q", resp.Status, body)
			}
		})
	}
}

func TestTLSGateway(t *testing.T) {
	t.Parallel()
	ca := must(NewCA())(t)
	cert := must(ca.Server("gate.example.test"))(t)
	echo := startEcho(t)
	v := startVendor(t, VendorConfig{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	if !strings.HasPrefix(v.URL(), "https://") {
		t.Errorf("URL %s", v.URL())
	}
	raw := dial(t, v.Addr())
	c := tls.Client(raw.TCPConn, &tls.Config{RootCAs: ca.Pool(), ServerName: "gate.example.test"})
	if _, err := io.WriteString(c, connectLine(echo.Addr())+"ping"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got := string(must(io.ReadAll(c))(t))
	if !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.HasSuffix(got, "\r\n\r\nping") {
		t.Errorf("got %q", got)
	}
	r := v.Conns()[0]
	awaitClosed(t, r)
	if r.ServerName() != "gate.example.test" || !strings.HasPrefix(string(r.Received()), "CONNECT ") {
		t.Errorf("asked for %q, received %q", r.ServerName(), r.Received())
	}
}

func TestSetBehaviourIsForLaterConnections(t *testing.T) {
	t.Parallel()
	v := startVendor(t, VendorConfig{Behaviour: Loud(503, "OLD")})
	before := dial(t, v.Addr())
	before.send(connectLine("a:1"))
	before.response("CONNECT") // its behaviour is chosen
	v.SetBehaviour(Loud(429, "NEW"))
	before.send(connectLine("a:1"))
	if resp, _ := before.response("CONNECT"); resp.StatusCode != 503 {
		t.Errorf("old connection: %s", resp.Status)
	}
	after := dial(t, v.Addr())
	after.send(connectLine("a:1"))
	if resp, _ := after.response("CONNECT"); resp.StatusCode != 429 {
		t.Errorf("new connection: %s", resp.Status)
	}
	v.SetBehaviour(nil)
	relay := dial(t, v.Addr())
	relay.send(connectLine(startEcho(t).Addr()))
	if head := splitHead([]byte(relay.head())); head.status() != 200 {
		t.Errorf("default behaviour: %q", head.first)
	}
}

func TestCloseCutsEverything(t *testing.T) {
	t.Parallel()
	echo := startEcho(t)
	v := must(StartVendor(VendorConfig{}))(t)
	idle, tunnel := dial(t, v.Addr()), dial(t, v.Addr())
	tunnel.send(connectLine(echo.Addr()) + "x")
	tunnel.head()
	tunnel.exactly(1)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*client{idle, tunnel} {
		if !c.isReset() {
			t.Error("a connection was not cut")
		}
	}
	if v.Open() != 0 {
		t.Errorf("%d connections open", v.Open())
	}
	awaitClosed(t, echo.Conns()[0])
	if err := v.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func TestVendorConfigIsChecked(t *testing.T) {
	t.Parallel()
	if _, err := StartVendor(VendorConfig{Brand: "two words"}); err == nil {
		t.Error("a brand that cannot be a header name was taken")
	}
	if _, err := StartVendor(VendorConfig{Addr: "127.0.0.1:99999"}); err == nil {
		t.Error("an impossible address was taken")
	}
}

func TestRecordLimit(t *testing.T) {
	t.Parallel()
	v := startVendor(t, VendorConfig{RecordLimit: 8, Behaviour: CloseBeforeReply()})
	c := dial(t, v.Addr())
	c.send("GET / HTTP/1.1\r\n\r\n")
	c.rest()
	if got := string(v.Received()); got != "GET / HT" || v.Dropped() != 10 {
		t.Errorf("kept %q, dropped %d", got, v.Dropped())
	}
}
