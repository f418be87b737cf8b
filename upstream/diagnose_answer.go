package upstream

import (
	"bytes"
	"cmp"
	"html"
	"net/http"
	"slices"
	"strings"

	"maskrelay/upstream/vendor"
)

const (
	maxTold      = 12  // fields of an answer that are shown
	maxToldBytes = 200 // of each, and of the body
)

// tellingFields are those that vendors explain themselves in, beside their presets'.
var tellingFields = []string{"X-*", "Proxy-Status", "Proxy-Authenticate", "Retry-After", "Server", "Via"}

// http11Answer is what a gateway said, as far as it matters to its operator.
type http11Answer struct {
	status int    // 0 = what came is no HTTP
	line   string // the status line without the version, "407 Payment needed"
	fields [][2]string
	body   string // the beginning
	raw    []byte // the first bytes, when it is no HTTP
}

// parseHeard reads the last answer in b, behind any 1xx heads.
func parseHeard(b []byte) *http11Answer {
	for {
		size, _ := headSize(b, 0)
		head := b
		if size > 0 {
			head = b[:size]
		}
		a := parseAnswerHead(head)
		if a.status == 0 || size == 0 || a.status >= 200 || a.status == http.StatusSwitchingProtocols || size == len(b) {
			if size > 0 {
				a.body = string(b[size:])
			}
			return a
		}
		b = b[size:]
	}
}

func parseAnswerHead(b []byte) *http11Answer {
	line, rest, _ := bytes.Cut(b, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	status, ok := parseStatusLine(line)
	if !ok {
		return &http11Answer{raw: b}
	}
	a := &http11Answer{status: status, line: string(line[len("HTTP/1.x "):])}
	for len(rest) > 0 {
		var complete bool
		line, rest, complete = bytes.Cut(rest, []byte("\n"))
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && complete {
			a.fields = append(a.fields, [2]string{string(bytes.TrimSpace(name)), string(bytes.TrimSpace(value))})
		}
	}
	return a
}

// answerOf is an answer that net/http has read; its body is not looked at.
func answerOf(r *http.Response) *http11Answer {
	a := &http11Answer{status: r.StatusCode, line: r.Status}
	for name, values := range r.Header {
		for _, v := range values {
			a.fields = append(a.fields, [2]string{name, v})
		}
	}
	slices.SortFunc(a.fields, func(x, y [2]string) int { return cmp.Compare(x[0], y[0]) })
	return a
}

// field is the first value of a field, "" without.
func (a *http11Answer) field(name string) string {
	for _, f := range a.fields {
		if strings.EqualFold(f[0], name) {
			return f[1]
		}
	}
	return ""
}

// answer is a as classifiers take it.
func (a *http11Answer) answer() vendor.Answer {
	_, reason, _ := strings.Cut(a.line, " ")
	return vendor.Answer{Status: a.status, Reason: reason, Header: a.field, Body: []byte(a.body)}
}

// words is what the operator may see of a: the status line, the fields that vendors
// explain themselves in, and the beginning of a body that is not a page.
func (a *http11Answer) words(blot *blotter, preset []string) string {
	if a.status == 0 {
		return "no HTTP: " + blot.shortEnd(string(a.raw))
	}
	parts := []string{blot.short(a.line)}
	for _, f := range a.fields {
		if len(parts) > maxTold {
			break
		}
		if tells(f[0], tellingFields) || tells(f[0], preset) {
			parts = append(parts, blot.short(f[0]+": "+f[1]))
		}
	}
	if body := strings.TrimSpace(html.UnescapeString(a.body)); body != "" && body[0] != '<' {
		parts = append(parts, "body: "+blot.shortEnd(body))
	}
	return strings.Join(parts, "; ")
}

// tells reports whether a field is one of the patterns, of which "X-*" stands for all
// that begin so.
func tells(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if prefix, ok := strings.CutSuffix(p, "*"); ok {
			return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
		}
		return strings.EqualFold(name, p)
	})
}
