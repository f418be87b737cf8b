package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"maskrelay/upstream/upstreamtest"
)

// TestDiagnoseTLS meets certificates of all kinds; a gateway that is not trusted sees no login.
func TestDiagnoseTLS(t *testing.T) {
	ca, err := upstreamtest.NewCA()
	must(t, err)
	good, err := ca.Server("127.0.0.1")
	must(t, err)
	other, err := ca.Server("other.example")
	must(t, err)
	expired, expiredPEM := expiredCert(t)
	for name, test := range map[string]struct {
		cert tls.Certificate
		pem  []byte
		want string // of the advice, "" = fine
	}{
		"good":       {good, ca.PEM(), ""},
		"unknown CA": {good, nil, "_CA_FILE"},
		"wrong name": {other, ca.PEM(), "the certificate is that of other.example and not of 127.0.0.1"},
		"expired":    {expired, expiredPEM, "2020-01-02"},
	} {
		t.Run(name, func(t *testing.T) {
			p := startPatient(t, upstreamtest.VendorConfig{TLS: &tls.Config{Certificates: []tls.Certificate{test.cert}, MinVersion: tls.VersionTLS12}})
			gateway := GatewayConfig{Name: "g", URL: p.vendor.URL()}
			if test.pem != nil {
				gateway.CAFile = filepath.Join(t.TempDir(), "ca.pem")
				must(t, os.WriteFile(gateway.CAFile, test.pem, 0o600))
			}
			g, err := ParseGateway(gateway)
			must(t, err)
			hops, d := diagnose(t, p.config(t, g))
			h := d.Failed()
			if test.want == "" {
				if h != nil || !slices.Contains(hops, "tls ok") || !strings.Contains(d.Hops[2].Detail, "certificate of 127.0.0.1, 0 days left") {
					t.Errorf("%v: %+v", hops, d.Hops)
				}
				return
			}
			if h == nil || h.Name != HopTLS || h.Cause != CauseTLS || !strings.Contains(h.Advice, test.want) {
				t.Errorf("%+v, want %q", h, test.want)
			}
			if got := p.vendor.Received(); strings.Contains(string(got), "Proxy-Authorization") {
				t.Errorf("a gateway that is not trusted received %q", got)
			}
		})
	}
}

// TestDiagnosePlainPortWithTLS is the other mistake of the scheme: a server that speaks plainly, and one that waits for words.
func TestDiagnosePlainPortWithTLS(t *testing.T) {
	banner, err := upstreamtest.StartBanner([]byte("220 mail.example ESMTP\r\n"))
	must(t, err)
	t.Cleanup(func() { _ = banner.Close() })
	// No vendor: one in a hundred hellos has an empty line by chance, to which it answers.
	waits, err := upstreamtest.StartSink()
	must(t, err)
	t.Cleanup(func() { _ = waits.Close() })
	p := startPatient(t, upstreamtest.VendorConfig{})
	for addr, want := range map[string]string{banner.Addr(): "does not speak TLS", waits.Addr(): "does not answer to TLS"} {
		c := p.config(t, gatewayOf(t, "g", "https://"+addr))
		c.Options.DialTimeout = time.Second
		hops, d := diagnose(t, c)
		if h := d.Failed(); h == nil || h.Name != HopTLS || !strings.Contains(h.Advice, want) {
			t.Errorf("%v: %+v, want %q", hops, h, want)
		}
	}
}

// expiredCert is a self-signed certificate of 127.0.0.1 that was valid for a day.
func expiredCert(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "old"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2020, 1, 2, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestDiagnoseTLSPortSpokenPlainly is the mistake of the scheme.
func TestDiagnoseTLSPortSpokenPlainly(t *testing.T) {
	ca, err := upstreamtest.NewCA()
	must(t, err)
	cert, err := ca.Server()
	must(t, err)
	p := startPatient(t, upstreamtest.VendorConfig{TLS: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}})
	_, d := diagnose(t, p.config(t, gatewayOf(t, "g", strings.Replace(p.vendor.URL(), "https://", "http://", 1))))
	if h := d.Failed(); h == nil || h.Name != HopConnect {
		t.Errorf("%+v", d.Hops)
	}
}
