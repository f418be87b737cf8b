package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"maskrelay/proxy"
	"maskrelay/proxy/account"
	"maskrelay/upstream"
	"maskrelay/upstream/upstreamtest"
)

// The audit's customer. Nothing of him is the operator's.
const (
	auditAccount  = "auditcustomer7f3a"
	auditPassword = "audit-password-91c4"
	auditSession  = "auditsession5e1f09"
)

// Time limits of the relays under test: their policy is the operator's, their patience is not.
// A vendor who keeps silent is waited for briefly; all others for longer than a busy machine takes. Idle is also how long a reply may
// take to be written, once it is there.
var (
	auditHasty   = TimeoutConfig{Header: 10 * time.Second, Dial: time.Second, Connect: time.Second, Idle: 5 * time.Second}
	auditPatient = TimeoutConfig{Header: 20 * time.Second, Dial: 20 * time.Second, Connect: 20 * time.Second, Idle: 20 * time.Second}
)

// auditConns are the connections that a relay under test may have.
const auditConns = 256

// auditBench is what all relays under test share: a certificate and what is around them.
type auditBench struct {
	dir       string // holds certificate and key
	roots     *x509.CertPool
	lines     *logWriter
	around    surroundings
	cert, key string
}

func newAuditBench() (*auditBench, error) {
	b := &auditBench{}
	ca, err := upstreamtest.NewCA()
	if err != nil {
		return nil, err
	}
	pair, err := ca.Server()
	if err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "maskrelay-audit-"); err != nil {
		return nil, err
	}
	b.roots = ca.Pool()
	b.cert, b.key = filepath.Join(b.dir, "cert.pem"), filepath.Join(b.dir, "key.pem")
	if err := writePair(b.cert, b.key, pair); err != nil {
		return nil, errors.Join(err, os.RemoveAll(b.dir))
	}
	b.lines = newLogWriter(io.Discard, nil)
	b.around = readSurroundings(b.lines, zerolog.Nop())
	return b, nil
}

func (b *auditBench) close() {
	b.lines.Close()
	_ = os.RemoveAll(b.dir) // a made key of no value
}

// writePair writes a certificate and its key as PEM.
func writePair(certFile, keyFile string, pair tls.Certificate) error {
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("a key of type %T", pair.PrivateKey)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	var chain []byte
	for _, c := range pair.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})...)
	}
	return errors.Join(os.WriteFile(certFile, chain, 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
}

// auditConfig is the operator's configuration for one gateway, with nothing of his
// services, customers and limits: what is left is the policy.
func (b *auditBench) auditConfig(cfg *Config, g upstream.Gateway) (*Config, error) {
	c := *cfg
	g.Pool = upstream.DefaultPool
	c.Gateways = []upstream.Gateway{g}
	loopback := Listeners{{Address: "127.0.0.1:0"}}
	c.Listen, c.TLS = loopback, TLSConfig{TLSListen: loopback, CertFile: b.cert, KeyFile: b.key}
	c.ProxyFrom, c.Admin, c.Guess, c.User, c.QueueTimeout = nil, AdminConfig{}, GuessConfig{}, UserConfig{}, 0
	c.Auth = AuthConfig{Mode: cfg.Auth.Mode}
	c.Redis, c.Fleet, c.UsageFile, c.Webhook, c.Drain = RedisConfig{}, nil, "", WebhookConfig{}, DrainConfig{}
	c.Health = HealthConfig{HealthInterval: time.Hour}
	c.MaxConns, c.Balance = auditConns, upstream.RoundRobin
	c.Accounts = nil
	if c.Auth.Mode != AuthOpen && c.Auth.Mode != AuthPassthrough {
		c.Auth.Mode = AuthAccounts
		list, err := account.ParseList(auditAccount + ":" + auditPassword)
		if err != nil {
			return nil, err
		}
		if c.Accounts, err = account.NewStore(account.StoreConfig{List: list}); err != nil {
			return nil, err
		}
	}
	return &c, nil
}

// standIn changes a configuration for a gateway that the stand-in vendor plays on loopback.
func standIn(c *Config, hasty bool) {
	c.Sources, c.DNSServer = nil, NameServer{}
	c.Timeouts = auditPatient
	if hasty {
		c.Timeouts = auditHasty
	}
	c.Targets = TargetConfig{AllowPorts: Ports{All: true}, AllowPrivate: true}
}

// maskFor is the configured policy that also knows further names of the vendor and the
// gateway's new address, as it would if they had been configured.
func maskFor(c, cfg *Config, brand string) error {
	m := *c
	m.Masking.VendorMarks = slices.Clone(cfg.Masking.VendorMarks)
	if brand != "" {
		m.Masking.VendorMarks = append(m.Masking.VendorMarks, brand)
	}
	m.Gateways = slices.Concat(cfg.Gateways, c.Gateways)
	p := &problems{}
	m.buildMasking(p)
	c.Policy, c.Brand = m.Policy, m.Brand
	return p.err()
}

// auditRelay is a relay under test that runs.
type auditRelay struct {
	bare, secured string
	close         func()
}

// start runs a relay on loopback until close.
func (b *auditBench) start(c *Config) (*auditRelay, error) {
	quiet := zerolog.Nop()
	back, err := newBacking(c, quiet)
	if err != nil {
		return nil, err
	}
	pc, pool, err := proxyConfig(c, b.around, quiet)
	if err != nil {
		back.close()
		return nil, err
	}
	back.complete(&pc)
	pc.FilePairs, pc.SpareConns, pc.Full = 0, auditConns, nil // a host that is full of other things proves nothing
	server, err := proxy.New(pc)
	if err != nil {
		back.close()
		return nil, err
	}
	back.server = server
	if err := server.Listen(context.Background()); err != nil {
		server.Close()
		back.close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { back.run(ctx) })
	running.Go(func() {
		_ = server.Run(ctx, ctx) // a listener on loopback: an audit without it fails loudly
		pool.Close()
	})
	addrs := server.Addrs()
	return &auditRelay{bare: addrs[0].String(), secured: addrs[1].String(), close: func() { cancel(); running.Wait() }}, nil
}

// vendorWords are names and domains of a gateway's vendor that the policy knows.
func vendorWords(cfg *Config, g upstream.Gateway) []string {
	alone := *cfg
	alone.Gateways = []upstream.Gateway{g}
	words, _ := alone.gatewayMarks()
	words = slices.Concat(cfg.Masking.VendorMarks, words)
	slices.Sort(words)
	return slices.Compact(words)
}

// brandOf is a word by which the stand-in vendor can call himself, so that it is the
// operator's own vendor who is as loud as he can be; "" = there is none.
func brandOf(words []string) string {
	for _, w := range words {
		if len(w) >= 4 && strings.Trim(strings.ToLower(w), "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && strings.Trim(w, "0123456789-") != "" {
			return w
		}
	}
	return ""
}
