package upstream

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// answers are what gateways say to a CONNECT, well and badly.
var answers = []string{
	established, established + "early", "HTTP/1.1 100 Continue\r\n\r\n" + established + "HTTP/1.1 407 x\r\n\r\n",
	"HTTP/1.1 103 H\nLink: x\n\nHTTP/1.0 206 x\n\nearly", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nvendor", "HTTP/1.1 200\r\nContent-Length : 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 101 Switching\r\n\r\n", "HTTP/1.1 101 Switching\n\nx", "HTTP/1.1 204 No Content\r\n\r\n",
	"HTTP/1.1 407 TRAFFIC_EXHAUSTED \r\n\r\n", "HTTP/1.1 407 TRAFFIC_EXHAUSTED\v\r\n\r\n", "HTTP/1.1 407 NO_USER \r\nProxy-Authenticate: Basic realm=\"v\"\r\n\r\n", "HTTP/1.1 407 x\r\nX-Brd-Err-Code:\r\n client\r\n\t_10020 \r\n\r\n", "HTTP/1.1 407 x\r\nX-Brd-Err-Code: a\r\n client_10020\r\n\r\n",
	"HTTP/1.1 403 Forbidden\r\nContent-Length: 29\r\n\r\nInvalid request configuration", "HTTP/1.1 411 x\r\n\r\nYour account has been blocked.",
	"HTTP/1.1 502 x\r\nx-error: first\r\nX-Error: second\r\n\r\n", "HTTP/1.1 403 a\r\nA: \x00\r\n\r\n", "HTTP/1.1 403 a\r\nA: b\rc\r\n\r\n",
	"HTTP/1.1 407 a\v\r\nX-Brd-Err-Code: \v\r\n\r\n", "HTTP/1.1 099 OK\r\n\r\n", "HTTP/2 200\r\n\r\n", "SSH-2.0-x\r\n", "\x15\x03\x01\x00\x02", "", "HTTP/1.1 2", "\r\n\r\n",
	"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", maxReplyHead-25) + "\r\n\r\nearly",
	"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", maxReplyHead-24) + "\r\n\r\nearly",
	strings.Repeat("HTTP/1.1 100 x\r\n\r\n", maxReplyHead/18) + established,
}

// FuzzRepliesAgree has all that read a gateway's answer to CONNECT read the same bytes: the
// steps that the reactor takes and the blocking way, with one cut; the blocking way with no
// cut; what the doctor tells of it; and for a refusal what it would mean as a plain answer.
func FuzzRepliesAgree(f *testing.F) {
	for _, in := range answers {
		for _, cuts := range []string{"", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "\x07\x01\x02"} {
			for preset := range uint8(4) {
				f.Add([]byte(in), []byte(cuts), preset)
			}
		}
	}
	pools := presetPools(f)
	f.Fuzz(func(t *testing.T, in, cuts []byte, preset uint8) {
		if len(in) > 2*maxReplyHead {
			return
		}
		p := pools[int(preset)%len(pools)]
		r := Request{Target: "target.example:443"}
		got, want := stepsVerdict(p, r, in, cuts), blockingVerdict(p, r, in, cuts)
		size := got.consumed - len(got.early)
		if got.open && (size != want.consumed-len(want.early) || size <= 0 || size > maxReplyHead || got.early != string(in[size:got.consumed]) ||
			want.early != string(in[size:want.consumed])) {
			t.Fatalf("%q opens with %d bytes and %q, and blocking with %d and %q", in, size, got.early, want.consumed-len(want.early), want.early)
		}
		if got.open != want.open || got.cause != want.cause || got.status != want.status || got.incomplete != want.incomplete || got.said != want.said {
			t.Fatalf("%q in steps: %+v; blocking: %+v", in, got, want)
		}
		whole := blockingVerdict(p, r, in, nil)
		// What a refusal means may hang on how much of its body has come.
		if whole.open != got.open || whole.status != got.status || whole.incomplete != got.incomplete || got.status < 300 && whole.cause != got.cause ||
			got.open && whole.consumed-len(whole.early) != size {
			t.Fatalf("%q in pieces: %+v; in one: %+v", in, got, whole)
		}
		if whole.status > 0 {
			doctorAgrees(t, p, r, in, whole)
		}
		if whole.status >= 300 {
			plainAgrees(t, p, in[:whole.consumed], whole)
		}
	})
}

// presetPools are pools of one gateway each, whose vendors look at different parts.
func presetPools(f *testing.F) (pools []*Pool) {
	for _, c := range []GatewayConfig{
		{URL: "http://u:p@192.0.2.1:7000"}, {URL: "http://u:p@192.0.2.1:9000", Vendor: "geonode"}, {URL: "http://u:p@192.0.2.1:22225", Vendor: "brightdata"},
		{URL: "http://u:p@192.0.2.1:823", Vendor: "dataimpulse"},
	} {
		g, err := ParseGateway(c)
		if err != nil {
			f.Fatal(err)
		}
		p, err := NewPool(Options{Gateways: []Gateway{g}, DialTimeout: 1e9, ConnectTimeout: 1e9, GatewayMade: func(*http.Response) bool { return true }})
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(p.Close)
		pools = append(pools, p)
	}
	return pools
}

func doctorAgrees(t *testing.T, p *Pool, r Request, in []byte, want outcome) {
	t.Helper()
	heard := &hearing{Conn: &splitReader{in: slices.Clone(in)}}
	_, failure := p.gateways[0].negotiate(context.Background(), heard, p.plain, r)
	if failure == nil || failure.Status != want.status {
		t.Fatalf("%q: the doctor's %v, want %+v", in, failure, want)
	}
	if a := heard.answer(SchemeHTTP); a.status != want.status {
		t.Fatalf("%q: the doctor tells of status %d, want %+v", in, a.status, want)
	}
}

// plainAgrees has in judged as the answer to a plain request. That is read more strictly,
// since another answer may come behind it; what it takes means the same.
func plainAgrees(t *testing.T, p *Pool, in []byte, want outcome) {
	t.Helper()
	for {
		size := endOfHead(in, 0)
		if other, _ := headSize(in, 0); other != size || size == 0 {
			t.Fatalf("%q: heads of %d and %d bytes", in, size, other)
		}
		head, err := parseAnswer(in[:size])
		if err != nil {
			return
		}
		body := in[size:]
		if head.status < 200 {
			in = body
			continue
		}
		r := &PlainResponse{
			Response: &http.Response{Status: statusText(&head), StatusCode: head.status, Header: head.header},
			body:     &answerBody{x: &plainExchange{in: inbound{buf: body, end: len(body)}}},
		}
		failure := (&Transport{pool: p}).gatewayMade(p.gateways[0], r)
		if failure == nil || failure.Status != want.status || failure.Cause != want.cause {
			t.Fatalf("%q as a plain answer: %v, want %+v", in, failure, want)
		}
		return
	}
}
