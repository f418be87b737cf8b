package upstreamtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

// JudgeConfig describes a target site. The zero value is plain HTTP on a free loopback port.
type JudgeConfig struct {
	// Addr is where to listen; default 127.0.0.1:0.
	Addr string
	// TLS makes it an https:// site, HTTP/1.1 only.
	TLS bool
	// CA signs its certificate; default a new authority, see [Judge.CA].
	CA *CA
	// Names are further names for the certificate, beside localhost, 127.0.0.1 and ::1.
	Names []string
	// RecordLimit is as in [VendorConfig].
	RecordLimit int64
}

// Judge is a target site: an HTTP/1.1 server that records what reaches it and
// tells it back. All methods are safe for concurrent use.
//
//	/            what reached it, as JSON: see [Seen]
//	/bytes?n=    n bytes of [Pattern], with their exact length
//	/digest      count and SHA-256 of the body, as JSON
//	/stream      ndjson, chunked and flushed line by line: ?n= lines, ?interval= apart
//	/gzip        gzip if the request asks for it, as it is; else the plain text
//	/notype      a body without Content-Type, and without Date
//	/trailers    chunked, with the trailer X-Checksum
//	/earlyhints  103, then 200
//	/continue    100 only when the request expects it, then as /digest; ?refuse=1: 417 with the body unread
//	/status      ?code=, with a small body where the code allows one
//	/ws          websocket echo (RFC 6455); ?raw=1: plain echo after the 101
//	/slow        200 after ?delay=
//	/redirect    302 to ?to=, or ?code=
//	/judge       the server variables as text, as azenv.php has them: see [Verdict]
type Judge struct {
	st     *station
	server *http.Server
	ca     *CA
	scheme string
}

// connKey is the context key of a request's connection.
type connKey struct{}

// StartJudge starts a target site. The caller must Close it.
func StartJudge(config JudgeConfig) (*Judge, error) {
	j := &Judge{ca: config.CA, scheme: "http"}
	var tlsConfig *tls.Config
	if config.TLS {
		j.scheme = "https"
		var err error
		if tlsConfig, err = j.tlsConfig(config.Names); err != nil {
			return nil, err
		}
	}
	st, err := newStation(config.Addr, tlsConfig, config.RecordLimit)
	if err != nil {
		return nil, err
	}
	st.windows = true
	j.st = st
	ctx, cancel := context.WithCancel(context.Background())
	st.stop = cancel
	j.server = &http.Server{
		Handler:                      j.handler(),
		ReadHeaderTimeout:            handshakeTimeout,
		IdleTimeout:                  defaultHeadTimeout,
		MaxHeaderBytes:               maxHead / 2, // net/http adds some slack of its own
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     log.New(io.Discard, "", 0),
		BaseContext:                  func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	st.loops.Add(1)
	go j.run()
	return j, nil
}

// tlsConfig makes the certificate, and the authority if there is none.
func (j *Judge) tlsConfig(names []string) (*tls.Config, error) {
	if j.ca == nil {
		var err error
		if j.ca, err = NewCA(); err != nil {
			return nil, err
		}
	}
	cert, err := j.ca.Server(append([]string{"localhost", "127.0.0.1", "::1"}, names...)...)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}, nil
}

// run serves until the listener is closed.
func (j *Judge) run() {
	defer j.st.loops.Done()
	_ = j.server.Serve(j.st) // ends with ErrServerClosed or the closed listener
}

// Addr returns the listener's host:port.
func (j *Judge) Addr() string { return j.st.Addr().String() }

// URL returns the site's root without a path, like https://127.0.0.1:40123.
func (j *Judge) URL() string { return j.scheme + "://" + j.Addr() }

// CA returns the authority behind the certificate, nil without TLS.
func (j *Judge) CA() *CA { return j.ca }

// CertPool returns a pool with the authority, nil without TLS.
func (j *Judge) CertPool() *x509.CertPool {
	if j.ca == nil {
		return nil
	}
	return j.ca.Pool()
}

// Conns returns a record of every connection in order of accept. Of the records'
// requests, only those appear whose handler has begun.
func (j *Judge) Conns() []*ConnRecord { return j.st.led.list() }

// Received returns all bytes from all connections, in order of accept. With TLS they are the decrypted bytes.
func (j *Judge) Received() []byte { return j.st.led.received() }

// Dropped returns how many received bytes the record limit left out of Received.
func (j *Judge) Dropped() int64 { return j.st.led.dropped() }

// Open returns how many connections are open now.
func (j *Judge) Open() int {
	_, open := j.st.led.counts()
	return open
}

// Accepted returns how many connections were ever accepted.
func (j *Judge) Accepted() int {
	accepted, _ := j.st.led.counts()
	return accepted
}

// Close cuts all connections; when it returns all handlers have ended.
func (j *Judge) Close() error {
	err := j.server.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	if err = errors.Join(err, j.st.close()); err != nil {
		return fmt.Errorf("upstreamtest: close judge: %w", err)
	}
	return nil
}

// handler routes by exact path: a mux would answer unclean paths with redirects of its own.
func (j *Judge) handler() http.Handler {
	routes := map[string]http.HandlerFunc{
		"/": serveSeen, "/bytes": serveBytes, "/digest": serveDigest, "/stream": serveStream,
		"/gzip": serveGzip, "/notype": serveNoType, "/trailers": serveTrailers, "/earlyhints": serveEarlyHints,
		"/continue": serveContinue, "/status": serveStatus, "/ws": serveWebsocket, "/slow": serveSlow,
		"/redirect": serveRedirect, "/judge": serveJudge,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !j.st.enter() {
			return
		}
		defer j.st.loops.Done()
		req := note(r)
		r = r.WithContext(context.WithValue(r.Context(), requestKey{}, req))
		if serve, ok := routes[r.URL.Path]; ok {
			serve(w, r)
			return
		}
		http.Error(w, "no such page", http.StatusNotFound)
	})
}

// requestKey is the context key of a request's head as it came.
type requestKey struct{}

// note records the request's head as it came; nil if it cannot be found, as
// when requests were pipelined behind a large body.
func note(r *http.Request) *RecordedRequest {
	c, ok := r.Context().Value(connKey{}).(*recorded)
	if !ok {
		return nil
	}
	raw := c.tail.take(r.Method + " " + r.RequestURI + " " + r.Proto)
	if raw == nil {
		return nil
	}
	req, err := parseRequest(raw)
	if err != nil {
		return nil
	}
	c.st.led.request(c.rec, req)
	return req
}

// wait waits for d, or less if the request is given up, and reports which.
func wait(r *http.Request, d time.Duration) bool {
	return d <= 0 || pause(r.Context(), d)
}
