package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// Names by which the target is asked for: the first only squid can resolve (hosts_file), the second every vendor.
const (
	targetName    = "shop.target.example"
	targetAddress = "127.0.0.1"
)

const helloText = "hello from the target\n"

// target is a site in two forms, plain and TLS, that searches all it receives for the customer's marks.
type target struct {
	plainPort, tlsPort string
	caFile             string
	ca                 *x509.CertPool
	found              *leakList
}

// url returns the address of path, by TLS or plain.
func (s *target) url(scheme, host, path string) string {
	port := s.plainPort
	if scheme == "https" {
		port = s.tlsPort
	}
	return scheme + "://" + net.JoinHostPort(host, port) + path
}

// startTarget starts both forms. gitRoot, if not empty, is served under /git/ by git's own http-backend.
func startTarget(t *testing.T, gitRoot string) *target {
	t.Helper()
	cert, pool, caPEM := newCertificate(t, targetName, targetAddress)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, caPEM, 0o644); err != nil {
		t.Fatal(err)
	}
	s := &target{caFile: caFile, ca: pool, found: &leakList{}}
	handler := targetHandler(t, gitRoot)
	s.plainPort = s.serve(t, handler, nil)
	s.tlsPort = s.serve(t, handler, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	t.Cleanup(func() {
		for _, leak := range s.found.all() {
			t.Errorf("the target received: %v", leak)
		}
	})
	return s
}

func (s *target) serve(t *testing.T, h http.Handler, secure *tls.Config) (port string) {
	t.Helper()
	ln, err := net.Listen("tcp4", lab.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	_, port, err = net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if secure != nil {
		ln = tls.NewListener(ln, secure)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(&searchedListener{Listener: ln, found: s.found}) }()
	t.Cleanup(func() {
		if err := srv.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("target: %v", err)
		}
	})
	return port
}

func targetHandler(t *testing.T, gitRoot string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { writeAll(w, helloText) })
	mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		writeAll(w, "<!doctype html><title>"+pageTitle+"</title><p>shop</p>")
	})
	mux.HandleFunc("/bytes", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.FormValue("n"), 10, 64)
		if err != nil {
			http.Error(w, "n", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = io.Copy(w, bodyBytes(n)) // a customer that went away is seen at the customer
	})
	mux.HandleFunc("/digest", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		if err != nil {
			http.Error(w, "body", http.StatusBadRequest)
			return
		}
		writeAll(w, fmt.Sprintf("%d %s\n", n, hex.EncodeToString(sum.Sum(nil))))
	})
	if gitRoot != "" {
		backend := lab.Need(t, "/usr/lib/git-core/git-http-backend")[0]
		mux.Handle("/git/", &cgi.Handler{Path: backend, Root: "/git", Stderr: io.Discard,
			Env: []string{"GIT_PROJECT_ROOT=" + gitRoot, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}})
	}
	return mux
}

const pageTitle = "The shop's page"

func writeAll(w io.Writer, s string) {
	_, _ = io.WriteString(w, s) // a customer that went away is seen at the customer
}

// bodyBytes returns n bytes that are the same every time and that no compression shortens.
func bodyBytes(n int64) io.Reader {
	return io.LimitReader(mathrand.NewChaCha8([32]byte{1, 2, 3}), n)
}

// digest returns the SHA-256 of all that r gives, in hex.
func digest(t *testing.T, r io.Reader) string {
	t.Helper()
	sum := sha256.New()
	if _, err := io.Copy(sum, r); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// newCertificate returns a certificate for the names, signed by a CA of its own, and that CA.
func newCertificate(t *testing.T, names ...string) (tls.Certificate, *x509.CertPool, []byte) {
	t.Helper()
	caKey, leafKey := newKey(t), newKey(t)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: names[0]}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	caPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(caPEM)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: leafKey}, pool, caPEM
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// searchedListener gives connections whose received bytes, after TLS, are searched for the customer's marks.
type searchedListener struct {
	net.Listener
	found *leakList
}

func (l *searchedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &searchedConn{Conn: c, search: lab.NewSearch("target", customerMarks()), found: l.found}, nil
}

type searchedConn struct {
	net.Conn
	search *lab.Search
	found  *leakList
}

func (c *searchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	_, _ = c.search.Write(p[:n]) // a Search's Write has no errors
	return n, err
}

func (c *searchedConn) Close() error {
	c.found.add(c.search.Leaks())
	return c.Conn.Close()
}
