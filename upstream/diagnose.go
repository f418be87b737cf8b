package upstream

import (
	"context"
	"crypto/x509"
	"errors"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"maskrelay/upstream/vendor"
)

const (
	// diagnoseAtOnce bounds the gateways that are looked at together.
	diagnoseAtOnce = 16
	// diagnoseAddrs bounds the addresses of one gateway that are dialled.
	diagnoseAddrs = 8
)

// HopResult is how a hop went.
type HopResult string

// The results.
const (
	HopOK      HopResult = "ok"
	HopFailed  HopResult = "failed"
	HopSkipped HopResult = "skipped" // not tried, or it says nothing; Detail says why
)

// The hops of a gateway, in their order. Of an http target there is no HopConnect and no
// HopTarget: HopRequest is both.
const (
	HopResolve         = "dns"
	HopTCP             = "tcp" // one for each address
	HopTLS             = "tls"
	HopConnect         = "connect"          // the tunnel, with the operator's own login
	HopConnectCustomer = "connect_customer" // the tunnel, with the login that the customer's parameters give
	HopRequest         = "request"
	HopRequestCustomer = "request_customer"
	HopTarget          = "target"
)

// Hop is one step of an exchange that was tried. Its texts are for the operator: they
// hold addresses and the vendor's words, but no password, token or template.
type Hop struct {
	Name   string
	Result HopResult
	Detail string        // what was found, or why it was skipped
	Took   time.Duration // 0 = nothing was waited for
	Cause  Cause         // of a failure
	Status int           // the gateway's status code, or SOCKS5's reply; 0 = none
	Vendor string        // the gateway's own words: status line, telling fields, beginning of the body
	Advice string        // of a failure: what to do
}

// Diagnosis is how the hops of one gateway went, up to the target.
type Diagnosis struct {
	Gateway Gateway
	Hops    []Hop
}

// Failed is the first hop that failed, nil if none did.
func (d *Diagnosis) Failed() *Hop {
	for i := range d.Hops {
		if d.Hops[i].Result == HopFailed {
			return &d.Hops[i]
		}
	}
	return nil
}

// DiagnoseConfig is what Diagnose tries.
type DiagnoseConfig struct {
	// Options are those of the pool in question. Its gateways are looked at; Balance and
	// local ports do not matter. DialTimeout and ConnectTimeout bound each hop.
	Options Options
	// Target is an http, https or tcp URL; of tcp the open tunnel is all that is asked.
	Target *url.URL
	// TargetRoots verify an https target; nil = the system's.
	TargetRoots *x509.CertPool
	// Pool is the one that serves the customer; of gateways in others only the operator's
	// login is tried. "" = all serve him.
	Pool string
	// Account and Params are the customer's. Without parameters his login at the vendor is
	// the operator's, and nothing is tried twice.
	Account string
	Params  vendor.Params
	// Authorization replaces the gateways' logins (passthrough). "" = their own.
	Authorization string
}

// Diagnose takes one exchange through each gateway, hop by hop, with connections of its
// own: no pool learns of it. Gateways are tried beside each other, 16 at a time. It
// returns, in the order of the gateways, when all are through or soon after ctx ends;
// the hops that ctx cut short have failed with CauseTimeout or CauseCanceled. The error
// is about the configuration.
func Diagnose(ctx context.Context, c DiagnoseConfig) ([]Diagnosis, error) {
	if len(c.Options.Gateways) == 0 {
		return nil, errors.New("upstream: no gateway")
	}
	target, err := newDiagnoseTarget(c.Target, c.TargetRoots)
	if err != nil {
		return nil, err
	}
	out := make([]Diagnosis, len(c.Options.Gateways))
	exams := make([]*examination, len(out))
	for i, g := range c.Options.Gateways {
		out[i].Gateway = g
		if exams[i], err = newExamination(&c, g, target); err != nil {
			return nil, err
		}
	}
	places := make(chan struct{}, diagnoseAtOnce)
	var running sync.WaitGroup
	for i, x := range exams {
		places <- struct{}{}
		running.Go(func() {
			defer func() { <-places }()
			defer x.pool.Close()
			x.run(ctx)
			out[i].Hops = x.hops
		})
	}
	running.Wait()
	return out, nil
}

// examination is one gateway under examination.
type examination struct {
	c      *DiagnoseConfig
	pool   *Pool // of this gateway alone
	g      *gateway
	target *diagnoseTarget
	blot   *blotter
	hops   []Hop

	reached netip.AddrPort // the first address that took a connection
	refusal *http11Answer  // the last plain answer that the gateway made itself
}

func newExamination(c *DiagnoseConfig, g Gateway, target *diagnoseTarget) (*examination, error) {
	x := &examination{c: c, target: target, blot: newBlotter(g, c.Authorization)}
	g.Warm, g.MaxConns = 0, 0
	o := Options{
		Gateways: []Gateway{g}, DialTimeout: c.Options.DialTimeout, ConnectTimeout: c.Options.ConnectTimeout,
		CheckAddr: c.Options.CheckAddr, Sources: c.Options.Sources, DNSServer: c.Options.DNSServer,
		GatewayMade: x.gatewayMade,
		Lookup: func(context.Context, string, string) ([]netip.Addr, error) {
			return []netip.Addr{x.reached.Addr()}, nil // plain requests go where the other hops went
		},
	}
	var err error
	if x.pool, err = NewPool(o); err != nil {
		return nil, err
	}
	x.g = x.pool.gateways[0]
	return x, nil
}

// run goes through the hops.
func (x *examination) run(ctx context.Context) {
	if x.g.Scheme == SchemeDirect {
		x.throughNothing(ctx)
		return
	}
	addrs := x.resolve(ctx)
	if addrs == nil {
		x.skipFrom(HopTCP, "the gateway's name has no address")
		return
	}
	x.dialAll(ctx, addrs)
	if !x.reached.IsValid() {
		x.skipFrom(HopTLS, "the gateway was not reached")
		return
	}
	if x.g.Scheme == SchemeHTTPS && !x.secured(ctx) {
		x.skipFrom(HopConnect, "there is no TLS with the gateway")
		return
	}
	if x.target.url.Scheme == "http" {
		x.requests(ctx)
		return
	}
	x.tunnels(ctx)
}

// skipFrom notes the hops that cannot be tried, from one of HopTCP, HopTLS and HopConnect on.
func (x *examination) skipFrom(first, why string) {
	var names []string
	switch {
	case first == HopTCP:
		names = append(names, HopTCP)
		fallthrough
	case first == HopTLS:
		if x.g.Scheme == SchemeHTTPS {
			names = append(names, HopTLS)
		}
	}
	if x.target.url.Scheme == "http" {
		names = append(names, HopRequest)
	} else {
		names = append(names, HopConnect, HopTarget)
	}
	for _, name := range names {
		x.skip(name, why)
	}
}

func (x *examination) skip(name, why string) {
	x.hops = append(x.hops, Hop{Name: name, Result: HopSkipped, Detail: why})
}

// ok notes a hop that went well. What others have written in detail was cleaned.
func (x *examination) ok(name, detail string, began time.Time) {
	x.hops = append(x.hops, Hop{Name: name, Result: HopOK, Detail: detail, Took: time.Since(began)})
}

// fail notes a hop that failed. answer is what the gateway said; nil = nothing.
func (x *examination) fail(name string, failure *ConnectError, answer *http11Answer, began time.Time) {
	cause, advice := x.judge(failure, answer)
	hop := Hop{
		Name: name, Result: HopFailed, Took: time.Since(began), Cause: cause, Status: failure.Status,
		Detail: x.blot.clean(whatFailed(failure, cause)), Advice: advice,
	}
	if answer != nil {
		hop.Vendor = answer.words(x.blot, x.g.Vendor.Headers())
	}
	x.hops = append(x.hops, hop)
}
