package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// expiry is how long a relay counts as alive after its last heartbeat.
const expiry = 10 * time.Second

// Totals is what a relay tells the others of itself.
type Totals struct {
	Connections int     `json:"connections"` // open now
	Limit       int     `json:"limit"`       // connections at most
	PerSecond   float64 `json:"per_second"`  // new connections lately
}

// Member is one relay that is alive.
type Member struct {
	Node   string    // as Client.Node
	Seen   time.Time // its last heartbeat, by Redis's clock
	Totals Totals
}

// register writes this relay's field of the registry, drops those that have expired, and
// returns whether its field was there and how many are alive. Fields hold "milliseconds of
// the expiry:totals", by Redis's clock.
//
// It is the probe too, because it does what all others need: a script, the clock, a write.
var register = redis.NewScript(`
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local was = redis.call('HEXISTS', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now + ARGV[3]) .. ':' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local all = redis.call('HGETALL', KEYS[1])
local alive = 0
for i = 1, #all, 2 do
  local till = tonumber(string.match(all[i + 1], '^(%d+):'))
  if till and till > now then
    alive = alive + 1
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return {was, alive}
`)

// list returns Redis's clock in milliseconds and the registry.
var list = redis.NewScript(`
local time = redis.call('TIME')
return {string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)), redis.call('HGETALL', KEYS[1])}
`)

func (c *Client) registry() string { return c.Key("fleet", "relays") }

// Relays is how many relays were alive when Redis answered last, this one included; at
// least 1.
func (c *Client) Relays() int { return int(c.relays.Load()) }

// heartbeat reports whether Redis still had this relay's registration.
func (c *Client) heartbeat(ctx context.Context) (was bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var totals Totals
	if c.config.Totals != nil {
		totals = c.config.Totals()
	}
	text, err := json.Marshal(totals)
	if err != nil {
		return false, fmt.Errorf("fleet: this relay's totals: %w", err)
	}
	answer, err := register.Run(ctx, c.prober, []string{c.registry()}, c.node, text, expiry.Milliseconds()).Int64Slice()
	if err != nil {
		return false, err
	}
	// Every name's keys lie on one master, so a cluster is only as well as each of them.
	if _, single := c.prober.(*redis.Client); !single {
		if err := eachMaster(ctx, c.prober, func(ctx context.Context, m *redis.Client) error { return m.Ping(ctx).Err() }); err != nil {
			return false, err
		}
	}
	if len(answer) != 2 {
		return false, fmt.Errorf("fleet: %d values in the answer to a heartbeat", len(answer))
	}
	c.relays.Store(max(1, answer[1]))
	return answer[0] == 1, nil
}

// deregister lets the others know at once; without it they know after expiry.
func (c *Client) deregister(ctx context.Context) {
	if !c.Up() { // which stays as it is: the others' last calls are still under way
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	// Nobody is left to tell of an error: the registration expires by itself.
	_ = c.prober.HDel(ctx, c.registry(), c.node).Err()
}

// Members asks Redis for the relays that are alive, by name. What another version wrote
// and this one cannot read counts with zero Totals.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	answer, err := list.Run(ctx, c.redis, []string{c.registry()}).Slice()
	if err != nil {
		return nil, fmt.Errorf("fleet: members: %w", Explain(err))
	}
	if len(answer) != 2 {
		return nil, fmt.Errorf("fleet: members: %d values in the answer", len(answer))
	}
	clock, _ := answer[0].(string)
	now, err := strconv.ParseInt(clock, 10, 64)
	fields, ok := answer[1].([]any)
	if err != nil || !ok {
		return nil, fmt.Errorf("fleet: members: the answer is %T and %T", answer[0], answer[1])
	}
	members := make([]Member, 0, len(fields)/2)
	for pair := range slices.Chunk(fields, 2) {
		if m, ok := readMember(pair, now); ok {
			members = append(members, m)
		}
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	return members, nil
}

// readMember reports whether the relay of one field was alive at now, in milliseconds.
func readMember(pair []any, now int64) (Member, bool) {
	if len(pair) != 2 {
		return Member{}, false
	}
	node, _ := pair[0].(string)
	value, _ := pair[1].(string)
	till, text, _ := strings.Cut(value, ":")
	end, err := strconv.ParseInt(till, 10, 64)
	if err != nil || end <= now {
		return Member{}, false
	}
	m := Member{Node: node, Seen: time.UnixMilli(end).Add(-expiry)}
	if json.Unmarshal([]byte(text), &m.Totals) != nil {
		m.Totals = Totals{}
	}
	return m, true
}
