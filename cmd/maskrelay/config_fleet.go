package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"maskrelay/proxy/account"
	"maskrelay/proxy/fleet"
)

// RedisConfig is what the relays of a fleet share.
type RedisConfig struct {
	RedisURL Secret    `env:"REDIS_URL"`                           // "" = this relay stands alone
	Down     RedisDown `env:"REDIS_DOWN" envDefault:"local_share"` // while Redis does not answer
	RedisCA  string    `env:"REDIS_CA_FILE"`                       // PEM roots that Redis must be signed by; "" = the system's
	NodeName string    `env:"NODE_NAME"`                           // this relay among the others; set to nothing it is the host's name
}

// WebhookConfig is whom the relay tells of used-up quotas.
type WebhookConfig struct {
	WebhookURL    Secret `env:"URL"`    // "" = nobody
	WebhookSecret Secret `env:"SECRET"` // key of the signature; "" = unsigned
}

// nodeName is what a name among relays may be: it goes into keys, metrics and log lines.
var nodeName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// validateRedis checks what stands around the URL, which buildFleet judges.
func (c *Config) validateRedis(p *problems) {
	r := &c.Redis
	if r.NodeName != "" && !nodeName.MatchString(r.NodeName) {
		p.addf("NODE_NAME", "%q is not a name of letters, digits, dots, dashes and underscores, at most 64 of them", r.NodeName)
	}
	if r.RedisURL != "" || p.failed("REDIS_URL") {
		return
	}
	c.noEffect(p, "without "+envPrefix+"REDIS_URL", "REDIS_DOWN", "REDIS_CA_FILE")
	if c.Auth.InRedis && !p.failed("ACCOUNTS_REDIS") {
		p.addf("ACCOUNTS_REDIS", "needs %sREDIS_URL", envPrefix)
	}
}

// validateUsage makes sure that a ledger could be kept, without opening one that a running relay may hold.
func (c *Config) validateUsage(p *problems) {
	switch path := c.UsageFile; {
	case path == "":
	case c.Redis.RedisURL != "":
		p.addf("USAGE_FILE", "has no effect with %sREDIS_URL, where usage lies then; leave it out", envPrefix)
	default:
		p.add("USAGE_FILE", checkUsageFile(path))
	}
}

// checkUsageFile reports why a ledger could not be written at path, nil if it could.
func checkUsageFile(path string) error {
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	default:
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return f.Close()
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".maskrelay-*") // permissions, full disks and read-only mounts: only trying tells
	if err != nil {
		return fmt.Errorf("directory %s: %w", dir, bottom(err))
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func (c *Config) validateWebhook(p *problems) {
	w := c.Webhook
	if w.WebhookURL != "" {
		_, err := parseHTTP(w.WebhookURL)
		p.add("WEBHOOK_URL", err)
		return
	}
	if !p.failed("WEBHOOK_URL") {
		c.noEffect(p, "without "+envPrefix+"WEBHOOK_URL", "WEBHOOK_SECRET")
	}
}

// buildFleet lets package fleet judge the URL; nothing is dialled.
func (c *Config) buildFleet(p *problems) {
	r := &c.Redis
	if r.NodeName == "" {
		r.NodeName, _ = os.Hostname() // where it has none, package fleet says so
	}
	if r.RedisURL == "" || p.failed("REDIS_URL", "NODE_NAME") {
		return
	}
	config := fleet.Config{URL: r.RedisURL.Reveal(), Node: r.NodeName}
	if err := tryFleet(config); err != nil {
		p.addf("REDIS_URL", "%s", strings.TrimPrefix(err.Error(), "fleet: "))
		return
	}
	if config.CAFile = r.RedisCA; config.CAFile != "" {
		if u, err := url.Parse(config.URL); err != nil || u.Scheme != "rediss" {
			c.noEffect(p, "without rediss:// in "+envPrefix+"REDIS_URL", "REDIS_CA_FILE")
			return
		}
		if checkCAFile("REDIS_CA_FILE", r.RedisCA, p); p.failed("REDIS_CA_FILE") {
			return
		}
		if err := tryFleet(config); err != nil {
			p.addf("REDIS_CA_FILE", "%s", strings.TrimPrefix(err.Error(), "fleet: authorities: "))
			return
		}
	}
	c.Fleet = &config
}

func tryFleet(config fleet.Config) error {
	client, err := fleet.Open(config)
	if err != nil {
		return err
	}
	return client.Close() // it has no connection
}

// warnFleet looks at secrets in plain text, and at what is forgotten at the end of the process.
func (c *Config) warnFleet(warn func(name, text string)) {
	for _, s := range []struct {
		name, scheme, better string
		url                  Secret
	}{
		{"REDIS_URL", "redis", "rediss", c.Redis.RedisURL},
		{"AUTH_URL", "http", "https", c.Hook.HookURL},
		{"WEBHOOK_URL", "http", "https", c.Webhook.WebhookURL},
	} {
		if u, err := url.Parse(s.url.Reveal()); err == nil && u.Scheme == s.scheme && exposed(u.Hostname()) {
			warn(s.name, fmt.Sprintf("%s:// to %s is plain text for everybody on the way; use %s://", s.scheme, u.Hostname(), s.better))
		}
	}
	if c.Webhook.WebhookURL != "" && c.Webhook.WebhookSecret == "" {
		warn("WEBHOOK_SECRET", "not set: messages are not signed, so that whoever finds the receiver can invent some")
	}
	if c.Redis.RedisURL == "" && c.UsageFile == "" && c.givesQuota() {
		warn("USAGE_FILE", "not set, nor is "+envPrefix+"REDIS_URL: usage is forgotten when the relay ends, and quotas begin anew")
	}
}

// givesQuota reports whether an account is known to have a quota. What a hook or Redis will say is not known.
func (c *Config) givesQuota() bool {
	if c.User.UserQuota > 0 {
		return true
	}
	found := false
	if c.Accounts != nil {
		c.Accounts.Range(func(a *account.Account) bool {
			found = a.Quota > 0
			return !found
		})
	}
	return found
}
