package integration

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// TestDropLosesAName removes the gateways' name, which the name server then denies, in the middle of the traffic: the last good answer goes on being used.
func TestDropLosesAName(t *testing.T) {
	t.Parallel()
	dns, port := lab.StartDnsmasq(t, time.Second), lab.FreePort(t)
	dns.Set(t, map[string][]string{gatewayName: {firstAddr}})
	g := lab.StartGateway(t, net.JoinHostPort(firstAddr, strconv.Itoa(port)))
	relay := startRelay(t, lab.Env{
		"UPSTREAM":   fmt.Sprintf("http://%s:x@%s:%d", vendorUser, gatewayName, port),
		"DNS_SERVER": dns.Addr, "ACCOUNTS": customerName + ":" + fleetPassword,
	})
	crowd := lab.StartGenerator(t, relay.Addr, dropTarget, customerName+":"+fleetPassword)
	if d := crowd.Drop(t, 300, 32); d.Failed() > 0 {
		t.Fatalf("%v", d)
	}
	dns.Set(t, map[string][]string{})
	denied := dns.Asked(gatewayName)
	lab.Wait(t, 30*time.Second, "the relay to ask again", func() bool {
		if d := crowd.Drop(t, 50, 8); d.Failed() > 0 {
			t.Errorf("without a name: %v", d)
		}
		return t.Failed() || dns.Asked(gatewayName) >= denied+2
	})
	if d := crowd.Drop(t, 300, 32); d.Failed() > 0 {
		t.Errorf("after the denial: %v", d)
	}
	if status, body, err := relay.Get("/readyz"); err != nil || status != http.StatusOK {
		t.Errorf("readyz: %d %s %v", status, body, err)
	}
	if n := len(gatewayLines(relay, downLine, gatewayName)); n > 0 {
		t.Errorf("%d lines say that it is out of use", n)
	}
	if asked, _ := g.Asked(t); asked < 600 {
		t.Errorf("%d CONNECTs", asked)
	}
}
