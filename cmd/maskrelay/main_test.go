package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// goodEnv is the least that serves.
func goodEnv() map[string]string {
	return map[string]string{
		"UPSTREAM": "http://user:vendorpass@gw.vendor.example:7777",
		"ACCOUNTS": "alice:alicesecret:2000,bob:hunter2",
	}
}

// environ is vars as os.Environ would give them; "-" as the value leaves one out.
func environ(base map[string]string, vars map[string]string) []string {
	all := map[string]string{}
	for _, m := range []map[string]string{base, vars} {
		for name, value := range m {
			all[name] = value
		}
	}
	out := []string{"PATH=/bin", "HOME=/"}
	for _, name := range sortedKeys(all) {
		if all[name] != "-" {
			out = append(out, envPrefix+name+"="+all[name])
		}
	}
	return out
}

// writeFile puts content into a new file and returns its path.
func writeFile(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// needAddrs skips a test that binds to loopback addresses which this machine does not have: a container without IPv6,
// a system other than Linux.
func needAddrs(t *testing.T, addrs ...string) {
	t.Helper()
	for _, a := range addrs {
		l, err := net.ListenPacket("udp", net.JoinHostPort(a, "0"))
		if err != nil {
			t.Skipf("this machine does not have %s: %v", a, err)
		}
		_ = l.Close()
	}
}

// nobodyListens is an address of loopback at which connections are refused.
func nobodyListens(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

type ending struct {
	code           int
	stdout, stderr string
}

func runWith(env []string, stdin string, args ...string) ending {
	var stdout, stderr bytes.Buffer
	code := run(context.Background(), args, process{
		environ: env, stdin: strings.NewReader(stdin), stdout: &stdout, stderr: &stderr,
	})
	return ending{code, stdout.String(), stderr.String()}
}

func TestRunUsageErrors(t *testing.T) {
	const see = "maskrelay: see `maskrelay --help`\n"
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"unknown command", []string{"chekc"}, "maskrelay: unknown command \"chekc\"; did you mean check?\n" + see},
		{"unlike any", []string{"frobnicate"}, "maskrelay: unknown command \"frobnicate\"\n" + see},
		{"a command of a later version", []string{"plan"}, "maskrelay: unknown command \"plan\"\n" + see},
		{"unknown flag", []string{"check", "--yaml"}, "maskrelay: unknown flag: --yaml\nmaskrelay: see `maskrelay check --help`\n"},
		{"superfluous argument", []string{"version", "now"}, "maskrelay: unknown command \"now\" for \"maskrelay version\"\nmaskrelay: see `maskrelay version --help`\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, want := runWith(nil, "", c.args...), (ending{exitConfig, "", c.want}); got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestRunBadConfigIsOneErrorPerLine(t *testing.T) {
	env := environ(nil, map[string]string{"LISTN": ":1", "IDLE_TIMEOUT": "10", "UPSTREAM": "http://u:s3cr3t@host", "ACCOUNTS": "a:b"})
	want := `MASKRELAY_LISTN: unknown variable; did you mean MASKRELAY_LISTEN?
MASKRELAY_IDLE_TIMEOUT: "10" is not a duration; write 10s or 10m
MASKRELAY_UPSTREAM: the port is missing; write scheme://host:port
`
	for _, args := range [][]string{{}, {"serve"}, {"check"}} {
		if got := runWith(env, "", args...); got != (ending{exitConfig, "", want}) {
			t.Errorf("maskrelay %v: got %+v", args, got)
		}
	}
}

func TestHelpHasAnExampleForEveryCommand(t *testing.T) {
	var visit func(c *cobra.Command, path []string)
	seen := 0
	visit = func(c *cobra.Command, path []string) {
		for _, sub := range c.Commands() {
			visit(sub, append(slices.Clone(path), sub.Name()))
		}
		seen++
		got := runWith(nil, "", append(path, "--help")...)
		if got.code != 0 || got.stderr != "" {
			t.Errorf("%v --help: %+v", path, got)
		}
		if !strings.Contains(got.stdout, "\nExamples:\n  ") {
			t.Errorf("%v --help has no example:\n%s", path, got.stdout)
		}
	}
	visit(newRoot(process{stdin: strings.NewReader(""), stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}), nil)
	if seen != 20 { // root, 13 commands, 2 of accounts, 4 shells
		t.Errorf("%d commands visited", seen)
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := runWith(nil, "", "completion", shell); got.code != 0 || !strings.Contains(got.stdout, "maskrelay") {
			t.Errorf("completion %s: code %d, %d bytes", shell, got.code, len(got.stdout))
		}
	}
}
