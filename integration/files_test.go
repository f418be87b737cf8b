package integration

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// TestFewFileDescriptors: under a small limit of open files the relay takes as many tunnels as check says, refuses the others in its own words,
// never meets the limit itself, and goes on.
func TestFewFileDescriptors(t *testing.T) {
	const user, password = customerName, "files-password-of-alice"
	const room, more = 264, 400
	vendor := lab.StartLoadVendor(t, user, password, basic(user, password))
	env := lab.Env{
		"UPSTREAM": "http://" + vendorUser + ":x@" + vendor.Addr, "ACCOUNTS": user + ":" + password,
		"LISTEN": lab.FreeAddr(t), "ADMIN_LISTEN": lab.FreeAddr(t), "MAX_CONNS": "5000",
	}
	relay := &lab.Relay{Addr: env["LISTEN"], Admin: env["ADMIN_LISTEN"]}
	cmd := lab.RelayCommand(t, lab.Plain, env, "serve")
	cmd.Args = append([]string{"sh", "-c", `ulimit -n 1024 && exec "$0" "$@"`}, append([]string{cmd.Path}, cmd.Args[1:]...)...)
	cmd.Path = "/bin/sh"
	relay.Process = lab.Start(t, "maskrelay with 1024 files", cmd)
	lab.Wait(t, 20*time.Second, "the relay to be ready", func() bool {
		status, _, err := relay.Get("/readyz")
		return err == nil && status == http.StatusOK
	})

	g := lab.StartGenerator(t, relay.Addr, "shop.target.example:443", user+":"+password)
	for round := range 2 {
		if failed := g.Hold(t, room); failed > 0 {
			t.Fatalf("round %d: %d of the first %d tunnels failed", round, failed, room)
		}
		if failed := g.Hold(t, more); failed != more {
			t.Errorf("round %d: %d of %d tunnels too many were refused", round, failed, more)
		}
		if files := relay.Usage(t).FDs; files > 1024 {
			t.Errorf("round %d: %d file descriptors", round, files)
		}
		if status, _, err := relay.Get("/readyz"); err != nil || status != http.StatusOK {
			t.Errorf("round %d: a full relay must stay ready: %d %v", round, status, err)
		}
		g.Release(t)
		waitTunnels(t, relay, 0)
	}
	if log := relay.Stderr.Bytes(); bytes.Contains(log, []byte("too many open files")) || !bytes.Contains(log, []byte(`"outcome":"relay_full"`)) {
		t.Errorf("the log:\n%.2000s", log)
	}
}
