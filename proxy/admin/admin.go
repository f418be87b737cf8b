package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// MaxConns is how many connections the server holds at once.
	MaxConns = 256
	// MaxHeaderBytes bounds a request's head.
	MaxHeaderBytes = 16 << 10

	headerTimeout   = 5 * time.Second
	readTimeout     = 10 * time.Second
	writeTimeout    = 15 * time.Second // net/http/pprof adds the profile's own duration
	idleTimeout     = time.Minute
	shutdownTimeout = 2 * time.Second
)

// Config describes the server. Listen and Gatherer are required.
type Config struct {
	// Listen is the host:port to bind; port 0 means a free one, see [Server.Addr].
	Listen string
	// Token is the bearer token for profiles and commands. Without it they answer loopback peers only.
	Token string
	// Gatherer is what /metrics shows.
	Gatherer prometheus.Gatherer
	// Ready returns the reasons not to be ready; none means ready. It is called by
	// every probe and must return at once. Nil means always ready.
	Ready func() []string
	// Reload reads the configuration anew. Its error is shown to the operator, so it must not
	// hold secrets. It is never called twice at a time. Nil means that there is no such endpoint.
	Reload func() error
	// Drain starts a drain and returns at once. Nil means that there is no such endpoint.
	Drain func()
	// Accounts are the customers. Nil means that there are no such endpoints.
	Accounts AccountAPI
	// AccountStatus tells what an account of that name is doing on this relay. It is called
	// for each account that is shown and must return at once. Nil leaves it out.
	AccountStatus func(name string) AccountStatus
	// CloseConnections ends an account's connections, here and by a message on every other
	// relay, and returns how many it was here. Nil means that there is no such endpoint.
	CloseConnections func(ctx context.Context, name string) (int, error)
	// Usage returns what an account, or every one if it is empty, has moved since a time.
	// Nil means that there is no such endpoint.
	Usage func(ctx context.Context, account string, since time.Time) ([]UsageRow, error)
	// Upstreams returns what is known of the vendors' gateways now: a list that becomes
	// JSON, without secrets. It must return at once. Nil means that there is no such endpoint.
	Upstreams func() any
}

// Server is a bound admin server. Its methods are safe for concurrent use.
type Server struct {
	ln     net.Listener
	server *http.Server
}

// New binds the listener and reports every problem of config at once. The
// caller must call Serve or Close on the server.
func New(config Config) (*Server, error) {
	var errs []error
	host, _, err := net.SplitHostPort(config.Listen)
	if err != nil {
		errs = append(errs, fmt.Errorf("admin: listen address: %w", err))
	}
	if config.Gatherer == nil {
		errs = append(errs, errors.New("admin: a gatherer is required"))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", config.Listen)
	if err != nil {
		return nil, fmt.Errorf("admin: listen: %w", err)
	}
	h := newHandler(config, newGuard(config.Token, host))
	crowd := newCrowd()
	return &Server{ln: ln, server: &http.Server{
		Handler:                      crowd.wrap(h),
		ReadHeaderTimeout:            headerTimeout,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               MaxHeaderBytes,
		DisableGeneralOptionsHandler: true,
		ConnState:                    crowd.state,
		ConnContext:                  crowd.connContext,
		ErrorLog:                     log.New(io.Discard, "", 0), // leaves do not log
	}}, nil
}

// Addr returns the bound address.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Serve serves until ctx ends, then lets requests finish for 2 s and cuts the
// rest. It returns nil after such an end, and else why it could not go on. It
// can be called once.
func (s *Server) Serve(ctx context.Context) error {
	failed := make(chan error, 1)
	go s.run(failed)
	select {
	case err := <-failed:
		return errors.Join(fmt.Errorf("admin: serve: %w", err), s.Close())
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err := s.server.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.server.Close()
	}
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("admin: shutdown: %w", err)
	}
	return nil
}

// run is the accept loop; it tells why it ended.
func (s *Server) run(failed chan<- error) {
	failed <- s.server.Serve(s.ln)
}

// Close ends a server at once, also one that never served.
func (s *Server) Close() error {
	err := errors.Join(s.server.Close(), s.ln.Close())
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("admin: close: %w", err)
	}
	return nil
}
