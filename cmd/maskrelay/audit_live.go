package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"maskrelay/upstream"
	"maskrelay/upstream/upstreamtest/audit"
)

const (
	maxLive     = 16 // gateways that are asked, as many requests each as there are asks
	liveAtOnce  = 4
	maxLiveRead = 256 << 10 // bytes of an answer that are looked at
	nowhere     = "audit-no-such-host-7f3a.invalid"
)

// liveResult is what a real gateway showed, and what came of it through the relay; its JSON form is part of the interface.
type liveResult struct {
	Gateway string    `json:"gateway"`
	URL     string    `json:"url"` // without credentials
	Asked   []liveAsk `json:"asked"`
	Leaks   []string  `json:"leaks"`  // that came through the relay
	Advice  []string  `json:"advice"` // what no list knows
	Problem string    `json:"problem,omitempty"`
}

// liveAsk is one request, asked twice: of the gateway itself and through the relay.
type liveAsk struct {
	Request string      `json:"request"`
	Shows   string      `json:"vendor_shows,omitempty"` // the status line
	Fields  []liveField `json:"fields,omitempty"`
	Error   string      `json:"error,omitempty"` // instead of an answer
	Through int         `json:"relay_status"`    // 0 = no answer

	own bool // the answer is the gateway's own, not a target's
}

// liveField is a field of a gateway's answer, secrets redacted.
type liveField struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	Removed bool   `json:"removed"` // the mask would take it away
}

// live asks every real gateway, and its relay.
func (b *auditBench) live(ctx context.Context, cfg *Config, target *url.URL) ([]liveResult, error) {
	gateways := slices.DeleteFunc(slices.Clone(cfg.Gateways), func(g upstream.Gateway) bool { return g.Scheme == upstream.SchemeDirect })
	gateways = gateways[:min(len(gateways), maxLive)]
	out := make([]liveResult, len(gateways))
	places := make(chan struct{}, liveAtOnce)
	var asking sync.WaitGroup
	for i, g := range gateways {
		places <- struct{}{}
		asking.Go(func() {
			defer func() { <-places }()
			l := &liveVisit{bench: b, cfg: cfg, gateway: g, target: target}
			out[i] = l.run(ctx)
		})
	}
	asking.Wait()
	return out, ctx.Err()
}

// liveVisit is one gateway's.
type liveVisit struct {
	bench   *auditBench
	cfg     *Config
	gateway upstream.Gateway
	target  *url.URL
	result  liveResult
	relay   *auditRelay
	config  *Config // of the relay
}

func (l *liveVisit) run(ctx context.Context) liveResult {
	l.result = liveResult{Gateway: l.gateway.Name, URL: l.gateway.String(), Leaks: []string{}, Advice: []string{}}
	if err := l.start(); err != nil {
		l.result.Problem = err.Error()
		return l.result
	}
	defer l.relay.close()
	for _, r := range l.requests() {
		l.result.Asked = append(l.result.Asked, l.ask(ctx, r))
	}
	// What the vendor showed is known now: whatever of it came through is a leak.
	for i, r := range l.requests() {
		l.through(ctx, r, &l.result.Asked[i])
	}
	l.advise()
	slices.Sort(l.result.Leaks)
	l.result.Leaks = slices.Compact(l.result.Leaks)
	return l.result
}

func (l *liveVisit) start() (err error) {
	if l.config, err = l.bench.auditConfig(l.cfg, l.gateway); err != nil {
		return err
	}
	if err = maskFor(l.config, l.cfg, ""); err != nil {
		return err
	}
	l.relay, err = l.bench.start(l.config)
	return err
}

// liveRequest is a request line without the version, and the Host that belongs to it.
type liveRequest struct {
	line, host string
	own        bool // whatever answers is the gateway's
}

func (l *liveVisit) requests() []liveRequest {
	host, port := l.target.Hostname(), l.target.Port()
	if port == "" {
		port = map[string]string{"http": "80"}[l.target.Scheme]
	}
	if port == "" {
		port = "443"
	}
	at := net.JoinHostPort(host, port)
	page := "http://" + host + "/"
	if l.target.Scheme == "http" {
		page = l.target.String()
	}
	u, err := url.Parse(page)
	if err != nil {
		u = l.target
	}
	return []liveRequest{
		{"CONNECT " + at, at, true}, {"GET " + page, u.Host, false},
		{"CONNECT " + nowhere + ":443", nowhere + ":443", true}, {"GET http://" + nowhere + "/", nowhere, true},
	}
}

// ask asks the gateway itself.
func (l *liveVisit) ask(ctx context.Context, r liveRequest) liveAsk {
	a := liveAsk{Request: r.line, own: r.own}
	shown, err := upstream.Ask(ctx, upstream.Options{
		Sources: l.cfg.Sources, DNSServer: l.cfg.DNSServer.String(), DialTimeout: l.cfg.Timeouts.Dial, ConnectTimeout: l.cfg.Timeouts.Connect,
	}, l.gateway, upstream.Question{Line: r.line, Host: r.host})
	if err != nil {
		a.Error = err.Error()
		return a
	}
	a.Shows = shown.Line
	for _, f := range shown.Fields {
		h := http.Header{http.CanonicalHeaderKey(f[0]): {f[1]}}
		l.config.Policy.Response(h)
		a.Fields = append(a.Fields, liveField{Name: f[0], Value: f[1], Removed: len(h) == 0})
	}
	return a
}

// through asks the same through the relay, and looks at every byte that comes.
func (l *liveVisit) through(ctx context.Context, r liveRequest, a *liveAsk) {
	got := l.fetch(ctx, r)
	if _, err := fmt.Sscanf(string(got), "HTTP/1.1 %d", &a.Through); err != nil {
		a.Through = 0
	}
	marks := l.marks()
	for _, leak := range audit.Find(l.config.Policy.Marks(), marks, got) {
		text := fmt.Sprintf("%s: %s", r.line, leak.Mark)
		if leak.Excerpt != "" {
			text += ": " + leak.Excerpt
		}
		l.result.Leaks = append(l.result.Leaks, text)
	}
}

// fetch is what the customer receives.
func (l *liveVisit) fetch(ctx context.Context, r liveRequest) []byte {
	limit := l.cfg.Timeouts.Dial + l.cfg.Timeouts.Connect + time.Second
	d := net.Dialer{Timeout: limit}
	conn, err := d.DialContext(ctx, "tcp", l.relay.bare)
	if err != nil {
		return nil
	}
	defer func() { _ = conn.Close() }() // one answer is all that is wanted
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_ = conn.SetDeadline(time.Now().Add(limit))
	head := r.line + " HTTP/1.1\r\nHost: " + r.host + "\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n"
	if l.config.Auth.Mode == AuthAccounts {
		head += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(auditAccount+":"+auditPassword)) + "\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
		return nil
	}
	var got []byte
	buf := make([]byte, 16<<10)
	for len(got) < maxLiveRead {
		n, err := conn.Read(buf)
		if len(got) == 0 && n > 0 {
			_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second)) // the body's beginning
		}
		got = append(got, buf[:n]...)
		if err != nil || strings.HasPrefix(r.line, "CONNECT ") && strings.HasSuffix(string(got), "\r\n\r\n") {
			break
		}
	}
	return got
}

// marks are the gateway's secrets, and what it has shown in answers of its own.
func (l *liveVisit) marks() (marks []audit.Mark) {
	for _, secret := range slices.Concat(l.gateway.Echoes(), l.gateway.Secrets()) {
		if len(secret) >= 8 {
			marks = append(marks, audit.Mark{Name: "a vendor credential", Text: secret, Secret: true})
		}
	}
	for _, w := range l.shownWords() {
		marks = append(marks, audit.Mark{Name: "what the vendor shows: " + w, Text: w})
	}
	return marks
}
