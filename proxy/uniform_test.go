package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"maskrelay/proxy/account"
	"maskrelay/proxy/guess"
	"maskrelay/proxy/limit"
	"maskrelay/upstream"
	"maskrelay/upstream/upstreamtest"
)

// form is one kind of request, in all of its bytes.
type form struct {
	name string
	of   func(login string) string
	head bool // its reply has no body
}

// forms are the kinds of requests that are answered in different places.
var forms = []form{
	{name: "CONNECT", of: func(login string) string {
		return "CONNECT target.test:443 HTTP/1.1\r\nHost: target.test:443\r\n" + login + "\r\n"
	}},
	{name: "CONNECT, 1.0", of: func(login string) string { return "CONNECT target.test:443 HTTP/1.0\r\n" + login + "\r\n" }},
	{name: "CONNECT, close", of: func(login string) string {
		return "CONNECT target.test:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + login + "\r\n"
	}},
	{name: "GET", of: func(login string) string {
		return "GET http://target.test/ HTTP/1.1\r\nHost: target.test\r\n" + login + "\r\n"
	}},
	{name: "GET, 1.0", of: func(login string) string { return "GET http://target.test/ HTTP/1.0\r\n" + login + "\r\n" }},
	{name: "HEAD", head: true, of: func(login string) string {
		return "HEAD http://target.test/ HTTP/1.1\r\nHost: target.test\r\n" + login + "\r\n"
	}},
	{name: "POST", of: func(login string) string {
		return "POST http://target.test/ HTTP/1.1\r\nHost: target.test\r\nContent-Length: 5\r\n" + login + "\r\nhello"
	}},
	{name: "websocket", of: func(line string) string {
		return strings.Replace(handshake("http://target.test/"), login(), line, 1)
	}},
}

// sights are what customers saw: for each kind of request and status, what came and how
// the connection ended, and where.
type sights struct {
	mu     sync.Mutex // guards what follows
	shapes map[string]map[string][]string
	heads  map[int]map[string]bool
}

func newSights() *sights {
	return &sights{shapes: map[string]map[string][]string{}, heads: map[int]map[string]bool{}}
}

// see sends a request, reads what comes, and finds out how it ends. It returns the
// status, 0 if the answer is not the relay's own.
func (s *sights) see(c *customer, kind, request string, bodiless bool, where string) int {
	c.t.Helper()
	c.send(request)
	head := c.head()
	if !strings.Contains(head, "\r\nProxy-Status: Relay;") {
		return 0
	}
	status, err := strconv.Atoi(head[len("HTTP/1.1 "):][:3])
	must(c.t, err)
	response, err := http.ReadResponse(bufio.NewReader(strings.NewReader(head)), &http.Request{Method: http.MethodHead})
	must(c.t, err)
	body := ""
	if !bodiless && response.ContentLength > 0 {
		b := make([]byte, response.ContentLength)
		_, err = io.ReadFull(c.br, b)
		must(c.t, err)
		body = string(b)
	}
	ending := "open"
	if response.Close {
		ending = "end"
		if rest, err := io.ReadAll(c.br); err != nil || len(rest) > 0 {
			ending = fmt.Sprintf("%d bytes, %v", len(rest), err)
		}
	} else {
		c.send("\x00\r\n\r\n")
		if next := c.head(); !strings.HasPrefix(next, "HTTP/1.1 400 ") {
			ending = "open, and then " + next
		}
		_, _ = io.ReadAll(c.br) // to its end, when it is logged
	}
	_ = c.raw.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fmt.Sprintf("%s, %d", kind, status)
	if s.shapes[key] == nil {
		s.shapes[key] = map[string][]string{}
	}
	shape := head + body + "<" + ending + ">"
	s.shapes[key][shape] = append(s.shapes[key][shape], where)
	if s.heads[status] == nil {
		s.heads[status] = map[string]bool{}
	}
	s.heads[status][head] = true
	return status
}

// uniform checks that one kind of request and status have one sight.
func (s *sights) uniform(t *testing.T) {
	t.Helper()
	for key, shapes := range s.shapes {
		if len(shapes) == 1 {
			continue
		}
		for shape, where := range shapes {
			t.Errorf("%s: %q from %s", key, shape, where)
		}
	}
	for status, heads := range s.heads {
		if len(heads) > 2 {
			t.Errorf("%d has %d shapes of head: %v", status, len(heads), heads)
		}
	}
}

// bothListeners gives a rig a second address, over TLS.
func bothListeners(t *testing.T, s *setup) *tls.Config {
	t.Helper()
	ca := newCA(t)
	certFile, keyFile := writePair(t, t.TempDir(), ca)
	more := s.config
	s.config = func(c *Config) {
		c.TLSListen, c.CertFile, c.KeyFile = []string{"127.0.0.1:0"}, certFile, keyFile
		if more != nil {
			more(c)
		}
	}
	return trusting(ca)
}

// dialBoth dials the plain address, or the one with TLS.
func (r *rig) dialBoth(secured bool, trust *tls.Config) *customer {
	if secured {
		return r.dialAt(1, trust)
	}
	return r.dial()
}

// busyAccounts have no time for passwords.
type busyAccounts struct{ Accounts }

func (busyAccounts) Known(string, string) (*account.Account, bool, error) { return nil, false, nil }

func (busyAccounts) Authenticate(context.Context, string, string) (*account.Account, error) {
	return nil, account.ErrBusy
}

// fixedLimiter always gives the same answer, at once and after a wait.
type fixedLimiter struct {
	limit.Immediate
	err error
}

func (l fixedLimiter) AcquireNow(*limit.Lease, string, limit.Caps) error { return l.err }

func (l fixedLimiter) Acquire(context.Context, string, limit.Caps) (*limit.Lease, error) {
	return nil, l.err
}

// provocation is a way to an outcome that every kind of request can take.
type provocation struct {
	outcome  Outcome
	accounts string // YAML; "" = the customer alone
	login    string // "" = the customer's
	config   func(*Config)
	vendor   upstreamtest.Behaviour
	pool     func(*upstream.Options)
	prepare  func(*rig)
}

func exceeded(which string) func(*Config) {
	return func(c *Config) {
		c.Limiter = fixedLimiter{c.Limiter.(limit.Immediate), &limit.ExceededError{Cap: which, Limit: 1, RetryAfter: time.Second}}
	}
}

func provocations() []provocation {
	passthrough := func(c *Config) { c.Auth, c.Accounts = AuthPassthrough, nil }
	return []provocation{
		{outcome: BadRequest, login: login() + login()},
		{outcome: BadParams, login: basic(customerName+"-country-us", customerPassword)},
		{outcome: AuthRequired, login: "X-None: 1\r\n"},
		{outcome: AuthFailed, login: basic(customerName, "wrong")},
		{outcome: AuthBusy, config: func(c *Config) { c.Accounts = busyAccounts{c.Accounts} }},
		{outcome: ClientDenied, accounts: customerEntry + ", allow_from: [192.0.2.0/24]}\n"},
		{outcome: AccountDisabled, accounts: customerEntry + ", disabled: true}\n"},
		{outcome: AccountExpired, accounts: customerEntry + ", expires: 2001-01-01T00:00:00Z}\n"},
		{
			outcome: LoginThrottled, login: basic("second", "x"),
			config: func(c *Config) { c.Logins = guess.New(guess.Config{PerName: 1}) },
			prepare: func(r *rig) {
				c := r.dial()
				c.send(forms[0].of(basic("second", "x")))
				c.expect(r.reply(AuthFailed, false))
			},
		},
		{outcome: TargetDenied, config: func(c *Config) {
			c.Targets, _ = NewTargets(TargetsConfig{DenyHosts: []string{"target.test"}, AllowPrivate: true})
		}},
		{outcome: CapConns, config: exceeded(limit.CapMaxConns)},
		{outcome: CapRate, config: exceeded(limit.CapConnRate)},
		{outcome: CapAddresses, config: exceeded(limit.CapMaxIPs)},
		{outcome: LimitsDown, config: func(c *Config) { c.Limiter = fixedLimiter{c.Limiter.(limit.Immediate), limit.ErrUnavailable} }},
		{outcome: RelayFull, config: func(c *Config) { c.Full = func() bool { return true } }},
		{
			outcome: NoUpstream, vendor: upstreamtest.Behaviours()["tunnel-silent"],
			pool:    func(o *upstream.Options) { o.Gateways[0].MaxConns = 1 },
			config:  func(c *Config) { c.IdleTimeout = patience },
			prepare: func(r *rig) { r.dial().connect("target.test:443") },
		},
		{outcome: UpstreamFailed, vendor: upstreamtest.Behaviours()["407"]},
		{outcome: UpstreamFailed, vendor: upstreamtest.Behaviours()["close-before-reply"]},
		{outcome: UpstreamTimeout, vendor: upstreamtest.Silent()},
		{outcome: UpstreamAuth, login: basic(vendorUsername, "wrong"), config: passthrough, vendor: upstreamtest.Behaviours()["407"]},
		{outcome: Internal, config: func(c *Config) { c.Limiter = brokenLimiter{c.Limiter} }},
	}
}

// Every row of the table of replies is reached over every path that there is to it, and a
// customer sees of it what he sees of all other rows with its status, byte for byte, and
// the connection goes on or ends alike.
func TestRepliesTellNothing(t *testing.T) {
	all, reached := newSights(), map[Outcome]bool{}
	note := func(r *rig, want Outcome, n int) {
		r.t.Helper()
		if got := r.outcome(n); got != want {
			r.t.Errorf("outcome %s, want %s", got, want)
		}
		reached[want] = true
	}
	for _, p := range provocations() {
		t.Run(string(p.outcome), func(t *testing.T) { p.drive(t, all, note) })
	}
	t.Run("heads", func(t *testing.T) { driveHeads(t, all, note) })
	t.Run("body that does not come", func(t *testing.T) { driveLateBody(t, all, note) })
	t.Run("quota", func(t *testing.T) { driveQuota(t, all, note) })
	t.Run("full at accept", func(t *testing.T) { driveFullAtAccept(t, all) })
	for outcome := range statusOf {
		if !reached[outcome] {
			t.Errorf("no path to %s was tried", outcome)
		}
	}
	all.uniform(t)
	for _, spec := range replySpecs {
		if len(all.heads[spec.Status]) == 0 {
			t.Errorf("no reply with status %d was seen", spec.Status)
		}
	}
}

// noting waits for the n-th exchange of a rig and checks its outcome.
type noting func(r *rig, want Outcome, n int)

// drive takes every form of request to the outcome, on both addresses.
func (p provocation) drive(t *testing.T, all *sights, note noting) {
	s := setup{
		unlike: true, vendor: upstreamtest.VendorConfig{Behaviour: p.vendor},
		config: func(c *Config) {
			c.ConnectTimeout, c.IdleTimeout = 300*time.Millisecond, 2*time.Second
			if p.config != nil {
				p.config(c)
			}
		},
		pool: func(o *upstream.Options) {
			o.ConnectTimeout = 300 * time.Millisecond
			if p.pool != nil {
				p.pool(o)
			}
		},
	}
	if p.accounts != "" {
		use, _ := fileAccounts(t, "accounts:\n"+p.accounts)
		s.config = use
	}
	trust := bothListeners(t, &s)
	r := newRig(t, s)
	if p.prepare != nil {
		p.prepare(r)
	}
	if p.login == "" {
		p.login = login()
	}
	for _, f := range forms {
		for _, secured := range []bool{false, true} {
			c := r.dialBoth(secured, trust)
			n := len(r.log.exchanges())
			kind := f.name
			switch p.outcome {
			case BadParams: // says which parameter, of what the customer has sent
				kind += ", parameters"
			case UpstreamAuth: // a login that a vendor was asked about
				kind += ", vendor's login"
			}
			status := all.see(c, kind, f.of(p.login), f.head, fmt.Sprintf("%s, TLS %t", p.outcome, secured))
			note(r, p.outcome, n+1)
			if want := statusOf[p.outcome]; status != want {
				t.Errorf("%s: %d, want %d", f.name, status, want)
			}
			eventually(t, "the connection's end is logged", func() bool {
				return r.server.open.Load() <= int64(r.server.engine.Count())
			})
		}
	}
}

// badHeads are refused before anybody is asked, by whoever reads them.
var badHeads = map[string]string{
	"garbage":            "\x00\x01\x02\r\n\r\n",
	"version":            "GET http://target.test/ HTTP/3.0\r\nHost: x\r\n\r\n",
	"expectation":        "GET http://target.test/ HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n",
	"coding":             "POST http://target.test/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: tea\r\n\r\n",
	"CONNECT, no port":   "CONNECT target.test HTTP/1.1\r\nHost: x\r\n\r\n",
	"CONNECT, 1.0":       "CONNECT target.test HTTP/1.0\r\n\r\n",
	"CONNECT, body":      "CONNECT target.test:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
	"origin-form":        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
	"origin-form, 1.0":   "GET / HTTP/1.0\r\n\r\n",
	"trace":              "TRACE http://target.test/ HTTP/1.1\r\nHost: x\r\n\r\n",
	"malformed body":     request("POST", "http://target.test/", "Transfer-Encoding: chunked\r\n") + "zz\r\nhello\r\n",
	"more than a server": "GET http://target.test/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + strings.Repeat("more", 5000),
}

// driveHeads sends heads that are refused, do not come to an end, or are too large.
func driveHeads(t *testing.T, all *sights, note noting) {
	s := setup{
		config: func(c *Config) { c.HeaderTimeout = 200 * time.Millisecond },
		vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Silent()},
	}
	trust := bothListeners(t, &s)
	r := newRig(t, s)
	for _, secured := range []bool{false, true} {
		look := func(want Outcome, name, head string) {
			n := len(r.log.exchanges())
			if got := all.see(r.dialBoth(secured, trust), "any", head, false, fmt.Sprintf("%s, TLS %t", name, secured)); got != statusOf[want] {
				t.Errorf("%s: %d", name, got)
			}
			note(r, want, n+1)
		}
		for name, head := range badHeads {
			look(BadRequest, name, head)
		}
		padding := strings.Repeat("X-Padding: "+strings.Repeat("p", 1000)+"\r\n", 60)
		for _, line := range []string{"CONNECT target.test:443", "GET http://target.test/", "HEAD http://target.test/"} {
			look(HeadTooLarge, line, line+" HTTP/1.1\r\nHost: x\r\n"+padding+"\r\n")
			look(HeadTimeout, line, line+" HTTP/1.1\r\nHost: ")
		}
		if n := len(r.log.exchanges()); !secured && n != len(badHeads)+6 {
			t.Errorf("%d exchanges are logged, want one for each head", n)
		}
	}
}

// driveLateBody sends requests whose body does not come.
func driveLateBody(t *testing.T, all *sights, note noting) {
	s := setup{
		config: func(c *Config) { c.IdleTimeout = 200 * time.Millisecond },
		vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Silent()},
	}
	trust := bothListeners(t, &s)
	r := newRig(t, s)
	for i, secured := range []bool{false, true} {
		head := request("POST", "http://target.test/", "Content-Length: 5\r\n") + "hel"
		if got := all.see(r.dialBoth(secured, trust), "any", head, false, fmt.Sprintf("body, TLS %t", secured)); got != 408 {
			t.Errorf("status %d", got)
		}
		note(r, HeadTimeout, i+1)
	}
}

// driveQuota uses a quota up and is refused.
func driveQuota(t *testing.T, all *sights, note noting) {
	var s setup
	books, server := usedUp(t, &s)
	trust := bothListeners(t, &s)
	r := newRig(t, s)
	*server = r.server
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); books.Run(ctx) }()
	defer func() { stop(); <-done }()
	c := r.dial()
	c.connect(startEcho(t).Addr())
	c.send(strings.Repeat("x", 2000))
	c.breaks()
	r.idle()
	for _, f := range forms {
		for _, secured := range []bool{false, true} {
			c, n := r.dialBoth(secured, trust), len(r.log.exchanges())
			all.see(c, f.name, f.of(login()), f.head, fmt.Sprintf("quota, TLS %t", secured))
			note(r, QuotaUsed, n+1)
		}
	}
}

// driveFullAtAccept is turned away before a word was said, which no upstream causes.
func driveFullAtAccept(t *testing.T, all *sights) {
	bothWays(t, func(t *testing.T) {
		r := newRig(t, setup{config: func(c *Config) { c.MaxConns, c.SpareConns = 1, 3 }, maxOpen: 1})
		held := r.dial()
		held.connect(startEcho(t).Addr())
		all.see(r.dial(), "nothing", "", false, t.Name())
	})
}

// Whatever a vendor does wrong, the customer sees one reply for each status, on the wire
// of both listeners, whichever way the request came.
func TestFaultsOfVendorsLookAlike(t *testing.T) {
	all := newSights()
	var mu sync.Mutex // guards counts
	counts := map[string]int{}
	t.Run("faults", func(t *testing.T) {
		for name, behaviour := range upstreamtest.Behaviours() {
			if strings.HasPrefix(name, "relay") || strings.HasPrefix(name, "tunnel") {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := setup{
					unlike: true, // a 200 may say what it likes
					vendor: upstreamtest.VendorConfig{Behaviour: behaviour},
					config: func(c *Config) { c.ConnectTimeout, c.IdleTimeout = 300*time.Millisecond, time.Second },
					pool:   func(o *upstream.Options) { o.ConnectTimeout = 300 * time.Millisecond },
				}
				trust := bothListeners(t, &s)
				r := newRig(t, s)
				for _, f := range forms {
					for _, secured := range []bool{false, true} {
						kind, where := f.name, fmt.Sprintf("%s, TLS %t", name, secured)
						c := r.dialBoth(secured, trust)
						if status := all.see(c, kind, f.of(login()), f.head, where); status == 0 {
							continue // the target might have said it
						}
						mu.Lock()
						counts[kind]++
						mu.Unlock()
					}
				}
			})
		}
	})
	all.uniform(t)
	for _, f := range forms {
		if counts[f.name] < 80 {
			t.Errorf("%s: only %d faults became replies of the relay", f.name, counts[f.name])
		}
	}
}
