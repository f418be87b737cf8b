package fleet

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	defaultPrefix = "maskrelay:"
	maxPrefix     = 64 // bytes
	maxPlainName  = 64 // bytes of a name that stands in a key as it is
	maxNodeName   = 64 // bytes of the name in front of what makes it unique
	// CallTimeout bounds a call on a customer's way: each whose context has no deadline
	// of its own, from the wait for a free connection to the answer.
	CallTimeout = 50 * time.Millisecond
	// LongestCall bounds every call, whatever its context's deadline.
	LongestCall = time.Second
)

// Config says where Redis is and what this relay tells the others.
type Config struct {
	// URL is redis://user:password@host:6379/0, rediss:// (TLS) or
	// unix://user:password@/path?db=0. Further nodes, each as addr=host:port in its
	// query, make it the URL of a Redis Cluster. The user needs the rights
	// "~maskrelay:* &maskrelay:* +@all -@dangerous", and +info for Warnings. Required.
	URL string
	// CAFile holds the certificates (PEM) that vouch for the server's, with rediss://
	// only; empty is the system's.
	CAFile string
	// Prefix begins every key and channel; empty is "maskrelay:". Letters, digits, and
	// "_.:-" only.
	Prefix string
	// Node names this relay among the others; empty is the host's name.
	Node string
	// Changed is told of each change of Up, the first one included, by Run and one at a
	// time; err is why it is down, in words without a secret. May be nil.
	Changed func(up bool, err error)
	// Totals is asked once a second what this relay tells the others of itself. May be nil.
	Totals func() Totals
}

// Client is a relay's way to the others. Its methods are safe for concurrent use, but
// OnReturn and Subscribe belong before Run.
type Client struct {
	config Config
	node   string
	redis  redis.UniversalClient // for everyone
	prober redis.UniversalClient // for Run alone, so that no burst of calls stands in its way

	up     atomic.Bool
	losses atomic.Uint64 // how often Lost took it down
	lost   chan error    // the reason of such a loss, to Run
	relays atomic.Int64
	calls  [callResults]atomic.Int64

	returned []func()
	again    chan struct{} // what is in Redis may be gone or have changed unseen
	bus      bus
}

// Open reads the URL and the file; it dials nothing. The error never holds the password.
func Open(c Config) (*Client, error) {
	c.Prefix = cmp.Or(c.Prefix, defaultPrefix)
	if len(c.Prefix) > maxPrefix || strings.ContainsFunc(c.Prefix, func(r rune) bool { return !plain(r) && r != ':' }) {
		return nil, fmt.Errorf("fleet: the keys' prefix may hold letters, digits and _.:- only, %d at most", maxPrefix)
	}
	place, err := parseURL(c.URL)
	if err != nil {
		return nil, err
	}
	if err := place.trust(c.CAFile); err != nil {
		return nil, err
	}
	if c.Node == "" {
		if c.Node, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("fleet: no name for this relay: %w", err)
		}
	}
	silence()
	client := &Client{
		config: c,
		node:   uniqueNode(c.Node),
		redis:  place.client(poolSize, pipelinePoolSize),
		prober: place.client(probePoolSize, -1),
		lost:   make(chan error, 1),
		again:  make(chan struct{}, 1),
	}
	client.relays.Store(1)
	client.redis.AddHook(watcher{client})
	return client, nil
}

// uniqueNode adds the start of this process and chance to the relay's name.
func uniqueNode(name string) string {
	name = strings.Map(func(r rune) rune {
		if plain(r) {
			return r
		}
		return '-'
	}, name)
	name = name[:min(len(name), maxNodeName)]
	return name + "~" + strconv.FormatInt(time.Now().Unix(), 36) + rand.Text()[:10]
}

// quiet takes go-redis's own log, whose lines nobody bounds and which tells nothing that
// Config.Changed and the callers' errors do not.
type quiet struct{}

// silence is once for all clients: the library has one logger in a process.
var silence = sync.OnceFunc(func() { redis.SetLogger(quiet{}) })

// Node names this relay and this start of it: no other process has the same. It holds
// letters, digits and "_.-~" only.
func (c *Client) Node() string { return c.node }

// Redis is for commands. It never retries by itself and waits no longer than its context,
// which gets CallTimeout if it has no deadline, and than LongestCall: that bounds a
// pipeline as a whole. Every failed call has been told to Lost. For logs put its errors
// through [Explain].
func (c *Client) Redis() redis.UniversalClient { return c.redis }

// Key is the key under which what of name is kept. All of one name's keys lie in one slot
// of a cluster. A name that is not short and plain, as customers may choose one, stands
// there as its hash, so keys are bounded, and the name cannot be read back.
func (c *Client) Key(what, name string) string {
	return c.config.Prefix + what + ":{" + tag(name) + "}"
}

// tag begins with ~ if and only if it is a hash: no plain name can meet one.
func tag(name string) string {
	if name != "" && len(name) <= maxPlainName && !strings.ContainsFunc(name, func(r rune) bool { return !plain(r) }) {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return "~" + base64.RawURLEncoding.EncodeToString(sum[:24])
}

// plain reports whether r is of what accounts' names are made.
func plain(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '.' || r == '-'
}

// Close ends all connections. Run must have ended.
func (c *Client) Close() error { return errors.Join(c.redis.Close(), c.prober.Close()) }
