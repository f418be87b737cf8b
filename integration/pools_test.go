package integration

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/upstream/upstreamtest"
)

// Customers with pools; their passwords are plain.
const (
	poolAccounts = `  - {name: fixed, password: fixed-password, pool: %s}
  - {name: chooser, password: chooser-password, pools: [oxy, smart]}
  - {name: mixed, password: mixed-password, pool: gold, pools: [oxy]}
`
	noPool = "The username parameter pool is not available."
)

// pooled is a relay with three listeners and a gateway in each of four pools.
type pooled struct {
	relay     *lab.Relay
	listeners map[string]string // addresses by pool
	pools     map[string]*standIn
	file      string
}

// startPooled starts one whose listeners are bound to oxy, smart and no pool.
func startPooled(t *testing.T, change lab.Env) *pooled {
	t.Helper()
	p := &pooled{pools: map[string]*standIn{}, listeners: map[string]string{}}
	dir := t.TempDir()
	p.file = writeFile(t, dir, "accounts.yaml", accountsYAML+fmt.Sprintf(poolAccounts, "gold"))
	env := lab.Env{"ACCOUNTS_FILE": p.file, "VENDOR_MARKS": upstreamtest.DefaultBrand}
	for i, pool := range []string{"default", "oxy", "smart", "gold"} {
		p.pools[pool] = startStandIn(t, upstreamtest.DefaultBrand, [2]int{}, nil)
		env[fmt.Sprintf("UPSTREAMS_%d_URL", i)] = "http://" + p.pools[pool].vendors[0].Addr()
		env[fmt.Sprintf("UPSTREAMS_%d_NAME", i)] = "gateway-" + pool
		env[fmt.Sprintf("UPSTREAMS_%d_POOL", i)] = pool
	}
	delete(env, "UPSTREAMS_0_POOL") // default by itself
	for _, pool := range []string{"default", "oxy", "smart"} {
		p.listeners[pool] = lab.FreeAddr(t)
	}
	env["LISTEN"] = p.listeners["oxy"] + "@oxy," + p.listeners["smart"] + "@smart," + p.listeners["default"]
	maps.Copy(env, change)
	p.relay = startRelay(t, env)
	return p
}

// served returns which pools' vendors got a request since it was called last.
func (p *pooled) served(t *testing.T) []string {
	t.Helper()
	var pools []string
	for pool, s := range p.pools {
		for range s.news(t) {
			pools = append(pools, pool)
		}
	}
	return pools
}

// TestPools finds who is served by which pool: the customer's choice if it is his, else his account's pool, else the listener's.
func TestPools(t *testing.T) {
	t.Parallel()
	p, judge := startPooled(t, nil), startJudge(t, upstreamtest.JudgeConfig{})
	for _, tc := range []struct{ listener, user, want string }{
		{"oxy", customerName, "oxy"},
		{"smart", customerName, "smart"},
		{"default", customerName, "default"},
		{"oxy", customerName + "-pool-oxy", "oxy"},
		{"default", customerName + "-pool-default", "default"},
		{"smart", customerName + "-pool-oxy", ""},
		{"oxy", customerName + "-pool-nowhere", ""},
		{"oxy", customerName + "-pool-OXY", ""},
		{"oxy", "fixed", "gold"},
		{"smart", "fixed-pool-gold", "gold"},
		{"oxy", "fixed-pool-oxy", ""},
		{"default", "chooser", "default"},
		{"default", "chooser-pool-smart", "smart"},
		{"smart", "chooser-pool-oxy", "oxy"},
		{"oxy", "chooser-pool-default", ""},
		{"smart", "chooser-pool-gold", ""},
		{"smart", "mixed", "gold"},
		{"smart", "mixed-pool-oxy", "oxy"},
		{"smart", "mixed-pool-smart", ""},
	} {
		name, _, _ := strings.Cut(tc.user, "-")
		password := name + "-password"
		if name == customerName {
			password = customerPassword
		}
		credentials := basic(tc.user, password)
		for _, ask := range [][2]string{{"CONNECT", judge.Addr()}, {"GET", judge.URL() + "/digest"}} {
			what := fmt.Sprintf("%s of %s at the listener of %s", ask[0], tc.user, tc.listener)
			got := mustDial(t, p.listeners[tc.listener]).mustAsk(t, ask[0], ask[1], credentials)
			served := p.served(t)
			if tc.want == "" {
				checkOurReply(t, got, http.StatusBadRequest)
				if got.body != noPool+"\n" || len(served) > 0 {
					t.Errorf("%s: %q, served by %v", what, got.body, served)
				}
				continue
			}
			if got.status != http.StatusOK || !slices.Equal(served, []string{tc.want}) {
				t.Errorf("%s: status %d, served by %v, want %s", what, got.status, served, tc.want)
			}
		}
	}
}

// TestPoolsChange gives an account another pool: its next tunnels go there, and those that are open live on. A pool that is not there changes nothing.
func TestPoolsChange(t *testing.T) {
	t.Parallel()
	p, echo := startPooled(t, nil), startEcho(t)
	addr := p.listeners["smart"]
	open := func(want string) *client {
		t.Helper()
		c := mustDial(t, addr)
		if got := c.mustConnect(t, echo, "fixed", "fixed-password"); got.status != http.StatusOK {
			t.Fatalf("%+v", got)
		}
		if served := p.served(t); !slices.Equal(served, []string{want}) {
			t.Errorf("served by %v, want %s", served, want)
		}
		return c
	}
	first := open("gold")
	rewrite := func(pool string, success float64) {
		t.Helper()
		before := len(p.relay.Stderr.Bytes())
		text := accountsYAML + fmt.Sprintf(poolAccounts, pool)
		replaceFile(t, p.file, text)
		p.relay.Signal(t, syscall.SIGHUP)
		lab.Wait(t, 10*time.Second, "the reload", func() bool {
			value, _ := p.relay.Metric(t, "maskrelay_accounts_reload_success")
			return value == success && strings.Contains(string(p.relay.Stderr.Bytes()[before:]), "accounts")
		})
	}
	rewrite("oxy", 1)
	second := open("oxy")
	rewrite("nowhere", 0)
	if log := string(p.relay.Stderr.Bytes()); !strings.Contains(log, "no gateway is in it; there are default, gold, oxy, smart") {
		t.Errorf("the log does not say what is wrong: %s", log)
	}
	third := open("oxy")
	rewrite("gold", 1)
	fourth := open("gold")
	for i, c := range []*client{first, second, third, fourth} {
		if err := c.ping("still there"); err != nil {
			t.Errorf("tunnel %d: %v", i+1, err)
		}
	}
}

// replaceFile puts a text in a file's place at once.
func replaceFile(t *testing.T, file, text string) {
	t.Helper()
	if err := os.Rename(writeFile(t, filepath.Dir(file), "next", text), file); err != nil {
		t.Fatal(err)
	}
}

// TestPoolsInRedis: an account with a pool that is not there is refused by the API; one of another relay's pool is not taken up here,
// and that keeps nobody else from it.
func TestPoolsInRedis(t *testing.T) {
	t.Parallel()
	f := startFleet(t, fleetConfig{relays: 1, env: lab.Env{"ACCOUNTS_REDIS": "true", "ACCOUNTS": "other:other-password", "LOGIN_FAILURES_PER_ADDRESS": "0", "LOGIN_FAILURES_PER_NAME": "0"}})
	here := f.relays[0]
	refused := func(method, path, body string) {
		t.Helper()
		if answer := api(t, here, method, path, body, http.StatusUnprocessableEntity); !strings.Contains(fmt.Sprint(answer["error"]), "no gateway is in it") {
			t.Errorf("%s %s: %v", method, body, answer)
		}
	}
	refused(http.MethodPost, "", newAccount("alice", `,"pool":"gold"`))
	refused(http.MethodPost, "", newAccount("alice", `,"pools":["default","gold"]`))
	api(t, here, http.MethodPost, "", newAccount("alice", `,"pools":["default"]`), http.StatusCreated)
	refused(http.MethodPatch, "/alice", `{"pool":"gold"}`)
	f.known(t, here, "alice")

	gold := startStandIn(t, upstreamtest.DefaultBrand, [2]int{}, nil)
	env := lab.Env{
		"REDIS_URL": f.redis.UserURL(redisUser, redisPassword), "ACCOUNTS_REDIS": "true", "ACCOUNTS": "other:other-password", "NODE_NAME": "golden",
		"UPSTREAMS_0_URL": "http://" + gold.vendors[0].Addr(), "UPSTREAMS_0_POOL": "gold", "LISTEN": lab.FreeAddr(t) + "@gold",
	}
	golden := startRelay(t, env)
	api(t, golden, http.MethodPost, "", newAccount("goldie", `,"pool":"gold"`), http.StatusCreated)
	f.relays = append(f.relays, golden)
	f.meet(t)
	lab.Wait(t, 20*time.Second, "the relay without that pool to refuse him", func() bool {
		success, _ := here.Metric(t, "maskrelay_accounts_reload_success")
		return success == 0 && strings.Contains(string(here.Stderr.Bytes()), `account \"goldie\" in redis refused: account: pool \"gold\": no gateway is in it; there are default`)
	})
	f.wantStatus(t, here, "goldie", http.StatusProxyAuthRequired)
	f.wantStatus(t, here, "alice", http.StatusOK)
}

// TestPoolsOfTheHook: an answer with a pool that is there is served from it, one with another is no answer.
func TestPoolsOfTheHook(t *testing.T) {
	t.Parallel()
	panel := startPanel(t)
	judge := startJudge(t, upstreamtest.JudgeConfig{})
	p := startPooled(t, lab.Env{"ACCOUNTS_FILE": "", "AUTH": "hook", "AUTH_URL": panel.URL, "AUTH_TTL": "1s", "AUTH_NEGATIVE_TTL": "1s"})
	panel.says("golden", `{"name":"golden","pool":"gold","pools":["oxy"]}`)
	panel.says("lost", `{"name":"lost","pool":"nowhere"}`)
	panel.says("hopeful", `{"name":"hopeful","pools":["oxy","nowhere"]}`)
	connect := func(user, password string) int {
		t.Helper()
		return mustDial(t, p.listeners["smart"]).mustConnect(t, judge.Addr(), user, password).status
	}
	for user, want := range map[string]string{"golden": "gold", "golden-pool-oxy": "oxy"} {
		if status, served := connect(user, "golden-password"), p.served(t); status != http.StatusOK || !slices.Equal(served, []string{want}) {
			t.Errorf("%s: status %d, served by %v", user, status, served)
		}
	}
	if status := connect("golden-pool-smart", "golden-password"); status != http.StatusBadRequest {
		t.Errorf("a pool that is not his: %d", status)
	}
	for _, name := range []string{"lost", "hopeful"} {
		if status := connect(name, name+"-password"); status != http.StatusServiceUnavailable {
			t.Errorf("%s: status %d", name, status)
		}
	}
	lab.Wait(t, 10*time.Second, "the log to say why", func() bool {
		return strings.Contains(string(p.relay.Stderr.Bytes()), "nowhere")
	})
	panel.says("golden", `{"name":"golden","pool":"oxy"}`)
	lab.Wait(t, 10*time.Second, "the next answer", func() bool {
		connect("golden", "golden-password")
		return slices.Contains(p.served(t), "oxy")
	})
	if served := p.served(t); len(served) > 0 {
		t.Errorf("somebody was served by %v", served)
	}
}
