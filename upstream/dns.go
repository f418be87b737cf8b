package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// unknownTTL is for answers that no name server gave, as those of /etc/hosts.
	unknownTTL = 30 * time.Second
	// dnsGrace is how long the second family's addresses are waited for after the first's
	// are there: while customers wait, and otherwise.
	dnsGrace, dnsPatience = 250 * time.Millisecond, 2 * time.Second
	// maxDNSMessage bounds what is looked at of an answer over TCP, in bytes.
	maxDNSMessage = 2 + 65535
)

// answer is what a name stands for.
type answer struct {
	addrs []netip.Addr
	ttl   time.Duration
	// unheard are the families (see familyOf) that name servers were asked for and said
	// nothing about, not even that there are none.
	unheard [2]bool
}

// lookup finds a gateway's addresses. waited says that customers wait for them: half an
// answer soon is better then than a whole one late.
type lookup func(ctx context.Context, host string, waited bool) (answer, error)

// lookup is how the pool resolves names.
func (o Options) lookup() (lookup, error) {
	if o.Lookup != nil {
		return func(ctx context.Context, host string, _ bool) (answer, error) {
			addrs, err := o.Lookup(ctx, "ip", host)
			return answer{addrs: addrs, ttl: unknownTTL}, err
		}, nil
	}
	server, err := nameServer(o.DNSServer)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, host string, waited bool) (answer, error) {
		return resolve(ctx, server, host, waited)
	}, nil
}

// resolver is what direct:// finds targets with, nil = the system's.
func (o Options) resolver() *net.Resolver {
	server, err := nameServer(o.DNSServer)
	if server == "" || err != nil { // NewPool has refused the latter
		return nil
	}
	return resolverAt(server, nil)
}

// nameServer is s with a port.
func nameServer(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53).String(), nil
	}
	if _, err := netip.ParseAddrPort(s); err != nil {
		return "", fmt.Errorf("upstream: the name server %q is no address and no address:port", s)
	}
	return s, nil
}

// resolve asks Go's resolver, and looks at the name servers' answers as they pass for
// their TTLs, which it does not tell. So /etc/hosts, resolv.conf, search domains, EDNS and
// TCP are as everywhere else on the host. server takes the place of resolv.conf's name
// servers; empty = those.
func resolve(ctx context.Context, server, host string, waited bool) (answer, error) {
	w := &dnsWatch{patience: dnsPatience, conns: map[net.Conn]struct{}{}}
	if waited {
		w.patience = dnsGrace
	}
	defer w.end()
	r := resolverAt(server, w.pass)
	addrs, err := r.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return answer{}, namingServer(err, server)
	}
	return w.answer(addrs), nil
}

// namingServer is err with the name server that was asked, where it took another's place.
func namingServer(err error, server string) error {
	var dns *net.DNSError
	if server == "" || !errors.As(err, &dns) || dns.Server == "" {
		return err
	}
	named := *dns
	named.Server = server
	return &named
}

// resolverAt is Go's resolver with another name server, and its connections wrapped;
// empty and nil: as they are.
func resolverAt(server string, wrap func(net.Conn) (net.Conn, error)) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if server != "" {
			address = server
		}
		var d net.Dialer
		c, err := d.DialContext(ctx, network, address)
		if err != nil || wrap == nil {
			return c, err
		}
		return wrap(c)
	}}
}

// dnsWatch looks at the messages of one look-up. The resolver asks for both families at
// once, on two connections, and for one name of the search list after the other.
type dnsWatch struct {
	patience time.Duration // for the second family

	mu    sync.Mutex            // guards what follows
	conns map[net.Conn]struct{} // the bare ones
	ended bool
	grace *time.Timer // nil = no family has answered with addresses
	name  string      // that is being asked for
	ttl   time.Duration
	known bool    // ttl was seen
	heard [2]bool // families about which there was an answer
}

// errLookupEnded is what the resolver's further connections fail with.
var errLookupEnded = errors.New("the look-up has ended")

// pass wraps a connection of the resolver's. It owns it and closes it on an error.
func (w *dnsWatch) pass(c net.Conn) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := dnsExchange{watch: w}
	var wrapped net.Conn
	switch c := c.(type) {
	case *net.UDPConn:
		wrapped = &dnsPackets{UDPConn: c, dnsExchange: x}
	case *net.TCPConn:
		wrapped = &dnsStream{TCPConn: c, dnsExchange: x}
	}
	if w.ended || wrapped == nil {
		_ = c.Close()
		return nil, errLookupEnded
	}
	w.conns[c] = struct{}{}
	return wrapped, nil
}

// end closes what is still open, so that the resolver's goroutines end, too.
func (w *dnsWatch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if w.grace != nil {
		w.grace.Stop()
	}
	for c := range w.conns {
		_ = c.Close()
	}
	clear(w.conns)
}

func (w *dnsWatch) closed(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

// asked notes a question. With another name all begins anew.
func (w *dnsWatch) asked(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !strings.EqualFold(name, w.name) {
		w.name, w.known, w.heard = name, false, [2]bool{}
	}
}

// dnsRecords are the records of an answer.
type dnsRecords struct {
	count   int
	ttl     time.Duration // the smallest
	address bool          // there is one that was asked for, and not aliases only
}

// answered notes an answer.
func (w *dnsWatch) answered(q dnsmessage.Question, seen dnsRecords) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if q.Name.String() != w.name {
		return
	}
	switch q.Type {
	case dnsmessage.TypeA:
		w.heard[0] = true
	case dnsmessage.TypeAAAA:
		w.heard[1] = true
	}
	if seen.count > 0 && (!w.known || seen.ttl < w.ttl) {
		w.known, w.ttl = true, seen.ttl
	}
	if seen.address && w.grace == nil {
		w.grace = time.AfterFunc(w.patience, w.end)
	}
}

// answer is the whole of a look-up that found addrs.
func (w *dnsWatch) answer(addrs []netip.Addr) answer {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.known {
		return answer{addrs: addrs, ttl: unknownTTL}
	}
	return answer{addrs: addrs, ttl: w.ttl, unheard: [2]bool{!w.heard[0], !w.heard[1]}}
}
