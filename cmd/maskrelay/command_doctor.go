package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"maskrelay/proxy"
	"maskrelay/upstream"
)

const (
	doctorTimeout = 20 * time.Second
	doctorTarget  = "https://example.com/"
)

// doctorFlags are the command line.
type doctorFlags struct {
	user, target, passwordFile, gateway, relay string
	timeout                                    time.Duration
	asJSON                                     bool
}

func newDoctor(p process) *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Send one real request hop by hop and say which hop fails, why, and what to do",
		Long: `Send one real request hop by hop: the gateway's name, TCP to each of its addresses, TLS if it has it, the tunnel with the
operator's login (and with the login that a customer's parameters give, as in --user alice-country-us), the target through it;
then the whole way through this relay's own listener. Each gateway of the environment is looked at, or the one of --gateway.

The relay's own way needs an account: --user, and its password from the accounts if it is plain text there, or from
--password-file ("-" is standard input). What the vendor answers is shown, without passwords and tokens: it is for the operator.
The running relay's state is not touched; what is sent counts at the vendor as any request.

Without --target it is MASKRELAY_HEALTH_TARGET, or ` + doctorTarget + `. A target tcp://host:port asks for the tunnel alone.
Exit code 0 when all hops are fine, 1 when one failed, 2 for a bad configuration or usage.`,
		Example: "  maskrelay doctor\n  maskrelay doctor --user alice-country-us --target https://shop.example/\n" +
			"  printf %s 'secret' | maskrelay doctor --user alice --password-file - --json | jq -r .summary",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return runDoctor(ctx, p, f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.user, "user", "", "a customer's username, with parameters or without")
	flags.StringVar(&f.target, "target", "", "what to ask for: an http, https or tcp URL")
	flags.StringVar(&f.passwordFile, "password-file", "", "file with the customer's password; - is standard input")
	flags.StringVar(&f.gateway, "gateway", "", "look at the gateway of this name only")
	flags.StringVar(&f.relay, "relay", "", "the relay's own listener, host:port (default: where LISTEN is on this machine)")
	flags.DurationVar(&f.timeout, "timeout", doctorTimeout, "end of everything")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	return cmd
}

func runDoctor(ctx context.Context, p process, f doctorFlags) error {
	cfg, err := LoadConfig(p.environ)
	if err != nil {
		return badConfig(err)
	}
	d, err := newDoctorRun(cfg, p, f)
	if err != nil {
		return badConfig(err)
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	r, err := d.run(ctx)
	if err != nil {
		return badConfig(err)
	}
	if f.asJSON {
		err = r.writeJSON(p.stdout)
	} else {
		err = r.writeText(p.stdout, coloured(p))
	}
	if err != nil {
		return failed(err)
	}
	if !r.OK {
		return failed(errors.New("doctor: " + hops(r.failed) + " failed"))
	}
	return nil
}

// doctorRun is one run of the doctor.
type doctorRun struct {
	cfg      *Config
	flags    doctorFlags
	target   *url.URL
	at       proxy.Target
	targets  *proxy.Targets
	gateways []upstream.Gateway
	customer doctorCustomer
	listener doctorListener
	known    []doctorHop    // what examineCustomer found
	roots    *x509.CertPool // for https targets; nil = the system's
}

// newDoctorRun checks the command line against the configuration. Each error begins with its flag.
func newDoctorRun(cfg *Config, p process, f doctorFlags) (*doctorRun, error) {
	d := &doctorRun{cfg: cfg, flags: f, gateways: cfg.Gateways}
	var errs []error
	check := func(name string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", name, err))
		}
	}
	var err error
	if f.timeout <= 0 {
		check("timeout", errors.New("is not positive"))
	}
	d.target, d.at, err = parseDoctorTarget(f.target, cfg)
	check("target", err)
	if f.gateway != "" {
		d.gateways, err = gatewayNamed(cfg.Gateways, f.gateway)
		check("gateway", err)
	}
	d.listener, err = doctorListenerOf(cfg, f.relay)
	check("relay", err)
	d.customer, err = d.newCustomer(p)
	if err != nil {
		errs = append(errs, err)
	}
	if d.targets, err = proxy.NewTargets(targetsOf(cfg)); err != nil {
		errs = append(errs, err)
	}
	return d, errors.Join(errs...)
}

func targetsOf(cfg *Config) proxy.TargetsConfig {
	return proxy.TargetsConfig{Ports: cfg.Targets.AllowPorts.List, DenyHosts: cfg.Targets.DenyHosts, AllowPrivate: cfg.Targets.AllowPrivate}
}

// gatewayNamed is the gateway of a name, alone.
func gatewayNamed(all []upstream.Gateway, name string) ([]upstream.Gateway, error) {
	i := slices.IndexFunc(all, func(g upstream.Gateway) bool { return g.Name == name })
	if i >= 0 {
		return all[i : i+1], nil
	}
	names := make([]string, len(all))
	for i, g := range all {
		names[i] = g.Name
	}
	return nil, fmt.Errorf("no gateway is called %q; there are %s", name, strings.Join(names[:min(len(names), 20)], ", "))
}

// parseDoctorTarget reads the target. Without one it is what the health checks ask for, or a page that everybody may ask for.
func parseDoctorTarget(s string, cfg *Config) (*url.URL, proxy.Target, error) {
	if s == "" {
		s = defaultDoctorTarget(cfg)
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return nil, proxy.Target{}, errors.New("not a URL; write https://host/ or tcp://host:port")
	}
	port := u.Port()
	switch {
	case u.User != nil:
		return nil, proxy.Target{}, errors.New("a target takes no credentials")
	case u.Scheme == "http" && port == "":
		port = "80"
	case u.Scheme == "https" && port == "":
		port = "443"
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "tcp":
		return nil, proxy.Target{}, errors.New("the scheme is not http, https or tcp")
	}
	at, err := proxy.ParseTarget(net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, proxy.Target{}, errors.New("the host or the port is malformed")
	}
	return u, at, nil
}

// defaultDoctorTarget is the target of the health checks as a URL. What port it has says how it is asked.
func defaultDoctorTarget(cfg *Config) string {
	i := slices.IndexFunc(cfg.Effective(), func(s Setting) bool { return s.Name == envPrefix+"HEALTH_TARGET" })
	if i < 0 || cfg.Effective()[i].Value == "" {
		return doctorTarget
	}
	at := cfg.Effective()[i].Value
	switch _, port, _ := net.SplitHostPort(at); port {
	case "443":
		return "https://" + at + "/"
	case "80":
		return "http://" + at + "/"
	default:
		return "tcp://" + at
	}
}

// run goes all the ways. Gateways may take two thirds of the time, the relay's own way has the rest.
func (d *doctorRun) run(ctx context.Context) (*doctorReport, error) {
	began := time.Now()
	r := &doctorReport{Target: d.target.String(), User: d.customer.shown}
	r.Parts = append(r.Parts, d.policy())
	if part := d.examineCustomer(ctx); len(part.Hops) > 0 {
		d.known = part.Hops
		r.Parts = append(r.Parts, part)
	}
	limited, cancel := context.WithTimeout(ctx, d.flags.timeout*2/3)
	defer cancel()
	found, err := upstream.Diagnose(limited, d.diagnoseConfig())
	if err != nil {
		return nil, err
	}
	for i := range found {
		r.Parts = append(r.Parts, gatewayPart(&found[i]))
	}
	r.Parts = append(r.Parts, d.throughRelay(ctx, r))
	r.conclude(time.Since(began))
	return r, nil
}

func (d *doctorRun) diagnoseConfig() upstream.DiagnoseConfig {
	return upstream.DiagnoseConfig{
		Options: upstream.Options{
			Gateways: d.gateways, Sources: d.cfg.Sources, DNSServer: d.cfg.DNSServer.String(),
			DialTimeout: d.cfg.Timeouts.Dial, ConnectTimeout: d.cfg.Timeouts.Connect,
			CheckAddr: d.targets.CheckAddr, GatewayMade: proxy.GatewayMade(d.cfg.Policy),
		},
		Target: d.target, TargetRoots: d.roots, Pool: d.customer.pool, Account: d.customer.name, Params: d.customer.params,
		Authorization: d.customer.passthrough(),
	}
}

// policy says whether this relay lets customers go to the target at all, and which variable decides.
func (d *doctorRun) policy() doctorPart {
	part := doctorPart{Kind: "target", Name: d.at.String()}
	c := targetsOf(d.cfg)
	port := strconv.Itoa(int(d.at.Port))
	for _, rule := range []struct {
		only         proxy.TargetsConfig
		detail, name string
	}{
		{proxy.TargetsConfig{Ports: c.Ports, AllowPrivate: true}, "this relay refuses port " + port, "ALLOW_PORTS"},
		{proxy.TargetsConfig{DenyHosts: c.DenyHosts, AllowPrivate: true}, "this relay refuses this host", "DENY_HOSTS"},
		{proxy.TargetsConfig{AllowPrivate: c.AllowPrivate}, "this relay refuses addresses that are not public", "ALLOW_PRIVATE"},
	} {
		targets, err := proxy.NewTargets(rule.only)
		if err == nil && !targets.Allow(d.at) {
			part.Hops = append(part.Hops, doctorHop{
				Hop: "policy", Result: upstream.HopFailed, Cause: "target_denied",
				Detail: rule.detail + ": " + envPrefix + rule.name,
				Remedy: "change " + envPrefix + rule.name + " if customers may go there, or choose another --target",
			})
		}
	}
	if len(part.Hops) == 0 {
		part.Hops = []doctorHop{{Hop: "policy", Result: upstream.HopOK, Detail: "customers may go there"}}
	}
	return part
}
