package fleet

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// oldest is the first version of Redis with users and permissions; Valkey tells 7 or more.
const oldest = 6

// Warnings asks Redis for settings with which it works less well than it should and
// returns what is to say of them, one sentence each. A question that Redis does not answer,
// or that its user may not ask, adds nothing. It waits no longer than LongestCall.
func (c *Client) Warnings(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, LongestCall)
	defer cancel()
	var mu sync.Mutex
	var found []string
	add := func(words ...string) {
		mu.Lock()
		defer mu.Unlock()
		found = append(found, words...)
	}
	// An error is no warning: that Redis is down is told elsewhere.
	_ = eachMaster(ctx, c.prober, func(ctx context.Context, server *redis.Client) error {
		for _, section := range []string{"memory", "server"} {
			if text, err := server.Info(ctx, section).Result(); err == nil {
				add(infoWarnings(text)...)
			}
		}
		return nil
	})
	if err := c.bus.trouble.Load(); err != nil && c.Up() {
		add("no messages from the other relays: " + Explain(*err).Error())
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// infoWarnings reads one answer to INFO.
func infoWarnings(text string) []string {
	var found []string
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch key {
		case "maxmemory_policy":
			if value != "noeviction" {
				found = append(found, "Redis may throw away the fleet's counts when its memory is full: set maxmemory-policy noeviction")
			}
		case "redis_version":
			major, _, _ := strings.Cut(value, ".")
			if n, err := strconv.Atoi(major); err == nil && n < oldest {
				found = append(found, "this Redis is older than "+strconv.Itoa(oldest)+".0, the oldest that is supported")
			}
		}
	}
	return found
}
