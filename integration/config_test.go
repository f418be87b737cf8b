package integration

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// runRelay runs a command of the relay to its end.
func runRelay(t *testing.T, env lab.Env, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return runRelayFor(t, 30*time.Second, env, stdin, args...)
}

// runRelayFor is runRelay with a limit of its own.
func runRelayFor(t *testing.T, limit time.Duration, env lab.Env, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := lab.RelayCommand(t, lab.Tested, env, args...)
	cmd.Stdin = strings.NewReader(stdin)
	p := lab.Start(t, "maskrelay "+strings.Join(args, " "), cmd)
	code = p.ExitCode(t, limit)
	checkLog(t, p)
	return string(p.Stdout.Bytes()), string(p.Stderr.Bytes()), code
}

func TestBadConfigurationNamesEverything(t *testing.T) {
	t.Parallel()
	env := lab.Env{
		"UPSTREM":      "http://gateway.example:7777",
		"IDLE_TIMEOUT": "10",
		"ALLOW_PORTS":  "80,99999",
		"AUTH":         "sometimes",
		"SESSION_KEY":  "k",
		"ACCOUNTS":     customerName + ":" + "secret",
	}
	for _, command := range []string{"serve", "check"} {
		_, stderr, code := runRelay(t, env, "", command)
		if code != 2 {
			t.Errorf("%s: exit code %d, want 2", command, code)
		}
		for _, want := range []string{"MASKRELAY_UPSTREM", "MASKRELAY_UPSTREAM", "MASKRELAY_IDLE_TIMEOUT", "MASKRELAY_ALLOW_PORTS", "MASKRELAY_AUTH", "MASKRELAY_SESSION_KEY"} {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: no %q in\n%s", command, want, stderr)
			}
		}
		for line := range strings.Lines(stderr) {
			if !strings.HasPrefix(line, "MASKRELAY_") {
				t.Errorf("%s: line %q does not begin with the variable", command, line)
			}
		}
	}
}

func TestNoOpenProxyByAccident(t *testing.T) {
	t.Parallel()
	for name, env := range map[string]lab.Env{
		"nothing said":       {"UPSTREAM": "http://u:p@gateway.example:7777"},
		"open to all":        {"UPSTREAM": "http://u:p@gateway.example:7777", "AUTH": "open"},
		"open to everywhere": {"UPSTREAM": "http://u:p@gateway.example:7777", "AUTH": "open", "ALLOW_FROM": "0.0.0.0/0"},
		"no upstream":        {"ACCOUNTS": "alice:secret"},
	} {
		if _, stderr, code := runRelay(t, env, "", "serve"); code != 2 || !strings.Contains(stderr, "MASKRELAY_") {
			t.Errorf("%s: exit code %d, %s", name, code, stderr)
		}
	}
}

func TestCheckShowsNoSecret(t *testing.T) {
	t.Parallel()
	env := lab.Env{
		"UPSTREAMS_0_URL": "http://gateway.example:7777", "UPSTREAMS_0_USERNAME": vendorUser, "UPSTREAMS_0_PASSWORD": vendorPassword,
		"ACCOUNTS_FILE": writeFile(t, t.TempDir(), "accounts.yaml", accountsYAML), "ADMIN_TOKEN_FILE": writeFile(t, t.TempDir(), "token", customerPassword+"\n"),
	}
	stdout, stderr, code := runRelay(t, env, "", "check", "--json")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var printed map[string]json.RawMessage
	if err := json.Unmarshal([]byte(stdout), &printed); err != nil || len(printed) == 0 {
		t.Errorf("check --json printed %q: %v", stdout, err)
	}
	if out, _, code := runRelay(t, env, "", "check"); code != 0 || !strings.Contains(out, "gateway.example") {
		t.Errorf("check: exit code %d: %s", code, out)
	}
}

func TestHashPassword(t *testing.T) {
	t.Parallel()
	hash, stderr, code := runRelay(t, nil, customerPassword+"\n", "hash-password")
	if code != 0 || !strings.HasPrefix(hash, "$2") {
		t.Fatalf("exit code %d: %q %s", code, hash, stderr)
	}
	accounts := "accounts:\n  - name: " + customerName + "\n    password: " + hash
	_, addr := startSingle(t, lab.Env{"ACCOUNTS_FILE": writeFile(t, t.TempDir(), "hashed.yaml", accounts)})
	if _, err := tunnel(addr, startEcho(t)); err != nil {
		t.Errorf("with the printed hash: %v", err)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	out, _, code := runRelay(t, nil, "", "version")
	if code != 0 || !strings.Contains(out, "0.0.0-test") || !strings.Contains(out, "0123456789ab") || !strings.Contains(out, "go1.") {
		t.Errorf("exit code %d: %q", code, out)
	}
}
