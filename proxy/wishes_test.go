package proxy

import (
	"encoding/base64"
	"regexp"
	"strings"
	"testing"

	"maskrelay/masking"
	"maskrelay/proxy/account"
	"maskrelay/upstream"
	"maskrelay/upstream/upstreamtest"
	"maskrelay/upstream/vendor"
)

func TestPoolFor(t *testing.T) {
	oxy := &account.Account{Name: "a", Pool: "oxy"}
	both := &account.Account{Name: "a", Pool: "oxy", Pools: []string{"smart"}}
	none := &account.Account{Name: "a"}
	for _, one := range []struct {
		name     string
		listener string
		account  *account.Account
		wanted   string
		pool     string
		ok       bool
	}{
		{"nothing said", "", nil, "", upstream.DefaultPool, true},
		{"listener's", "gold", nil, "", "gold", true},
		{"listener's for an account without", "gold", none, "", "gold", true},
		{"the account's before the listener's", "gold", oxy, "", "oxy", true},
		{"what he has anyway", "gold", oxy, "oxy", "oxy", true},
		{"default by name", "", none, "default", upstream.DefaultPool, true},
		{"the listener's is not his", "gold", oxy, "gold", "", false},
		{"no account may choose", "gold", nil, "silver", "", false},
		{"one of his choice", "gold", both, "smart", "smart", true},
		{"his own and a choice", "gold", both, "oxy", "oxy", true},
		{"not of his choice", "gold", both, "gold", "", false},
		{"case counts", "", both, "Smart", "", false},
	} {
		t.Run(one.name, func(t *testing.T) {
			pool, ok := PoolFor(one.listener, one.account, one.wanted)
			if ok != one.ok || ok && pool != one.pool {
				t.Errorf("got %q, %v", pool, ok)
			}
		})
	}
}

// Every fault has a reply of its own words, and a 400 with the fields of any other.
func TestFaultReplies(t *testing.T) {
	seen := map[string]vendor.Fault{}
	plain := string(newReplies(testBrand).of(BadRequest).Bytes(false))
	head, _, _ := strings.Cut(plain, "Content-Length")
	replies := newFaultReplies(testBrand)
	for fault, reply := range replies {
		b := string(reply.Bytes(false))
		if !strings.HasPrefix(b, head) || !strings.HasSuffix(b, "\r\n\r\n"+fault.Error()+"\n") {
			t.Errorf("%+v: %q", fault, b)
		}
		if other, twice := seen[b]; twice {
			t.Errorf("%+v and %+v say the same", fault, other)
		}
		seen[b] = fault
	}
	if len(replies) != len(vendor.Faults()) {
		t.Errorf("%d replies for %d faults", len(replies), len(vendor.Faults()))
	}
}

// What a customer asks for reaches the vendor in the vendor's own spelling, on every way
// of a request, and his session id does not.
func TestWishesReachTheVendor(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		r := newRig(t, setup{
			username: "cust{?country:-cc-{country}}{?session:-sessid-{session}}{?ttl:-sesstime-{ttl_minutes}}",
			password: "{password}-1",
		})
		wish := basic(customerName+"-ttl-10m-country-US-session-Zweite7", customerPassword)
		for _, login := range []string{wish, login()} {
			c := r.dial()
			c.send("CONNECT " + r.judge.Addr() + " HTTP/1.1\r\nHost: x\r\n" + login + "\r\n")
			c.expect(masking.Established)
			must(t, c.Close())
			c = r.dial()
			c.send("GET " + r.judge.URL() + "/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + login + "\r\n")
			if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n") {
				t.Errorf("answer %q", head)
			}
			must(t, c.Close())
		}
		logins := vendorLogins(t, r.vendor)
		if len(logins) != 4 || logins[0] != logins[1] || logins[2] != logins[3] || logins[2] != "cust:"+vendorPassword+"-1" {
			t.Fatalf("logins %q", logins)
		}
		sent := regexp.MustCompile(`^cust-cc-us-sessid-([a-z0-9]+)-sesstime-10:(.*)-1$`).FindStringSubmatch(logins[0])
		if sent == nil || strings.EqualFold(sent[1], "zweite7") || sent[2] != vendorPassword {
			t.Errorf("login %q", logins[0])
		}
	})
}

// vendorLogins are the logins that a vendor was given, in order.
func vendorLogins(t *testing.T, v *upstreamtest.Vendor) []string {
	t.Helper()
	var logins []string
	for line := range strings.Lines(string(v.Received())) {
		if token, ok := strings.CutPrefix(line, "Proxy-Authorization: Basic "); ok {
			b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(token))
			must(t, err)
			logins = append(logins, string(b))
		}
	}
	return logins
}
