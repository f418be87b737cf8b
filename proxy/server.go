package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"maskrelay/masking"
	"maskrelay/proxy/guess"
	"maskrelay/proxy/limit"
	"maskrelay/proxy/tunnel"
	"maskrelay/proxy/usage"
	"maskrelay/upstream"
)

const (
	maxHeadBytes = 32 << 10         // of a request; net/http adds 4 KB of slack
	keepAliveFor = 60 * time.Second // a connection that waits for its next request
	halfOpenFor  = 60 * time.Second // a tunnel of which one side has closed
	visitorsTick = 10 * time.Millisecond
)

// Auth is how customers are known.
type Auth string

// The modes.
const (
	AuthAccounts    Auth = "accounts"    // our accounts
	AuthHook        Auth = "hook"        // accounts of the operator's own service
	AuthPassthrough Auth = "passthrough" // the vendor checks the customer's own vendor login
	AuthOpen        Auth = "open"        // client addresses alone
)

// Config is all that a Server needs. Everything is required unless it says otherwise.
type Config struct {
	// Listen are the plain listeners, host:port or host:port@pool of gateways; may be empty if TLSListen is not.
	Listen    []string
	TLSListen []string // likewise; may be empty
	CertFile  string   // with TLSListen
	KeyFile   string   // with TLSListen

	ProxyFrom []netip.Prefix // balancers: PROXY header required; may be empty
	AllowFrom []netip.Prefix // customers' addresses; empty = all

	Auth     Auth
	Accounts Accounts // AuthAccounts and AuthHook only
	// AccountsChanged is called when accounts were taken up that differ; it must not wait. May be nil.
	AccountsChanged func()
	Defaults        limit.Caps // of accounts that name none
	Limiter         limit.Limiter
	// Logins slows down those who guess passwords; nil = nobody does.
	Logins *guess.Throttle
	// Addresses bounds the client addresses of a customer, to MaxIPs where his account names no bound; 0 = none.
	Addresses limit.Addresses
	MaxIPs    int
	// Meter counts what customers move, and says whose quota is used up; nil = one that nobody reads.
	Meter *usage.Meter
	// Bandwidth is the default of accounts that name none, in bytes per second each way; 0 = no limit.
	Bandwidth int64
	// Shares divides customers' bandwidths among the relays of a fleet; nil = this one is alone.
	Shares   limit.Shares
	MaxConns int // of this relay, at least 1
	// QueueTimeout is how long a customer waits for a slot of a full relay; 0 = not at all. As many wait as there are
	// SpareConns, and a few fewer.
	QueueTimeout time.Duration
	// FilePairs is how many pairs of file descriptors there are for customers' connections and what Server.Spare
	// lends; it bounds MaxConns. 0 = no bound.
	FilePairs int
	// SpareConns is how many connections beyond MaxConns are held while they say who they are. 0 = 384.
	SpareConns int
	// Full reports whether the host has no memory for another connection; it is asked for each. nil = never.
	Full func() bool

	Targets  *Targets
	Policy   *masking.Policy
	Brand    masking.Brand
	Upstream *upstream.Pool

	HeaderTimeout  time.Duration // a request's head, with PROXY header and TLS handshake
	ConnectTimeout time.Duration // a target's answer to a websocket handshake
	IdleTimeout    time.Duration // nothing moves
	DrainGrace     time.Duration // may be 0
	DrainTimeout   time.Duration // may be 0

	Log        zerolog.Logger
	LogTargets bool

	netHTTPAccepts bool // on every listener, for tests: as where the engine cannot
}

// Server is the relay's front. Use New, Listen, Run, in this order. It is a
// prometheus.Collector. All other methods are safe for concurrent use.
type Server struct {
	config    Config
	log       zerolog.Logger
	replies   replies
	faults    faultReplies
	metrics   *metrics
	engine    *tunnel.Engine
	slots     *limit.Slots
	fair      *limit.Fair // by which slots are taken and given back
	spare     *limit.Spare
	transport *upstream.Transport
	http      *http.Server
	tls       *tls.Config
	cert      *certificate // nil without TLSListen
	listeners []*listener
	passed    *passedConns // from the engine to net/http

	epoch          time.Time // of now
	identities     identities
	bandwidths     *bandwidths
	idPrefix       string
	nextID         atomic.Uint64
	open           atomic.Int64 // customers' sockets, tunnels included
	maxOpen        int
	leavers        int // connections beyond maxOpen that have been told to go, at most
	refusers       chan struct{}
	refusedAccepts prometheus.Counter
	evicted        prometheus.Counter
	overShare      prometheus.Counter
	unturned       prometheus.Counter // TLS handshakes that got no turn
	handshakes     *handshakes
	troubled       atomic.Int64 // when an error of accept was logged last, on the server's clock
	leaving        atomic.Bool  // nobody is accepted any more: replies are the last
	draining       atomic.Bool
	closing        atomic.Bool
	base           context.Context // of every request
	endBase        context.CancelFunc
	listening      atomic.Bool
	running        sync.WaitGroup // all goroutines but the connections'
	serving        sync.WaitGroup // connections' goroutines; grows only while one of running accepts

	strangers  *strangers
	crowding   complaints // about origins over their share
	crowdedOut complaints // about strangers who make room
	turnless   complaints // about TLS handshakes that were not done
	spareConns int

	connsMu sync.Mutex // guards conns, and frontConn's held and key
	conns   map[*frontConn]struct{}
}

// knowsAccounts reports whether customers have accounts with the relay.
func (c *Config) knowsAccounts() bool { return c.Auth == AuthAccounts || c.Auth == AuthHook }

func (c *Config) validate() error {
	switch {
	case c.knowsAccounts() && c.Accounts == nil:
		return errors.New("proxy: no accounts")
	case c.MaxConns < 1:
		return errors.New("proxy: no room for a single connection")
	case c.FilePairs < 0 || c.SpareConns < 0 || c.Bandwidth < 0:
		return errors.New("proxy: a limit is below 0")
	}
	return nil
}

// New builds a Server; it binds and starts nothing but the tunnel engine's sweep,
// which Run or Close ends. Errors are the configuration's.
func New(c Config) (*Server, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	spare := cmp.Or(c.SpareConns, defaultSpareConns)
	if c.Meter == nil {
		c.Meter = usage.NewMeter()
	}
	s := &Server{
		config:     c,
		log:        c.Log,
		replies:    newReplies(c.Brand),
		faults:     newFaultReplies(c.Brand),
		metrics:    newMetrics(c.Meter),
		slots:      limit.NewSlots(c.MaxConns),
		epoch:      time.Now(),
		idPrefix:   strconv.FormatInt(time.Now().UnixMilli(), 36) + "-",
		refusers:   make(chan struct{}, max(spare/3, 1)),
		conns:      make(map[*frontConn]struct{}),
		strangers:  newStrangers(),
		spareConns: spare,
	}
	s.passed = newPassedConns(s)
	s.bandwidths = newBandwidths(s.bandwidthOf, c.Shares, s.sharesTrouble)
	s.fair = limit.NewFair(s.slots, limit.FairConfig{
		Wait: c.QueueTimeout, Queue: max(spare-spare/4, 1), InUse: c.Limiter.InUse, // some of the spare are for those who say who they are
	})
	s.spare = limit.NewSpare(s.slots, c.FilePairs)
	s.transport = upstream.NewTransport(c.Upstream, s.spare)
	s.maxOpen = s.slots.Max() + spare
	s.leavers = max(spare/4, 16) // the host's reserve has room for as many
	s.refusedAccepts = s.metrics.dropped.WithLabelValues("refused")
	s.evicted = s.metrics.dropped.WithLabelValues("evicted")
	s.handshakes = newHandshakes(s.strangers, handshakesAtOnce())
	s.unturned = s.metrics.dropped.WithLabelValues("handshake")
	s.overShare = s.metrics.dropped.WithLabelValues("address")
	if len(c.TLSListen) > 0 {
		if err := s.secure(); err != nil {
			return nil, err
		}
	}
	s.base, s.endBase = context.WithCancel(context.Background())
	s.engine = tunnel.NewEngine(tunnel.Options{
		IdleTimeout: c.IdleTimeout, HalfOpenTimeout: min(halfOpenFor, c.IdleTimeout), Files: s.spare, Trouble: s.engineTrouble,
	})
	s.http = s.newHTTP()
	acceptBalancersQuirk()
	return s, nil
}

// secure makes ready for TLS listeners. A handshake waits for its turn before it computes
// anything, and a second time after a HelloRetryRequest.
func (s *Server) secure() error {
	cert, err := loadCertificate(s.config.CertFile, s.config.KeyFile)
	if err != nil {
		return err
	}
	s.cert = cert
	s.tls = &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetConfigForClient: takeTurn,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if _, err := takeTurn(hello); err != nil {
				return nil, err
			}
			return cert.get(hello)
		},
	}
	return nil
}

// newHTTP is the server of all requests that the engine does not take itself.
func (s *Server) newHTTP() *http.Server {
	h := &http.Server{
		Handler:                      newHandler(s),
		ReadHeaderTimeout:            s.config.HeaderTimeout,
		IdleTimeout:                  min(keepAliveFor, s.config.IdleTimeout),
		MaxHeaderBytes:               maxHeadBytes,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     log.New(debugLog{s.log}, "", 0),
		ConnState:                    s.stateChanged,
		BaseContext:                  func(net.Listener) context.Context { return s.base },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, frontKey{}, c)
		},
		Protocols: new(http.Protocols),
	}
	h.Protocols.SetHTTP1(true)
	return h
}

// acceptBalancersQuirk lets PROXY version 1 lines carry IPv4 addresses in TCP6, as
// nginx writes them when the families differ. The library's switch is global.
var acceptBalancersQuirk = sync.OnceFunc(func() { proxyproto.V1AcceptIPv4InTCP6 = true })

// debugLog takes net/http's and goproxy's complaints, which name addresses.
type debugLog struct{ zerolog.Logger }

func (l debugLog) Write(b []byte) (int, error) {
	l.Debug().Bytes("text", b).Msg("from the HTTP server")
	return len(b), nil
}

// Printf implements goproxy.Logger.
func (l debugLog) Printf(format string, v ...any) {
	l.Debug().Str("text", fmt.Sprintf(format, v...)).Msg("from goproxy")
}

// Listen binds every address; on an error none stays bound.
func (s *Server) Listen(ctx context.Context) error {
	add := func(address string, secured bool) error {
		address, pool, _ := strings.Cut(address, "@")
		l, err := listen(ctx, address, s.config.IdleTimeout)
		if err != nil {
			return fmt.Errorf("proxy: listen: %w", err)
		}
		s.listeners = append(s.listeners, &listener{
			Listener: l, server: s, name: l.Addr().String(), pool: pool, secured: secured,
			received: !secured && !s.config.netHTTPAccepts && s.engine.Receives(),
		})
		return nil
	}
	var err error
	for _, address := range s.config.Listen {
		err = errors.Join(err, add(address, false))
	}
	for _, address := range s.config.TLSListen {
		err = errors.Join(err, add(address, true))
	}
	if err != nil {
		s.closeListeners()
		return err
	}
	s.listening.Store(true)
	return nil
}

// now is the server's clock: time since it was made.
func (s *Server) now() time.Duration { return time.Since(s.epoch) }

// Addrs are the bound addresses, in the configuration's order, TLS last.
func (s *Server) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(s.listeners))
	for i, l := range s.listeners {
		addrs[i] = l.Addr()
	}
	return addrs
}

func (s *Server) closeListeners() {
	s.leaving.Store(true)
	for _, l := range s.listeners {
		_ = l.Close()
	}
	s.engine.StopServing()
	s.listening.Store(false)
}

// engineTrouble logs what went wrong in the engine outside of any tunnel.
func (s *Server) engineTrouble(err error) {
	s.log.Error().Err(err).Msg("the tunnel engine failed")
}

// sharesTrouble logs that the fleet's answers about bandwidths are errors.
func (s *Server) sharesTrouble(err error) {
	s.log.Warn().Err(err).Msg("bandwidths are not shared with the other relays")
}

// Run serves until ctx ends, then drains: not ready but still accepting for
// DrainGrace, then without listeners until the tunnels have ended or DrainTimeout
// has passed. cut's end skips what is left of it. Run returns when nothing of the
// server runs any more; an error is a listener's.
func (s *Server) Run(ctx, cut context.Context) error {
	defer s.Close()
	failed := make(chan error, 2*len(s.listeners)+1)
	s.serve(failed)
	background, stop := context.WithCancel(context.Background())
	defer stop()
	setups, still := context.WithCancel(background)
	defer still()
	s.running.Go(func() { s.config.Upstream.Run(setups) })
	s.running.Go(func() { s.watch(background) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.drain(cut, err != nil, still)
	return err
}

// serve begins to accept on every listener; each may fail once.
func (s *Server) serve(failed chan<- error) {
	withHTTP := func(l net.Listener, name string) {
		s.running.Go(func() {
			if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) && !s.draining.Load() {
				failed <- fmt.Errorf("proxy: %s: %w", name, err)
			}
		})
	}
	withHTTP(s.passed, "passed connections")
	for _, l := range s.listeners {
		if !l.received {
			withHTTP(l, l.name)
			continue
		}
		if err := l.receive(); err != nil {
			failed <- fmt.Errorf("proxy: %s: %w", l.name, err)
		}
	}
}

// drain ends the server's work as Run says. hurried skips the grace: a listener is broken.
// still ends the probes of gateways, which vendors bill: they are for customers who come.
func (s *Server) drain(cut context.Context, hurried bool, still context.CancelFunc) {
	s.draining.Store(true)
	s.log.Info().Int("tunnels", s.engine.Count()).Dur("grace", s.config.DrainGrace).
		Dur("timeout", s.config.DrainTimeout).Msg("draining")
	if !hurried {
		grace := time.NewTimer(s.config.DrainGrace)
		select {
		case <-grace.C:
		case <-cut.Done():
		}
		grace.Stop()
	}
	s.closeListeners()
	still()
	ctx, cancel := context.WithTimeout(cut, s.config.DrainTimeout)
	defer cancel()
	var both sync.WaitGroup
	tunnels := 0
	both.Go(func() { tunnels = s.engine.Drain(ctx) })
	both.Go(func() {
		s.awaitVisitors(ctx)
		_ = s.http.Shutdown(ctx)
	})
	both.Wait()
	tunnels += s.engine.Drain(ctx) // those that the last requests became
	s.log.Info().Int("cut", tunnels).Msg("drained")
}

// awaitVisitors waits until the heads that had begun when the listeners closed are
// judged, or have not come in time: some of them are net/http's to serve, and with it.
func (s *Server) awaitVisitors(ctx context.Context) {
	tick := time.NewTicker(visitorsTick)
	defer tick.Stop()
	for s.engine.Visitors() > 0 || !s.passed.empty() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Close ends everything at once. Run calls it; a Server that never ran needs it.
func (s *Server) Close() {
	s.closing.Store(true)
	s.endBase()
	s.draining.Store(true)
	s.closeListeners()
	_ = s.http.Close()
	_ = s.passed.Close() // net/http knows it only once Run has begun
	s.engine.Close()
	s.running.Wait()
	s.cutConns() // net/http forgets a connection that it accepts while it closes
	s.serving.Wait()
	s.transport.Close()
}

// Spare lends the pairs of file descriptors that no customer's connection needs now.
func (s *Server) Spare() *limit.Spare { return s.spare }

// Draining reports whether the server is on its way out.
func (s *Server) Draining() bool { return s.draining.Load() }

// accountsStarting reports that nobody can log in yet, because accounts that live elsewhere
// could never be read. Relays that have read them go on without the place they are in.
func (s *Server) accountsStarting() bool {
	a, ok := s.config.Accounts.(interface{ Starting() bool })
	return ok && a.Starting()
}

// NotReady lists the reasons why a balancer should send nothing here; empty = ready.
// Load is none: a full relay answers 503 and stays ready.
func (s *Server) NotReady() []string {
	var reasons []string
	if s.draining.Load() {
		reasons = append(reasons, "draining")
	} else if !s.listening.Load() || s.accountsStarting() {
		reasons = append(reasons, "starting")
	}
	if !s.config.Upstream.Usable() {
		reasons = append(reasons, "no upstream")
	}
	return reasons
}
