package upstreamtest

import (
	"strconv"
	"strings"
	"testing"
)

func TestPresetErrors(t *testing.T) {
	t.Parallel()
	names := PresetNames()
	if len(names) != 16 {
		t.Errorf("%d presets: %v", len(names), names)
	}
	causes := map[string]bool{}
	for _, preset := range names {
		seen := map[string]bool{}
		for _, a := range PresetErrors(preset) {
			status, _, _ := strings.Cut(a.Name, "-")
			if a.Preset != preset || status != strconv.Itoa(a.Status) || a.Reason == "" || a.Cause == "" || seen[a.Name] {
				t.Errorf("%+v", a)
			}
			seen[a.Name] = true
			causes[a.Cause] = true
			for _, line := range a.Header {
				if name, value, found := strings.Cut(line, ": "); !found || a.Field(strings.ToLower(name)) != value {
					t.Errorf("%s %s: header line %q", preset, a.Name, line)
				}
			}
		}
	}
	for _, cause := range []string{"auth", "quota", "threads", "rate", "params", "no_exit", "session_lost", "forbidden", "target_dns", "target_unreachable", "timeout", "server"} {
		if !causes[cause] {
			t.Errorf("no answer means %s", cause)
		}
	}
	if PresetErrors("nobody") != nil {
		t.Error("an unknown preset has answers")
	}
}

func TestPresetErrorsAreTheCallersOwn(t *testing.T) {
	t.Parallel()
	PresetErrors("dataimpulse")[0].Reason = "changed"
	if PresetErrors("dataimpulse")[0].Reason == "changed" {
		t.Error("a caller can change the table")
	}
}

func TestPresetErrorsOnTheWire(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"preset-dataimpulse-407-traffic": "HTTP/1.1 407 TRAFFIC_EXHAUSTED\r\nProxy-Authenticate: Basic realm=\"dataimpulse\"\r\nContent-Length: 0\r\n\r\n",
		"preset-netnut-403":              "HTTP/1.1 403 Forbidden\r\nContent-Length: 29\r\n\r\nWebsite is blocked by NetNut\n",
		"preset-oxylabs-502-session":     "HTTP/1.1 502 Bad Gateway\r\nX-Error-Description: Bad gateway: session failed\r\nContent-Length: 0\r\n\r\n",
		"preset-decodo-522":              "HTTP/1.1 522 Connection timed out\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			behaviour, known := Behaviours()[name]
			if !known {
				t.Fatal("not registered")
			}
			v := startVendor(t, VendorConfig{Behaviour: behaviour})
			c := dial(t, v.Addr())
			// Two requests on one connection: a gateway keeps it open after a refusal.
			for range 2 {
				c.send(connectLine("target.example:443"))
				if got := c.exactly(len(want)); got != want {
					t.Fatalf("got %q", got)
				}
			}
		})
	}
}
