package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"maskrelay/proxy/account"
)

const (
	maxHookTimeout     = 30 * time.Second // a customer waits for it
	minHookConcurrency = 2                // half of them ask again for known customers
	maxHookConcurrency = 10_000
)

// HookConfig is the service that AUTH=hook asks who a customer is.
type HookConfig struct {
	HookURL     Secret        `env:"URL"`                           // required; http or https, may hold credentials
	Style       HookStyle     `env:"STYLE" envDefault:"json"`       // of question and answer
	TTL         time.Duration `env:"TTL" envDefault:"60s"`          // a yes is asked again after it
	NegativeTTL time.Duration `env:"NEGATIVE_TTL" envDefault:"10s"` // a no is; 0 = each time
	Stale       time.Duration `env:"STALE" envDefault:"10m"`        // a yes lives on so long while the hook fails; 0 = no longer than TTL
	HookTimeout time.Duration `env:"TIMEOUT" envDefault:"2s"`       // of one question
	Concurrency int           `env:"CONCURRENCY" envDefault:"64"`   // questions at once
	HookToken   Secret        `env:"TOKEN"`                         // bearer; "" = none
	ClientCert  string        `env:"CERT_FILE"`                     // PEM chain shown to the hook; "" = none
	ClientKey   string        `env:"KEY_FILE"`                      // its key
	HookCA      string        `env:"CA_FILE"`                       // PEM roots that the hook must be signed by; "" = the system's

	TLS *tls.Config `env:"-"` // built from the above for an https hook, else nil
}

// GuessConfig bounds wrong logins a minute; 0 = no bound.
type GuessConfig struct {
	PerAddress int `env:"PER_ADDRESS" envDefault:"60"`
	PerName    int `env:"PER_NAME" envDefault:"300"`
}

// validateHook checks the hook's variables, all of which are nothing without AUTH=hook.
func (c *Config) validateHook(p *problems) {
	if p.failed("AUTH") {
		return
	}
	if c.Auth.Mode != AuthHook {
		for _, f := range fields(&c.Hook, "AUTH_") {
			c.noEffect(p, "with AUTH="+string(c.Auth.Mode), f.name)
		}
		return
	}
	h := c.Hook
	positive(p, "AUTH_TTL", h.TTL, maxTimeout)
	bounded(p, "AUTH_NEGATIVE_TTL", h.NegativeTTL, maxTimeout)
	bounded(p, "AUTH_STALE", h.Stale, maxTimeout)
	positive(p, "AUTH_TIMEOUT", h.HookTimeout, maxHookTimeout)
	if (h.Concurrency < minHookConcurrency || h.Concurrency > maxHookConcurrency) && !p.failed("AUTH_CONCURRENCY") {
		p.addf("AUTH_CONCURRENCY", "%d is not between %d and %d", h.Concurrency, minHookConcurrency, maxHookConcurrency)
	}
	checkToken(p, "AUTH_TOKEN", h.HookToken)
	if (h.ClientCert == "") != (h.ClientKey == "") {
		set, missing := "CERT", "KEY"
		if h.ClientCert == "" {
			set, missing = missing, set
		}
		p.addf("AUTH_"+missing+"_FILE", "%sAUTH_%s_FILE needs it", envPrefix, set)
	}
	c.validateHookURL(p)
}

func (c *Config) validateHookURL(p *problems) {
	if c.Hook.HookURL == "" {
		if !p.failed("AUTH_URL") {
			p.addf("AUTH_URL", "missing; AUTH=hook asks it who a customer is")
		}
		return
	}
	u, err := parseHTTP(c.Hook.HookURL)
	if err != nil {
		p.add("AUTH_URL", err)
		return
	}
	if u.User != nil && c.Hook.HookToken != "" { // both would be the Authorization field
		p.addf("AUTH_TOKEN", "%sAUTH_URL holds credentials too; keep one of the two", envPrefix)
	}
	if u.Scheme == "http" {
		c.noEffect(p, "without https in "+envPrefix+"AUTH_URL", "AUTH_CERT_FILE", "AUTH_KEY_FILE", "AUTH_CA_FILE")
	}
}

// parseHTTP reads the URL of a service. Its secrets are in no error.
func parseHTTP(s Secret) (*url.URL, error) {
	u, err := url.Parse(s.Reveal())
	switch {
	case err != nil:
		return nil, errors.New("not a URL; write https://host:port/path")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("the scheme is not http or https")
	case u.Hostname() == "":
		return nil, errors.New("the host is missing; write https://host:port/path")
	case u.Fragment != "":
		return nil, errors.New("what stands behind # is never sent; write a # of a password as %23")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, errors.New("the port is not between 1 and 65535")
		}
	}
	return u, nil
}

// exposed reports whether plain text to host would cross the Internet, as far as its name tells.
func exposed(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return !ip.IsLoopback() && !ip.IsPrivate() && !ip.IsLinkLocalUnicast()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, suffix := range []string{".internal", ".local", ".localhost"} {
		if strings.HasSuffix(host, suffix) {
			return false
		}
	}
	return strings.Contains(host, ".") // a single label is a neighbour's name
}

// shownURL is a URL without what may be secret: the user, and unless withPath also the path; never the query.
func shownURL(s Secret, withPath bool) string {
	u, err := url.Parse(s.Reveal())
	if s == "" || err != nil {
		return s.String()
	}
	out := u.Scheme + "://"
	if u.User != nil {
		out += redacted + "@"
	}
	out += u.Host
	switch rest := strings.Trim(u.Path, "/") + u.RawQuery; {
	case withPath:
		out += u.EscapedPath()
	case rest != "":
		out += "/" + redacted
	}
	return out
}

// buildHook lets package account judge the rest; nothing is dialled.
func (c *Config) buildHook(p *problems) {
	if c.Auth.Mode != AuthHook || p.failed("AUTH") {
		return
	}
	c.buildHookTLS(p)
	for _, f := range fields(&c.Hook, "AUTH_") {
		if p.failed(f.name) {
			return
		}
	}
	if _, err := account.NewHook(c.hookConfig()); err != nil {
		p.addf("AUTH_URL", "%s", strings.TrimPrefix(err.Error(), "account: hook: "))
	}
}

// buildHookTLS makes what an https hook is dialled with.
func (c *Config) buildHookTLS(p *problems) {
	h := &c.Hook
	u, err := parseHTTP(h.HookURL)
	if err != nil || u.Scheme != "https" {
		return
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if h.HookCA != "" {
		config.RootCAs = x509.NewCertPool()
		pem, err := readFile(h.HookCA, maxPEMFile)
		if err != nil {
			p.add("AUTH_CA_FILE", err)
		} else if !config.RootCAs.AppendCertsFromPEM(pem) {
			p.addf("AUTH_CA_FILE", "%s holds no certificate", h.HookCA)
		}
	}
	if h.ClientCert != "" && h.ClientKey != "" {
		if pair, ok := readPair("AUTH_", h.ClientCert, h.ClientKey, p); ok {
			client := &clientPair{certFile: h.ClientCert, keyFile: h.ClientKey}
			client.last.Store(&pair)
			config.GetClientCertificate = client.get
		}
	}
	h.TLS = config
}

// clientPair is a certificate that the relay shows. The files are read at each handshake, which are rare, so that a
// renewed one is taken up; while they are unfit, the last good one serves on. Safe for concurrent use.
type clientPair struct {
	certFile, keyFile string
	last              atomic.Pointer[tls.Certificate]
}

func (c *clientPair) get(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if pair, ok := readPair("AUTH_", c.certFile, c.keyFile, &problems{}); ok {
		c.last.Store(&pair)
	}
	return c.last.Load(), nil
}

// hookConfig is how package account asks the hook; serve adds who is in use and who is told of trouble.
func (c *Config) hookConfig() account.HookConfig {
	h := c.Hook
	return account.HookConfig{
		URL: h.HookURL.Reveal(), Style: string(h.Style), Token: h.HookToken.Reveal(), TLS: h.TLS,
		TTL: h.TTL, NegativeTTL: h.NegativeTTL, Stale: h.Stale, Timeout: h.HookTimeout, Concurrency: h.Concurrency,
		Check: c.poolCheck(),
	}
}
