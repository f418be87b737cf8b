package upstream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestSOCKSMessages(t *testing.T) {
	long := strings.Repeat("x", 255)
	tests := map[string]struct {
		wish socksWish
		want [3]string // the messages; of the last two, "" = there is none
	}{
		"no login": {socksWish{target: "target.example:443"},
			[3]string{"\x05\x01\x00", "", "\x05\x01\x00\x03\x0etarget.example\x01\xbb"}},
		"login": {socksWish{target: "1.2.3.4:80", username: "user", password: "p:ä"},
			[3]string{"\x05\x01\x02", "\x01\x04user\x04p:\xc3\xa4", "\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50"}},
		"no password": {socksWish{target: "[2001:db8::1]:65535", username: "u"},
			[3]string{"\x05\x01\x02", "\x01\x01u\x00", "\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff"}},
		"IPv4 written as IPv6": {socksWish{target: "[::ffff:1.2.3.4]:1"},
			[3]string{"\x05\x01\x00", "", "\x05\x01\x00\x01\x01\x02\x03\x04\x00\x01"}},
		"a name that ends in a digit": {socksWish{target: "web1:80"}, [3]string{"\x05\x01\x00", "", "\x05\x01\x00\x03\x04web1\x00\x50"}},
		"all as long as may be": {socksWish{target: long + ":1", username: long, password: long},
			[3]string{"\x05\x01\x02", "\x01\xff" + long + "\xff" + long, "\x05\x01\x00\x03\xff" + long + "\x00\x01"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var s socks
			for i, want := range test.want {
				if want == "" {
					continue
				}
				for range 2 { // it may be asked twice
					if got := string(s.append([]byte("before "), test.wish)); got != "before "+want {
						t.Fatalf("message %d is %q, want %q", i, got, want)
					}
				}
				if i == 2 {
					return
				}
				answer := map[int]string{0: "\x05" + want[2:], 1: "\x01\x00"}[i]
				if n, more, failure := s.look([]byte(answer)); n != 0 || !more || failure != nil {
					t.Fatalf("to answer %d: %d, %t, %v", i, n, more, failure)
				}
			}
		})
	}
}

// socksAt is a handshake that waits for the answer to a step's message.
func socksAt(step socksStep) socks { return socks{step: step, login: step == socksLogsIn} }

// Replies that open the tunnel.
const (
	ok4    = "\x05\x00\x00\x01\x01\x02\x03\x04\x05\x06"
	ok6    = "\x05\x00\x00\x04aaaaaaaaaaaaaaaabb"
	okName = "\x05\x00\x00\x03\x03abcpp"
)

var socksAnswers = map[string]struct {
	at     socks
	in     string
	more   bool
	size   int
	cause  Cause
	status int
}{
	"no login":              {at: socks{}, in: "\x05\x00", more: true},
	"login":                 {at: socks{login: true}, in: "\x05\x02", more: true},
	"nothing":               {at: socks{}, in: ""},
	"half a choice":         {at: socks{}, in: "\x05"},
	"other version":         {at: socks{}, in: "\x04", cause: CauseMalformed},
	"an HTTP server":        {at: socks{}, in: "HTTP/1.1 400 Bad Request\r\n\r\n", cause: CauseMalformed},
	"no method":             {at: socks{}, in: "\x05\xff", cause: CauseAuth},
	"no method, and more":   {at: socks{login: true}, in: "\x05\xffgo away", cause: CauseAuth},
	"login not on offer":    {at: socks{}, in: "\x05\x02", cause: CauseMalformed},
	"no login, unasked":     {at: socks{login: true}, in: "\x05\x00", cause: CauseMalformed},
	"GSSAPI":                {at: socks{login: true}, in: "\x05\x01", cause: CauseMalformed},
	"choice, out of turn":   {at: socks{}, in: "\x05\x00\x05", cause: CauseMalformed},
	"admitted":              {at: socksAt(socksLogsIn), in: "\x01\x00", more: true},
	"half an admission":     {at: socksAt(socksLogsIn), in: "\x01"},
	"not admitted":          {at: socksAt(socksLogsIn), in: "\x01\x01", cause: CauseAuth},
	"not admitted, code":    {at: socksAt(socksLogsIn), in: "\x01\xff rest", cause: CauseAuth},
	"admitted by version 5": {at: socksAt(socksLogsIn), in: "\x05\x00", cause: CauseMalformed},
	"admission, out of turn": {
		at: socksAt(socksLogsIn), in: "\x01\x00" + ok4, cause: CauseMalformed},
	"IPv4":              {at: socksAt(socksAsks), in: ok4, size: len(ok4)},
	"IPv6":              {at: socksAt(socksAsks), in: ok6, size: len(ok6)},
	"name":              {at: socksAt(socksAsks), in: okName, size: len(okName)},
	"empty name":        {at: socksAt(socksAsks), in: "\x05\x00\x00\x03\x00pp", size: 7},
	"longest name":      {at: socksAt(socksAsks), in: "\x05\x00\x00\x03\xff" + strings.Repeat("n", 257), size: 262},
	"early bytes":       {at: socksAt(socksAsks), in: ok4 + "220 ready", size: len(ok4)},
	"short":             {at: socksAt(socksAsks), in: ok4[:9]},
	"short name":        {at: socksAt(socksAsks), in: okName[:9]},
	"three bytes":       {at: socksAt(socksAsks), in: ok4[:3]},
	"four bytes":        {at: socksAt(socksAsks), in: ok4[:4]},
	"version":           {at: socksAt(socksAsks), in: "\x00", cause: CauseMalformed},
	"reserved":          {at: socksAt(socksAsks), in: "\x05\x00\x01", cause: CauseMalformed},
	"address type":      {at: socksAt(socksAsks), in: "\x05\x00\x00\x02", cause: CauseMalformed},
	"address type 0":    {at: socksAt(socksAsks), in: "\x05\x00\x00\x00\x01\x02\x03", cause: CauseMalformed},
	"failure":           {at: socksAt(socksAsks), in: "\x05\x01\x00\x01", cause: CauseServer, status: 1},
	"ruleset":           {at: socksAt(socksAsks), in: "\x05\x02", cause: CauseForbidden, status: 2},
	"network":           {at: socksAt(socksAsks), in: "\x05\x03", cause: CauseUnreachable, status: 3},
	"host":              {at: socksAt(socksAsks), in: "\x05\x04", cause: CauseUnreachable, status: 4},
	"refused":           {at: socksAt(socksAsks), in: "\x05\x05", cause: CauseUnreachable, status: 5},
	"TTL":               {at: socksAt(socksAsks), in: "\x05\x06", cause: CauseTimeout, status: 6},
	"command":           {at: socksAt(socksAsks), in: "\x05\x07", cause: CauseStatus, status: 7},
	"address not taken": {at: socksAt(socksAsks), in: "\x05\x08", cause: CauseStatus, status: 8},
	"unassigned":        {at: socksAt(socksAsks), in: "\x05\x09", cause: CauseStatus, status: 9},
	"highest":           {at: socksAt(socksAsks), in: "\x05\xff\x00\x01\x00\x00\x00\x00\x00\x00", cause: CauseStatus, status: 255},
}

func TestSOCKSAnswers(t *testing.T) {
	for name, test := range socksAnswers {
		t.Run(name, func(t *testing.T) {
			s := test.at
			n, more, failure := s.look([]byte(test.in))
			if n != test.size || more != test.more || (failure != nil) != (test.cause != "") {
				t.Fatalf("%d, %t, %v; want %d, %t, %q", n, more, failure, test.size, test.more, test.cause)
			}
			if failure != nil && (failure.Cause != test.cause || failure.Status != test.status || failure.Phase != PhaseConnect || failure.Err == nil) {
				t.Errorf("%#v, want %s with status %d", failure, test.cause, test.status)
			}
		})
	}
}

// What does not fit into a message ends the handshake before it says more than hello.
func TestSOCKSFaults(t *testing.T) {
	long := strings.Repeat("x", 256)
	basicOf := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	tests := map[string]struct {
		r    Request
		want Cause
	}{
		"long username":   {Request{Target: "t.example:1", Authorization: basicOf(long + ":p")}, CauseAuth},
		"long password":   {Request{Target: "t.example:1", Authorization: basicOf("u:" + long)}, CauseAuth},
		"not Basic":       {Request{Target: "t.example:1", Authorization: "Bearer x"}, CauseAuth},
		"not base64":      {Request{Target: "t.example:1", Authorization: "Basic !"}, CauseAuth},
		"no colon":        {Request{Target: "t.example:1", Authorization: basicOf("user")}, CauseAuth},
		"no username":     {Request{Target: "t.example:1", Authorization: basicOf(":p")}, CauseAuth},
		"long name":       {Request{Target: long + ":1", Authorization: basicOf("u:p")}, CauseTargetDNS},
		"no port":         {Request{Target: "t.example", Authorization: basicOf("u:p")}, CauseTargetDNS},
		"too high a port": {Request{Target: "t.example:65536", Authorization: basicOf("u:p")}, CauseTargetDNS},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			g := someGateway(SchemeSOCKS5)
			var n negotiation
			if b := n.appendRequest(nil, g, nil, test.r); string(b) != "\x05\x01\x02" {
				t.Errorf("says %q", b)
			}
			if size, more, failure := n.look(g, []byte("\x05\x02")); size != 0 || more || failure == nil || failure.Cause != test.want {
				t.Errorf("%d, %t, %v; want %s", size, more, failure, test.want)
			}
		})
	}
}

func TestBasicCredentials(t *testing.T) {
	for name, test := range map[string][3]string{
		"usual":           {"Basic dTpw", "u", "p"},
		"any case":        {"bAsIc dTpw", "u", "p"},
		"spaces":          {"Basic   dTpw", "u", "p"},
		"colons":          {"Basic dTphOmI=", "u", "a:b"},
		"empty password":  {"Basic dTo=", "u", ""},
		"unpadded":        {"Basic dTo", "", ""},
		"nothing":         {"", "", ""},
		"scheme alone":    {"Basic", "", ""},
		"username absent": {"Basic OnA=", "", ""},
	} {
		u, p, ok := basicCredentials(test[0])
		if ok != (test[1] != "") || ok && (u != test[1] || p != test[2]) {
			t.Errorf("%s: %q, %q, %t", name, u, p, ok)
		}
	}
}

// splitReader gives out what it has in pieces, a size from cuts for each read.
type splitReader struct {
	script
	in   []byte
	cuts []byte
	said []byte
	read int
}

func (s *splitReader) Read(b []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	size := len(s.in)
	if len(s.cuts) > 0 {
		size = min(int(s.cuts[0])%8+1, size)
		s.cuts = s.cuts[1:]
	}
	n := copy(b, s.in[:size])
	s.in, s.read = s.in[n:], s.read+n
	return n, nil
}

func (s *splitReader) Write(b []byte) (int, error) {
	s.said = append(s.said, b...)
	return len(b), nil
}

// outcome is what a handshake came to.
type outcome struct {
	open       bool
	early      string
	cause      Cause
	status     int
	said       string
	consumed   int
	incomplete bool
}

// blockingVerdict has the blocking way take in, cut into pieces.
func blockingVerdict(p *Pool, r Request, in, cuts []byte) outcome {
	conn := &splitReader{in: slices.Clone(in), cuts: cuts}
	early, failure := p.gateways[0].negotiate(context.Background(), conn, p.plain, r)
	v := outcome{open: failure == nil, early: string(early), said: string(conn.said), consumed: conn.read}
	if failure != nil {
		v.cause, v.status = failure.Cause, failure.Status
		v.incomplete = failure.Cause == CauseClosed
	}
	return v
}

// stepsVerdict does what the reactor does.
func stepsVerdict(p *Pool, r Request, in, cuts []byte) outcome {
	var s Setup
	s.Start(p, p.plain)
	defer s.Reset()
	if _, err := s.Next(); err != nil {
		panic(err)
	}
	conn := &splitReader{in: slices.Clone(in), cuts: cuts}
	conn.said = s.AppendRequest(nil, r)
	s.Connected()
	piece, b := make([]byte, maxReplyHead), []byte(nil)
	for {
		n, err := conn.Read(piece)
		v := outcome{said: string(conn.said), consumed: conn.read}
		if err != nil {
			v.cause, v.incomplete = CauseClosed, true
			return v
		}
		b = append(b, piece[:n]...)
		size, err := s.Reply(b)
		var failure *ConnectError
		switch {
		case errors.Is(err, ErrAsksMore):
			conn.said, b = s.AppendRequest(conn.said, r), nil
		case errors.As(err, &failure):
			v.cause, v.status = failure.Cause, failure.Status
			return v
		case size > 0:
			v.open, v.early = true, string(b[size:])
			s.Opened().Release()
			return v
		}
	}
}

func FuzzSOCKS5Reply(f *testing.F) {
	const yes = "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
	for _, in := range []string{
		"\x05\x02\x01\x00" + yes, "\x05\x02\x01\x00" + yes + "early", "\x05\x02\x01\x01", "\x05\xff", "\x05\x00" + yes,
		"\x05\x02\x01\x00\x05\x04\x00\x01", "\x05\x02\x01\x00\x05\x00\x00\x03\x03abcpp\x00", "HTTP/1.1 400 Bad\r\n\r\n",
	} {
		for _, cuts := range []string{"", "\x01\x01\x07", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "\x00\x01\x02\x03"} {
			f.Add(true, []byte(in), []byte(cuts))
			f.Add(false, []byte(in), []byte(cuts))
		}
	}
	gateways := map[bool]*Pool{}
	for _, login := range []bool{false, true} {
		url := map[bool]string{false: "socks5://192.0.2.1:1080", true: "socks5://user:pass@192.0.2.1:1080"}[login]
		g, err := ParseGateway(GatewayConfig{Name: "gw", URL: url})
		if err != nil {
			f.Fatal(err)
		}
		p, err := NewPool(Options{Gateways: []Gateway{g}, DialTimeout: 1e9, ConnectTimeout: 1e9})
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(p.Close)
		gateways[login] = p
	}
	f.Fuzz(func(t *testing.T, login bool, in, cuts []byte) {
		if len(in) > 2*maxReplyHead {
			return
		}
		p := gateways[login]
		r := Request{Target: "target.example:443"}
		got, want := stepsVerdict(p, r, in, cuts), blockingVerdict(p, r, in, cuts)
		if got != want {
			t.Fatalf("in steps %+v\nblocking %+v", got, want)
		}
		head := got.consumed - len(got.early)
		switch {
		case got.open && string(in[head:got.consumed]) != got.early:
			t.Fatalf("early %q of %q", got.early, in)
		case head > 2+2+262 && got.open:
			t.Fatalf("a handshake of %d bytes", head)
		case got.cause == "" && !got.open:
			t.Fatal("neither open nor refused")
		}
		// No credential is said to a server that has not asked for it.
		if strings.Contains(got.said, "pass") && (len(in) < 2 || in[0] != 5 || in[1] != 2) {
			t.Fatalf("said %q to %q", got.said, in)
		}
	})
}

func BenchmarkSOCKSSetup(b *testing.B) {
	g, err := ParseGateway(GatewayConfig{Name: "gw", URL: "socks5://user:password@192.0.2.1:1080"})
	if err != nil {
		b.Fatal(err)
	}
	p, err := NewPool(Options{Gateways: []Gateway{g}, DialTimeout: 1e9, ConnectTimeout: 1e9})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	answers := [][]byte{[]byte("\x05\x02"), []byte("\x01\x00"), []byte("\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")}
	var s Setup
	var request []byte
	b.ReportAllocs()
	for b.Loop() {
		s.Start(p, nil)
		if _, err := s.Next(); err != nil {
			b.Fatal(err)
		}
		s.Connected()
		for i, answer := range answers {
			request = s.AppendRequest(request[:0], Request{Target: "target.example:443"})
			if _, err := s.Reply(answer); err != nil && (i == 2 || !errors.Is(err, ErrAsksMore)) {
				b.Fatal(fmt.Errorf("answer %d: %w", i, err))
			}
		}
		s.Opened().Release()
	}
}
