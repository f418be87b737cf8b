package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const testTimeout = 10 * time.Second

// start runs a server and stops it when the test ends.
func start(t *testing.T, config Config) string {
	t.Helper()
	if config.Listen == "" {
		config.Listen = "127.0.0.1:0"
	}
	if config.Gatherer == nil {
		config.Gatherer = NewRegistry("v1.2.3", "abc")
	}
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s.Addr().String()
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// raw sends bytes on a connection of its own and reads the answer.
func raw(t *testing.T, addr, request string) answer {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	return ask(t, c, request)
}

// ask sends bytes on c and reads one answer.
func ask(t *testing.T, c net.Conn, request string) answer {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	addr := start(t, Config{
		Reload: func() error { return nil },
		Drain:  func() {},
	})
	const host = " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
	tests := []struct {
		name, request string
		status        int
		body          string // a part of it
	}{
		{"health", "GET /healthz" + host, 200, "ok"},
		{"health head", "HEAD /healthz" + host, 200, ""},
		{"ready", "GET /readyz" + host, 200, `{"ready":true}`},
		{"haproxy default httpchk", "OPTIONS /readyz HTTP/1.0\r\n\r\n", 200, "true"},
		{"haproxy GET httpchk", "GET /readyz HTTP/1.0\r\n\r\n", 200, "true"},
		{"ready, strange host", "GET /readyz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 200, "true"},
		{"metrics", "GET /metrics" + host, 200, "maskrelay_build_info{commit=\"abc\",goversion=\"go"},
		{"metrics has go collector", "GET /metrics" + host, 200, "go_goroutines"},
		{"metrics has process collector", "GET /metrics" + host, 200, "process_open_fds"},
		{"index", "GET /" + host, 200, "/api/v1/reload (POST)"},
		{"index lists metrics", "GET /" + host, 200, "/metrics (GET)"},
		{"pprof index", "GET /debug/pprof/" + host, 200, "goroutine"},
		{"pprof goroutine", "GET /debug/pprof/goroutine?debug=1" + host, 200, "goroutine profile"},
		{"pprof cmdline", "GET /debug/pprof/cmdline" + host, 200, "admin.test"},
		{"pprof too long", "GET /debug/pprof/profile?seconds=301" + host, 400, `{"error":`},
		{"pprof not a number", "GET /debug/pprof/profile?seconds=NaN" + host, 400, `{"error":`},
		{"pprof unknown", "GET /debug/pprof/nothing" + host, 404, `{"error":`},
		{"reload", "POST /api/v1/reload" + host, 200, `{"reloaded":true}`},
		{"drain", "POST /api/v1/drain" + host, 202, `{"draining":true}`},
		{"reload by GET", "GET /api/v1/reload" + host, 405, `{"error":"method not allowed"}`},
		{"ready by POST", "POST /readyz" + host, 405, `{"error":"method not allowed"}`},
		{"unknown", "GET /nothing" + host, 404, `{"error":"no such endpoint"}`},
		{"unclean path is not redirected", "GET //readyz" + host, 404, `{"error":`},
		{"trailing slash is not redirected", "GET /readyz/" + host, 404, `{"error":`},
		{"dots are not redirected", "GET /a/../readyz" + host, 404, `{"error":`},
		{"asterisk", "OPTIONS *" + host, 404, `{"error":`},
		{"connect", "CONNECT example.com:443" + host, 404, `{"error":`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := raw(t, addr, tt.request)
			if got.status != tt.status || !strings.Contains(got.body, tt.body) {
				t.Errorf("got %d %.300q, want %d with %q", got.status, got.body, tt.status, tt.body)
			}
			if got.status >= 400 && got.header.Get("Content-Type") != "application/json" {
				t.Errorf("error of type %q", got.header.Get("Content-Type"))
			}
			if got.header.Get("Location") != "" {
				t.Error("a redirect")
			}
		})
	}
}

func TestMethodNotAllowedNamesMethods(t *testing.T) {
	t.Parallel()
	addr := start(t, Config{Drain: func() {}})
	got := raw(t, addr, "GET /api/v1/drain HTTP/1.0\r\n\r\n")
	if allow := got.header.Get("Allow"); allow != "POST" {
		t.Errorf("Allow: %q", allow)
	}
}

func TestCommandsAbsentWithoutTheirFunctions(t *testing.T) {
	t.Parallel()
	addr := start(t, Config{})
	for _, path := range []string{"/api/v1/reload", "/api/v1/drain"} {
		if got := raw(t, addr, "POST "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); got.status != 404 {
			t.Errorf("%s: %d", path, got.status)
		}
	}
}

func TestNotReadyTellsReasons(t *testing.T) {
	t.Parallel()
	var reasons atomic.Pointer[[]string]
	reasons.Store(&[]string{"draining", "no upstream"})
	addr := start(t, Config{Token: "t0ken", Ready: func() []string { return *reasons.Load() }})
	got := raw(t, addr, "GET /readyz HTTP/1.0\r\n\r\n")
	var body struct {
		Ready   bool
		Reasons []string
	}
	if err := json.Unmarshal([]byte(got.body), &body); err != nil {
		t.Fatal(err)
	}
	if got.status != 503 || body.Ready || strings.Join(body.Reasons, ",") != "draining,no upstream" {
		t.Errorf("got %d %s", got.status, got.body)
	}
	reasons.Store(&[]string{})
	if got := raw(t, addr, "GET /readyz HTTP/1.0\r\n\r\n"); got.status != 200 {
		t.Errorf("then got %d %s", got.status, got.body)
	}
}

func TestReloadAndDrainAreCalled(t *testing.T) {
	t.Parallel()
	var reloads, drains atomic.Int32
	var fail atomic.Bool
	addr := start(t, Config{
		Reload: func() error {
			reloads.Add(1)
			if fail.Load() {
				return errors.New("accounts.yaml:3: bad")
			}
			return nil
		},
		Drain: func() { drains.Add(1) },
	})
	post := func(path string) answer {
		return raw(t, addr, "POST "+path+" HTTP/1.1\r\nHost: 127.0.0.1:9090\r\n\r\n")
	}
	post("/api/v1/reload")
	post("/api/v1/drain")
	if reloads.Load() != 1 || drains.Load() != 1 {
		t.Errorf("%d reloads, %d drains", reloads.Load(), drains.Load())
	}
	fail.Store(true)
	got := post("/api/v1/reload")
	if got.status != 500 || got.body != `{"error":"accounts.yaml:3: bad"}`+"\n" {
		t.Errorf("failing reload: %d %s", got.status, got.body)
	}
}

func TestSecondReloadAtOnceIsRefused(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	addr := start(t, Config{Reload: func() error {
		close(entered)
		<-release
		return nil
	}})
	const request = "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\n\r\n"
	first := make(chan int, 1)
	go func() { first <- raw(t, addr, request).status }()
	<-entered
	if got := raw(t, addr, request); got.status != 409 {
		t.Errorf("second: %d %s", got.status, got.body)
	}
	close(release)
	if status := <-first; status != 200 {
		t.Errorf("first: %d", status)
	}
}

func TestPanicIsOneRequests(t *testing.T) {
	t.Parallel()
	addr := start(t, Config{Drain: func() { panic("boom") }})
	got := raw(t, addr, "POST /api/v1/drain HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if got.status != 500 || strings.Contains(got.body, "boom") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if got := raw(t, addr, "GET /healthz HTTP/1.0\r\n\r\n"); got.status != 200 {
		t.Errorf("then %d", got.status)
	}
}

// blockingGatherer hangs until it is released.
type blockingGatherer struct {
	prometheus.Gatherer
	entered chan struct{}
	release chan struct{}
}

func (g blockingGatherer) Gather() ([]*dtoFamily, error) {
	g.entered <- struct{}{}
	<-g.release
	return g.Gatherer.Gather()
}

func TestHealthIsFastWhenScrapesHang(t *testing.T) {
	t.Parallel()
	g := blockingGatherer{NewRegistry("v", "c"), make(chan struct{}), make(chan struct{})}
	addr := start(t, Config{Gatherer: g})
	const request = "GET /metrics HTTP/1.0\r\n\r\n"
	answers := make(chan answer, maxScrapes+1)
	for range maxScrapes + 1 {
		go func() { answers <- raw(t, addr, request) }()
	}
	<-g.entered // the others wait for what it brings
	if got := <-answers; got.status != 503 || !strings.HasPrefix(got.body, `{"error":`) {
		t.Errorf("scrape above the limit: %d %s", got.status, got.body)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if got := raw(t, addr, "GET "+path+" HTTP/1.0\r\n\r\n"); got.status != 200 {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	close(g.release)
	go func() {
		for range g.entered { // who came after the first one's page was too old
		}
	}()
	defer close(g.entered)
	for range maxScrapes {
		if got := <-answers; got.status != 200 {
			t.Errorf("held scrape: %d", got.status)
		}
	}
}

func TestFailingCollectorIsJSON(t *testing.T) {
	t.Parallel()
	addr := start(t, Config{Gatherer: prometheus.GathererFunc(func() ([]*dtoFamily, error) {
		return nil, errors.New("secret detail")
	})})
	got := raw(t, addr, "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n")
	if got.status != 500 || got.body != "{\"error\":\"internal server error\"}\n" {
		t.Errorf("got %d %q", got.status, got.body)
	}
}

func TestHealthGetsThroughACrowd(t *testing.T) {
	t.Parallel()
	addr := start(t, Config{})
	conns := make([]net.Conn, MaxConns+10)
	for i := range conns {
		c, err := net.DialTimeout("tcp", addr, testTimeout)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if i%2 == 0 { // half of them dribble
			if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		conns[i] = c
	}
	if got := raw(t, addr, "GET /healthz HTTP/1.0\r\n\r\n"); got.status != 200 {
		t.Errorf("got %d", got.status)
	}
	// The first of the crowd had to go.
	if err := conns[0].SetReadDeadline(time.Now().Add(testTimeout)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := conns[0].Read(make([]byte, 1)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("the oldest connection is still there: %v", err)
	}
	// The last are still served.
	if got := ask(t, conns[len(conns)-2], "Host: a\r\nConnection: close\r\n\r\n"); got.status != 200 {
		t.Errorf("a young connection got %d", got.status)
	}
}

func TestKeepAliveConnectionServesOn(t *testing.T) {
	t.Parallel()
	addr := start(t, Config{})
	c, err := net.DialTimeout("tcp", addr, testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for range 3 {
		if got := ask(t, c, "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"); got.status != 404 {
			t.Errorf("got %d", got.status)
		}
	}
}

func TestOversizedHeadIsRefused(t *testing.T) {
	t.Parallel()
	addr := start(t, Config{})
	got := raw(t, addr, "GET /healthz HTTP/1.1\r\nHost: a\r\nX-Big: "+strings.Repeat("x", MaxHeaderBytes+4<<10)+"\r\n\r\n")
	if got.status != 431 {
		t.Errorf("got %d", got.status)
	}
}

func TestNewReportsAllProblems(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Listen: "nonsense"})
	if err == nil || !strings.Contains(err.Error(), "listen address") || !strings.Contains(err.Error(), "gatherer") {
		t.Errorf("got %v", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	if _, err := New(Config{Listen: ln.Addr().String(), Gatherer: NewRegistry("", "")}); err == nil {
		t.Error("a taken port was not reported")
	}
}

func TestServeEndsInTimeWithAHungRequest(t *testing.T) {
	t.Parallel()
	release, entered := make(chan struct{}), make(chan struct{})
	s, err := New(Config{Listen: "127.0.0.1:0", Gatherer: NewRegistry("", ""), Drain: func() {
		close(entered)
		<-release
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	c, err := net.DialTimeout("tcp", s.Addr().String(), testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, "POST /api/v1/drain HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	began := time.Now()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 2*shutdownTimeout {
		t.Errorf("shutdown took %v", took)
	}
	close(release)
}

func TestServeReportsADeadListener(t *testing.T) {
	t.Parallel()
	s, err := New(Config{Listen: "127.0.0.1:0", Gatherer: NewRegistry("", "")})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ln.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(context.Background()); err == nil {
		t.Error("no error")
	}
	if err := s.Close(); err != nil {
		t.Errorf("close afterwards: %v", err)
	}
}
