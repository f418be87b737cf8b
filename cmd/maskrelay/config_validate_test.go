package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/netip"
	"testing"
	"time"
)

// testCertificate writes a self-signed certificate and its key.
func testCertificate(t testing.TB) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"relay.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))),
		writeFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

func TestTLSKeyOfAnotherCertificate(t *testing.T) {
	cert, _ := testCertificate(t)
	_, key := testCertificate(t)
	_, err := LoadConfig(environ(goodEnv(), map[string]string{"TLS_LISTEN": ":8443", "TLS_CERT_FILE": cert, "TLS_KEY_FILE": key}))
	want := "MASKRELAY_TLS_CERT_FILE: with MASKRELAY_TLS_KEY_FILE: tls: private key does not match public key"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestEverybody(t *testing.T) {
	for _, c := range []struct {
		name, nets string
		want       bool
	}{
		{"IPv4", "0.0.0.0/0", true},
		{"IPv6", "::/0", true},
		{"IPv4 in halves", "0.0.0.0/1,128.0.0.0/1", true},
		{"IPv4 in odd pieces", "128.0.0.0/2,0.0.0.0/2,64.0.0.0/3,192.0.0.0/3,96.0.0.0/3", true},
		{"public IPv4 alone", "1.0.0.0/8,2.0.0.0/7,4.0.0.0/6,8.0.0.0/7,11.0.0.0/8,12.0.0.0/6,16.0.0.0/4,32.0.0.0/3,64.0.0.0/2,128.0.0.0/2,192.0.0.0/3", true},
		{"public IPv6", "2000::/3", true},
		{"half of IPv4", "0.0.0.0/1", false},
		{"all but one network", "0.0.0.0/1,128.0.0.0/2,192.0.0.0/4,208.0.0.0/5,216.0.0.0/8", false},
		{"private", "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,127.0.0.0/8,fc00::/7", false},
		{"one office", "203.0.113.0/24", false},
		{"nobody", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var nets Prefixes
			if c.nets != "" {
				if err := nets.UnmarshalText([]byte(c.nets)); err != nil {
					t.Fatal(err)
				}
			}
			if got := everybody(nets); got != c.want {
				t.Errorf("everybody(%s) = %v", c.nets, got)
			}
		})
	}
}

func TestHoldsNeedsEveryAddress(t *testing.T) {
	var nets Prefixes // 192.0.2.0/24 in single addresses, without the last
	for i := range 255 {
		nets = append(nets, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32))
	}
	whole := netip.MustParsePrefix("192.0.2.0/24")
	if holds(nets, whole) {
		t.Error("the last address is missing")
	}
	if nets = append(nets, netip.MustParsePrefix("192.0.2.255/32")); !holds(nets, whole) {
		t.Error("all addresses are there")
	}
}

func TestOpenToAnOffice(t *testing.T) {
	c, err := LoadConfig(environ(goodEnv(), map[string]string{"ACCOUNTS": "-", "AUTH": "open", "ALLOW_FROM": "203.0.113.0/24"}))
	if err != nil {
		t.Fatal(err)
	}
	if c.Accounts != nil || c.Auth.Mode != AuthOpen {
		t.Errorf("mode %s with accounts %v", c.Auth.Mode, c.Accounts)
	}
}

func TestPassthrough(t *testing.T) {
	c, err := LoadConfig(environ(goodEnv(), map[string]string{"ACCOUNTS": "-", "AUTH": "passthrough", "UPSTREAM": "http://gw.vendor.example:7777"}))
	if err != nil {
		t.Fatal(err)
	}
	if c.Accounts != nil || c.Gateways[0].HasCredentials() {
		t.Errorf("%+v", c.Gateways)
	}
}
