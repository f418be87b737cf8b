package integration

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// TestHookAnswers lets the panel decide who comes in, and counts how often it is asked.
func TestHookAnswers(t *testing.T) {
	t.Parallel()
	p := startPanel(t)
	p.says("alice", `{"name":"alice","max_conns":2}`)
	p.says("off", `{"disabled":true}`)
	p.says("gone", `{"expires":"2020-01-01T00:00:00Z"}`)
	p.says("elsewhere", `{"allow_from":["192.0.2.0/24"]}`)
	relay := startHooked(t, p, lab.Env{"AUTH_TOKEN": panelToken})
	for _, tc := range []struct {
		name, password string
		status         int
	}{
		{"alice", "alice-password", http.StatusOK},
		{"alice", "wrong", http.StatusProxyAuthRequired},
		{"nobody", "nobody-password", http.StatusProxyAuthRequired},
		{"off", "off-password", http.StatusForbidden},
		{"gone", "gone-password", http.StatusForbidden},
		{"elsewhere", "elsewhere-password", http.StatusForbidden},
	} {
		for range 3 {
			if got := ask(t, relay.Addr, tc.name, tc.password); got != tc.status {
				t.Errorf("%s:%s: status %d, want %d", tc.name, tc.password, got, tc.status)
			}
		}
		if n := p.times(tc.name, tc.password); n != 1 {
			t.Errorf("the panel was asked %d times for %s:%s", n, tc.name, tc.password)
		}
	}
	p.mu.Lock()
	last, bearer := p.last, p.bearer
	p.mu.Unlock()
	if last["client"] != "127.0.0.1" || last["listener"] != relay.Addr || bearer != "Bearer "+panelToken {
		t.Errorf("question %v with %q", last, bearer)
	}
	lab.Wait(t, 10*time.Second, "the tunnels to end", func() bool { return relay.Tunnels(t) == 0 })
	for range 2 {
		openMover(t, relay.Addr, "alice", "alice-password")
	}
	if got := ask(t, relay.Addr, "alice", "alice-password"); got != http.StatusTooManyRequests {
		t.Errorf("beyond the answer's cap: %d", got)
	}
}

// TestHookChangesOpenTunnels waits for the answers after the first: each acts on what is open.
func TestHookChangesOpenTunnels(t *testing.T) {
	t.Parallel()
	p := startPanel(t)
	const within = 5 * time.Second // of the next answer, which is a second away
	relay := startHooked(t, p, lab.Env{"AUTH_TTL": "1s", "AUTH_NEGATIVE_TTL": "1s"})
	for name, end := range map[string]string{"disabled": `{"disabled":true}`, "expired": `{"expires":"2020-01-01T00:00:00Z"}`, "refused": "", "moved": `{"allow_from":["192.0.2.0/24"]}`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p.says(name, `{}`)
			m := openMover(t, relay.Addr, name, name+"-password")
			m.mustMove(t, 16, 16)
			asked := p.times(name, name+"-password")
			lab.Wait(t, within, "the panel to be asked again", func() bool { return p.times(name, name+"-password") > asked+1 })
			m.mustMove(t, 16, 16) // the same answer changes nothing
			p.says(name, end)
			t.Logf("cut after %v", m.waitCut(t, within))
			want := http.StatusForbidden
			if end == "" {
				want = http.StatusProxyAuthRequired
			}
			if got := ask(t, relay.Addr, name, name+"-password"); got != want {
				t.Errorf("status %d, want %d", got, want)
			}
		})
	}
	t.Run("slower", func(t *testing.T) {
		t.Parallel()
		checkSlower(t, p, relay, within)
	})
}

// checkSlower lowers the cap and the rate of a customer with an open tunnel.
func checkSlower(t *testing.T, p *panel, relay *lab.Relay, within time.Duration) {
	t.Helper()
	p.says("slower", `{}`)
	m := openMover(t, relay.Addr, "slower", "slower-password")
	m.mustMove(t, 16, 1_000_000)
	p.says("slower", `{"bandwidth":"200KB","max_conns":1}`)
	lab.Wait(t, within, "the lower cap", func() bool {
		return ask(t, relay.Addr, "slower", "slower-password") == http.StatusTooManyRequests
	})
	lab.Wait(t, within, "the lower rate", func() bool {
		start := time.Now()
		m.mustMove(t, 16, 400_000)
		return time.Since(start) > time.Second
	})
	start := time.Now()
	m.mustMove(t, 16, 800_000) // four seconds' worth, of which a burst may go ahead
	if took := time.Since(start); took < 2*time.Second {
		t.Errorf("800 KB at 200 KB/s took %v", took)
	}
}

// TestHookTrouble finds known customers served, and only them, by a relay whose hook is slow, makes no sense, or is not there.
func TestHookTrouble(t *testing.T) {
	t.Parallel()
	const ttl = time.Second
	text := func(kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			writeAll(w, body)
		}
	}
	for name, begin := range map[string]func(p *panel){
		"slow":        func(p *panel) { p.hold(true) },
		"down":        func(p *panel) { p.CloseClientConnections(); p.Close() },
		"no account":  func(p *panel) { p.answersWith(text("application/json", `{"max_conns":"plenty"}`)) },
		"unknown key": func(p *panel) { p.answersWith(text("application/json", `{"maxconns":3}`)) },
		"HTML":        func(p *panel) { p.answersWith(text("text/html", `<h1>It works</h1>`)) },
		"500": func(p *panel) {
			p.answersWith(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
		},
		"endless": func(p *panel) {
			p.answersWith(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.Copy(w, io.LimitReader(zeros{}, 64<<20)) // the relay leaves
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startPanel(t)
			p.says("known", `{}`)
			relay := startHooked(t, p, lab.Env{"AUTH_TTL": ttl.String(), "AUTH_TIMEOUT": "1s"})
			live := openMover(t, relay.Addr, "known", "known-password")
			begin(p)
			for i := range 3 {
				if got := ask(t, relay.Addr, "new"+strconv.Itoa(i), "x"); got != http.StatusServiceUnavailable {
					t.Errorf("an unknown customer: status %d, want 503", got)
				}
			}
			lab.Wait(t, 10*time.Second, "the warning", func() bool {
				return strings.Contains(string(relay.Stderr.Bytes()), "the hook cannot be used; known accounts live on")
			})
			var waiting sync.WaitGroup
			defer waiting.Wait()
			for i := range 8 {
				c := mustDial(t, relay.Addr)
				waiting.Go(func() { _, _ = c.connect("shop.target.example:443", "late"+strconv.Itoa(i), "x") }) // in the way is all it is to be
			}
			for start := time.Now(); time.Since(start) < 3*ttl; {
				if got := ask(t, relay.Addr, "known", "known-password"); got != http.StatusOK {
					t.Fatalf("a known customer after %v: status %d", time.Since(start), got)
				}
			}
			live.mustMove(t, 16, 16)
			if n := strings.Count(string(relay.Stderr.Bytes()), "the hook cannot be used"); n != 1 {
				t.Errorf("%d warnings within a minute", n)
			}
		})
	}
}

// TestHookStaleEnds refuses even known customers once AUTH_STALE is over.
func TestHookStaleEnds(t *testing.T) {
	t.Parallel()
	p := startPanel(t)
	p.says("known", `{}`)
	relay := startHooked(t, p, lab.Env{"AUTH_TTL": "1s", "AUTH_STALE": "2s", "AUTH_TIMEOUT": "1s"})
	live := openMover(t, relay.Addr, "known", "known-password")
	p.hold(true)
	lab.Wait(t, 15*time.Second, "the known customer to be refused", func() bool {
		return ask(t, relay.Addr, "known", "known-password") == http.StatusServiceUnavailable
	})
	live.mustMove(t, 16, 16) // what is open stays so
	p.hold(false)
	lab.Wait(t, 15*time.Second, "him to be let in again", func() bool {
		return ask(t, relay.Addr, "known", "known-password") == http.StatusOK
	})
}

// TestHookHeaders speaks to a panel of the older kind.
func TestHookHeaders(t *testing.T) {
	t.Parallel()
	p := startPanel(t)
	p.style = "headers"
	p.says("alice", "userconns: 1\nuserrate: 200000\n")
	p.says("elsewhere", "upstream: http://other.example:8080\n")
	relay := startHooked(t, p, lab.Env{"AUTH_STYLE": "headers"})
	for name, want := range map[string]int{"alice": http.StatusOK, "nobody": http.StatusProxyAuthRequired, "elsewhere": http.StatusServiceUnavailable} {
		if got := ask(t, relay.Addr, name, name+"-password"); got != want {
			t.Errorf("%s: status %d, want %d", name, got, want)
		}
	}
	p.mu.Lock()
	client := p.last["client"]
	p.mu.Unlock()
	if client != "127.0.0.1:0" {
		t.Errorf("client_addr %q", client)
	}
	lab.Wait(t, 10*time.Second, "the tunnel to end", func() bool { return relay.Tunnels(t) == 0 })
	m := openMover(t, relay.Addr, "alice", "alice-password")
	if got := ask(t, relay.Addr, "alice", "alice-password"); got != http.StatusTooManyRequests {
		t.Errorf("beyond userconns: %d", got)
	}
	start := time.Now()
	m.mustMove(t, 16, 800_000)
	if took := time.Since(start); took < 2*time.Second {
		t.Errorf("800 KB at 200 KB/s took %v", took)
	}
}

// TestHookMutualTLS asks a panel that lets only the relay's certificate in, and whose own the relay knows.
func TestHookMutualTLS(t *testing.T) {
	t.Parallel()
	server, _, serverCA := newCertificate(t, "127.0.0.1")
	client, _, _ := newCertificate(t, "relay.example")
	_, _, otherCA := newCertificate(t, "127.0.0.1")
	p := newPanel(t)
	p.TLS = &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12,
		VerifyConnection: func(state tls.ConnectionState) error {
			if !bytes.Equal(state.PeerCertificates[0].Raw, client.Certificate[0]) {
				return errors.New("not the relay's certificate")
			}
			return nil
		}}
	p.StartTLS()
	p.says("alice", `{}`)
	dir := t.TempDir()
	key, err := x509.MarshalPKCS8PrivateKey(client.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	ours := lab.Env{
		"AUTH_CA_FILE":   writeFile(t, dir, "ca.pem", string(serverCA)),
		"AUTH_CERT_FILE": writeFile(t, dir, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: client.Certificate[0]}))),
		"AUTH_KEY_FILE":  writeFile(t, dir, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))),
	}
	relay := startHooked(t, p, ours)
	if got := ask(t, relay.Addr, "alice", "alice-password"); got != http.StatusOK {
		t.Errorf("with the certificate: %d", got)
	}
	p.mu.Lock()
	seen := len(p.seen)
	p.mu.Unlock()
	if seen == 0 {
		t.Error("the panel saw no certificate")
	}
	for name, env := range map[string]lab.Env{
		"no certificate":    {"AUTH_CA_FILE": ours["AUTH_CA_FILE"]},
		"another authority": {"AUTH_CA_FILE": writeFile(t, dir, "other.pem", string(otherCA)), "AUTH_CERT_FILE": ours["AUTH_CERT_FILE"], "AUTH_KEY_FILE": ours["AUTH_KEY_FILE"]},
	} {
		if got := ask(t, startHooked(t, p, env).Addr, "alice", "alice-password"); got != http.StatusServiceUnavailable {
			t.Errorf("%s: %d", name, got)
		}
	}
}

// TestHookURLIsASecret puts credentials into the URL: the panel gets them, nobody else does.
func TestHookURLIsASecret(t *testing.T) {
	t.Parallel()
	p := startPanel(t)
	p.says("alice", `{}`)
	u, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("relay", "url-password")
	relay := startHooked(t, p, lab.Env{"AUTH_URL": u.String()})
	if got := ask(t, relay.Addr, "alice", "alice-password"); got != http.StatusOK {
		t.Errorf("status %d", got)
	}
	p.mu.Lock()
	bearer := p.bearer
	p.mu.Unlock()
	if bearer != "Basic "+basic("relay", "url-password") {
		t.Errorf("the panel got %q", bearer)
	}
	for name, address := range map[string]string{"scheme": "ftp://a:url-password@h/x", "host": "http://a:url-password@/x", "port": "http://a:url-password@h:99999/", "bad": "http://a:url-password@[::1/"} {
		_, stderr, code := runRelay(t, lab.Env{"UPSTREAM": "http://127.0.0.1:1", "AUTH": "hook", "AUTH_URL": address}, "", "serve")
		if code != 2 || !strings.HasPrefix(stderr, "MASKRELAY_AUTH_URL") || strings.Contains(stderr, "url-password") {
			t.Errorf("%s: exit code %d: %s", name, code, stderr)
		}
	}
}
