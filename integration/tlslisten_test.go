package integration

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/masking"
)

// keyPair is a certificate for loopback in the files that a relay reads, and the CA that a customer trusts.
type keyPair struct {
	certFile, keyFile, caFile string
	pool                      *x509.CertPool
}

func newKeyPair(t *testing.T, dir string) keyPair {
	t.Helper()
	cert, pool, caPEM := newCertificate(t, "127.0.0.1")
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return keyPair{
		certFile: writeFile(t, dir, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))),
		keyFile:  writeFile(t, dir, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))),
		caFile:   writeFile(t, dir, "ca.pem", string(caPEM)),
		pool:     pool,
	}
}

// TestTLSListener uses an https:// proxy URL, before and after the certificate was replaced on disk.
func TestTLSListener(t *testing.T) {
	t.Parallel()
	lab.Need(t, "curl")
	addr := lab.FreeAddr(t)
	first := newKeyPair(t, t.TempDir())
	_, plain := startSingle(t, lab.Env{"TLS_LISTEN": addr, "TLS_CERT_FILE": first.certFile, "TLS_KEY_FILE": first.keyFile})
	site := startTarget(t, "")
	checkSecureProxy(t, addr, first.caFile, site)
	second := newKeyPair(t, t.TempDir())
	checkUntrusted(t, addr, second.pool)
	echo := startEcho(t)
	if c, err := tunnel(plain, echo); err != nil {
		t.Errorf("the plain listener beside it: %v", err)
	} else if err := c.Close(); err != nil {
		t.Error(err)
	}

	live, err := tls.Dial("tcp4", addr, &tls.Config{RootCAs: first.pool, ServerName: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = live.Close() }() // what it did was seen
	for from, to := range map[string]string{second.certFile: first.certFile, second.keyFile: first.keyFile} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	lab.Wait(t, 20*time.Second, "the new certificate", func() bool {
		c, err := tls.Dial("tcp4", addr, &tls.Config{RootCAs: second.pool, ServerName: "127.0.0.1"})
		return err == nil && c.Close() == nil
	})
	checkSecureProxy(t, addr, second.caFile, site)
	checkUntrusted(t, addr, first.pool)
	old := newClient(t, live)
	if got := old.mustConnect(t, echo, customerName, customerPassword); got.status != 200 {
		t.Fatalf("on a connection with the old certificate: %+v", got)
	}
	if err := old.ping("old certificate"); err != nil {
		t.Error(err)
	}
}

// checkUntrusted asserts that the listener's certificate is not of the CA.
func checkUntrusted(t *testing.T, addr string, pool *x509.CertPool) {
	t.Helper()
	c, err := tls.Dial("tcp4", addr, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
	if err == nil {
		_ = c.Close() // it should not be there
	}
	var failure *tls.CertificateVerificationError
	if !errors.As(err, &failure) {
		t.Errorf("a customer that trusts another CA got %v", err)
	}
}

// secureCurl is curl with an https:// proxy URL, which prints all heads and bodies that it receives.
func secureCurl(t *testing.T, addr, caFile string, site *target, scheme string, more ...string) *exec.Cmd {
	t.Helper()
	user := customerName + ":" + customerPassword
	args := append([]string{"-q", "-sS", "-i", "--max-time", "30", "--cacert", site.caFile, "--proxy-cacert", caFile, "-x", "https://" + addr, "-U", user}, more...)
	return exec.Command(lab.Need(t, "curl")[0], append(args, site.url(scheme, targetName, "/hello"))...)
}

// checkSecureProxy asks by CONNECT and plain, and with a wrong password. A tap would see ciphertext, so what curl got is searched.
func checkSecureProxy(t *testing.T, addr, caFile string, site *target) {
	t.Helper()
	cases := []struct {
		name, scheme string
		more         []string
		want         string // at the end, or in the first line where it is a status
		status       string
		code         int
	}{
		{"CONNECT", "https", nil, helloText, "HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK\r\n", 0},
		{"plain", "http", nil, helloText, "HTTP/1.1 200 OK\r\n", 0},
		{"CONNECT with a wrong password", "https", []string{"-U", customerName + ":wrong"}, "", "HTTP/1.1 407 Proxy Authentication Required\r\n", 56},
		{"plain with a wrong password", "http", []string{"-U", customerName + ":wrong"}, "", "HTTP/1.1 407 Proxy Authentication Required\r\n", 0},
	}
	for _, tc := range cases {
		out, code := run(t, secureCurl(t, addr, caFile, site, tc.scheme, tc.more...))
		if code != tc.code || !strings.HasPrefix(out, tc.status) || !strings.HasSuffix(out, tc.want) {
			t.Errorf("%s by %s: exit code %d, output %q", tc.name, filepath.Base(caFile), code, out)
		}
		checkNoMarks(t, tc.name, []byte(out), vendorMarks())
	}
}

// checkNoMarks searches bytes that no tap could see, plain and encoded.
func checkNoMarks(t *testing.T, where string, b []byte, marks *masking.Marks) {
	t.Helper()
	search := lab.NewSearch(where, marks)
	_, _ = search.Write(b) // a Search's Write has no errors
	for _, leak := range search.Leaks() {
		t.Errorf("leak: %v", leak)
	}
}
