package account

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestHookAsksOnce(t *testing.T) {
	s, c := newService(t), newTicks()
	s.let("alice:secret", `{"name":"alice","max_conns":5}`)
	h := newHook(t, HookConfig{URL: s.URL, TTL: time.Minute, NegativeTTL: 10 * time.Second, Now: c.now})
	if _, known, _ := h.Known("alice", "secret"); known {
		t.Fatal("known before anybody asked")
	}
	ctx := WithListener(WithClient(t.Context(), netip.MustParseAddr("::ffff:192.0.2.1")), ":8080")
	a, err := h.Authenticate(ctx, "alice", "secret")
	if err != nil || a.MaxConns != 5 {
		t.Fatalf("Authenticate is %v, %v", a, err)
	}
	if got := fmt.Sprint(s.question()); got != "map[client:192.0.2.1 listener::8080 password:secret username:alice]" {
		t.Errorf("the question is %s", got)
	}
	if loaded, err := h.Status(); !loaded.Equal(c.now()) || err != nil {
		t.Errorf("Status is %v, %v", loaded, err)
	}
	for range 3 {
		if known, ok, err := h.Known("alice", "secret"); known != a || !ok || err != nil {
			t.Fatalf("Known is %v, %v, %v", known, ok, err)
		}
		mustAdmit(t, h, "alice", "secret")
	}
	s.wantCalls(t, 1, "a known credential")
	if got, ok := h.Lookup("alice"); got != a || !ok || h.Len() != 1 {
		t.Errorf("Lookup is %v, %v, Len %d", got, ok, h.Len())
	}
	if got, ok := h.Lookup("bob"); got != nil || ok {
		t.Errorf("Lookup of a stranger is %v, %v", got, ok)
	}

	c.advance(time.Minute)
	mustAdmit(t, h, "alice", "secret")
	s.wantCalls(t, 2, "after the TTL")
	if again := mustAdmit(t, h, "alice", "secret"); again != a {
		t.Error("the same answer makes another account")
	}
}

func TestHookRemembersRefusals(t *testing.T) {
	s, c := newService(t), newTicks()
	h := newHook(t, HookConfig{URL: s.URL, NegativeTTL: 10 * time.Second, Now: c.now})
	for range 3 {
		mustNotAdmit(t, h, "alice", "wrong", ErrRefused)
		if _, known, err := h.Known("alice", "wrong"); !known || !errors.Is(err, ErrRefused) {
			t.Fatalf("Known is %v, %v", known, err)
		}
	}
	s.wantCalls(t, 1, "a refusal")
	mustNotAdmit(t, h, "alice", "other", ErrRefused)
	s.wantCalls(t, 2, "another password")
	s.let("alice:wrong", `{}`)
	mustNotAdmit(t, h, "alice", "wrong", ErrRefused)
	c.advance(10 * time.Second)
	mustAdmit(t, h, "alice", "wrong")
	s.wantCalls(t, 3, "after the negative TTL")

	h = newHook(t, HookConfig{URL: s.URL})
	mustNotAdmit(t, h, "bob", "x", ErrRefused)
	mustNotAdmit(t, h, "bob", "x", ErrRefused)
	s.wantCalls(t, 5, "without a negative TTL")
}

// What cannot be an account is not worth a call.
func TestHookIsNotAskedNonsense(t *testing.T) {
	s := newService(t)
	h := newHook(t, HookConfig{URL: s.URL})
	for _, c := range [][2]string{{"", "x"}, {"al ice", "x"}, {"us-state", "x"}, {"alice", "x\xff"}, {strings.Repeat("a", 65), "x"}} {
		mustNotAdmit(t, h, c[0], c[1], ErrRefused)
	}
	s.wantCalls(t, 0, "impossible credentials")
}

func TestHookReload(t *testing.T) {
	s, c := newService(t), newTicks()
	s.let("alice:secret", `{"max_conns":1}`)
	h := newHook(t, HookConfig{URL: s.URL, NegativeTTL: time.Hour, TTL: time.Hour, Now: c.now})
	mustAdmit(t, h, "alice", "secret")
	mustNotAdmit(t, h, "bob", "x", ErrRefused)
	s.let("alice:secret", `{"max_conns":2}`)
	s.let("bob:x", `{}`)
	if change, err := h.Reload(); err != nil || fmt.Sprint(change) != fmt.Sprint(Change{}) {
		t.Fatalf("Reload is %+v, %v", change, err)
	}
	if a := mustAdmit(t, h, "alice", "secret"); a.MaxConns != 2 {
		t.Errorf("after Reload the old answer holds: %d", a.MaxConns)
	}
	mustAdmit(t, h, "bob", "x")
}

// An answer to a question from before a reload is out of date when it comes.
func TestHookReloadDuringACall(t *testing.T) {
	s := newService(t)
	h := newHook(t, HookConfig{URL: s.URL, NegativeTTL: time.Hour, TTL: time.Hour})
	for _, status := range []int{200, 403} {
		name := fmt.Sprint("a", status)
		s.instead(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = h.Reload()
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "{}")
		})
		_, _ = h.Authenticate(t.Context(), name, "x")
		s.instead(nil)
		before := s.calls.Load()
		mustNotAdmit(t, h, name, "x", ErrRefused)
		s.wantCalls(t, before+1, "after the reload")
	}
}

func TestHookAnswers(t *testing.T) {
	answer := func(status int, media, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", media)
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	const media = "application/json"
	tests := []struct {
		name   string
		answer http.HandlerFunc
		want   string // what the trouble says; empty = none
		err    error
	}{
		{"whole", answer(200, media, strings.Replace(wholeJSON, `"alice"`, `"bob"`, 1)), "", nil},
		{"empty object", answer(200, "Application/JSON;charset=utf-8", "{}"), "", nil},
		{"with a password", answer(200, media, `{"password":"sesame"}`), "", nil},
		{"403", answer(403, media, "{}"), "", ErrRefused},
		{"403 html", answer(403, "text/html", strings.Repeat("no", 100_000)), "", ErrRefused},
		{"another's account", answer(200, media, wholeJSON), "the answer is not an account: account: name: is that of another account", ErrBusy},
		{"bad field", answer(200, media, `{"max_conns":"sesame"}`), "max_conns: must be a whole number", ErrBusy},
		{"unknown field", answer(200, media, `{"sesame":1}`), "unknown key", ErrBusy},
		{"html", answer(200, "text/html", "{}"), "the answer's Content-Type is not application/json", ErrBusy},
		{"no type", answer(200, "", "{}"), "the answer's Content-Type", ErrBusy},
		{"list", answer(200, media, "[{}]"), "must be a JSON object", ErrBusy},
		{"empty", answer(200, media, ""), "not valid JSON", ErrBusy},
		{"two", answer(200, media, "{}{}"), "not valid JSON", ErrBusy},
		{"endless", answer(200, media, "{}"+strings.Repeat(" ", 10<<20)), "larger than 65536 bytes", ErrBusy},
		{"204", answer(204, media, ""), "status 204 No Content", ErrBusy},
		{"201", answer(201, media, "{}"), "status 201 Created", ErrBusy},
		{"301", answer(301, media, "{}"), "status 301 Moved Permanently: redirects are not followed", ErrBusy},
		{"401", answer(401, media, "{}"), "status 401 Unauthorized: the hook does not accept the relay's own token", ErrBusy},
		{"404", answer(404, media, "{}"), "status 404 Not Found: is the URL right?", ErrBusy},
		{"429", answer(429, media, "{}"), "status 429", ErrBusy},
		{"500", answer(500, media, "{}"), "status 500", ErrBusy},
		{"cut", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF", ErrBusy},
		{"cut body", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			answer(200, media, "{")(w, r)
		}, "the answer broke off", ErrBusy},
		{"large head", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 100_000))
			answer(200, media, "{}")(w, r)
		}, "headers exceeded", ErrBusy},
	}
	s := newService(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.instead(tt.answer)
			var told []string
			h := newHook(t, HookConfig{URL: s.URL, Trouble: func(err error) { told = append(told, err.Error()) }})
			if tt.err == nil {
				mustAdmit(t, h, "bob", "sesame")
			} else {
				mustNotAdmit(t, h, "bob", "sesame", tt.err)
			}
			_, lastErr := h.Status()
			if tt.want == "" {
				if len(told) != 0 || lastErr != nil {
					t.Fatalf("trouble: %q, %v", told, lastErr)
				}
				return
			}
			if len(told) != 1 || !strings.HasPrefix(told[0], "account: hook: ") || !strings.Contains(told[0], tt.want) {
				t.Fatalf("trouble is %q, want %q", told, tt.want)
			}
			wantError(t, lastErr, tt.want)
			if strings.Contains(told[0], "sesame") || strings.Contains(told[0], s.URL) {
				t.Errorf("the trouble quotes what it must not: %s", told[0])
			}
		})
	}
}

// TestHookOutage: what is known lives on for Stale, what is not has to wait for the
// hook, and both are told from a refusal.
func TestHookOutage(t *testing.T) {
	down := map[string]func(s *service){
		"dead":     func(s *service) { s.Server.Close() },
		"silent":   func(s *service) { s.instead(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }) },
		"nonsense": func(s *service) { s.instead(status503) },
	}
	for name, fail := range down {
		t.Run(name, func(t *testing.T) {
			s, c := newService(t), newTicks()
			s.let("alice:secret", `{"max_conns":5}`)
			h := newHook(t, HookConfig{
				URL: s.URL, TTL: time.Minute, Stale: 10 * time.Minute, NegativeTTL: time.Minute, Timeout: 100 * time.Millisecond, Now: c.now,
			})
			a := mustAdmit(t, h, "alice", "secret")
			fail(s)
			mustAdmit(t, h, "alice", "secret")
			mustNotAdmit(t, h, "bob", "x", ErrBusy)
			mustNotAdmit(t, h, "bob", "x", ErrBusy) // nobody refused him
			c.advance(time.Minute)
			if got := mustAdmit(t, h, "alice", "secret"); got != a {
				t.Error("a stale answer is another account")
			}
			mustNotAdmit(t, h, "alice", "guess", ErrBusy)
			c.advance(10*time.Minute - 1)
			mustAdmit(t, h, "alice", "secret")
			c.advance(1)
			mustNotAdmit(t, h, "alice", "secret", ErrBusy)
			if got, ok := h.Lookup("alice"); got != a || !ok {
				t.Error("open connections have lost their account")
			}
			if name == "nonsense" {
				s.instead(nil)
				mustAdmit(t, h, "alice", "secret")
				if _, err := h.Status(); err != nil {
					t.Errorf("the trouble is over, Status says %v", err)
				}
			}
		})
	}
}

// TestHookTimeout: a call ends in time even if the answer drips.
func TestHookTimeout(t *testing.T) {
	s := newService(t)
	s.instead(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, " "); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	})
	var told atomic.Value
	h := newHook(t, HookConfig{URL: s.URL, Timeout: 500 * time.Millisecond, Trouble: func(err error) { told.Store(err.Error()) }})
	mustNotAdmit(t, h, "alice", "secret", ErrBusy)
	if told.Load() == nil {
		t.Error("nobody was told")
	}
}

func TestHookTroubleIsToldOnceAMinute(t *testing.T) {
	s, c := newService(t), newTicks()
	s.instead(status503)
	var told []string
	h := newHook(t, HookConfig{URL: s.URL, Now: c.now, Trouble: func(err error) { told = append(told, err.Error()) }})
	for range 20 {
		mustNotAdmit(t, h, "alice", "x", ErrBusy)
		c.advance(time.Second)
	}
	const text = "account: hook: status 503 Service Unavailable"
	if len(told) != 1 || told[0] != text {
		t.Fatalf("told %q", told)
	}
	h.troubles.flush(c.now())
	c.advance(40 * time.Second)
	h.troubles.flush(c.now())
	h.troubles.flush(c.now())
	if len(told) != 2 || told[1] != text+" (19 times)" {
		t.Fatalf("told %q", told)
	}
}

func TestHookSecretsDoNotPrint(t *testing.T) {
	s := newService(t)
	s.let("alice:sesame", `{}`)
	config := HookConfig{URL: strings.Replace(s.URL, "http://", "http://open:sesame@", 1)}
	h := newHook(t, config)
	mustAdmit(t, h, "alice", "sesame")
	config.Token = "sesame"
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, v := range []any{config, h, h.config, h.answers.shardOf("alice").credentials[h.digest("alice", "sesame")]} {
			if text := fmt.Sprintf(verb, v); strings.Contains(text, "sesame") {
				t.Errorf("%s prints %s", verb, text)
			}
		}
	}
}

func TestNewHookErrors(t *testing.T) {
	tests := []struct {
		name   string
		config HookConfig
		want   string
	}{
		{"no URL", HookConfig{}, "the URL must be of the form"},
		{"no scheme", HookConfig{URL: "sesame.example/auth"}, "the URL must be"},
		{"other scheme", HookConfig{URL: "ftp://sesame.example"}, "the URL must be"},
		{"no host", HookConfig{URL: "http:///sesame"}, "the URL must be"},
		{"fragment", HookConfig{URL: "http://sesame.example/#a"}, "the URL must be"},
		{"broken", HookConfig{URL: "http://a:sesame@h:port/\x00"}, "the URL must be"},
		{"style", HookConfig{URL: "http://h", Style: "xml"}, "the style must be json or headers"},
		{"token", HookConfig{URL: "http://h", Token: "sesame\n"}, "the token must have visible"},
		{"token and credentials", HookConfig{URL: "http://a:sesame@h", Token: "x"}, "not both"},
		{"certificates", HookConfig{URL: "http://h", TLS: hookTLS()}, "certificates need an https"},
		{"TTL", HookConfig{URL: "http://h", TTL: -1}, "a duration is negative"},
		{"concurrency", HookConfig{URL: "http://h", Concurrency: -1}, "the concurrency is negative"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := NewHook(tt.config)
			if h != nil {
				t.Error("a Hook came with the error")
			}
			wantError(t, err, tt.want)
			if strings.Contains(err.Error(), "sesame") {
				t.Errorf("the error quotes a secret: %v", err)
			}
		})
	}
}

// TestHookDeadConnection: a kept connection that the service has closed is no trouble.
func TestHookDeadConnection(t *testing.T) {
	s := newService(t)
	s.let("alice:secret", `{}`)
	s.let("bob:secret", `{}`)
	h := newHook(t, HookConfig{URL: s.URL, Trouble: func(err error) { t.Error(err) }})
	mustAdmit(t, h, "alice", "secret")
	s.CloseClientConnections()
	mustAdmit(t, h, "bob", "secret")
}

// TestHookDoesNotFollow: what a redirect leads to never hears a password.
func TestHookDoesNotFollow(t *testing.T) {
	var heard atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { heard.Add(1) }))
	defer other.Close()
	s := newService(t)
	s.instead(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	h := newHook(t, HookConfig{URL: s.URL})
	mustNotAdmit(t, h, "alice", "secret", ErrBusy)
	if heard.Load() != 0 {
		t.Error("the redirect was followed")
	}
}

// A hook that accepts connections and never speaks.
func TestHookThatNeverSpeaks(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	h := newHook(t, HookConfig{URL: "http://" + l.Addr().String(), Timeout: 500 * time.Millisecond})
	_, err = h.Authenticate(t.Context(), "alice", "secret")
	if !errors.Is(err, ErrBusy) {
		t.Fatal(err)
	}
	wantError(t, err, "no answer within 500ms")
}

// A service that is no hook at all: its words are not repeated.
func TestHookThatIsNotHTTP(t *testing.T) {
	for _, words := range []string{"sesame\r\n\r\n", "HTTP/1.1 sesame OK\r\n\r\n", "HTTP/1.1 200 OK\r\nsesame\r\n\r\n", "SSH-2.0-sesame\r\n"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		serving.Go(func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			_, _ = io.WriteString(conn, words)
			_ = conn.Close()
		})
		h := newHook(t, HookConfig{URL: "http://" + l.Addr().String()})
		_, err = h.Authenticate(t.Context(), "alice", "sesame")
		wantError(t, err, "what came is not HTTP")
		if strings.Contains(err.Error(), "sesame") {
			t.Errorf("the error repeats what came: %v", err)
		}
		_ = l.Close()
		serving.Wait()
	}
}

// A Store and a Hook stand in each other's place.
func TestHookIsAStore(t *testing.T) {
	type accounts interface {
		Known(name, password string) (*Account, bool, error)
		Authenticate(ctx context.Context, name, password string) (*Account, error)
		Lookup(name string) (*Account, bool)
		Len() int
		Range(f func(*Account) bool)
		Expired() []string
		Reload() (Change, error)
		Watch(ctx context.Context, interval time.Duration, f func(Change, error))
		Status() (loaded time.Time, lastError error)
	}
	var _ = []accounts{(*Store)(nil), (*Hook)(nil)}
	s := newService(t)
	h := newHook(t, HookConfig{URL: s.URL})
	for _, name := range []string{"carol", "alice", "bob"} {
		s.let(name+":x", `{}`)
		mustAdmit(t, h, name, "x")
	}
	var names []string
	h.Range(func(a *Account) bool { names = append(names, a.Name); return a.Name != "bob" })
	if got := strings.Join(names, " "); got != "alice bob" || h.Len() != 3 {
		t.Errorf("Range goes over %s of %d", got, h.Len())
	}
}
