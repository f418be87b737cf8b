package integration

import (
	"io"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

const (
	fewTunnels  = 1000
	manyTunnels = 5000
	// bytesPerIdleTunnel is what an idle tunnel may cost in the relay.
	bytesPerIdleTunnel = 10 << 10
)

// TestHeldTunnels opens 5,000 tunnels through the binary without race detector, and closes them: nothing may be left. Each tunnel's bytes are looked
// at: the generator takes nothing but the relay's own 200, byte for byte, and the vendor refuses a head with anything of the customer in it.
func TestHeldTunnels(t *testing.T) {
	const user, password = customerName, "held-password-of-alice"
	vendor := lab.StartLoadVendor(t, user, password, basic(user, password))
	relay := lab.StartRelay(t, lab.Plain, lab.Env{"UPSTREAM": "http://" + vendorUser + ":x@" + vendor.Addr, "ACCOUNTS": user + ":" + password, "LOG_LEVEL": "warn"})
	g := lab.StartGenerator(t, relay.Addr, "shop.target.example:443", user+":"+password)
	if failed := g.Hold(t, 200); failed > 0 { // so that pools and caches have their size before the first look
		t.Fatalf("%d of the first 200 tunnels failed", failed)
	}
	g.Release(t)
	waitTunnels(t, relay, 0)
	before := relay.Usage(t)

	if failed := g.Hold(t, fewTunnels); failed > 0 {
		t.Fatalf("%d of %d tunnels failed", failed, fewTunnels)
	}
	waitTunnels(t, relay, fewTunnels)
	few := relay.Usage(t)
	if failed := g.Hold(t, manyTunnels-fewTunnels); failed > 0 {
		t.Fatalf("%d of %d tunnels failed", failed, manyTunnels-fewTunnels)
	}
	waitTunnels(t, relay, manyTunnels)
	// The runtime gives the pages that the opening used back in the background.
	var many lab.Usage
	var perTunnel int64
	lab.Poll(15*time.Second, func() bool {
		many = relay.Usage(t)
		perTunnel = (many.RSS - few.RSS) / (manyTunnels - fewTunnels)
		return perTunnel <= bytesPerIdleTunnel
	})
	t.Logf("idle tunnel: %d bytes, %.2f file descriptors, %.2f goroutines", perTunnel,
		float64(many.FDs-few.FDs)/(manyTunnels-fewTunnels), float64(many.Goroutines-few.Goroutines)/(manyTunnels-fewTunnels))
	if perTunnel > bytesPerIdleTunnel {
		t.Errorf("an idle tunnel costs %d bytes, more than %d (RSS %d with %d, %d with %d)", perTunnel, bytesPerIdleTunnel, few.RSS, fewTunnels, many.RSS, manyTunnels)
	}
	if leases, _ := relay.Metric(t, `maskrelay_account_connections{account="`+user+`"}`); leases != manyTunnels {
		t.Errorf("%v leases with %d tunnels", leases, manyTunnels)
	}

	g.Release(t)
	waitTunnels(t, relay, 0)
	if leases, _ := relay.Metric(t, `maskrelay_account_connections{account="`+user+`"}`); leases != 0 {
		t.Errorf("%v leases left", leases)
	}
	// Idle connections of the admin listener and of the Go runtime come and go: a few are no leak, one per tunnel would be thousands.
	const slack = 20
	var after lab.Usage
	if !lab.Poll(30*time.Second, func() bool {
		after = relay.Usage(t)
		return after.FDs <= before.FDs+slack && after.Goroutines <= before.Goroutines+slack
	}) {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func waitTunnels(t *testing.T, r *lab.Relay, n int) {
	t.Helper()
	lab.Wait(t, 30*time.Second, "the relay to count its tunnels", func() bool { return r.Tunnels(t) == n })
}

// TestLoadVendorRefusesBanned shows that the vendor of TestHeldTunnels sees what it looks for.
func TestLoadVendorRefusesBanned(t *testing.T) {
	t.Parallel()
	vendor := lab.StartLoadVendor(t, customerName)
	for head, want := range map[string]bool{"X: innocent": true, "X: " + customerName: false, "X: " + basic(customerName, "x"): false} {
		c := mustDial(t, vendor.Addr)
		if _, err := io.WriteString(c, "CONNECT shop.example:443 HTTP/1.1\r\n"+head+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.readReply(); (err == nil) != want {
			t.Errorf("head with %q: %v, want an answer: %v", head, err, want)
		}
	}
}
