package upstreamtest

import (
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"time"
)

// shaker is a Behaviour that has a say in the TLS handshake. A nil config is the vendor's own.
type shaker interface {
	shake(ctx context.Context, v *Vendor) (*tls.Config, error)
}

var errShaken = errors.New("upstreamtest: the vendor does not shake hands")

// shake asks the behaviour that is set now how to do the handshake.
func (v *Vendor) shake(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if s, ok := v.current().(shaker); ok {
		return s.shake(hello.Context(), v)
	}
	return nil, nil
}

// handshakeFault spoils the TLS handshake of an https:// gateway. Whoever comes as far as a
// request, as to an http:// gateway, gets no answer to it.
type handshakeFault struct {
	over    time.Duration // how long ago the certificate expired
	strange bool          // its authority is the vendor's own
	foreign bool          // it is for the vendor's names alone
	alpn    string        // the only protocol that is spoken
	refuses bool          // nobody is let in
	stalls  bool          // the hello is not answered, nor is a request
}

// shake makes the configuration of one handshake.
func (h handshakeFault) shake(ctx context.Context, v *Vendor) (*tls.Config, error) {
	switch {
	case h.stalls:
		<-ctx.Done()
		return nil, errShaken
	case h.refuses:
		return nil, errShaken
	case h.alpn != "":
		own := v.config.TLS.Clone()
		own.GetConfigForClient, own.NextProtos = nil, []string{string(v.expand(h.alpn))}
		return own, nil
	}
	ca := v.config.CA
	if h.strange || ca == nil {
		var err error
		if ca, err = newCA(v.subject("Root CA")); err != nil {
			return nil, err
		}
	}
	names := []string{v.host(), "*." + v.host()}
	if !h.foreign {
		names = append(names, v.localNames()...)
	}
	return v.presents(ca, h.over, names)
}

// Serve closes, or waits.
func (h handshakeFault) Serve(_ context.Context, c *Conn, _ *RecordedRequest) {
	if h.stalls {
		drain(c)
	}
}

// subject is a name that is the vendor's through and through.
func (v *Vendor) subject(role string) pkix.Name {
	brand := v.config.Brand
	return pkix.Name{CommonName: brand + " " + role, Organization: []string{brand + " Ltd."}, OrganizationalUnit: []string{v.realm()}}
}

// localNames are the names under which tests and audits reach the vendor.
func (v *Vendor) localNames() []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if host, _, err := net.SplitHostPort(v.Addr()); err == nil {
		names = append(names, host)
	}
	return names
}

// presents is a configuration with a certificate in the vendor's name.
func (v *Vendor) presents(ca *CA, over time.Duration, names []string) (*tls.Config, error) {
	cert, err := ca.sign(v.subject("gateway"), over, names)
	if err != nil {
		return nil, fmt.Errorf("upstreamtest: handshake: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}, nil
}

// namedCertificate is an honest gateway with the vendor's name all over its certificate.
type namedCertificate struct{ Relay }

// shake presents the certificate, if there is an authority that clients trust.
func (namedCertificate) shake(_ context.Context, v *Vendor) (*tls.Config, error) {
	if v.config.CA == nil {
		return nil, nil
	}
	return v.presents(v.config.CA, 0, append([]string{v.host()}, v.localNames()...))
}

// tlsHostilities are about the certificate of an https:// gateway.
func tlsHostilities() []Hostility {
	all := []Hostility{
		{Name: "tls-named-certificate", Ways: everyWay, Serves: true, HTTP: namedCertificate{}},
		{Name: "tls-stall", Ways: everyWay, Waits: true, HTTP: handshakeFault{stalls: true}},
	}
	for name, h := range map[string]handshakeFault{
		"tls-strange-issuer":  {strange: true},
		"tls-strange-foreign": {strange: true, foreign: true},
		"tls-foreign-names":   {foreign: true},
		"tls-expired":         {over: time.Hour},
		"tls-alpn":            {alpn: "{lower}/1"},
		"tls-refused":         {refuses: true},
	} {
		all = append(all, Hostility{Name: name, Ways: everyWay, HTTP: h})
	}
	return all
}
