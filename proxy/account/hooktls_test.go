package account

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func hookTLS() *tls.Config { return &tls.Config{MinVersion: tls.VersionTLS12} }

// certificate returns one signed by parent, or by itself if that is nil.
func certificate(t *testing.T, name string, parent *tls.Certificate) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: parent == nil,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	above, signer := template, any(key)
	if parent != nil {
		above, signer = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, above, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func TestHookMutualTLS(t *testing.T) {
	authority := certificate(t, "authority", nil)
	pool := x509.NewCertPool()
	pool.AddCert(authority.Leaf)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS.PeerCertificates[0].Subject.CommonName != "relay" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{}`))
	}))
	s.Config.ErrorLog = quiet()
	s.TLS = &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*certificate(t, "hook", authority)},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}
	s.StartTLS()
	defer s.Close()
	config := func(c ...tls.Certificate) *tls.Config {
		return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: c}
	}
	mustAdmit(t, newHook(t, HookConfig{URL: s.URL, TLS: config(*certificate(t, "relay", authority))}), "alice", "secret")
	mustNotAdmit(t, newHook(t, HookConfig{URL: s.URL, TLS: config(*certificate(t, "other", authority))}), "alice", "secret", ErrRefused)

	var told string
	tell := func(err error) { told = err.Error() }
	for name, c := range map[string]*tls.Config{
		"none": config(), "a stranger's": config(*certificate(t, "relay", nil)), "an untrusted hook": nil,
	} {
		told = ""
		mustNotAdmit(t, newHook(t, HookConfig{URL: s.URL, TLS: c, Trouble: tell}), "alice", "secret", ErrBusy)
		if !strings.Contains(told, "certificate") {
			t.Errorf("%s: told %q", name, told)
		}
	}
}

func TestHookAuthorization(t *testing.T) {
	s := newService(t)
	var got string
	s.instead(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{}`))
	})
	mustAdmit(t, newHook(t, HookConfig{URL: s.URL, Token: "t0ken"}), "alice", "secret")
	if got != "Bearer t0ken" {
		t.Errorf("with a token: %q", got)
	}
	mustAdmit(t, newHook(t, HookConfig{URL: strings.Replace(s.URL, "//", "//a:b%21@", 1)}), "alice", "secret")
	if got != "Basic YTpiIQ==" {
		t.Errorf("with credentials in the URL: %q", got)
	}
	mustAdmit(t, newHook(t, HookConfig{URL: s.URL}), "alice", "secret")
	if got != "" {
		t.Errorf("with neither: %q", got)
	}
}
