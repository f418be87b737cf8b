package audit

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"maskrelay/upstream/upstreamtest"
)

// Ways of a hostility in short.
const (
	tunnels = upstreamtest.ByConnect | upstreamtest.ByWebsocket
	anyWay  = tunnels | upstreamtest.ByPlain
)

// maxWords bounds the operator's own words in one answer of the stand-in.
const maxWords = 40

// cases are all hostilities, and those that are made of the subject's own words.
func cases(s *Subject) []upstreamtest.Hostility {
	all := append(upstreamtest.Hostilities(), upstreamtest.Hostility{
		Name: "honest", Ways: anyWay, Serves: true, HTTP: upstreamtest.Relay{}, SOCKS: &upstreamtest.SOCKSBehaviour{},
	})
	if s.Vendor.Username == "" {
		all = slices.DeleteFunc(all, func(h upstreamtest.Hostility) bool { return h.Login })
	}
	return append(append(all, ownSOCKS(s)...), ownHTTP(s)...)
}

// Names are the names of all cases that subjects play, sorted; of any subject's if there is none.
func Names(subjects ...Subject) (names []string) {
	if len(subjects) == 0 {
		subjects = []Subject{{Words: []string{"vendor.example"}, Vendor: Login{"username", "password"}}}
	}
	for i := range subjects {
		for _, h := range cases(&subjects[i]) {
			names = append(names, h.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// ownWords are what the stand-in says in an answer of the subject's own: words that a
// field's value can hold.
func ownWords(s *Subject) []string {
	words := slices.Clone(s.Words)
	for _, m := range slices.Concat(s.Hidden, loginMarks("vendor's", s.Vendor)) {
		words = append(words, m.Text)
	}
	words = slices.DeleteFunc(words, func(w string) bool {
		return w == "" || strings.TrimSpace(w) != w || strings.ContainsFunc(w, func(r rune) bool { return r < 0x20 || r == 0x7f })
	})
	slices.Sort(words)
	words = slices.Compact(words)
	return words[:min(len(words), maxWords)]
}

// loud is an answer of the subject's own: status line, one field for each word in several
// places, and a body.
func loud(status string, words []string, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %s\r\n", status)
	for i, w := range words {
		fmt.Fprintf(&b, "X-Note-%d: %s\r\nX-Info-%d: before %s, after\r\nSet-Cookie: sid%d=%s; Path=/\r\n", i, w, i, strings.ToUpper(w), i, strings.ReplaceAll(w, ";", ""))
		if isToken(w) {
			fmt.Fprintf(&b, "X-%s-Id: 1\r\n", w)
		}
	}
	fmt.Fprintf(&b, "Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n", len(body))
	return append(b.Bytes(), body...)
}

func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r >= 0x80 || !strings.ContainsRune("!#$%&'*+-.^_`|~", r) && (r < '0' || r > '9') && (r|0x20 < 'a' || r|0x20 > 'z')
	})
}

// withoutBody is an answer's head as that of a tunnel that is open.
func withoutBody(answer []byte) []byte {
	head, _, _ := bytes.Cut(answer, []byte("Content-Type: "))
	return append(bytes.Clone(head), "\r\n"...)
}

func ownHTTP(s *Subject) []upstreamtest.Hostility {
	words := ownWords(s)
	if len(words) == 0 {
		return nil
	}
	said := strings.Join(words, " ")
	raw := func(b []byte) upstreamtest.Behaviour { return upstreamtest.Raw{Bytes: b} }
	fault := func(name, status string, ways upstreamtest.Way, body string) upstreamtest.Hostility {
		return upstreamtest.Hostility{Name: name, Ways: ways, HTTP: raw(loud(status, words, []byte(body)))}
	}
	realm := bytes.Replace(loud("407 "+said, words, []byte(said)), []byte("\r\n"),
		[]byte("\r\nProxy-Authenticate: Basic realm=\""+strings.ReplaceAll(said, `"`, "")+"\"\r\n"), 1)
	own := []upstreamtest.Hostility{
		{Name: "own-words-407", Ways: anyWay, HTTP: raw(realm)},
		fault("own-words-502", "502 "+said, anyWay, "<html>"+said+"</html>"),
		fault("own-words-403", "403 Forbidden", tunnels, said),
		fault("own-words-429", "429 Slow down, "+said, anyWay, said),
		{
			Name: "own-words-tunnel", Ways: tunnels, Serves: true,
			HTTP: upstreamtest.Relay{Reply: withoutBody(loud("200 "+said, words, nil))},
		},
		{
			Name: "own-words-answer", Ways: upstreamtest.ByPlain, Serves: true,
			HTTP: raw(loud("200 OK", words, page())),
		},
	}
	for i, w := range s.Words {
		if i == maxWords || len(w) < 4 || !isToken(w) {
			continue
		}
		own = append(own,
			fault(fmt.Sprintf("own-page-%d", i), "403 Forbidden", upstreamtest.ByPlain, "<html>blocked by "+w+"</html>"),
			upstreamtest.Hostility{Name: fmt.Sprintf("own-redirect-%d", i), Ways: upstreamtest.ByPlain, HTTP: raw([]byte(
				"HTTP/1.1 302 Found\r\nLocation: https://" + w + "/login\r\nContent-Length: 0\r\n\r\n"))})
	}
	return own
}

// ownSOCKS are a SOCKS5 gateway's answers with the subject's own words.
func ownSOCKS(s *Subject) []upstreamtest.Hostility {
	said := []byte(strings.Join(ownWords(s), " "))
	say := func(step upstreamtest.SOCKSStep, b []byte) *upstreamtest.SOCKSBehaviour {
		return &upstreamtest.SOCKSBehaviour{Say: map[upstreamtest.SOCKSStep][]byte{step: b}}
	}
	bound := append([]byte{5, 0, 0, 3, byte(min(len(said), 255))}, said[:min(len(said), 255)]...)
	list := []upstreamtest.Hostility{
		{Name: "own-socks-method", SOCKS: say(upstreamtest.SOCKSMethod, append([]byte("HTTP/1.1 407 "), said...))},
		{Name: "own-socks-reply", SOCKS: say(upstreamtest.SOCKSReply, append([]byte{5, 1, 0, 3}, said...))},
		{Name: "own-socks-bound", Serves: true, SOCKS: say(upstreamtest.SOCKSReply, append(bound, 0, 80))},
		{Name: "own-socks-refused", SOCKS: &upstreamtest.SOCKSBehaviour{Rep: 5}},
		{Name: "own-socks-denied", SOCKS: &upstreamtest.SOCKSBehaviour{Rep: 2}},
	}
	if s.Vendor.Username != "" {
		list = append(list, upstreamtest.Hostility{Name: "own-socks-login", SOCKS: say(upstreamtest.SOCKSLogin, append([]byte{1, 1}, said...))})
	}
	for i := range list {
		list[i].Ways = anyWay
	}
	return list
}
