package audit

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"unicode"

	"maskrelay/masking"
)

// maxUnpacked bounds what is looked at of a body that was unpacked.
const maxUnpacked = 4 << 20

func basic(l Login) string {
	return base64.StdEncoding.EncodeToString([]byte(l.Username + ":" + l.Password))
}

// watch looks for marks in what one side received. It is immutable.
type watch struct {
	who   string
	marks *masking.Marks
	named map[string]Mark // by text in lower case
	list  []Mark
}

// newWatch looks for list, and for what known holds.
func newWatch(who string, known *masking.Marks, list []Mark) *watch {
	w := &watch{who: who, named: map[string]Mark{}, list: list}
	texts := make([]string, 0, len(list))
	for _, m := range list {
		if m.Text == "" {
			continue
		}
		texts = append(texts, m.Text)
		if old, taken := w.named[strings.ToLower(m.Text)]; !taken || m.Secret && !old.Secret {
			w.named[strings.ToLower(m.Text)] = m
		}
	}
	if known == nil {
		w.marks = masking.NewMarks(texts...)
	} else {
		w.marks = known.With(texts...)
	}
	return w
}

// scan returns the leaks in b, each mark and form once.
func (w *watch) scan(where string, b []byte) (leaks []Leak) {
	s := masking.NewScanner(where, w.marks, true)
	_, _ = s.Write(b) // never fails
	seen := map[[2]string]bool{}
	for _, found := range s.Leaks() {
		if at := [2]string{found.Where, found.Mark}; seen[at] {
			continue
		} else {
			seen[at] = true
		}
		m, named := w.named[strings.ToLower(found.Mark)]
		if !named {
			m = Mark{Name: "vendor's name or domain " + found.Mark, Text: found.Mark}
		}
		leak := Leak{Where: found.Where, Mark: m.Name, Offset: found.Offset}
		if !m.Secret && found.Where == where {
			leak.Excerpt = w.excerpt(b, int(found.Offset), len(found.Mark))
		}
		leaks = append(leaks, leak)
	}
	return leaks
}

// excerpt is what stands around a mark, "" where a secret is near.
func (w *watch) excerpt(b []byte, at, size int) string {
	around := b[max(0, at-30):min(len(b), at+size+50)]
	wide := bytes.ToLower(b[max(0, at-600):min(len(b), at+size+600)])
	for _, m := range w.list {
		if m.Secret && m.Text != "" && bytes.Contains(wide, bytes.ToLower([]byte(m.Text))) {
			return string(b[at:min(at+size, len(b))]) + " (a secret stands beside it)"
		}
	}
	return shown(around)
}

// shown is b on one line, printable and bounded.
func shown(b []byte) string {
	cut := b[:min(len(b), maxExcerpt)]
	s := strings.Map(func(r rune) rune {
		if r == '\r' || r == '\n' {
			return '|'
		}
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, string(cut))
	if len(b) > len(cut) {
		s += "…"
	}
	return strings.ReplaceAll(s, "||", "|")
}

// readings are what a client makes of an answer: its body without the chunks' framing, and
// unpacked, where that differs from the bytes on the wire.
func readings(method string, b []byte) (more [][]byte) {
	br := bufio.NewReader(bytes.NewReader(b))
	for {
		response, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			return more
		}
		if response.StatusCode >= 100 && response.StatusCode < 200 && response.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		body, _ := io.ReadAll(io.LimitReader(response.Body, maxUnpacked)) // what came of it
		_ = response.Body.Close()
		if len(response.TransferEncoding) > 0 {
			more = append(more, body)
		}
		if plain := unpack(response.Header.Get("Content-Encoding"), body); plain != nil {
			more = append(more, plain)
		}
		return more
	}
}

func unpack(coding string, body []byte) []byte {
	var r io.Reader
	var err error
	switch strings.ToLower(strings.TrimSpace(coding)) {
	case "gzip", "x-gzip":
		r, err = gzip.NewReader(bytes.NewReader(body))
	case "deflate":
		r = flate.NewReader(bytes.NewReader(body))
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	plain, _ := io.ReadAll(io.LimitReader(r, maxUnpacked)) // what can be read of it
	return plain
}

// Find returns the leaks in what a customer received: list, and what known holds. It is for
// bytes that came otherwise than in an audit; their Spot is empty. Of an answer below 400
// only the heads are looked at, as in an audit.
func Find(known *masking.Marks, list []Mark, b []byte) []Leak {
	w := newWatch("customer", known, list)
	_, final := splitInterim(b)
	if bytes.HasPrefix(final, []byte("HTTP/1.1 2")) || bytes.HasPrefix(final, []byte("HTTP/1.1 3")) {
		b = headsOf(b)
	}
	return w.scan(w.who, b)
}
