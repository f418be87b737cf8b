package vendor

import (
	"net/url"
	"strings"
	"testing"
)

// FuzzPreset: a preset's file is an error that says where, or a preset whose parts do what they are for, whatever a vendor answers.
func FuzzPreset(f *testing.F) {
	for _, name := range []string{Generic, "froxy", "soax"} { // small ones: a long file is slow to fuzz
		text, err := files.ReadFile(presetDir + "/" + name + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(name, text, "HTTP/1.1 407 Proxy Authentication Required", "quota exceeded")
	}
	for _, text := range []string{"", "name: x\n", "name: [", "a: &a [*a]", "---\n---\n", "name: generic\nrules:\n- {status: 407, cause: auth}\n", "? a\n: b"} {
		f.Add("generic", []byte(text), "", "")
	}
	f.Fuzz(func(t *testing.T, name string, text []byte, reason, body string) {
		if len(text) > 4<<10 {
			return
		}
		file := presetDir + "/" + name + ".yaml"
		p, err := parsePreset(file, text)
		if err != nil {
			if p != nil || !strings.HasPrefix(err.Error(), "vendor: "+file) {
				t.Fatalf("%v, %v", p, err)
			}
			return
		}
		for _, m := range p.Marks() { // the empty string is in everything
			if strings.TrimSpace(m) == "" {
				t.Fatalf("mark %q", m)
			}
		}
		for _, scheme := range []string{"http", "https", "socks5"} {
			if u := p.DefaultURL(scheme); u != "" {
				if parsed, err := url.Parse(u); err != nil || parsed.Scheme != scheme || parsed.Port() == "" {
					t.Fatalf("gateway %q: %v", u, err)
				}
			}
		}
		for _, status := range []int{100, 200, 402, 403, 407, 429, 502, 999} {
			v := p.Classify(Answer{Status: status, Reason: reason, Header: func(string) string { return reason }, Body: []byte(body)})
			if v.Cause == "" || v != p.Classify(Answer{Status: status, Reason: reason, Header: func(string) string { return reason }, Body: []byte(body)}) {
				t.Fatalf("status %d is %+v", status, v)
			}
		}
	})
}
