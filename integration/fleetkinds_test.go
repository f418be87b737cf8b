package integration

import (
	"net/http"
	"testing"

	"maskrelay/integration/lab"
)

// TestFleetRedisKinds holds one cap over two relays with each kind of Redis. That of all other tests is one server with a user and a password.
func TestFleetRedisKinds(t *testing.T) {
	t.Parallel()
	for kind, start := range map[string]func(*testing.T) lab.Env{
		"password": func(t *testing.T) lab.Env {
			r := lab.StartRedis(t, "--requirepass", redisPassword)
			return lab.Env{"REDIS_URL": r.UserURL("", redisPassword)}
		},
		"TLS": func(t *testing.T) lab.Env {
			r := lab.StartRedisTLS(t)
			r.AddUser(t, redisUser, redisPassword, redisRights...)
			return lab.Env{"REDIS_URL": r.UserURL(redisUser, redisPassword), "REDIS_CA_FILE": r.CAFile}
		},
		"cluster": func(t *testing.T) lab.Env {
			c := lab.StartRedisCluster(t)
			for _, r := range c.Nodes {
				r.AddUser(t, redisUser, redisPassword, redisRights...)
			}
			return lab.Env{"REDIS_URL": c.UserURL(redisUser, redisPassword)}
		},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			customers := map[string]string{}
			for _, name := range []string{"anna", "berta", "clara", "dora", "emma"} { // a cluster keeps them in different places
				customers[name] = "max_conns: 3"
			}
			f := startFleet(t, fleetConfig{relays: 2, customers: customers, env: start(t)})
			for name := range customers {
				f.fill(t, f.relays[0], name, 2)
				f.fill(t, f.relays[1], name, 1)
			}
			for name := range customers {
				for _, r := range f.relays {
					f.wantStatus(t, r, name, http.StatusTooManyRequests)
				}
			}
			if n := f.tunnels(t); n != 3*len(customers) {
				t.Errorf("%d tunnels", n)
			}
			f.checkClose(t, "anna")
		})
	}
}
