package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/rs/zerolog"

	"maskrelay/proxy"
	"maskrelay/proxy/admin"
	"maskrelay/proxy/limit"
	"maskrelay/upstream"
)

// runServe relays until a signal or ctx ends it: the first SIGTERM or SIGINT
// drains, the second cuts; SIGHUP reloads. An error is a listener's, at start or
// while running. The log goes to out.
func runServe(ctx context.Context, cfg *Config, out io.Writer) error {
	// Whoever reads the log may go away and come back: a broken pipe must not end the relay.
	signal.Ignore(syscall.SIGPIPE)
	logger, lines := newLogger(cfg.Log, out)
	defer lines.Close()
	// net/http's transport complains to the standard logger, with bytes of a gateway's.
	stdlog.SetFlags(0)
	stdlog.SetOutput(debugWriter{logger})
	around := readSurroundings(lines, logger)
	around.collector = newCollector(around.host, os.LookupEnv)
	r, err := newRelay(cfg, around, logger)
	if err != nil {
		return err
	}
	logStart(logger, cfg, r.server)
	return r.run(ctx)
}

// relay is the whole program behind its configuration.
type relay struct {
	server *proxy.Server
	pool   *upstream.Pool
	around surroundings
	log    zerolog.Logger
	signal chan os.Signal // from before the listeners are bound
	admin  *admin.Server  // nil = off
	back   *backing
	drain  chan struct{} // closed by the admin API
	once   sync.Once
}

// newRelay builds the parts and binds every listener.
func newRelay(cfg *Config, around surroundings, logger zerolog.Logger) (*relay, error) {
	around.host.OpenFilesKept = cfg.warmConns()
	back, err := newBacking(cfg, logger)
	if err != nil {
		return nil, err
	}
	pc, pool, err := proxyConfig(cfg, around, logger)
	if err != nil {
		back.close()
		return nil, err
	}
	back.complete(&pc)
	server, err := proxy.New(pc)
	if err != nil {
		back.close()
		return nil, err
	}
	back.server = server
	r := &relay{server: server, pool: pool, back: back, around: around, log: logger, drain: make(chan struct{}), signal: make(chan os.Signal, 4)}
	signal.Notify(r.signal, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	err = server.Listen(context.Background())
	if err == nil && cfg.Admin.AdminListen != "" {
		err = r.listenAdmin(cfg)
	}
	if err != nil {
		server.Close()
		back.close()
		return nil, err
	}
	return r, nil
}

// listenAdmin makes the admin server.
func (r *relay) listenAdmin(cfg *Config) (err error) {
	build := readBuild()
	registry := admin.NewRegistry(build.Version, build.Commit)
	registry.MustRegister(r.server, r.pool)
	registry.MustRegister(r.around.metrics()...)
	registry.MustRegister(r.back.collect...)
	c := admin.Config{
		Listen:    string(cfg.Admin.AdminListen),
		Token:     cfg.Admin.AdminToken.Reveal(),
		Gatherer:  registry,
		Ready:     r.server.NotReady,
		Reload:    r.server.Reload,
		Upstreams: func() any { return r.pool.Snapshot() },
		Drain:     func() { r.once.Do(func() { close(r.drain) }) },
	}
	r.back.serveAdmin(&c)
	r.admin, err = admin.New(c)
	return err
}

// proxyConfig turns the operator's configuration into the front's.
func proxyConfig(cfg *Config, around surroundings, logger zerolog.Logger) (proxy.Config, *upstream.Pool, error) {
	targets, err := proxy.NewTargets(proxy.TargetsConfig{
		Ports: cfg.Targets.AllowPorts.List, DenyHosts: cfg.Targets.DenyHosts, AllowPrivate: cfg.Targets.AllowPrivate,
	})
	if err != nil {
		return proxy.Config{}, nil, err
	}
	pool, err := upstream.NewPool(upstream.Options{
		Gateways: cfg.Gateways, Balance: string(cfg.Balance), Sources: cfg.Sources, DNSServer: cfg.DNSServer.String(),
		Ports: [2]int{around.host.PortLow, around.host.PortHigh}, PortsReserved: around.host.PortsReserved,
		DialTimeout: cfg.Timeouts.Dial, ConnectTimeout: cfg.Timeouts.Connect,
		CheckAddr: targets.CheckAddr, GatewayMade: proxy.GatewayMade(cfg.Policy),
		HealthInterval: cfg.Health.HealthInterval, HealthTarget: string(cfg.Health.HealthTarget), Notify: gatewayNews(logger),
	})
	if err != nil {
		return proxy.Config{}, nil, err
	}
	maxConns := around.maxConns(cfg, logger)
	return proxy.Config{
		Listen: addresses(cfg.Listen), TLSListen: addresses(cfg.TLS.TLSListen),
		CertFile: cfg.TLS.CertFile, KeyFile: cfg.TLS.KeyFile,
		ProxyFrom: cfg.ProxyFrom, AllowFrom: cfg.Auth.AllowFrom,
		Auth: proxy.Auth(cfg.Auth.Mode),
		Defaults: limit.Caps{
			MaxConns: cfg.User.UserMaxConns, ConnRate: cfg.User.UserConnRate, ConnBurst: cfg.User.UserConnBurst,
		},
		Bandwidth: int64(cfg.User.UserBandwidth), MaxIPs: cfg.User.UserMaxIPs,
		MaxConns: maxConns, QueueTimeout: cfg.QueueTimeout,
		FilePairs: around.filePairs(), SpareConns: around.host.SpareConns(), Full: around.pressure.Full,
		Targets: targets, Policy: cfg.Policy, Brand: cfg.Brand, Upstream: pool,
		HeaderTimeout: cfg.Timeouts.Header, ConnectTimeout: cfg.Timeouts.Connect, IdleTimeout: cfg.Timeouts.Idle,
		DrainGrace: cfg.Drain.Grace, DrainTimeout: cfg.Drain.Timeout,
		Log: logger, LogTargets: cfg.Log.LogTargets,
	}, pool, nil
}

func addresses(list Listeners) []string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.String()
	}
	return out
}

// logStart writes the effective configuration, secrets redacted.
func logStart(logger zerolog.Logger, cfg *Config, server *proxy.Server) {
	build := readBuild()
	gogc, memory := collectorSettings()
	e := logger.Info().Str("version", build.Version).Str("commit", build.Commit).Str("gogc", gogc).Str("gomemlimit", memory)
	settings := zerolog.Dict()
	for _, s := range cfg.Effective() {
		settings.Str(s.Name, s.Value)
	}
	e = e.Dict("config", settings)
	listening := zerolog.Arr()
	for _, a := range server.Addrs() {
		listening.Str(a.String())
	}
	e.Array("listening", listening).Msg("serving")
	for _, w := range cfg.Warnings() {
		logger.Warn().Msg(w)
	}
}

// run serves until the end of ctx, a signal, the admin API's drain, or a failure.
func (r *relay) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cut, cutNow := context.WithCancel(context.Background())
	defer cutNow()
	var running sync.WaitGroup
	defer running.Wait()

	defer signal.Stop(r.signal)
	over := make(chan struct{})
	defer close(over)
	running.Go(func() { r.handleSignals(r.signal, over, stop, cutNow) })

	backed, unback := context.WithCancel(context.Background())
	defer unback() // when the last byte has moved
	running.Go(func() { r.back.run(backed) })

	watching, stopWatching := context.WithCancel(context.Background())
	defer stopWatching()
	running.Go(func() { r.around.watch(watching, r.log) })

	adminCtx, stopAdmin := context.WithCancel(context.Background())
	defer stopAdmin() // last: probes are answered while the relay drains
	adminFailed := make(chan error, 1)
	if r.admin != nil {
		running.Go(func() {
			if err := r.admin.Serve(adminCtx); err != nil {
				adminFailed <- fmt.Errorf("admin: %w", err)
				stop()
			}
		})
	}
	r.back.awaitRedis(ctx)
	err := r.server.Run(ctx, cut)
	r.pool.Close()
	select {
	case adminErr := <-adminFailed:
		err = errors.Join(err, adminErr)
	default:
	}
	return err
}

// handleSignals acts on signals until over is closed.
func (r *relay) handleSignals(signals <-chan os.Signal, over <-chan struct{}, stop, cut func()) {
	stopping := false
	drain := r.drain
	for {
		select {
		case <-over:
			return
		case <-drain:
			drain = nil // the first signal to come will find it drains already; a second one cuts
			r.log.Info().Msg("drain asked for by the API")
			stop()
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP:
				r.log.Info().Msg("reload asked for by SIGHUP")
				_ = r.server.Reload() // logs what was refused itself
			case stopping:
				r.log.Warn().Str("signal", s.String()).Msg("second signal: cutting what is open")
				cut()
			default:
				stopping = true
				r.log.Info().Str("signal", s.String()).Msg("signal to stop")
				stop()
			}
		}
	}
}
