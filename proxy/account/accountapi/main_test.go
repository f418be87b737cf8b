package accountapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"maskrelay/integration/lab"
	"maskrelay/proxy/account"
	"maskrelay/proxy/account/redisaccounts"
	"maskrelay/proxy/admin"
	"maskrelay/proxy/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hash is bcrypt of "hunter2" at the lowest cost.
const hash = "$2a$04$dHl2mmimwvsD9gkgAvL6Je31e.nTTSuarwd8OnW7yYI2gJo1OxUMO"

// rig is a relay's accounts with their API.
type rig struct {
	t        testing.TB
	addr     string
	redis    *lab.Redis // nil without
	store    *redisaccounts.Store
	accounts *account.Store
	client   *http.Client
}

// newRig starts one with a Redis of its own.
func newRig(t testing.TB, config account.StoreConfig) *rig {
	t.Helper()
	r := &rig{t: t, redis: lab.StartRedis(t)}
	fleetClient, err := fleet.Open(fleet.Config{URL: r.redis.URL(), Node: "relay"})
	if err != nil {
		t.Fatal(err)
	}
	r.store = redisaccounts.New(fleetClient)
	config.Source = redisaccounts.Source(r.store, fleetClient)
	if r.accounts, err = account.NewStore(config); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { fleetClient.Run(ctx) })
	running.Go(func() { r.accounts.Watch(ctx, time.Second, func(account.Change, error) {}) })
	t.Cleanup(func() {
		stop()
		running.Wait()
		_ = fleetClient.Close()
	})
	r.serve(admin.Config{Accounts: New(Config{Accounts: r.accounts, Store: r.store, Check: hasGateways})})
	return r
}

// serve starts the admin server.
func (r *rig) serve(config admin.Config) {
	r.t.Helper()
	config.Listen, config.Gatherer = "127.0.0.1:0", admin.NewRegistry("", "")
	server, err := admin.New(config)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	transport := &http.Transport{}
	r.client = &http.Client{Transport: transport, Timeout: 20 * time.Second}
	r.t.Cleanup(func() {
		transport.CloseIdleConnections()
		stop()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	})
	r.addr = server.Addr().String()
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends one request; headers are pairs of name and value.
func (r *rig) do(method, path, body string, headers ...string) answer {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), method, "http://"+r.addr+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := r.client.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(bytes.TrimSpace(data))}
}

// must is do for what must be answered with status.
func (r *rig) must(status int, method, path, body string, headers ...string) answer {
	r.t.Helper()
	a := r.do(method, path, body, headers...)
	if a.status != status {
		r.t.Fatalf("%s %s %s: %d %s, want %d", method, path, body, a.status, a.body, status)
	}
	return a
}

// object is the answer's JSON.
func (a answer) object(t testing.TB) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	return v
}

// eventually waits for a state, as long as a slow machine may take for it.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	lab.Wait(t, 20*time.Second, what, ok)
}

// stored is what Redis has under a name.
func (r *rig) stored(name string) string {
	r.t.Helper()
	e, err := r.store.Get(r.t.Context(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(e.Data)
}

// hasGateways knows the pools default and oxy.
func hasGateways(a *account.Account) error {
	for _, pool := range a.Pools {
		if pool != "oxy" && pool != "default" {
			return fmt.Errorf("pools %q: no gateway is in it; there are default, oxy", pool)
		}
	}
	if a.Pool != "" && a.Pool != "oxy" && a.Pool != "default" {
		return fmt.Errorf("pool %q: no gateway is in it; there are default, oxy", a.Pool)
	}
	return nil
}
