package masking

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const fuzzMark = "gw.vendor.example"

// parse reads a header block as loosely as anything could: every line is a field, its name as it stands.
func parse(block string) http.Header {
	h := http.Header{}
	for l := range strings.SplitSeq(block, "\n") {
		name, value, _ := strings.Cut(l, ":")
		if http.CanonicalHeaderKey(name) != "" {
			name = http.CanonicalHeaderKey(name)
		}
		h[name] = append(h[name], strings.TrimSpace(value))
	}
	return h
}

func seedHeaders(f *testing.F) {
	for _, s := range []string{
		"Host: a\nUser-Agent: b\nAccept: */*\nCookie: c\nX-Forwarded-For: 1\nVia: x",
		"Connection: close, X-Foo\nX-Foo: 1\nConnection: user-agent\nUser-Agent: x",
		"X_Real_Ip: 1\nProxy Connection: x\nX-Brd-Err-Code: 1\nServer: gw.vendor.example",
		"Set-Cookie: a\nSet-Cookie: GW.VENDOR.example\nSet-Cookie: b\nWarning: 113 x",
		"Upgrade: websocket\nConnection: Upgrade\nKeep-Alive: x\nTe: trailers\n\x00: y\n: z",
		"x-illuminati: luminati\nLocation: /illuminati\nX-Soax-: 1\nX-Proxyx: 2",
	} {
		f.Add(s)
	}
}

func FuzzPolicyHeaders(f *testing.F) {
	seedHeaders(f)
	p := mustPolicy(f, PolicyConfig{StripRequest: []string{"X-Req-*"}, StripResponse: []string{"X-Resp-*"}, Marks: []string{fuzzMark}})
	edits := []struct {
		name  string
		edit  func(http.Header)
		rules *side
	}{
		{"Request", p.Request, p.request}, {"Response", p.Response, p.response}, {"Trailer", p.Trailer, p.trailer},
	}
	f.Fuzz(func(t *testing.T, block string) {
		for _, e := range edits {
			before, h := parse(block), parse(block)
			e.edit(h)
			checkNothingAdded(t, e.name, before, h)
			checkClean(t, e.name, e.rules, nominated(before), h)
			again := h.Clone()
			if e.edit(again); !maps.EqualFunc(h, again, slices.Equal) {
				t.Errorf("%s is not idempotent: %q, then %q", e.name, h, again)
			}
		}
		p.GatewayMade(502, parse(block)) // must not panic
		names(p.ErrorMarks(true), []byte(block))
	})
}

func checkNothingAdded(t *testing.T, edit string, before, after http.Header) {
	for name, values := range after {
		if edit == "Request" && name == "User-Agent" && values == nil {
			continue
		}
		rest := before[name]
		for _, v := range values { // a subsequence of what was there
			i := slices.Index(rest, v)
			if i < 0 {
				t.Errorf("%s added %q: %q", edit, name, v)
				break
			}
			rest = rest[i+1:]
		}
	}
}

// checkClean judges the outcome by its own, slower means.
func checkClean(t *testing.T, edit string, rules *side, named map[string]bool, h http.Header) {
	for name, values := range h {
		if name == "User-Agent" && values == nil {
			continue
		}
		if named[strings.ToLower(name)] || rules.strip.has(fold(nil, name)) || !isToken(name) {
			t.Errorf("%s let the field %q pass", edit, name)
		}
		if rules.marks == nil {
			continue
		}
		for _, s := range append([]string{name}, values...) {
			if s = strings.ToLower(s); strings.Contains(s, fuzzMark) || strings.Contains(s, "oxylabs") {
				t.Errorf("%s let a mark pass: %q: %q", edit, name, values)
			}
		}
	}
}

func FuzzScannerSplit(f *testing.F) {
	f.Add("GW.vendor.example alice%40x YWxpY2U= %61lice se+cret", uint16(3), uint16(9))
	f.Add("%%61%6%6cice%", uint16(1), uint16(2))
	f.Add("gw.vendor.gw.vendor.example", uint16(11), uint16(14))
	m := NewMarks(fuzzMark, "alice", "ali", "se cret", "%a", "aa")
	f.Fuzz(func(t *testing.T, s string, a, b uint16) {
		cuts := []int{int(a) % (len(s) + 1), int(b) % (len(s) + 1)}
		slices.Sort(cuts)
		for _, encoded := range []bool{false, true} {
			whole, cut := scan(m, encoded, s), scan(m, encoded, s, cuts...)
			if !slices.Equal(whole, cut) {
				t.Errorf("cut at %d: %v, whole: %v", cuts, cut, whole)
			}
			checkLeaks(t, m, s, whole)
		}
	})
}

// checkLeaks compares plain finds with a naive search, and every find with the text at its place.
func checkLeaks(t *testing.T, m *Marks, s string, leaks []Leak) {
	mark, offset, found := m.Find([]byte(s))
	at := slices.IndexFunc(leaks, func(l Leak) bool { return l.Where == "w" })
	if found != (at >= 0) && len(leaks) < maxLeaks {
		t.Fatalf("Find says %v, the scanner %v", found, leaks)
	}
	if found && at >= 0 && (leaks[at].Mark != mark || leaks[at].Offset != int64(offset)) {
		t.Errorf("Find: %q at %d, the scanner %v", mark, offset, leaks[at])
	}
	naive := false
	if utf8.ValidString(s) { // ToLower would change the rest
		for _, w := range m.words {
			naive = naive || strings.Contains(asciiLower(s), w)
		}
		if naive != found {
			t.Errorf("naive search says %v, Find %v", naive, found)
		}
	}
	for _, l := range leaks {
		rest := s[l.Offset:]
		if l.Where == "w" && !strings.EqualFold(rest[:len(l.Mark)], l.Mark) {
			t.Errorf("%v: the text is %q", l, rest)
		}
		if l.Where == "w (url-escaped)" && !unescapesTo(rest, l.Mark) {
			t.Errorf("%v: the text is %q", l, rest)
		}
	}
}

func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		b[i] = foldByte(c, true)
	}
	return string(b)
}

// unescapesTo reports whether s begins with mark once its escapes are undone.
func unescapesTo(s, mark string) bool {
	for _, want := range []byte(mark) {
		var c byte
		switch {
		case len(s) >= 3 && s[0] == '%' && isHex(s[1]) && isHex(s[2]):
			c, s = unhex(s[1])<<4|unhex(s[2]), s[3:]
		case s == "":
			return false
		case s[0] == '+' && want == ' ':
			c, s = ' ', s[1:]
		default:
			c, s = s[0], s[1:]
		}
		if foldByte(c, true) != want {
			return false
		}
	}
	return true
}

func FuzzParseBrand(f *testing.F) {
	for _, s := range []string{"Proxy", "Acme Proxies", " x", "a\"b", "a\r\nb", "", "*x/y:z", "\x7f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := ParseBrand(s)
		if (err == nil) != (string(b) == s && s != "") {
			t.Fatalf("%q: %q, %v", s, b, err)
		}
		raw := string(NewReply(Brand(s), ReplySpec{Status: 407, Text: "x", ProxyError: s, Challenge: true}).Bytes(true))
		if lines := strings.Count(raw, "\r\n"); lines > 7 || strings.Count(raw, "\n") != lines+1 {
			t.Fatalf("%q breaks the head: %q", s, raw)
		}
	})
}
