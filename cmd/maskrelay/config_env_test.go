package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestUnknownNames(t *testing.T) {
	for _, c := range []struct{ name, nearest string }{
		{"LISTN", "LISTEN"},
		{"TLS_CERT", "TLS_CERT_FILE"},
		{"UPSTREAMS_0_PASWORD", "UPSTREAMS_0_PASSWORD"},
		{"UPSTREAMS_12_PASSWORD_FIEL", "UPSTREAMS_12_PASSWORD_FILE"},
		{"UPSTREAM_0_URL", "UPSTREAMS_0_URL"},
		{"UPSTREAMS_00_URL", "UPSTREAMS_0_URL"},
		{"UPSTREAMS_X_URL", "UPSTREAMS_0_URL"},
		{"UPSTREAM_URL", "UPSTREAMS_0_URL"},
		{"MAX_CONN", "MAX_CONNS"},
		{"ADMIN_TOKENFILE", "ADMIN_TOKEN_FILE"},
		{"ACCOUNT", "ACCOUNTS"},
		{"BRAND_FILE", "BRAND"},
		{"UPSTREAMS_7_WEIGHT_FILE", "UPSTREAMS_7_WEIGHT"},
		{"AUTH_STYLES", "AUTH_STYLE"},
		{"QUOTA", "USER_QUOTA"},
		{"MAX_IPS", "USER_MAX_IPS"},
		{"", "AUTH"},
		{"listen", "AUTH"},
		{strings.Repeat("X", 10000), "MAX_CONNS"},
	} {
		t.Run(c.name[:min(len(c.name), 40)], func(t *testing.T) {
			p := &problems{}
			checkNames(map[string]string{c.name: ""}, p)
			want := fmt.Sprintf("MASKRELAY_%s: unknown variable; did you mean MASKRELAY_%s?", c.name, c.nearest)
			if err := p.err(); err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

func TestKnownNames(t *testing.T) {
	p := &problems{}
	vars := map[string]string{}
	for _, f := range append(fields(&Config{}, ""), fields(&UpstreamConfig{}, "UPSTREAMS_3_")...) {
		vars[f.name] = "x"
		if f.secret() {
			vars[f.name+"_FILE"] = "x"
		}
	}
	checkNames(vars, p)
	if err := p.err(); err != nil {
		t.Error(err)
	}
	if len(vars) != 87 { // 66 and 10 of a gateway, 8 and 3 of them also with _FILE
		t.Errorf("%d names: %v", len(vars), sortedKeys(vars))
	}
}

func TestKubernetesNames(t *testing.T) {
	ignored := map[string]string{
		"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "8080", "SERVICE_PORT_PROXY": "8080", "PORT": "tcp://10.0.0.1:8080",
		"PORT_8080_TCP": "tcp://10.0.0.1:8080", "PORT_8080_TCP_PROTO": "tcp", "PORT_8080_TCP_PORT": "8080", "PORT_8080_TCP_ADDR": "10.0.0.1",
		"ADMIN_SERVICE_HOST": "10.0.0.2", "ADMIN_PORT": "tcp://10.0.0.2:9090", "ADMIN_PORT_9090_TCP_ADDR": "10.0.0.2", "PORT_53_UDP": "udp://10.0.0.1:53",
	}
	if _, err := LoadConfig(environ(goodEnv(), ignored)); err != nil {
		t.Error(err)
	}
	for name, value := range map[string]string{"PORT": "8080", "PORT_X_TCP": "1", "SERVICE_HOSTS": "1", "SERVICE": "1"} {
		p := &problems{}
		checkNames(map[string]string{name: value}, p)
		if p.err() == nil {
			t.Errorf("%s=%s is ignored, but Kubernetes makes no such variable", name, value)
		}
	}
}

func TestSecretFiles(t *testing.T) {
	for _, c := range []struct{ name, content, want string }{
		{"plain", "0123456789abcdef", "0123456789abcdef"},
		{"one newline is trimmed", "0123456789abcdef\n", "0123456789abcdef"},
		{"and its carriage return", "0123456789abcdef\r\n", "0123456789abcdef"},
		{"as large as allowed", strings.Repeat("x", maxSecretFile), strings.Repeat("x", maxSecretFile)},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := writeFile(t, c.content)
			cfg, err := LoadConfig(environ(goodEnv(), map[string]string{"ADMIN_TOKEN_FILE": path, "ADMIN_TOKEN": ""}))
			if err != nil {
				t.Fatal(err)
			}
			if cfg.Admin.AdminToken.Reveal() != c.want || cfg.SecretFiles["ADMIN_TOKEN"] != path {
				t.Errorf("token of %d bytes from %v", len(cfg.Admin.AdminToken), cfg.SecretFiles)
			}
		})
	}
}

func TestSecretFilesOfEverySecret(t *testing.T) {
	cfg, err := LoadConfig(environ(goodEnv(), map[string]string{"UPSTREAM": "-", "UPSTREAM_FILE": writeFile(t, "http://u:p@a.example:1\n")}))
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Gateways[0].String(); got != "http://***@a.example:1" {
		t.Errorf("UPSTREAM_FILE: %s", got)
	}
	cfg, err = LoadConfig(environ(goodEnv(), map[string]string{
		"UPSTREAM": "-", "UPSTREAMS_0_URL_FILE": writeFile(t, "http://a.example:1"),
		"UPSTREAMS_0_USERNAME_FILE": writeFile(t, "user\n"), "UPSTREAMS_0_PASSWORD_FILE": writeFile(t, " p \r\n"),
	}))
	if err != nil {
		t.Fatal(err)
	}
	u := cfg.Upstreams[0]
	if u.Username.Reveal() != "user" || u.Password.Reveal() != " p " {
		t.Errorf("only the last newline goes: %q %q", u.Username.Reveal(), u.Password.Reveal())
	}
}

func TestSecretFileErrors(t *testing.T) {
	dir := t.TempDir()
	empty, large, token := writeFile(t, "\n"), writeFile(t, strings.Repeat("x", maxSecretFile+1)), writeFile(t, "t0ken")
	for _, c := range []struct {
		name string
		vars map[string]string
		want string
	}{
		{"missing", one("ADMIN_TOKEN_FILE", "/nowhere/t"), "ADMIN_TOKEN_FILE: open /nowhere/t: no such file or directory"},
		{"a directory", one("ADMIN_TOKEN_FILE", dir), "ADMIN_TOKEN_FILE: read " + dir + ": is a directory"},
		{"empty", one("ADMIN_TOKEN_FILE", empty), "ADMIN_TOKEN_FILE: " + empty + " is empty"},
		{"too large", one("ADMIN_TOKEN_FILE", large), "ADMIN_TOKEN_FILE: " + large + " holds more than 65536 bytes"},
		{"endless", one("ADMIN_TOKEN_FILE", "/dev/zero"), "ADMIN_TOKEN_FILE: /dev/zero holds more than 65536 bytes"},
		{"both", map[string]string{"ADMIN_TOKEN": "x", "ADMIN_TOKEN_FILE": token}, "ADMIN_TOKEN_FILE: MASKRELAY_ADMIN_TOKEN is set too; keep one of the two"},
		{"gateway missing is no second error", map[string]string{"UPSTREAM": "-", "UPSTREAM_FILE": empty}, "UPSTREAM_FILE: " + empty + " is empty"},
		{"one of several", map[string]string{"UPSTREAM": "-", "UPSTREAMS_0_URL_FILE": empty}, "UPSTREAMS_0_URL_FILE: " + empty + " is empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := LoadConfig(environ(goodEnv(), c.vars))
			if err == nil || err.Error() != envPrefix+c.want {
				t.Errorf("got:\n%v\nwant:\n%s", err, envPrefix+c.want)
			}
		})
	}
	if _, err := LoadConfig(environ(goodEnv(), one("ADMIN_TOKEN_FILE", filepath.Join(dir, "x")))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the cause is lost: %v", err)
	}
}

func TestVariables(t *testing.T) {
	got := variables([]string{"MASKRELAY_A=1=2", "A=3", "MASKRELAY_B=", "MASKRELAY_C", "xMASKRELAY_D=4", "MASKRELAY_A=5"})
	if keys := sortedKeys(got); !slices.Equal(keys, []string{"A", "B"}) || got["A"] != "5" {
		t.Errorf("got %v", got)
	}
}

// FuzzLoadConfig: no value crashes it, every line of an error begins with a variable, and no secret is in one.
func FuzzLoadConfig(f *testing.F) {
	const secret = "PLANTED"
	for _, c := range errorCases(f) {
		for name, value := range c.vars {
			f.Add(name, value)
		}
	}
	for _, name := range []string{"", "DRAIN_", "UPSTREAMS_0_", "UPSTREAMS_"} {
		f.Add(name, "0")
	}
	f.Add("DENY_HOSTS", "[::1],*.")
	f.Add("UPSTREAMS_99999999999_URL", "x")
	f.Fuzz(func(t *testing.T, name, value string) {
		if strings.HasSuffix(name, "_FILE") || strings.ContainsAny(name, "=\n\x00") {
			t.Skip("a file of the fuzzer's choice, or no variable")
		}
		base := map[string]string{"UPSTREAM": "http://u:" + secret + "@a.example:1", "ACCOUNTS": "a:" + secret, "ADMIN_TOKEN": secret}
		_, err := LoadConfig(environ(base, map[string]string{name: value}))
		if err == nil {
			return
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if !strings.HasPrefix(line, envPrefix) || strings.Contains(strings.ReplaceAll(line, value, ""), secret) {
				t.Errorf("%s=%q: %s", name, value, line)
			}
		}
	})
}

// TestReadmeNamesEverything: what can be set or called is described.
func TestReadmeNamesEverything(t *testing.T) {
	data, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(data)
	for _, f := range fields(&Config{}, "") {
		if !strings.Contains(readme, "`"+f.name+"`") {
			t.Errorf("no word of %s", f.name)
		}
	}
	for _, f := range fields(&UpstreamConfig{}, "_") {
		if f.name != "_URL" && f.name != "_VENDOR" && !strings.Contains(readme, "`"+f.name+"`") {
			t.Errorf("no word of UPSTREAMS_<n>%s", f.name)
		}
	}
	for _, c := range newRoot(process{}).Commands() {
		if !strings.Contains(readme, "`maskrelay "+c.Name()) {
			t.Errorf("no word of the command %s", c.Name())
		}
	}
}
