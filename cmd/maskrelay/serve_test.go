package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// serving starts runServe with its log into a pipe, and returns the proxy's and the admin server's address from its first lines.
type serving struct {
	proxy, admin string
	log          *os.File
	stop         context.CancelFunc
	ended        chan error
}

func startServing(t *testing.T, vars map[string]string) *serving {
	t.Helper()
	keepCollector(t)
	vars["LISTEN"], vars["DRAIN_GRACE"], vars["DRAIN_TIMEOUT"] = "127.0.0.1:0", "0s", "1s"
	vars["ADMIN_LISTEN"] = freeAddr(t)
	cfg, err := LoadConfig(environ(goodEnv(), vars))
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	s := &serving{admin: vars["ADMIN_LISTEN"], log: r, stop: stop, ended: make(chan error, 1)}
	go func() { s.ended <- runServe(ctx, cfg, w) }()
	t.Cleanup(func() {
		stop()
		_ = w.Close()
		_ = r.Close()
	})
	return s
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// started reads the log up to the line that tells the address, and no further than it must.
func (s *serving) started(t *testing.T) map[string]any {
	t.Helper()
	var line []byte
	one := make([]byte, 1)
	for {
		if _, err := io.ReadFull(s.log, one); err != nil {
			t.Fatalf("the log ends: %v", err)
		}
		if one[0] != '\n' {
			line = append(line, one[0])
			continue
		}
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if fields["message"] == "serving" {
			s.proxy, _ = fields["listening"].([]any)[0].(string)
			return fields
		}
		line = line[:0]
	}
}

func (s *serving) end(t *testing.T) {
	t.Helper()
	s.stop()
	select {
	case err := <-s.ended:
		if err != nil {
			t.Errorf("serve: %v", err)
		}
	case <-time.After(15 * time.Second):
		t.Fatal("serve does not end")
	}
}

// TestServeWithAFullPipe: a reader of the log who stands still holds up neither customers nor the end.
func TestServeWithAFullPipe(t *testing.T) {
	s := startServing(t, map[string]string{})
	s.started(t)
	// Each request is a line of some 300 bytes, all of them several times what a pipe holds.
	const requests = 1500
	conn, err := net.Dial("tcp", s.proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	for n := range requests {
		if _, err := io.WriteString(conn, "CONNECT target.example:443 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatalf("request %d: %v", n, err)
		}
		response, err := http.ReadResponse(answers, &http.Request{Method: http.MethodConnect})
		if err != nil || response.StatusCode != http.StatusProxyAuthRequired {
			t.Fatalf("request %d: %v, %v", n, response, err)
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
	}
	s.end(t)
	// Everything is there for a reader who comes late: 4 MiB hold it.
	if err := s.log.SetReadDeadline(time.Now().Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n := 0
	for lines := bufio.NewScanner(s.log); n < requests; n++ {
		for lines.Scan() && !bytes.Contains(lines.Bytes(), []byte(`"message":"exchange"`)) {
		}
		if err := lines.Err(); err != nil {
			t.Fatalf("after %d exchanges of %d the log ends: %v", n, requests, err)
		}
	}
}

// TestServeLogsTheCollector, and shows its own metrics.
func TestServeLogsTheCollector(t *testing.T) {
	s := startServing(t, map[string]string{})
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		if os.Getenv(name) != "" {
			t.Skip(name + " is set")
		}
	}
	fields := s.started(t)
	if limit, _ := fields["gomemlimit"].(string); fields["gogc"] != "400" || !strings.HasSuffix(limit, "MiB") {
		t.Errorf("gogc %v, gomemlimit %v", fields["gogc"], fields["gomemlimit"])
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(fmt.Sprintf("http://%s/metrics", s.admin))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if closeErr := response.Body.Close(); err != nil || closeErr != nil {
		t.Fatal(err, closeErr)
	}
	for _, series := range []string{"\nmaskrelay_memory_pressure 0.", "\nmaskrelay_log_lines_dropped_total 0\n"} {
		if !strings.Contains(string(text), series) {
			t.Errorf("no %q in the metrics", series)
		}
	}
	s.end(t)
}

// TestServeFlushesAfterAFailedStart: what was logged before is there when runServe returns.
func TestServeFlushesAfterAFailedStart(t *testing.T) {
	keepCollector(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	cfg, err := LoadConfig(environ(goodEnv(), map[string]string{"LISTEN": taken.Addr().String(), "ADMIN_LISTEN": ""}))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := runServe(t.Context(), cfg, &out); err == nil {
		t.Fatal("two listeners at one address")
	}
	if !strings.Contains(out.String(), "capacity of this host") {
		t.Errorf("the log is %q", out.String())
	}
}
