package upstream

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"maskrelay/upstream/vendor"
)

// adviceUnknown is about answers of which nobody here knows the meaning.
const adviceUnknown = "look the answer up in the vendor's list of errors"

// adviceNoRoute is about an address that this host has no way to.
const adviceNoRoute = "give this host a route of that family, or a gateway name without such addresses"

// judge is the cause of a failure in the vendor's terms, and what to do about it.
func (x *examination) judge(e *ConnectError, answer *http11Answer) (Cause, string) {
	if answer != nil && answer.status > 299 && x.g.Scheme != SchemeSOCKS5 {
		cause, verdict := x.g.classify(answer.answer())
		return cause, cmp.Or(verdict.Advice, x.g.Vendor.Advice(vendor.Cause(cause)), adviceUnknown)
	}
	switch e.Phase {
	case PhaseResolve:
		return e.Cause, adviceOnName(e, x.c.Options.DNSServer)
	case PhaseDial:
		return e.Cause, adviceOnDial(e, x.g.Port)
	case PhaseTLS:
		return e.Cause, adviceOnTLS(e, x.g.Gateway)
	case phaseTarget:
		return e.Cause, adviceOnTarget(e)
	}
	if advice := adviceOnSilence(e, answer, x.g.Scheme); advice != "" {
		return e.Cause, advice
	}
	return e.Cause, cmp.Or(e.Advice, x.g.Vendor.Advice(vendor.Cause(e.Cause)), adviceUnknown)
}

// whatFailed says in a few words what happened.
func whatFailed(e *ConnectError, cause Cause) string {
	if cause == CauseCanceled {
		return "interrupted"
	}
	if e.Status != 0 && e.Err == nil {
		return fmt.Sprintf("refused with status %d", e.Status)
	}
	if e.Err == nil {
		return string(cause)
	}
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(e.Err, &dns):
		return cmp.Or(dns.Err, "not found")
	case cause == CauseTimeout:
		return "no answer in time"
	case errors.As(e.Err, &op) && op.Err != nil:
		return op.Err.Error()
	default:
		return e.Err.Error()
	}
}

// adviceOnName is about a look-up at server, "" = the system's.
func adviceOnName(e *ConnectError, server string) string {
	var dns *net.DNSError
	unknown := errors.As(e.Err, &dns) && dns.IsNotFound
	switch {
	case unknown && server != "":
		return "check the spelling of the host in the gateway's URL, and that the name server of MASKRELAY_DNS_SERVER (" + server + ") knows it"
	case unknown:
		return "check the spelling of the host in the gateway's URL, and that this host's name server knows it"
	case server != "":
		return "the name server of MASKRELAY_DNS_SERVER (" + server + ") does not answer: check its address, and the firewall"
	}
	return "this host's name server does not answer: look at /etc/resolv.conf and at the firewall (port 53)"
}

func adviceOnDial(e *ConnectError, port string) string {
	switch {
	case errors.Is(e.Err, errNoSource):
		return "MASKRELAY_SOURCE_ADDRS has no address of that family"
	case errors.Is(e.Err, syscall.ENETUNREACH), errors.Is(e.Err, syscall.EHOSTUNREACH), errors.Is(e.Err, syscall.EADDRNOTAVAIL):
		return adviceNoRoute
	case e.Cause == CauseTimeout:
		return "nothing answers: a firewall drops packets to port " + port + ", the vendor does not know this host's address, or the gateway is down"
	default:
		return "nothing listens there: check the port (" + port + ") in the gateway's URL, or the vendor's gateway is down"
	}
}

func adviceOnTLS(e *ConnectError, g Gateway) string {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	switch {
	case errors.As(e.Err, &name) && name.Certificate != nil:
		return fmt.Sprintf("the certificate is that of %s and not of %s: use the name that the vendor documents in the gateway's URL", certName(name.Certificate), g.Host)
	case errors.As(e.Err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		return fmt.Sprintf("the certificate was valid from %s to %s: tell the vendor, or set this host's clock right",
			invalid.Cert.NotBefore.UTC().Format("2006-01-02"), invalid.Cert.NotAfter.UTC().Format("2006-01-02"))
	case errors.As(e.Err, &unknown):
		return "the certificate is signed by nobody this host trusts: give the vendor's CA in the gateway's _CA_FILE, or install ca-certificates"
	case e.Cause == CauseTimeout:
		return "the port takes connections but does not answer to TLS: check the port, or write http:// if the gateway speaks it plainly"
	case strings.Contains(e.Err.Error(), "first record does not look like a TLS handshake"):
		return "the port does not speak TLS: write http:// or check the port"
	default:
		return "check the port, and with the vendor which TLS versions the gateway takes"
	}
}

func adviceOnTarget(e *ConnectError) string {
	switch {
	case e.Cause == CauseTimeout:
		return "the gateway opened the tunnel but nothing comes through: the exit is slow or gone, or the target is down; try again, then another --target"
	case e.Cause == CauseTLS:
		return "what comes through the tunnel is not the target's certificate: the vendor's product may decrypt TLS, or the target's own certificate is wrong; try another --target"
	default:
		return "the gateway opened the tunnel and then closed it: some vendors answer before they dial; the target or the exit is unreachable, or the vendor does not serve this target; try another --target"
	}
}

// adviceOnSilence is about gateways that gave no answer that can be understood.
func adviceOnSilence(e *ConnectError, answer *http11Answer, scheme string) string {
	var first []byte
	if answer != nil && answer.status == 0 {
		first = answer.raw
	}
	switch {
	case len(first) > 1 && first[0] == 0x15 && first[1] == 0x03:
		return "the port speaks TLS: write https:// in the gateway's URL, or use the vendor's plain port"
	case len(first) > 0 && first[0] == 0x05 && !strings.HasPrefix(scheme, "socks5"):
		return "the port speaks SOCKS5: write socks5:// in the gateway's URL"
	case strings.HasPrefix(string(first), "HTTP/") && strings.HasPrefix(scheme, "socks5"):
		return "the port speaks HTTP: write http:// in the gateway's URL"
	case e.Cause == CauseTimeout && e.Status == 0:
		return "the gateway took the request and said nothing: the vendor or its exits are slow or down; try again, raise --timeout or MASKRELAY_CONNECT_TIMEOUT, ask the vendor"
	case e.Cause == CauseClosed:
		return "the gateway closed without an answer: it may not know this host's address (allow-list at the vendor), or the port speaks another protocol"
	case e.Cause == CauseMalformed:
		return "what listens there is no proxy of this kind: check scheme and port of the gateway's URL"
	case e.Cause == CauseBody:
		return "the gateway answers CONNECT with a page: it is a web server or a product without tunnels; check host and port"
	}
	return ""
}
