package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"maskrelay/upstream/upstreamtest"
)

// The demo's customer and the stand-in vendor's login.
const (
	demoUser           = "alice"
	demoPassword       = "secret"
	demoVendorUser     = "reseller-zone-us"
	demoVendorPassword = "vendor:p@ss w%rd"
	demoEvery          = 500 * time.Millisecond // between two requests of the demo's own
)

// demoOptions are the flags of demo.
type demoOptions struct {
	For           time.Duration // 0 = until ctx ends
	Listen, Admin string        // host:port
}

// runDemo shows the main job on loopback: vendor, targets, relay and a customer,
// all embedded. It returns when ctx or the time is over.
func runDemo(ctx context.Context, o demoOptions, out io.Writer) error {
	if o.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.For)
		defer cancel()
	}
	stage, err := newStage()
	if err != nil {
		return err
	}
	defer stage.close()
	cfg, err := LoadConfig(stage.environ(o))
	if err != nil {
		return err
	}
	log, lines := newLogger(LogConfig{Level: "info", Format: LogConsole}, out)
	defer lines.Close()
	quiet := log.Level(zerolog.Disabled)
	r, err := newRelay(cfg, readSurroundings(lines, quiet), quiet)
	if err != nil {
		return err
	}
	stage.explain(lines, r.server.Addrs()[0].String(), r.admin.Addr().String())

	var running sync.WaitGroup
	defer running.Wait()
	over, stop := context.WithCancel(ctx)
	defer stop()
	running.Go(func() { stage.visit(over, r.server.Addrs()[0].String(), log) })
	r.log = log.Level(zerolog.WarnLevel)
	return r.run(ctx)
}

// stage is what stands around the relay in the demo.
type stage struct {
	vendor *upstreamtest.Vendor
	plain  *upstreamtest.Judge
	secure *upstreamtest.Judge
	dir    string // holds the target's CA
}

func newStage() (*stage, error) {
	s := &stage{}
	var errs [4]error
	s.vendor, errs[0] = upstreamtest.StartVendor(upstreamtest.VendorConfig{
		Username: demoVendorUser, Password: demoVendorPassword,
	})
	s.plain, errs[1] = upstreamtest.StartJudge(upstreamtest.JudgeConfig{})
	s.secure, errs[2] = upstreamtest.StartJudge(upstreamtest.JudgeConfig{TLS: true})
	s.dir, errs[3] = os.MkdirTemp("", "maskrelay-demo-")
	err := errors.Join(errs[:]...)
	if err == nil {
		err = os.WriteFile(s.caFile(), s.secure.CA().PEM(), 0o600)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *stage) caFile() string { return filepath.Join(s.dir, "ca.pem") }

func (s *stage) close() {
	if s.vendor != nil {
		_ = s.vendor.Close()
	}
	if s.plain != nil {
		_ = s.plain.Close()
	}
	if s.secure != nil {
		_ = s.secure.Close()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// environ is the configuration that an operator would write for this stage.
func (s *stage) environ(o demoOptions) []string {
	return []string{
		"MASKRELAY_LISTEN=" + o.Listen,
		"MASKRELAY_ADMIN_LISTEN=" + o.Admin,
		"MASKRELAY_ACCOUNTS=" + demoUser + ":" + demoPassword + ":100",
		"MASKRELAY_UPSTREAM=" + s.vendor.URL(),
		"MASKRELAY_VENDOR_MARKS=" + s.vendor.Brand(),
		"MASKRELAY_ALLOW_PRIVATE=true", // the targets are on loopback
		"MASKRELAY_ALLOW_PORTS=*",
		"MASKRELAY_DRAIN_GRACE=0s",
		"MASKRELAY_DRAIN_TIMEOUT=1s",
	}
}

// explain prints what a newcomer can do now.
func (s *stage) explain(out io.Writer, proxyAddr, adminAddr string) {
	proxyURL := "http://" + demoUser + ":" + demoPassword + "@" + proxyAddr
	_, _ = fmt.Fprintf(out, `The relay is running, with a stand-in vendor and target sites, all on loopback.

  proxy     %s
  https     curl --noproxy '' -x %s --cacert %s %s/
  http      curl --noproxy '' -x %s %s/
  metrics   curl http://%s/metrics
  ready     curl http://%s/readyz

The targets echo what reached them: look for anything of yours, or of the vendor's.
Each line below is a request of the demo's own customer. Ctrl-C ends it.

`, proxyURL, proxyURL, s.caFile(), s.secure.URL(), proxyURL, s.plain.URL(), adminAddr, adminAddr)
}

// visit is the demo's customer: a request now and then, so that the metrics live.
func (s *stage) visit(ctx context.Context, proxyAddr string, log zerolog.Logger) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.secure.CA().PEM())
	transport := &http.Transport{
		Proxy: http.ProxyURL(&url.URL{
			Scheme: "http", Host: proxyAddr, User: url.UserPassword(demoUser, demoPassword),
		}),
		TLSClientConfig:   &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		DisableKeepAlives: true,
	}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	tick := time.NewTicker(demoEvery)
	defer tick.Stop()
	pages := []string{s.secure.URL() + "/", s.plain.URL() + "/", s.secure.URL() + "/bytes?n=100000", s.plain.URL() + "/status?code=404"}
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		page := pages[i%len(pages)]
		start := time.Now()
		n, status, err := fetch(ctx, client, page)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			log.Error().Err(err).Str("url", page).Msg("request")
			continue
		}
		log.Info().Str("url", page).Int("status", status).Int64("bytes", n).Dur("took", time.Since(start)).Msg("request")
	}
}

func fetch(ctx context.Context, client *http.Client, page string) (int64, int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return 0, 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, 0, err
	}
	n, err := io.Copy(io.Discard, response.Body)
	return n, response.StatusCode, errors.Join(err, response.Body.Close())
}
