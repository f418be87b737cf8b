package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"maskrelay/upstream"
)

// ordered are texts of strangers that a terminal, or a reader of lines, would take orders from.
var ordered = []string{
	"plain", "grün", "a\"b\\c", "line\nbreak\r\n", "{\"level\":\"info\"}\n{\"x\":1}", "\x00\x01\a\b\t\v\f\x1b[31mred\x1b[0m", "\x1b]0;title\a", "\x7f",
	"\u0080\u0085\u009b31m\u009d", "\u2028\u2029", "\u202eevil\u202c\u2066x\u2069", "\ufeff", "\U000e0001", "\xff\xfe\xc2", "\ufffd",
}

// inert checks that nothing in b is obeyed by a terminal, and that it is one line.
func inert(t *testing.T, b []byte) {
	t.Helper()
	text, ended := strings.CutSuffix(string(b), "\n")
	if !ended || !utf8.ValidString(text) {
		t.Errorf("no line of UTF-8: %q", b)
	}
	if strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) {
		t.Errorf("not inert: %q", b)
	}
}

// Whatever strangers call themselves, a line of the log is a line, and says the same.
func TestLogLinesAreInert(t *testing.T) {
	for _, format := range []LogFormat{LogJSON, LogConsole} {
		for _, text := range ordered {
			var out bytes.Buffer
			logger, lines := newLogger(LogConfig{Level: "debug", Format: format}, &out)
			logger.Info().Str("account", text).Str("target", text).Str("method", text).Bytes("text", []byte(text)).
				Err(errors.New(text)).Strs("names", []string{text}).Msg("exchange")
			lines.Close()
			inert(t, out.Bytes())
			if format == LogConsole {
				continue
			}
			var got map[string]any
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			want := strings.ToValidUTF8(text, "\ufffd")
			if text == "\xff\xfe\xc2" {
				want = "\ufffd\ufffd\ufffd" // one for each byte
			}
			if got["account"] != want || got["error"] != want {
				t.Errorf("%q became %q and %q", text, got["account"], got["error"])
			}
		}
	}
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "plain ü": "plain ü", "\x1b[31m": `\x1b[31m`, "a\nb\tc": `a\nb\tc`, "\u009b\u2028\u202e": `\u009b\u2028\u202e`, "\xff": `\xff`,
		"\x7f": `\x7f`, "\U000e0001": `\U000e0001`,
	} {
		if got := visible(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	for _, text := range ordered {
		inert(t, []byte(visible(text)+"\n"))
	}
}

// The doctor shows vendors' words on a terminal, which must not obey them.
func TestDoctorShowsInertWords(t *testing.T) {
	for _, text := range ordered {
		r := &doctorReport{Summary: text, Parts: []doctorPart{{Kind: "gateway", Name: text, URL: "http://" + text, Pool: text, Vendor: text, Hops: []doctorHop{
			{Hop: "connect", Result: upstream.HopFailed, Detail: text, Cause: "auth", VendorSays: text, Remedy: text},
		}}}}
		for name, write := range map[string]func(io.Writer) error{
			"text": func(w io.Writer) error { return r.writeText(w, false) }, "JSON": r.writeJSON,
		} {
			var out bytes.Buffer
			if err := write(&out); err != nil {
				t.Fatal(err)
			}
			inert(t, []byte(strings.ReplaceAll(strings.TrimSuffix(out.String(), "\n"), "\n", " ")+"\n"))
			if n := strings.Count(out.String(), "\n"); n > 35 {
				t.Errorf("%s: %d lines", name, n)
			}
		}
	}
}

// JSON that is made visible is the same JSON.
func FuzzVisibleJSON(f *testing.F) {
	for _, text := range ordered {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.ToValidUTF8(text, "?")
		b, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		out := visibleJSON(b)
		var got string
		if err := json.Unmarshal(out, &got); err != nil || got != text {
			t.Fatalf("%q became %q: %v", text, got, err)
		}
		inert(t, append(out, '\n'))
	})
}
