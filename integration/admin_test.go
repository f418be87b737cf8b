package integration

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// TestExchangeLines does known things and finds each once in the log and in the metrics.
func TestExchangeLines(t *testing.T) {
	t.Parallel()
	relay, addr := startSingle(t, nil)
	echo := startEcho(t)
	for range 3 {
		c, err := tunnel(addr, echo)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := mustDial(t, addr).mustConnect(t, echo, customerName, "wrong-password"); got.status != http.StatusProxyAuthRequired {
		t.Fatalf("wrong password: %+v", got)
	}
	if got := mustDial(t, addr).mustConnect(t, "127.0.0.1:1", customerName, customerPassword); got.status != http.StatusBadGateway {
		t.Fatalf("closed port: %+v", got)
	}
	counts := func() map[int]int {
		list, err := relay.Exchanges()
		if err != nil {
			t.Fatal(err)
		}
		by := map[int]int{}
		for _, e := range list {
			by[e.Status]++
		}
		return by
	}
	lab.Wait(t, 10*time.Second, "five lines", func() bool {
		by := counts()
		return by[200]+by[407]+by[502] >= 5
	})
	if by := counts(); by[200] != 3 || by[407] != 1 || by[502] != 1 || len(by) != 3 {
		t.Errorf("exchange lines by status: %v", by)
	}
	list, err := relay.Exchanges()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		switch {
		case e.Status == 200 && (e.Account != customerName || e.Target != echo || e.Sent != 4 || e.Received != 4 || e.Method != "CONNECT" || e.Upstream == ""):
			t.Errorf("tunnel's line %+v", e)
		case e.Status == 502 && (e.Cause == "" || e.Account != customerName):
			t.Errorf("failure's line %+v", e)
		}
	}
}

func TestAdminEndpoints(t *testing.T) {
	t.Parallel()
	relay, addr := startSingle(t, nil)
	echo := startEcho(t)
	c, err := tunnel(addr, echo)
	if err != nil {
		t.Fatal(err)
	}
	capped := mustDial(t, addr)
	if got := capped.mustConnect(t, echo, "capped", "capped-password"); got.status != http.StatusOK {
		t.Fatalf("capped: %+v", got)
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/nothing": 404, "/debug/pprof/": 200} {
		if status, _, err := relay.Get(path); err != nil || status != want {
			t.Errorf("%s: %d %v, want %d", path, status, err, want)
		}
	}
	for series, want := range map[string]float64{
		`maskrelay_connections{kind="tunnel"}`:                          2,
		`maskrelay_account_connections{account="` + customerName + `"}`: 1,
		`maskrelay_account_connections_limit{account="capped"}`:         2,
		`maskrelay_bytes_total{direction="received"}`:                   4,
		`maskrelay_bytes_total{direction="sent"}`:                       4,
		`maskrelay_accounts_reload_success`:                             1,
		`maskrelay_draining`:                                            0,
		`maskrelay_connect_seconds_count`:                               2,
	} {
		if !lab.Poll(5*time.Second, func() bool {
			got, ok := relay.Metric(t, series)
			return ok && got == want
		}) {
			got, ok := relay.Metric(t, series)
			t.Errorf("%s is %v (%v), want %v", series, got, ok, want)
		}
	}
	for _, c := range []*client{c, capped} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	lab.Wait(t, 10*time.Second, "the tunnels to end", func() bool { return relay.Tunnels(t) == 0 })
	_, body, err := relay.Get("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"maskrelay_connections_limit", "maskrelay_exchanges_total{", "maskrelay_account_bytes_total{", "maskrelay_upstream_up{", "maskrelay_upstream_connections{",
		"maskrelay_upstream_connect_seconds_count{", "maskrelay_build_info{", "go_goroutines", "process_open_fds"} {
		if !strings.Contains(string(body), "\n"+name) {
			t.Errorf("no %s in /metrics", name)
		}
	}
}

func TestHealthCommand(t *testing.T) {
	t.Parallel()
	relay, _ := startSingle(t, nil)
	if _, stderr, code := runRelay(t, lab.Env{"ADMIN_LISTEN": relay.Admin}, "", "health"); code != 0 {
		t.Errorf("health: exit code %d: %s", code, stderr)
	}
	if _, _, code := runRelay(t, lab.Env{"ADMIN_LISTEN": lab.FreeAddr(t)}, "", "health"); code != 1 {
		t.Errorf("health without a relay: exit code %d, want 1", code)
	}
}
