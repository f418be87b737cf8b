package integration

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"maskrelay/integration/lab"
)

const panelToken = "bearer-token-of-the-panel"

// panel is an operator's service that a relay with AUTH=hook asks. What it says can be changed while it runs.
type panel struct {
	*httptest.Server
	mu     sync.Mutex
	good   map[string]string   // answers by "name:password": JSON, or "field: value" lines in the style headers
	asked  map[string]int      // how often, by the same
	last   map[string]string   // the last question
	bearer string              // the Authorization field of the last question
	rude   http.HandlerFunc    // instead of an answer; nil = none
	held   chan struct{}       // closed to let answers go that wait; nil = none waits
	style  string              // "headers", or JSON
	seen   []*x509.Certificate // of the last question's sender
}

// newPanel returns a panel that does not listen yet.
func newPanel(t testing.TB) *panel {
	p := &panel{good: map[string]string{}, asked: map[string]int{}}
	p.Server = httptest.NewUnstartedServer(p)
	p.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(func() {
		p.hold(false)
		p.Close()
	})
	return p
}

func startPanel(t testing.TB) *panel {
	p := newPanel(t)
	p.Start()
	return p
}

func (p *panel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	question, err := p.read(r)
	p.mu.Lock()
	key := question["username"] + ":" + question["password"]
	p.asked[key]++
	p.last, p.bearer, p.seen = question, r.Header.Get("Authorization"), nil
	if r.TLS != nil {
		p.seen = r.TLS.PeerCertificates
	}
	answer, ok := p.good[key]
	rude, held, style := p.rude, p.held, p.style
	p.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-r.Context().Done():
		}
	}
	switch {
	case err != nil:
		w.WriteHeader(http.StatusBadRequest)
	case rude != nil:
		rude(w, r)
	case !ok:
		w.WriteHeader(http.StatusForbidden)
	case style == "headers":
		for line := range strings.Lines(answer) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Content-Type", "application/json")
		writeAll(w, answer)
	}
}

// read returns the question, in the words of the style JSON.
func (p *panel) read(r *http.Request) (map[string]string, error) {
	question := map[string]string{}
	if p.style == "headers" {
		q := r.URL.Query()
		for name, parameter := range map[string]string{"username": "user", "password": "pass", "client": "client_addr", "listener": "local_addr"} {
			question[name] = q.Get(parameter)
		}
		return question, nil
	}
	d := json.NewDecoder(io.LimitReader(r.Body, 1<<20))
	err := d.Decode(&question)
	if err == nil && (r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json") {
		err = fmt.Errorf("%s of %s", r.Method, r.Header.Get("Content-Type"))
	}
	return question, err
}

// says sets the answer for a name whose password is "name-password"; "" refuses him.
func (p *panel) says(name, answer string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := name + ":" + name + "-password"
	if p.good[key] = answer; answer == "" {
		delete(p.good, key)
	}
}

// hold makes answers wait, or lets them go.
func (p *panel) hold(waits bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held != nil {
		close(p.held)
		p.held = nil
	}
	if waits {
		p.held = make(chan struct{})
	}
}

func (p *panel) answersWith(rude http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rude = rude
}

func (p *panel) times(name, password string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[name+":"+password]
}

// startHooked starts a relay that asks the panel.
func startHooked(t *testing.T, p *panel, change lab.Env) *lab.Relay {
	t.Helper()
	env := lab.Env{"UPSTREAM": startSource(t), "AUTH": "hook", "AUTH_URL": p.URL + "/auth?panel=7", "LOGIN_FAILURES_PER_ADDRESS": "0", "LOGIN_FAILURES_PER_NAME": "0"}
	for name, value := range change {
		env[name] = value
	}
	r := startRelay(t, env)
	t.Cleanup(func() {
		if strings.Contains(string(r.Stderr.Bytes()), "-password") || strings.Contains(string(r.Stderr.Bytes()), panelToken) {
			t.Error("a password or the token is in the log")
		}
	})
	return r
}

// ask sends one CONNECT on a connection of its own and returns the status.
func ask(t testing.TB, addr, name, password string) int {
	t.Helper()
	c, err := dialProxy(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // the answer is read
	got, err := c.connect("shop.target.example:443", name, password)
	if err != nil {
		t.Fatal(err)
	}
	return got.status
}
