package integration

import (
	"bytes"
	"fmt"
	"net"
	"sync"
	"testing"

	"maskrelay/integration/lab"
	"maskrelay/masking"
)

// The customer, as relay and load balancer know him. None of this may reach vendor or target.
const (
	customerName     = "alicecustomer"
	customerPassword = "s3cret-of-alice:@%!"
	customerAddress  = "127.77.7.7" // the tap dials the load balancer from here
	customerHeader   = "X-Customer-Trail"
	customerTrail    = "trail-of-the-customer-4711"
)

// The vendor, as the relay knows it. None of this may reach a customer.
const (
	vendorName     = "supervendor-gw.example"
	vendorRealm    = "SuperVendor residential pool"
	vendorUser     = "brd-customer-4242"
	vendorUserUS   = vendorUser + "-cc-us" // who wants an exit in that country
	vendorPassword = "vendor-pass:wd@ %/1"
	vendorAddress  = "127.66.6.6"
)

func customerMarks() *masking.Marks {
	return masking.NewMarks(customerName, customerPassword, customerAddress, customerTrail, basic(customerName, customerPassword))
}

// vendorMarks are long enough not to occur by chance in the ciphertext of a large download.
func vendorMarks() *masking.Marks {
	return masking.NewMarks(vendorName, vendorRealm, "SuperVendor", vendorUser, vendorPassword, tinyproxyPassword, vendorAddress, "tinyproxy", "squid/", "(squid", "X-Squid", "X-Cache", "Go-http-client")
}

// secrets must not be in any log.
func secrets() *masking.Marks {
	return masking.NewMarks(customerPassword, vendorPassword, tinyproxyPassword, redisPassword, fleetPassword, laterPassword, basic(customerName, customerPassword), basic(vendorUser, vendorPassword), basic(vendorUser, tinyproxyPassword),
		basic(vendorUserUS, vendorPassword))
}

// leakList collects leaks from many connections.
type leakList struct {
	mu   sync.Mutex
	list []masking.Leak
}

func (l *leakList) add(leaks []masking.Leak) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, leaks[:min(len(leaks), max(0, 20-len(l.list)))]...)
}

func (l *leakList) all() []masking.Leak {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]masking.Leak(nil), l.list...)
}

// startRelay is lab.StartRelay with a search of the relay's output for secrets and for races at the end of the test.
func startRelay(t *testing.T, env lab.Env) *lab.Relay {
	t.Helper()
	r := lab.StartRelay(t, lab.Tested, env)
	t.Cleanup(func() { checkLog(t, r.Process) })
	return r
}

func checkLog(t *testing.T, p *lab.Process) {
	t.Helper()
	for name, out := range map[string][]byte{"stdout": p.Stdout.Bytes(), "stderr": p.Stderr.Bytes()} {
		search := masking.NewScanner(fmt.Sprintf("%s of %s", name, p.Name), secrets(), true)
		if _, err := search.Write(out); err != nil {
			t.Error(err)
		}
		for _, leak := range search.Leaks() {
			t.Errorf("secret in a log: %v", leak)
		}
		for _, bad := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
			if bytes.Contains(out, []byte(bad)) {
				t.Errorf("%s of %s has %q:\n%s", name, p.Name, bad, out)
			}
		}
	}
}

// tapCustomer stands where a customer would connect: before addr, a load balancer or a relay.
func tapCustomer(t *testing.T, addr string) *lab.Tap {
	t.Helper()
	return lab.StartTap(t, lab.TapConfig{Name: "customer", To: addr, From: net.ParseIP(customerAddress), Dialer: vendorMarks()})
}
