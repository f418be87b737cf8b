package upstreamtest

import (
	"crypto/x509"
	"testing"
)

func TestServerCertificates(t *testing.T) {
	t.Parallel()
	ca, other := must(NewCA())(t), must(NewCA())(t)
	fromPEM := x509.NewCertPool()
	if !fromPEM.AppendCertsFromPEM(ca.PEM()) {
		t.Fatal("PEM without a certificate")
	}
	tests := []struct {
		name  string
		names []string
		pool  *x509.CertPool
		host  string
		ok    bool
	}{
		{"default localhost", nil, ca.Pool(), "localhost", true},
		{"default address", nil, ca.Pool(), "127.0.0.1", true},
		{"given name", []string{"a.example.test"}, ca.Pool(), "a.example.test", true},
		{"given address", []string{"a.example.test", "::1"}, ca.Pool(), "::1", true},
		{"by PEM", []string{"a.example.test"}, fromPEM, "a.example.test", true},
		{"other name", []string{"a.example.test"}, ca.Pool(), "b.example.test", false},
		{"other authority", []string{"a.example.test"}, other.Pool(), "a.example.test", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cert := must(ca.Server(tt.names...))(t)
			leaf := must(x509.ParseCertificate(cert.Certificate[0]))(t)
			_, err := leaf.Verify(x509.VerifyOptions{Roots: tt.pool, DNSName: tt.host})
			if (err == nil) != tt.ok {
				t.Errorf("verify: %v", err)
			}
		})
	}
}
