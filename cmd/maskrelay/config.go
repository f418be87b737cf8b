package main

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"maskrelay/masking"
	"maskrelay/proxy/account"
	"maskrelay/proxy/fleet"
	"maskrelay/upstream"
)

// envPrefix begins the name of every variable.
const envPrefix = "MASKRELAY_"

// Config is the whole configuration, read once from the environment by LoadConfig and not changed afterwards.
// The env tags are the variables' names behind envPrefix; field names are unique over all
// sections, because that is how a parse error finds its variable.
type Config struct {
	Listen       Listeners `env:"LISTEN" envDefault:":8080"` // plain proxy listeners; empty = none
	TLS          TLSConfig `envPrefix:"TLS_"`
	ProxyFrom    Prefixes  `env:"PROXY_PROTOCOL_FROM"` // load balancers that must send a PROXY header; empty = nobody may
	Admin        AdminConfig
	Public       PublicAddr `env:"PUBLIC_ADDR"` // what customers use, host[:port]; "" = the listeners' own
	Auth         AuthConfig
	Hook         HookConfig    `envPrefix:"AUTH_"`           // for AUTH=hook
	Guess        GuessConfig   `envPrefix:"LOGIN_FAILURES_"` // for modes in which the relay sees to logins
	Upstream     Secret        `env:"UPSTREAM"`              // the one gateway as a URL; "" = Upstreams. Gateways holds the parsed form
	Balance      Balance       `env:"BALANCE" envDefault:"round_robin"`
	SessionKey   Secret        `env:"SESSION_KEY"` // of the hash that stands for customers' sessions; "" = derived from vendors' passwords
	Health       HealthConfig  `envPrefix:"HEALTH_"`
	Sources      SourceAddrs   `env:"SOURCE_ADDRS"`                  // local addresses of connections to gateways; empty = the kernel chooses
	DNSServer    NameServer    `env:"DNS_SERVER"`                    // that gateways' names are looked up at; empty = the system's
	MaxConns     int           `env:"MAX_CONNS"`                     // connections on this relay; 0 = what the host allows
	QueueTimeout time.Duration `env:"QUEUE_TIMEOUT" envDefault:"0s"` // a new connection's wait for room at MAX_CONNS; 0 = refused at once
	User         UserConfig
	Redis        RedisConfig
	UsageFile    string        `env:"USAGE_FILE"` // the ledger without Redis; "" = memory, until the end of the process
	Webhook      WebhookConfig `envPrefix:"WEBHOOK_"`
	Timeouts     TimeoutConfig
	Drain        DrainConfig `envPrefix:"DRAIN_"`
	Targets      TargetConfig
	Masking      MaskingConfig
	Log          LogConfig         `envPrefix:"LOG_"`
	Upstreams    []UpstreamConfig  `env:"-"` // MASKRELAY_UPSTREAMS_<n>_…, in order
	SecretFiles  map[string]string `env:"-"` // variable (behind envPrefix) → file that its value came from

	accountList []*account.Account // of ACCOUNTS, to be shown
	set         map[string]bool    // variables (behind envPrefix) that the operator gave a value, whatever it is

	// Built from the above; LoadConfig returns an error if any of them cannot be built.

	Gateways []upstream.Gateway `env:"-"` // at least one
	Accounts *account.Store     `env:"-"` // of file and list; nil unless AUTH=accounts; it watches nothing by itself
	Fleet    *fleet.Config      `env:"-"` // nil without REDIS_URL; [fleet.Open] takes it
	Brand    masking.Brand      `env:"-"`
	Policy   *masking.Policy    `env:"-"` // knows VENDOR_MARKS, both strip lists and the gateways' hosts
}

// TLSConfig is the listeners behind TLS.
type TLSConfig struct {
	TLSListen Listeners `env:"LISTEN"`    // empty = none
	CertFile  string    `env:"CERT_FILE"` // PEM chain
	KeyFile   string    `env:"KEY_FILE"`  // PEM key
}

// AdminConfig is the admin server.
type AdminConfig struct {
	AdminListen Address `env:"ADMIN_LISTEN" envDefault:"127.0.0.1:9090"` // "" = off
	AdminToken  Secret  `env:"ADMIN_TOKEN"`                              // "" = guarded paths answer loopback only
}

// AuthConfig is who may use the relay.
type AuthConfig struct {
	Mode         AuthMode `env:"AUTH" envDefault:"accounts"`
	AccountList  Secret   `env:"ACCOUNTS"`                          // name:password[:max connections],…
	AccountsFile string   `env:"ACCOUNTS_FILE"`                     // YAML
	InRedis      bool     `env:"ACCOUNTS_REDIS" envDefault:"false"` // accounts of the fleet too, which the API changes
	AllowFrom    Prefixes `env:"ALLOW_FROM"`                        // client networks; empty = all
}

// UserConfig is the caps of accounts that name none, 0 = no limit, and what they are measured by.
type UserConfig struct {
	UserMaxConns    int           `env:"USER_MAX_CONNS"`
	UserConnRate    float64       `env:"USER_CONN_RATE"`                // new connections per second
	UserConnBurst   int           `env:"USER_CONN_BURST"`               // 0 = one second's worth
	UserBandwidth   Bandwidth     `env:"USER_BANDWIDTH" envDefault:"0"` // bytes per second, each way
	UserMaxIPs      int           `env:"USER_MAX_IPS"`                  // different client addresses within MaxIPsWindow
	MaxIPsWindow    time.Duration `env:"MAX_IPS_WINDOW" envDefault:"10m"`
	UserQuota       Quota         `env:"USER_QUOTA" envDefault:"0"`               // bytes in a period, both ways together
	UserQuotaPeriod QuotaPeriod   `env:"USER_QUOTA_PERIOD" envDefault:"lifetime"` // also of accounts that have a quota and name no period
}

// HealthConfig is how gateways are probed.
type HealthConfig struct {
	HealthInterval time.Duration `env:"INTERVAL" envDefault:"10s"` // between two probes of a gateway
	HealthTarget   HostPort      `env:"TARGET"`                    // a tunnel to it is part of a probe; "" = it is not
}

// TimeoutConfig is how long the relay waits; all positive.
type TimeoutConfig struct {
	Header  time.Duration `env:"HEADER_TIMEOUT" envDefault:"10s"`  // a request head
	Dial    time.Duration `env:"DIAL_TIMEOUT" envDefault:"5s"`     // TCP and TLS to a gateway
	Connect time.Duration `env:"CONNECT_TIMEOUT" envDefault:"30s"` // the gateway's CONNECT reply
	Idle    time.Duration `env:"IDLE_TIMEOUT" envDefault:"10m"`    // a tunnel without a byte either way
}

// DrainConfig is the end of the program; zero skips the phase.
type DrainConfig struct {
	Grace   time.Duration `env:"GRACE" envDefault:"15s"`   // not ready, but still accepting
	Timeout time.Duration `env:"TIMEOUT" envDefault:"10m"` // waiting for tunnels
}

// TargetConfig is where customers may go.
type TargetConfig struct {
	AllowPorts   Ports        `env:"ALLOW_PORTS" envDefault:"80,443"`
	DenyHosts    HostPatterns `env:"DENY_HOSTS"`
	AllowPrivate bool         `env:"ALLOW_PRIVATE" envDefault:"false"`
}

// MaskingConfig is what is hidden and under which name.
type MaskingConfig struct {
	BrandName     string  `env:"BRAND" envDefault:"Proxy"`
	VendorMarks   Strings `env:"VENDOR_MARKS"`
	StripRequest  Strings `env:"STRIP_REQUEST_HEADERS"`
	StripResponse Strings `env:"STRIP_RESPONSE_HEADERS"`
}

// LogConfig is the log.
type LogConfig struct {
	Level      LogLevel  `env:"LEVEL" envDefault:"info"`
	Format     LogFormat `env:"FORMAT" envDefault:"json"`
	LogTargets bool      `env:"TARGETS" envDefault:"true"` // false leaves target hosts out
}

// UpstreamConfig is one of several gateways.
type UpstreamConfig struct {
	URL             Secret `env:"URL"` // may hold credentials; required without a preset
	Name            string `env:"NAME"`
	Vendor          string `env:"VENDOR" envDefault:"generic"`
	Pool            string `env:"POOL" envDefault:"default"`
	Username        Secret `env:"USERNAME"`
	Password        Secret `env:"PASSWORD"`
	Weight          int    `env:"WEIGHT" envDefault:"1"`
	GatewayMaxConns int    `env:"MAX_CONNS"` // 0 = no limit
	Warm            int    `env:"WARM"`      // TLS connections kept ready; 0 = none
	CAFile          string `env:"CA_FILE"`
}

// LoadConfig reads the configuration from environ (as [os.Environ] gives it), the files it names included, and builds what
// can only be judged by building it. The error joins all problems, one per line, each beginning with its variable's or
// file's name; no secret is in it. Nothing is listened on, dialled or left running.
func LoadConfig(environ []string) (*Config, error) {
	p := &problems{}
	vars := variables(environ)
	checkNames(vars, p)
	vars, off := dropEmpty(vars)
	files := readSecretFiles(vars, p)

	c := &Config{SecretFiles: files}
	c.wasSet(vars)
	parse(c, envPrefix, vars, p)
	c.turnOff(off)
	c.loadUpstreams(vars, p)
	c.validate(p)
	c.build(p)
	if err := p.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// loadSome is LoadConfig for commands that need no whole configuration: it reads only the named variables, of what makes
// sense alone (the admin server, Redis, the usage file). Everything else has its default or is nil.
func loadSome(environ []string, names ...string) (*Config, error) {
	p := &problems{}
	vars := variables(environ)
	for name := range vars {
		if !slices.Contains(names, name) && !slices.Contains(names, strings.TrimSuffix(name, "_FILE")) {
			delete(vars, name)
		}
	}
	vars, off := dropEmpty(vars)
	c := &Config{SecretFiles: readSecretFiles(vars, p)}
	c.wasSet(vars)
	parse(c, envPrefix, vars, p)
	c.turnOff(off)
	c.validateAdmin(p)
	c.validateRedis(p)
	c.buildFleet(p)
	if err := p.err(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Config) wasSet(vars map[string]string) {
	c.set = make(map[string]bool, len(vars))
	for name := range vars {
		c.set[name] = true
	}
}

// turnOff empties the listeners for which nothing is a value of its own.
func (c *Config) turnOff(off map[string]bool) {
	if off["LISTEN"] {
		c.Listen = nil
	}
	if off["ADMIN_LISTEN"] {
		c.Admin.AdminListen = ""
	}
}

// parse fills the struct v from the variables behind prefix and reports every one that cannot be parsed.
func parse(v any, prefix string, vars map[string]string, p *problems) {
	full := make(map[string]string, len(vars))
	for name, value := range vars {
		if name != "" && !strings.HasSuffix(name, "_") { // a section's own prefix is no variable, but the parser would read it
			full[envPrefix+name] = value
		}
	}
	err := env.ParseWithOptions(v, env.Options{Environment: full, Prefix: prefix})
	p.addParse(err, fieldNames(v, prefix), full)
}

// validate checks what concerns single values beyond their type, and values against each other.
func (c *Config) validate(p *problems) {
	c.validateNumbers(p)
	c.validateListeners(p)
	c.validateTLS(p)
	c.validateAdmin(p)
	c.validateAuth(p)
	c.validateHook(p)
	c.validateRedis(p)
	c.validateUsage(p)
	c.validateWebhook(p)
	c.validateSources(p)
	c.validateHealth(p)
}

// build makes what other packages judge: gateways, mask, accounts and the ways to Redis and the hook.
func (c *Config) build(p *problems) {
	c.buildGateways(p)
	c.checkListeners(p)
	c.buildMasking(p)
	c.buildAccounts(p)
	c.buildFleet(p)
	c.buildHook(p)
}

// dropEmpty leaves out variables set to nothing, which mean the default as in `${X:-}` of a compose file, and
// names those for which nothing is a value of its own.
func dropEmpty(vars map[string]string) (set map[string]string, off map[string]bool) {
	set, off = maps.Clone(vars), map[string]bool{}
	for name, value := range vars {
		if value == "" {
			delete(set, name)
			off[name] = true
		}
	}
	return set, off
}
