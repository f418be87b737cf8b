package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"maskrelay/proxy/capacity"
)

// smallHost allows 9584 tunnels by its files.
func smallHost() hostSource {
	return hostSource{
		root: fstest.MapFS{
			"proc/sys/net/ipv4/ip_local_port_range": {Data: []byte("32768\t60999\n")},
			"proc/meminfo":                          {Data: []byte("MemTotal: 8148000 kB\n")},
		},
		rlimit: func() (uint64, uint64, error) { return 20000, 20000, nil },
	}
}

func check(t *testing.T, vars map[string]string, asJSON bool, src hostSource) string {
	t.Helper()
	var out strings.Builder
	if err := runCheck(process{environ: environ(goodEnv(), vars), stdout: &out}, asJSON, src); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestCheckText(t *testing.T) {
	got := check(t, nil, false, smallHost())
	settings, limits, ok := strings.Cut(got, "\n\n")
	if !ok {
		t.Fatalf("no two parts:\n%s", got)
	}
	for _, line := range []string{
		"MASKRELAY_ACCOUNTS                    alice:***:2000,bob:***",
		"MASKRELAY_ACCOUNTS_FILE               -",
		"MASKRELAY_UPSTREAM                    http://***@gw.vendor.example:7777",
	} {
		if !strings.Contains(settings+"\n", line+"\n") {
			t.Errorf("missing %q in:\n%s", line, settings)
		}
	}
	want := `LIMIT             TUNNELS         FROM
file_descriptors  9584     binds  (20000 open files - 832 reserved) / 2 a tunnel
ports             28232           28232 local ports (32768-60999) x 1 gateway address
conntrack         -               connections are not tracked here
memory            178237          70% of the 7957 MiB of the machine / 32 KiB a tunnel

This relay takes 9584 connections, bound by file_descriptors.
`
	if limits != want {
		t.Errorf("got:\n%s\nwant:\n%s", limits, want)
	}
}

func TestCheckJSON(t *testing.T) {
	var got report
	if err := json.Unmarshal([]byte(check(t, one("ADMIN_TOKEN", "short"), true, smallHost())), &got); err != nil {
		t.Fatal(err)
	}
	if !got.Valid || got.MaxConns != 9584 || got.BoundBy != capacity.FileDescriptors || len(got.Limits) != 4 || len(got.Errors) != 0 {
		t.Errorf("got %+v", got)
	}
	if !reflect.DeepEqual(got.Warnings, []string{"MASKRELAY_ADMIN_TOKEN: shorter than 16 bytes"}) {
		t.Errorf("warnings %q", got.Warnings)
	}
	if len(got.Settings) != 66 {
		t.Errorf("%d settings", len(got.Settings))
	}
}

func TestCheckMaxConns(t *testing.T) {
	for _, c := range []struct {
		name, set string
		want      []string
	}{
		{"below", "500", []string{"This relay takes 500 connections, bound by MASKRELAY_MAX_CONNS."}},
		{"above", "50000", []string{ // there is no way around file descriptors
			"This relay takes 9584 connections, bound by file_descriptors.",
			"warning: MASKRELAY_MAX_CONNS: 50000 is more than the 9584 that this host allows, bound by file_descriptors"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := check(t, one("MAX_CONNS", c.set), false, smallHost())
			if want := "\n\n" + strings.Join(c.want, "\n") + "\n"; !strings.HasSuffix(got, want) {
				t.Errorf("got:\n%s\nwant the end:\n%s", got, want)
			}
		})
	}
}

// TestCheckMaxConnsAboveAGuess: only file descriptors overrule the operator; the other limits are reckoned.
func TestCheckMaxConnsAboveAGuess(t *testing.T) {
	src := smallHost()
	src.rlimit = func() (uint64, uint64, error) { return 1 << 20, 1 << 20, nil }
	got := check(t, one("MAX_CONNS", "50000"), false, src)
	if !strings.Contains(got, "\nThis relay takes 50000 connections, bound by MASKRELAY_MAX_CONNS.\n") ||
		!strings.Contains(got, "50000 is more than the 28232 that this host allows, bound by ports") {
		t.Errorf("got:\n%s", got)
	}
}

// TestCheckSources: every source address has the ports to each gateway address of its family to itself.
func TestCheckSources(t *testing.T) {
	needAddrs(t, "127.0.0.2", "::1")
	got := check(t, map[string]string{
		"SOURCE_ADDRS": "127.0.0.1,127.0.0.2,::1", "UPSTREAM": "-",
		"UPSTREAMS_0_URL": "http://gw.vendor.example:7777", "UPSTREAMS_1_URL": "http://127.0.0.9:1", "UPSTREAMS_2_URL": "http://[::1]:1",
	}, false, smallHost())
	for _, line := range []string{
		"ports             141160          28232 local ports (32768-60999) x 5 pairs of a source and a gateway address\n",
		"MASKRELAY_SOURCE_ADDRS                127.0.0.1,127.0.0.2,::1\n",
	} {
		if !strings.Contains(got, line) {
			t.Errorf("missing %q in:\n%s", line, got)
		}
	}
}

// TestCheckOddHost: a host that cannot be read is a warning, not a bad configuration.
func TestCheckOddHost(t *testing.T) {
	src := hostSource{fstest.MapFS{}, func() (uint64, uint64, error) { return 0, 0, errors.New("no rlimit") }}
	got := check(t, nil, false, src)
	if !strings.Contains(got, "This relay takes 64 connections, bound by floor.\nwarning: capacity: open files: no rlimit\n") {
		t.Errorf("got:\n%s", got)
	}
}

func TestCheckErrorsInJSON(t *testing.T) {
	got := runWith(environ(goodEnv(), map[string]string{"LISTN": "1", "MAX_CONNS": "x"}), "", "check", "--json")
	var r report
	if err := json.Unmarshal([]byte(got.stdout), &r); err != nil {
		t.Fatal(err)
	}
	if got.code != exitConfig || r.Valid || len(r.Errors) != 2 {
		t.Errorf("code %d, %+v", got.code, r)
	}
	if got.stderr != strings.Join(r.Errors, "\n")+"\n" {
		t.Errorf("standard error %q differs from %q", got.stderr, r.Errors)
	}
}

func TestCheckShowsNoSecret(t *testing.T) {
	vars, secrets := planted(t)
	for _, asJSON := range []bool{false, true} {
		wantNone(t, "check", check(t, vars, asJSON, smallHost()), secrets)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, fs.ErrClosed }

func TestCheckReportsABrokenOutput(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		err := runCheck(process{environ: environ(goodEnv(), nil), stdout: brokenWriter{}}, asJSON, smallHost())
		var exit *exitError
		if !errors.As(err, &exit) || exit.code != exitFailed || !errors.Is(err, fs.ErrClosed) {
			t.Errorf("json %v: %v", asJSON, err)
		}
	}
}
