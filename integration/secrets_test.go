package integration

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// The secrets of TestNoSecretAtRest, each of its own kind. None is a word of anything else.
const (
	plantedVendor    = "qv1-vendor-pass%2Fword"
	plantedPassword  = "qv2-customers+password"
	plantedInFile    = "qv3-password-in-a-file"
	plantedWrong     = "qv4-wrong-password"
	plantedAdmin     = "qv5-admin-token"
	plantedSession   = "qv6-session-key-of-the-fleet"
	plantedRedis     = "qv7-password-of-redis"
	plantedWebhook   = "qv8-webhook-key"
	plantedHook      = "qv9-password-of-the-hook"
	plantedCookie    = "qv10-cookie-of-the-customer"
	plantedGuess     = "qv11-guess-of-a-token"
	plantedWritten   = "qv12-password-by-the-api"
	plantedInWebhook = "qv13-password-of-the-webhook"
)

// startParrot is a vendor that refuses all and says the login that it was sent, as it came and decoded, in every part of its answer.
func startParrot(t *testing.T) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { parrot(c) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close() // it is open
		serving.Wait()
	})
	return ln.Addr().String()
}

func parrot(c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second)) // it is open
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	sent := strings.TrimPrefix(r.Header.Get("Proxy-Authorization"), "Basic ")
	login, _ := base64.StdEncoding.DecodeString(sent) // whatever it is
	body := fmt.Sprintf("%s %s is not welcome", sent, login)
	_, _ = fmt.Fprintf(c, "HTTP/1.1 407 No %s\r\nProxy-Authenticate: Basic realm=\"%s\"\r\nX-Login: %s\r\nX-Sent: %s\r\nContent-Length: %d\r\n\r\n%s",
		login, login, login, sent, len(body), body)
}

// tell sends text and returns the first line of what comes back.
func tell(t *testing.T, addr, text string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second)) // it is open
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatalf("%q was answered by %q, %v", text, line, err)
	}
	return strings.TrimSpace(line)
}

// everyTraffic is what customers of all kinds send to a relay whose vendor refuses all; unknown is what becomes of a name that the relay does
// not know.
func everyTraffic(t *testing.T, addr, name, password string, unknown int) {
	t.Helper()
	basic := func(user, password string) string {
		return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + "\r\n"
	}
	const connect = "CONNECT target.example:443 HTTP/1.1\r\nHost: target.example:443\r\n"
	const get = "GET http://target.example/" + plantedCookie + "?p=" + plantedCookie + " HTTP/1.1\r\nHost: target.example\r\nCookie: " + plantedCookie +
		"\r\nAuthorization: Bearer " + plantedCookie + "\r\n"
	const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, tc := range []struct {
		status int
		text   string
	}{
		{502, connect + basic(name, password)},
		{502, get + basic(name, password)},
		{502, get + basic(name, password) + upgrade},
		{400, connect + basic(name+"-country-nowhere", password)},
		{400, get + basic(name+"-session-a;b", password)},
		{407, connect + basic(name, plantedWrong)},
		{unknown, connect + basic("nobody", plantedWrong)},
		{unknown, get + basic("nobody", plantedWrong)},
		{407, connect},
		{407, connect + "Proxy-Authorization: Digest username=\"a\", response=\"" + plantedWrong + "\"\r\n"},
		{407, connect + "Proxy-Authorization: Basic " + plantedWrong + "\r\n"},
		{400, "CONNECT " + plantedCookie + "@target.example:443 HTTP/1.1\r\nHost: target.example:443\r\n" + basic(name, password)},
	} {
		if line := tell(t, addr, tc.text+"\r\n"); !strings.Contains(line, fmt.Sprintf(" %d ", tc.status)) {
			t.Errorf("%.60q was answered by %q, want %d", tc.text, line, tc.status)
		}
	}
}

// Secrets of every kind, customers of every kind, a vendor that repeats the login, services that are down: nothing that the relay writes or shows holds
// one. The search itself is lab's, at each relay's end.
func TestNoSecretAtRest(t *testing.T) {
	t.Parallel()
	lab.Plant("qv1-vendor-pass/word", plantedWrong, plantedCookie, plantedGuess, plantedWritten, plantedPassword, plantedHook)
	upstream := "http://login:" + plantedVendor + "@" + startParrot(t)
	t.Run("accounts", func(t *testing.T) {
		env := lab.Env{
			"UPSTREAM": upstream, "ACCOUNTS": "alice:" + plantedPassword, "ACCOUNTS_FILE": writeFile(t, t.TempDir(), "a.yaml", "accounts:\n- {name: bob, password: "+plantedInFile+"}\n"),
			"ADMIN_TOKEN_FILE": writeFile(t, t.TempDir(), "token", plantedAdmin+"\n"), "SESSION_KEY": plantedSession, "REDIS_URL": "redis://user:" + plantedRedis + "@" + lab.FreeAddr(t),
			"WEBHOOK_URL": "http://me:" + plantedInWebhook + "@" + lab.FreeAddr(t) + "/", "WEBHOOK_SECRET": plantedWebhook, "REDIS_DOWN": "open",
			"USER_QUOTA": "1KB", "DRAIN_GRACE": "0s", "CONNECT_TIMEOUT": "2s", "ACCOUNTS_REDIS": "true",
		}
		relay := lab.StartRelay(t, lab.Tested, env)
		for _, user := range []struct{ name, password string }{{"alice", plantedPassword}, {"bob", plantedInFile}} {
			everyTraffic(t, relay.Addr, user.name, user.password, 503) // Redis would know
		}
		for _, path := range []string{"/api/v1/accounts/alice", "/api/v1/accounts/new", "/api/v1/reload"} {
			if status, _, err := relay.Ask(http.MethodPost, path+"?token="+plantedGuess, `{"password":"`+plantedWritten+`"}`); status < 400 || err != nil {
				t.Errorf("%s: status %d, %v", path, status, err)
			}
		}
		for _, args := range [][]string{{"check", "--json"}, {"check"}, {"doctor", "--timeout", "5s"}, {"doctor", "--json", "--timeout", "5s"}} {
			env["LISTEN"], env["ADMIN_LISTEN"] = lab.FreeAddr(t), lab.FreeAddr(t)
			if _, stderr, code := runRelay(t, env, "", args...); code == 2 {
				t.Errorf("%s: %s", args, stderr)
			}
		}
	})
	t.Run("hook", func(t *testing.T) { secretsOfHook(t, upstream) })
	t.Run("passthrough", func(t *testing.T) {
		relay := lab.StartRelay(t, lab.Tested, lab.Env{"UPSTREAM": "http://" + startParrot(t), "AUTH": "passthrough"})
		for range 2 {
			tell(t, relay.Addr, "CONNECT target.example:443 HTTP/1.1\r\nHost: target.example:443\r\nProxy-Authorization: Basic "+
				base64.StdEncoding.EncodeToString([]byte("carol:"+plantedPassword))+"\r\n\r\n")
		}
	})
}

// secretsOfHook is a relay whose hook first repeats what it was asked, and then is gone.
func secretsOfHook(t *testing.T, upstream string) {
	t.Helper()
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err != nil || !strings.Contains(string(body), plantedPassword) {
			http.Error(w, string(body), http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{}`)
	}))
	relay := lab.StartRelay(t, lab.Tested, lab.Env{
		"UPSTREAM": upstream, "AUTH": "hook", "AUTH_URL": strings.Replace(hook.URL, "http://", "http://me:"+plantedHook+"@", 1), "AUTH_NEGATIVE_TTL": "0s",
	})
	everyTraffic(t, relay.Addr, "alice", plantedPassword, 407)
	hook.Close()
	tell(t, relay.Addr, "CONNECT target.example:443 HTTP/1.1\r\nHost: target.example:443\r\nProxy-Authorization: Basic "+
		base64.StdEncoding.EncodeToString([]byte("newcomer:"+plantedWritten))+"\r\n\r\n")
}
