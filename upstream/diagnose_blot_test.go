package upstream

import (
	"strings"
	"testing"
)

func TestBlotter(t *testing.T) {
	b := &blotter{}
	b.add("pw", "s3cret-zone", "a b")
	for in, want := range map[string]string{
		"pw":                        "***",
		"pwd is pw.":                "pwd is ***.",
		"xs3cret-zonex S3CRET-ZONE": "x***x ***",
		"it ends with s3cret-z":     "it ends with s3cret-z",
		"s3c":                       "s3c",
		"a+b a%20b a b":             "*** *** ***",
		"czNjcmV0LXpvbmU=":          "***",
		"nothing":                   "nothing",
		"\x1b]0;title\x07 pw\n":     "?]0;title? ***",
		"two\r\nlines":              "two  lines",
	} {
		if got := b.clean(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	b.addAuthorization(basic("customer-hl4d5e6f-country-us", "p"))
	if got := b.clean("customer hl4d5e6f has no country us"); got != "customer *** has no country us" {
		t.Errorf("a part of a login became %q", got)
	}
	if got := b.shortEnd("it ends with s3cret-z"); got != "it ends with ***" {
		t.Errorf("a secret cut in two became %q", got)
	}
	if got := b.short(strings.Repeat("ü", 300)); len(got) > maxToldBytes+len("…") || !strings.HasSuffix(got, "ü…") {
		t.Errorf("short: %q", got)
	}
}
