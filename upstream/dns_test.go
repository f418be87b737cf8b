package upstream

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// record is one of an answer's.
type record struct {
	name string
	ttl  uint32
	to   string // an address, or the name that this one is an alias of
}

// reply is what the test's name server says to a question.
type reply struct {
	records   []record
	rcode     dnsmessage.RCode
	silent    bool          // nothing at all
	truncated bool          // over UDP
	before    []byte        // another datagram that comes first
	after     time.Duration // how long it takes over UDP
}

// nameServerTest is a name server on loopback, over UDP and TCP.
type nameServerTest struct {
	addr  string
	asked atomic.Int32
	says  func(q dnsmessage.Question) reply
}

func startNameServer(t *testing.T, says func(q dnsmessage.Question) reply) *nameServerTest {
	t.Helper()
	s := &nameServerTest{says: says}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s.addr = l.Addr().String()
	u, err := net.ListenPacket("udp", s.addr)
	must(t, err)
	var serving sync.WaitGroup
	serving.Go(func() { s.datagrams(t, u) })
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.stream(t, c)
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		_ = u.Close()
		serving.Wait()
	})
	return s
}

func (s *nameServerTest) datagrams(t *testing.T, u net.PacketConn) {
	b := make([]byte, 1500)
	for {
		n, from, err := u.ReadFrom(b)
		if err != nil {
			return
		}
		said, msg := s.answer(t, b[:n], false)
		if said.before != nil {
			_, _ = u.WriteTo(said.before, from)
		}
		if msg != nil {
			time.AfterFunc(said.after, func() { _, _ = u.WriteTo(msg, from) })
		}
	}
}

func (s *nameServerTest) stream(t *testing.T, c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return
	}
	if _, msg := s.answer(t, b, true); msg != nil {
		_, _ = c.Write(binary.BigEndian.AppendUint16(nil, uint16(len(msg))))
		_, _ = c.Write(msg)
	}
}

// answer is the message to send, nil = none.
func (s *nameServerTest) answer(t *testing.T, question []byte, stream bool) (reply, []byte) {
	s.asked.Add(1)
	var p dnsmessage.Parser
	h, err := p.Start(question)
	if err != nil {
		t.Errorf("question: %v", err)
		return reply{}, nil
	}
	q, err := p.Question()
	if err != nil {
		t.Errorf("question: %v", err)
		return reply{}, nil
	}
	said := s.says(q)
	if said.silent {
		return said, nil
	}
	msg := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: h.ID, Response: true, RecursionAvailable: true, RCode: said.rcode},
		Questions: []dnsmessage.Question{q},
	}
	if msg.Truncated = said.truncated && !stream; !msg.Truncated {
		for _, r := range said.records {
			msg.Answers = append(msg.Answers, r.resource())
		}
	}
	b, err := msg.Pack()
	if err != nil {
		t.Errorf("answer: %v", err)
	}
	return said, b
}

func (r record) resource() dnsmessage.Resource {
	h := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(r.name), Class: dnsmessage.ClassINET, TTL: r.ttl}
	a, err := netip.ParseAddr(r.to)
	switch {
	case err != nil:
		return dnsmessage.Resource{Header: h, Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(r.to)}}
	case a.Is4():
		return dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}}
	default:
		return dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}}
	}
}

const testName = "gw.maskrelay.test."

// families answers with records of the family that was asked for.
func families(four, six reply) func(dnsmessage.Question) reply {
	return func(q dnsmessage.Question) reply {
		switch {
		case q.Name.String() != testName:
			return reply{rcode: dnsmessage.RCodeNameError}
		case q.Type == dnsmessage.TypeA:
			return four
		default:
			return six
		}
	}
}

func TestResolve(t *testing.T) {
	four := reply{records: []record{{testName, 60, "192.0.2.1"}, {testName, 60, "192.0.2.2"}}}
	six := reply{records: []record{{testName, 90, "2001:db8::1"}}}
	chain := reply{records: []record{{testName, 300, "vendor.test."}, {"vendor.test.", 7, "lb.vendor.test."}, {"lb.vendor.test.", 60, "192.0.2.1"}}}
	many := reply{truncated: true}
	for i := range 40 {
		many.records = append(many.records, record{testName, uint32(100 - i), netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}).String()})
	}
	forged := func() reply {
		r := four
		b, err := (&dnsmessage.Message{
			Header:    dnsmessage.Header{ID: 1, Response: true, RecursionAvailable: true},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("other.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
			Answers:   []dnsmessage.Resource{record{testName, 1, "203.0.113.66"}.resource()},
		}).Pack()
		must(t, err)
		r.before = b
		return r
	}()
	tests := map[string]struct {
		four, six reply
		waited    bool
		addrs     int
		ttl       time.Duration
		unheard   [2]bool
	}{
		"both":              {four, six, false, 3, time.Minute, [2]bool{}},
		"IPv4 only":         {four, reply{}, false, 2, time.Minute, [2]bool{}},
		"IPv6 only":         {reply{}, six, true, 1, 90 * time.Second, [2]bool{}},
		"chain":             {chain, reply{}, true, 1, 7 * time.Second, [2]bool{}},
		"chain to nothing":  {four, reply{records: chain.records[:2]}, false, 2, 7 * time.Second, [2]bool{}},
		"slow other half":   {reply{records: chain.records[:2]}, reply{records: six.records, after: 2 * dnsGrace}, true, 1, 7 * time.Second, [2]bool{}},
		"over TCP":          {many, six, true, 41, 61 * time.Second, [2]bool{}},
		"zero":              {reply{records: []record{{testName, 0, "192.0.2.1"}}}, reply{}, false, 1, 0, [2]bool{}},
		"negative":          {reply{records: []record{{testName, 1 << 31, "192.0.2.1"}}}, reply{}, false, 1, 0, [2]bool{}},
		"somebody else's":   {forged, reply{}, false, 2, time.Minute, [2]bool{}},
		"half, and waited":  {four, reply{silent: true}, true, 2, time.Minute, [2]bool{false, true}},
		"half":              {four, reply{silent: true}, false, 2, time.Minute, [2]bool{false, true}},
		"other half":        {reply{silent: true}, six, true, 1, 90 * time.Second, [2]bool{true, false}},
		"one family broken": {four, reply{rcode: dnsmessage.RCodeServerFailure}, false, 2, time.Minute, [2]bool{false, true}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startNameServer(t, families(test.four, test.six))
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // less than the resolver waits for one answer
			defer cancel()
			got, err := resolve(ctx, s.addr, testName, test.waited)
			must(t, err)
			if len(got.addrs) != test.addrs || got.ttl != test.ttl || got.unheard != test.unheard {
				t.Errorf("%d addresses for %s, unheard %v: %v", len(got.addrs), got.ttl, got.unheard, got.addrs)
			}
		})
	}
}

func TestResolveFails(t *testing.T) {
	tests := map[string]struct {
		said     reply
		notFound bool
	}{
		"no such name":   {reply{rcode: dnsmessage.RCodeNameError}, true},
		"no address":     {reply{}, true},
		"server failure": {reply{rcode: dnsmessage.RCodeServerFailure}, false},
		"refused":        {reply{rcode: dnsmessage.RCodeRefused}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := startNameServer(t, families(test.said, test.said))
			got, err := resolve(t.Context(), s.addr, testName, true)
			var dns *net.DNSError
			if !errors.As(err, &dns) || dns.IsNotFound != test.notFound || dns.Server != s.addr {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// A name server that hangs is left at once when the time is over, and no goroutine stays.
func TestResolveEnds(t *testing.T) {
	asked := make(chan struct{}, 8)
	s := startNameServer(t, func(dnsmessage.Question) reply {
		asked <- struct{}{}
		return reply{silent: true}
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if got, err := resolve(ctx, s.addr, testName, true); err == nil {
		t.Errorf("%+v", got)
	}
}

// The hosts file comes first, as everywhere.
func TestResolveKnowsTheHostsFile(t *testing.T) {
	s := startNameServer(t, func(dnsmessage.Question) reply { return reply{rcode: dnsmessage.RCodeNameError} })
	got, err := resolve(t.Context(), s.addr, "localhost", true)
	must(t, err)
	loopback := func(a netip.Addr) bool { return a.Unmap().IsLoopback() }
	if !slices.ContainsFunc(got.addrs, loopback) || got.ttl != unknownTTL || got.unheard != [2]bool{} || s.asked.Load() != 0 {
		t.Errorf("%+v after %d questions", got, s.asked.Load())
	}
}

// The pool asks the name server that it was given, and takes its TTL.
func TestPoolAsksItsNameServer(t *testing.T) {
	v := answeringVendor(t, "127.0.0.1:0")
	_, port, err := net.SplitHostPort(v.Addr())
	must(t, err)
	s := startNameServer(t, families(reply{records: []record{{testName, 42, "127.0.0.1"}}}, reply{}))
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "gw", "http://"+net.JoinHostPort(testName, port))}, DNSServer: s.addr})
	for name, connect := range ways {
		c, err := connect(t.Context(), p, Request{Target: "target.example:443"})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_ = c.Close()
		c.Release()
	}
	statuses, known := p.gateways[0].endpoints.status()
	if known.TTLSeconds != 42 || len(statuses) != 1 || statuses[0].State != EndpointUp {
		t.Errorf("known is %+v, %+v", known, statuses)
	}
}

func TestNameServers(t *testing.T) {
	for s, want := range map[string]string{
		"": "", "192.0.2.53": "192.0.2.53:53", "2001:db8::53": "[2001:db8::53]:53", "192.0.2.53:5353": "192.0.2.53:5353", "[::1]:5353": "[::1]:5353",
	} {
		if got, err := nameServer(s); err != nil || got != want {
			t.Errorf("%q is %q, %v", s, got, err)
		}
	}
	for _, s := range []string{"dns.example", "dns.example:53", "192.0.2.53:", "192.0.2.53:70000", "[::1]", " "} {
		if _, err := NewPool(Options{
			Gateways: []Gateway{gatewayOf(t, "gw", "http://192.0.2.1:1")}, DialTimeout: 1, ConnectTimeout: 1, DNSServer: s,
		}); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}

// direct:// asks it, too.
func TestDirectAsksItsNameServer(t *testing.T) {
	echo := startEcho(t)
	_, port, err := net.SplitHostPort(echo.Addr())
	must(t, err)
	s := startNameServer(t, families(reply{records: []record{{testName, 1, "127.0.0.1"}}}, reply{}))
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "d", Direct)}, DNSServer: s.addr})
	c, err := p.Connect(t.Context(), Request{Target: net.JoinHostPort(testName, port)})
	must(t, err)
	must(t, c.Close())
	c.Release()
}

// Whatever comes from the network, only an answer to the question is taken note of, and of it what another reader finds in it.
func FuzzDNSAnswer(f *testing.F) {
	q := dnsmessage.Question{Name: dnsmessage.MustNewName(testName), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	msg := dnsmessage.Message{
		Header: dnsmessage.Header{ID: 7, Response: true, RecursionAvailable: true}, Questions: []dnsmessage.Question{q},
		Answers: []dnsmessage.Resource{record{testName, 60, "lb.test."}.resource(), record{"lb.test.", 30, "192.0.2.1"}.resource()},
	}
	whole, err := msg.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole, false)
	f.Add(whole[:len(whole)-3], true)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, b []byte, stream bool) {
		got := notedOf(q, b, stream)
		if got.heard[1] || got.known && (!got.heard[0] || got.ttl < 0) {
			t.Fatalf("%x: heard %v, TTL %v %s", b, got.heard, got.known, got.ttl)
		}
		var m dnsmessage.Message
		if err := m.Unpack(b); err != nil { // it wants the sections after the answers whole, too
			return
		}
		mine := answersQuestion(&m, q, stream)
		if got.heard[0] && !mine {
			t.Fatalf("%+v was noted", m)
		}
		// As the other reader understood it, without its lengths that lie.
		packed, err := m.Pack()
		if err != nil || len(packed) > 1<<16 {
			return
		}
		got = notedOf(q, packed, stream)
		if known := mine && len(m.Answers) > 0; got.heard[0] != mine || got.known != known || known && got.ttl != leastTTL(&m) {
			t.Fatalf("%+v: heard %v, TTL %v %s", m, got.heard, got.known, got.ttl)
		}
	})
}

// notedOf is what is taken note of when b comes after the question q, which has the ID 7.
func notedOf(q dnsmessage.Question, b []byte, stream bool) *dnsWatch {
	w := &dnsWatch{conns: map[net.Conn]struct{}{}, name: testName}
	x := dnsExchange{watch: w, id: 7, question: q, asked: true}
	x.got(b, stream)
	w.end()
	noted := &dnsWatch{heard: w.heard, known: w.known, ttl: w.ttl}
	x.sent(b) // must not panic
	return noted
}

// answersQuestion reports whether m answers q by the words of RFC 1035.
func answersQuestion(m *dnsmessage.Message, q dnsmessage.Question, stream bool) bool {
	return m.ID == 7 && m.Response && (!m.Truncated || stream) && (m.RCode == dnsmessage.RCodeSuccess || m.RCode == dnsmessage.RCodeNameError) &&
		len(m.Questions) > 0 && strings.EqualFold(m.Questions[0].Name.String(), q.Name.String()) && m.Questions[0].Type == q.Type &&
		m.Questions[0].Class == q.Class && (len(m.Answers) > 0 || m.Authoritative || m.RecursionAvailable)
}

// leastTTL is the smallest of m's answers', one with the highest bit counting as 0 (RFC 2181 §8).
func leastTTL(m *dnsmessage.Message) time.Duration {
	least := int64(math.MaxInt64)
	for _, a := range m.Answers {
		ttl := int64(a.Header.TTL)
		if ttl >= 1<<31 {
			ttl = 0
		}
		least = min(least, ttl)
	}
	return time.Duration(least) * time.Second
}
