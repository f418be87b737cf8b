package main

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"
)

func TestFlatten(t *testing.T) {
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c")
	own := fmt.Errorf("own words: %w and %w", a, b)
	for _, tc := range []struct {
		name string
		in   error
		want []error
	}{
		{"nothing", nil, nil},
		{"one", a, []error{a}},
		{"joined", errors.Join(a, b), []error{a, b}},
		{"joined twice", errors.Join(errors.Join(a, b), c), []error{a, b, c}},
		{"several in a sentence", own, []error{own}},
		{"a sentence among joined", errors.Join(own, c), []error{own, c}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := flatten(tc.in); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestProblems(t *testing.T) {
	p := &problems{}
	if p.err() != nil || p.failed("A") {
		t.Error("the zero value has problems")
	}
	cause := errors.New("cause")
	p.add("A", errors.Join(cause, errors.New("two\nlines")))
	p.addFile("F", "/a.yaml", errors.Join(errors.New("/a.yaml:3:4: bad"), errors.New("unreadable")))
	p.add("N", nil)
	p.mark("B")
	want := "MASKRELAY_A: cause\nMASKRELAY_A: two; lines\n/a.yaml:3:4: bad\nMASKRELAY_F: unreadable"
	if got := p.err().Error(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	var v *variableError
	if !errors.As(p.err(), &v) || v.name != "MASKRELAY_A" || !errors.Is(p.err(), cause) {
		t.Error("the error's parts cannot be matched")
	}
	if !p.failed("X", "B") || !p.failed("F") || p.failed("X") {
		t.Errorf("bad: %v", p.bad)
	}
}

// TestFieldNamesAreUnique: a parse error names a Go field, and that has to lead to one variable.
func TestFieldNamesAreUnique(t *testing.T) {
	for _, v := range []any{&Config{}, &UpstreamConfig{}} {
		if names, all := fieldNames(v, ""), fields(v, ""); len(names) != len(all) {
			t.Errorf("%T: %d names for %d fields", v, len(names), len(all))
		}
	}
}

func TestFieldsFollowThePrefixes(t *testing.T) {
	names := fieldNames(&Config{}, envPrefix)
	for goes, want := range map[string]string{
		"Listen": "MASKRELAY_LISTEN", "TLSListen": "MASKRELAY_TLS_LISTEN", "Grace": "MASKRELAY_DRAIN_GRACE", "LogTargets": "MASKRELAY_LOG_TARGETS",
		"AdminToken": "MASKRELAY_ADMIN_TOKEN", "AllowPorts": "MASKRELAY_ALLOW_PORTS",
	} {
		if names[goes] != want {
			t.Errorf("%s is %q, want %q", goes, names[goes], want)
		}
	}
}

func TestShortDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 10 * time.Second: "10s", 10 * time.Minute: "10m", 24 * time.Hour: "24h", 90 * time.Minute: "1h30m",
		time.Hour + 5*time.Second: "1h0m5s", 1500 * time.Millisecond: "1.5s", 20 * time.Hour: "20h",
	} {
		if got := shortDuration(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
