package proxy

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"maskrelay/masking"
	"maskrelay/proxy/account"
	"maskrelay/proxy/limit"
	"maskrelay/upstream"
	"maskrelay/upstream/upstreamtest"
)

// patience bounds every wait of a test.
const patience = 15 * time.Second

// The customer, and the vendor's login that stands behind him.
const (
	customerName     = "customer7391"
	customerPassword = "pw-5fc1e8d2"
	vendorUsername   = "reseller-zone-us"
	vendorPassword   = "v3ndor:p@ss w%rd"
	testBrand        = masking.Brand("Relay")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a state.
func eventually(t testing.TB, what string, reached func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !reached() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not reached: %s", what)
		}
	}
}

// netHTTPAccepts is the way that rigs are built; see bothWays.
var netHTTPAccepts bool

// bothWays runs a test with the engine receiving customers, where it can, and with
// net/http doing so, as it does behind TLS and on other systems.
func bothWays(t *testing.T, test func(*testing.T)) {
	defer func() { netHTTPAccepts = false }()
	for name, way := range map[string]bool{"engine": false, "net/http": true} {
		netHTTPAccepts = way
		t.Run(name, test)
	}
}

// setup changes what a rig is made of; the zero value is the usual stage.
type setup struct {
	config   func(*Config)
	pool     func(*upstream.Options)
	accounts string // ACCOUNTS syntax; "" = the customer alone
	vendor   upstreamtest.VendorConfig
	gateways []upstream.GatewayConfig // nil = the vendor
	// templates are the username and password by which the vendor, who takes any, is asked; "" = his own.
	username, password string
	unlike             bool // the customers know the vendor: no scan for its marks
	maxOpen            int  // sockets at once; 0 = as usual
	idle               bool // do not Run the server; the test does
}

// rig is a relay between a vendor and a judge, all on loopback. When the test ends
// nothing may be held any more, and no byte may have leaked either way.
type rig struct {
	t       testing.TB
	server  *Server
	vendor  *upstreamtest.Vendor
	judge   *upstreamtest.Judge
	limiter *limit.Memory
	log     *logBook
	stop    context.CancelFunc // begins the drain
	cut     context.CancelFunc
	ended   chan struct{} // closed when Run has returned

	mu        sync.Mutex // guards customers
	customers []*customer
}

func newRig(t testing.TB, s setup) *rig {
	t.Helper()
	r := &rig{t: t, limiter: limit.NewMemory(), log: &logBook{}, ended: make(chan struct{})}
	if s.vendor.Username == "" && s.username == "" {
		s.vendor.Username, s.vendor.Password = vendorUsername, vendorPassword
	}
	var err error
	r.vendor, err = upstreamtest.StartVendor(s.vendor)
	must(t, err)
	t.Cleanup(func() { must(t, r.vendor.Close()) })
	r.judge, err = upstreamtest.StartJudge(upstreamtest.JudgeConfig{})
	must(t, err)
	t.Cleanup(func() { must(t, r.judge.Close()) })
	if s.gateways == nil {
		s.gateways = []upstream.GatewayConfig{{Name: "gateway", URL: r.vendor.URL(), Username: s.username, Password: s.password}}
		if s.username != "" {
			s.gateways[0].URL = "http://" + vendorUsername + ":" + vendorPassword + "@" + r.vendor.Addr()
		}
	}
	r.server, err = New(r.config(s))
	must(t, err)
	if s.maxOpen > 0 {
		r.server.maxOpen = s.maxOpen
	}
	must(t, r.server.Listen(context.Background()))
	ctx, stop := context.WithCancel(context.Background())
	cutting, cut := context.WithCancel(context.Background())
	r.stop, r.cut = stop, cut
	if s.idle {
		close(r.ended)
	} else {
		go func() {
			defer close(r.ended)
			if err := r.server.Run(ctx, cutting); err != nil {
				t.Errorf("run: %v", err)
			}
		}()
	}
	t.Cleanup(func() { r.close(s.unlike) })
	return r
}

// config is the front's configuration on this stage.
func (r *rig) config(s setup) Config {
	t := r.t
	policy, err := masking.NewPolicy(masking.PolicyConfig{Marks: []string{r.vendor.Brand(), r.vendor.Addr()}})
	must(t, err)
	if s.accounts == "" {
		s.accounts = customerName + ":" + customerPassword
	}
	list, err := account.ParseList(s.accounts)
	must(t, err)
	store, err := account.NewStore(account.StoreConfig{List: list})
	must(t, err)
	targets, err := NewTargets(TargetsConfig{AllowPrivate: true})
	must(t, err)
	options := upstream.Options{
		DialTimeout: 5 * time.Second, ConnectTimeout: 5 * time.Second, GatewayMade: GatewayMade(policy),
	}
	for _, one := range s.gateways {
		g, err := upstream.ParseGateway(one)
		must(t, err)
		options.Gateways = append(options.Gateways, g)
	}
	if s.pool != nil {
		s.pool(&options)
	}
	pool, err := upstream.NewPool(options)
	must(t, err)
	c := Config{
		Listen: []string{"127.0.0.1:0"}, Auth: AuthAccounts, Accounts: store, Limiter: r.limiter, MaxConns: 1000,
		Targets: targets, Policy: policy, Brand: testBrand, Upstream: pool,
		HeaderTimeout: 10 * time.Second, ConnectTimeout: 5 * time.Second, IdleTimeout: 20 * time.Second,
		Log: zerolog.New(r.log).Level(zerolog.InfoLevel), LogTargets: true,
		netHTTPAccepts: netHTTPAccepts,
	}
	if s.config != nil {
		s.config(&c)
	}
	return c
}

// close ends the rig and checks what must be true after any test.
func (r *rig) close(unlike bool) {
	r.cut()
	r.stop()
	select {
	case <-r.ended:
	case <-time.After(patience):
		r.t.Fatal("the server does not end")
	}
	r.server.Close()
	r.nothingHeld()
	r.customersLearnedNothing(unlike)
	r.othersLearnedNothing()
}

// nothingHeld checks that every lease, slot and connection came back.
func (r *rig) nothingHeld() {
	r.t.Helper()
	r.limiter.Range(func(key string, inUse int) bool {
		r.t.Errorf("%s holds %d leases after the end", key, inUse)
		return true
	})
	if n := r.server.slots.InUse(); n != 0 {
		r.t.Errorf("%d slots held after the end", n)
	}
	if n := r.server.open.Load(); n != 0 {
		r.t.Errorf("%d connections open after the end", n)
	}
	if n := len(r.server.conns); n != 0 {
		r.t.Errorf("%d connections listed after the end", n)
	}
}

// run runs a sub-test on the rig.
func (r *rig) run(name string, f func(t *testing.T)) {
	outer := r.t.(*testing.T)
	outer.Run(name, func(t *testing.T) {
		r.t = t
		defer func() { r.t = outer }()
		f(t)
	})
}

// idle waits until the relay holds nothing while it runs.
func (r *rig) idle() {
	r.t.Helper()
	eventually(r.t, "nothing held", func() bool {
		held := r.server.slots.InUse() + int(r.server.open.Load()) + r.server.engine.Count()
		r.limiter.Range(func(_ string, n int) bool { held += n; return true })
		return held == 0
	})
}

// customersLearnedNothing scans all that customers received for the vendor's marks.
func (r *rig) customersLearnedNothing(unlike bool) {
	marks := masking.NewMarks(append(r.vendor.Marks(), "Go-http-client", "dial tcp", "connection refused", "goproxy")...)
	for _, c := range r.all() {
		if unlike || c.unlike {
			continue
		}
		scanner := masking.NewScanner("customer", marks, true)
		_, _ = scanner.Write(c.received())
		for _, leak := range scanner.Leaks() {
			r.t.Errorf("leak: %v", leak)
		}
	}
}

// othersLearnedNothing scans all that vendor and judge received for the customers' marks.
func (r *rig) othersLearnedNothing() {
	words := []string{
		customerName, customerPassword, base64.StdEncoding.EncodeToString([]byte(customerName + ":" + customerPassword)),
		"Go-http-client", "x-forwarded-for", "customer-agent",
	}
	for _, c := range r.all() {
		if !c.unlike {
			words = append(words, c.LocalAddr().String())
		}
	}
	marks := masking.NewMarks(words...)
	for where, b := range map[string][]byte{"vendor": r.vendor.Received(), "judge": r.judge.Received()} {
		scanner := masking.NewScanner(where, marks, true)
		_, _ = scanner.Write(b)
		for _, leak := range scanner.Leaks() {
			r.t.Errorf("leak: %v", leak)
		}
	}
}

func (r *rig) all() []*customer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*customer(nil), r.customers...)
}

// reply is the relay's fixed reply to an outcome, as it stands on the wire.
func (r *rig) reply(o Outcome, closing bool) string {
	return string(r.server.replies.of(o).Bytes(closing))
}

// logBook keeps the log's lines.
type logBook struct {
	mu    sync.Mutex // guards lines
	lines [][]byte
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, bytes.Clone(b))
	return len(b), nil
}

func (l *logBook) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(bytes.Join(l.lines, nil))
}

// exchanges are the exchange lines so far.
func (l *logBook) exchanges() []map[string]any {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []map[string]any
	for _, line := range l.lines {
		var one map[string]any
		if json.Unmarshal(line, &one) == nil && one["message"] == "exchange" {
			all = append(all, one)
		}
	}
	return all
}

// outcome waits for the n-th exchange to be logged and returns its outcome.
func (r *rig) outcome(n int) Outcome {
	r.t.Helper()
	eventually(r.t, "an exchange in the log", func() bool { return len(r.log.exchanges()) >= n })
	s, _ := r.log.exchanges()[n-1]["outcome"].(string)
	return Outcome(s)
}

// basic is a Proxy-Authorization line.
func basic(user, password string) string {
	return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + "\r\n"
}

// login is the customer's.
func login() string { return basic(customerName, customerPassword) }

// connectTo is a CONNECT of the customer, with more header lines.
func connectTo(target string, lines ...string) string {
	return "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n" + login() + strings.Join(lines, "") + "\r\n"
}

// request is a plain request of the customer, with more header lines.
func request(method, url string, lines ...string) string {
	host := strings.TrimPrefix(url, "http://")
	if i := strings.IndexAny(host, "/?"); i >= 0 {
		host = host[:i]
	}
	return method + " " + url + " HTTP/1.1\r\nHost: " + host + "\r\n" + login() + strings.Join(lines, "") + "\r\n"
}
