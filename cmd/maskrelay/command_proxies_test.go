package main

import (
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// proxiesEnv is a relay with a plain and a hashed password; the hash is of "hunter2" at the lowest cost.
func proxiesEnv(t testing.TB, vars map[string]string) []string {
	t.Helper()
	file := writeFile(t, `accounts:
- {name: alice, password: alicesecret}
- {name: hashed, password: $2a$04$dHl2mmimwvsD9gkgAvL6Je31e.nTTSuarwd8OnW7yYI2gJo1OxUMO}
- {name: odd.name_1, password: "p:a@s/s %#;,+ö"}
- {name: off, password: offsecret, disabled: true}
- {name: old, password: oldsecret, expires: 2020-01-01T00:00:00Z}
`)
	return environ(map[string]string{
		"UPSTREAM": "http://user:vendorpass@gw.vendor.example:7777", "ACCOUNTS_FILE": file, "LISTEN": "192.0.2.1:8080",
	}, vars)
}

// parsedLine is a proxy as a tool takes a line of a format apart.
type parsedLine struct{ address, username, password string }

func parseLine(t testing.TB, format, line string) parsedLine {
	t.Helper()
	switch format {
	case formatColons: // the first three colons
		f := strings.SplitN(line, ":", 4)
		if len(f) == 4 {
			return parsedLine{f[0] + ":" + f[1], f[2], f[3]}
		}
	case formatAt: // the last @, the first colon
		if at := strings.LastIndexByte(line, '@'); at >= 0 {
			username, password, _ := strings.Cut(line[:at], ":")
			return parsedLine{line[at+1:], username, password}
		}
	case formatURL:
		u, err := url.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		password, _ := u.User.Password()
		return parsedLine{u.Host, u.User.Username(), password}
	}
	t.Fatalf("%q is no line of %s", line, format)
	return parsedLine{}
}

func TestProxiesFormats(t *testing.T) {
	env := proxiesEnv(t, nil)
	for _, c := range []struct {
		user string
		want parsedLine
	}{
		{"alice", parsedLine{"192.0.2.1:8080", "alice", "alicesecret"}},
		{"odd.name_1", parsedLine{"192.0.2.1:8080", "odd.name_1", "p:a@s/s %#;,+ö"}},
	} {
		for _, format := range proxyFormats {
			got := runWith(env, "", "proxies", "--user", c.user, "--format", format, "--count", "3")
			lines := strings.Split(strings.TrimSuffix(got.stdout, "\n"), "\n")
			if got.code != 0 || len(lines) != 3 || !strings.HasSuffix(got.stdout, "\n") {
				t.Fatalf("%s: %+v", format, got)
			}
			for _, line := range lines {
				if p := parseLine(t, format, line); p != c.want {
					t.Errorf("%s: %q is taken apart as %+v", format, line, p)
				}
			}
		}
	}
	got := runWith(env, "", "proxies", "--user", "odd.name_1", "--format", "url")
	if want := "http://odd.name_1:p%3Aa%40s%2Fs%20%25%23%3B%2C%2B%C3%B6@192.0.2.1:8080\n"; got.stdout != want {
		t.Errorf("got %q, want %q", got.stdout, want)
	}
	if got := runWith(env, "", "proxies", "--user", "alice"); got != (ending{0, "192.0.2.1:8080:alice:alicesecret\n", ""}) {
		t.Errorf("got %+v", got)
	}
}

func TestProxiesJSON(t *testing.T) {
	for _, n := range []string{"1", "3"} {
		got := runWith(proxiesEnv(t, nil), "", "proxies", "--user", "odd.name_1", "--json", "--count", n, "--host", "2001:db8::7")
		var list []struct {
			Scheme, Host, Username, Password, URL string
			Port                                  int
		}
		if err := json.Unmarshal([]byte(got.stdout), &list); err != nil || len(list) != int(n[0]-'0') {
			t.Fatalf("%v: %+v", err, got)
		}
		for _, p := range list {
			u, err := url.Parse(p.URL)
			if err != nil || u.Hostname() != "2001:db8::7" || u.Port() != "8080" || p.Host != "2001:db8::7" || p.Port != 8080 ||
				p.Scheme != "http" || p.Username != "odd.name_1" || p.Password != "p:a@s/s %#;,+ö" {
				t.Errorf("%+v, %v", p, err)
			}
		}
	}
}

const (
	hostGuessed  = "warning: the host is this machine's name, "
	touchyLetter = " has a character that some tools take for their own (one of : @ / % # ; , + and space, or one beyond ASCII); letters and digits work everywhere\n"
)

func TestProxiesHost(t *testing.T) {
	name, err := os.Hostname()
	if err != nil || !publicHost(name) {
		t.Skipf("this machine has no name: %q, %v", name, err)
	}
	cert, key := testCertificate(t)
	secure := func(plain, behind string) map[string]string {
		return map[string]string{"LISTEN": plain, "TLS_LISTEN": behind, "TLS_CERT_FILE": cert, "TLS_KEY_FILE": key}
	}
	public := func(addr string) map[string]string { return map[string]string{"LISTEN": ":8080", "PUBLIC_ADDR": addr} }
	for _, c := range []struct {
		name, host  string
		vars        map[string]string
		want        string // scheme://host:port
		wantWarning string
	}{
		{"the listener's", "", nil, "http://192.0.2.1:8080", ""},
		{"the flag", "a.example", nil, "http://a.example:8080", ""},
		{"the flag with a port", "a.example:1", nil, "http://a.example:1", ""},
		{"the flag before the variable", "a.example", public("b.example:2"), "http://a.example:8080", ""},
		{"the variable", "", public("b.example"), "http://b.example:8080", ""},
		{"the variable with a port", "", public("b.example:2"), "http://b.example:2", ""},
		{"IPv6", "::1", nil, "http://[::1]:8080", ""},
		{"IPv6 with a port", "[::1]:9", nil, "http://[::1]:9", ""},
		{"this machine's", "", one("LISTEN", ":8080"), "http://" + name + ":8080", hostGuessed},
		{"this machine's, IPv4", "", one("LISTEN", "0.0.0.0:8080"), "http://" + name + ":8080", hostGuessed},
		{"this machine's, IPv6", "", one("LISTEN", "[::]:8080"), "http://" + name + ":8080", hostGuessed},
		{"loopback", "", one("LISTEN", "127.0.0.1:8080"), "http://127.0.0.1:8080", "warning: the listener is on 127.0.0.1, which nobody but this machine reaches\n"},
		{"plain beside TLS", "", secure("192.0.2.1:80", "192.0.2.1:443"), "http://192.0.2.1:80", ""},
		{"the port of TLS beside plain", "a.example:443", secure("192.0.2.1:80", "192.0.2.1:443"), "https://a.example:443", ""},
		{"TLS alone", "", secure("", "192.0.2.1:443"), "https://192.0.2.1:443", ""},
		{"TLS alone behind another port", "a.example:8443", secure("", "192.0.2.1:443"), "https://a.example:8443", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{"proxies", "--user", "alice", "--format", "url"}
			if c.host != "" {
				args = append(args, "--host", c.host)
			}
			got := runWith(proxiesEnv(t, c.vars), "", args...)
			want := strings.Replace(c.want, "://", "://alice:alicesecret@", 1) + "\n"
			if got.code != 0 || got.stdout != want || !strings.HasPrefix(got.stderr, c.wantWarning) || (got.stderr == "") != (c.wantWarning == "") {
				t.Errorf("got %+v, want %q and %q", got, want, c.wantWarning)
			}
		})
	}
}

func TestProxiesWarnings(t *testing.T) {
	cert, key := testCertificate(t)
	behindTLS := map[string]string{"LISTEN": "", "TLS_LISTEN": "192.0.2.1:443", "TLS_CERT_FILE": cert, "TLS_KEY_FILE": key}
	for _, c := range []struct {
		name string
		vars map[string]string
		args []string
		want string
	}{
		{"password", nil, []string{"--user", "odd.name_1"}, "warning: the password" + touchyLetter},
		{"disabled", nil, []string{"--user", "off"}, "warning: the account off is disabled: the relay refuses these lines\n"},
		{"expired", nil, []string{"--user", "old"}, "warning: the account old has expired (2020-01-01T00:00:00Z): the relay refuses these lines\n"},
		{"TLS", behindTLS, []string{"--user", "alice"}, "warning: the listener is behind TLS, which this format cannot say: choose an https proxy in the tool, or --format url\n"},
		{"TLS as JSON", behindTLS, []string{"--user", "alice", "--json"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := runWith(proxiesEnv(t, c.vars), "", append([]string{"proxies"}, c.args...)...)
			if got.code != 0 || got.stderr != c.want || got.stdout == "" {
				t.Errorf("got %+v, want %q", got, c.want)
			}
		})
	}
	for _, c := range touchy + "ö" {
		if !isTouchy("a" + string(c)) {
			t.Errorf("%q is no matter", c)
		}
	}
	if isTouchy("Alice-1_2.3~$!") {
		t.Error("letters are a matter")
	}
}

func TestProxiesPassword(t *testing.T) {
	right, wrong := writeFile(t, "hunter2\n"), writeFile(t, "hunter3\n")
	hook := map[string]string{"ACCOUNTS_FILE": "-", "AUTH": "hook", "AUTH_URL": "https://hook.example/"}
	redis := map[string]string{"ACCOUNTS_REDIS": "true", "REDIS_URL": "rediss://r.example"}
	unseen := func(where string) string {
		return "warning: whether " + where + " knows the account carl, its password and its pools was not looked at\n"
	}
	const line = "192.0.2.1:8080:"
	for _, c := range []struct {
		name  string
		vars  map[string]string
		stdin string
		args  []string
		want  ending
	}{
		{"of a hash", nil, "", []string{"hashed", "--password-file", right}, ending{0, line + "hashed:hunter2\n", ""}},
		{"by standard input", nil, "hunter2\n", []string{"hashed", "--password-file", "-"}, ending{0, line + "hashed:hunter2\n", ""}},
		{"not that of a hash", nil, "", []string{"hashed", "--password-file", wrong}, ending{2, "", "--password-file: that is not the password of hashed\n"}},
		{"missing", nil, "", []string{"hashed"}, ending{2, "", "--password-file: missing; the password of hashed is known as a hash only. Write a file's name, or - for standard input\n"}},
		{"plain, given all the same", nil, "alicesecret", []string{"alice", "--password-file", "-"}, ending{0, line + "alice:alicesecret\n", ""}},
		{"not the plain one", nil, "hunter2", []string{"alice", "--password-file", "-"}, ending{2, "", "--password-file: that is not the password of alice\n"}},
		{"no file", nil, "", []string{"hashed", "--password-file", "/nowhere/p"}, ending{2, "", "--password-file: open /nowhere/p: no such file or directory\n"}},
		{"empty file", nil, "", []string{"hashed", "--password-file", "/dev/null"}, ending{2, "", "--password-file: /dev/null is empty\n"}},
		{"empty input", nil, "\n", []string{"hashed", "--password-file", "-"}, ending{2, "", "--password-file: no password on standard input\n"}},
		{"of a hook", hook, "hunter2", []string{"carl", "--password-file", "-"}, ending{0, line + "carl:hunter2\n", unseen("the hook")}},
		{"missing of a hook", hook, "", []string{"carl"}, ending{2, "", "--password-file: missing; the password of carl is not kept here. Write a file's name, or - for standard input\n"}},
		{"in Redis", redis, "hunter2", []string{"carl", "--password-file", "-"}, ending{0, line + "carl:hunter2\n", unseen("Redis")}},
		{"in the file beside Redis", redis, "", []string{"alice"}, ending{0, line + "alice:alicesecret\n", ""}},
		{"with a control byte", hook, "hun\tter2", []string{"carl", "--password-file", "-"}, ending{2, "", "--user: no login can carry such a name and password: control bytes, or far too long\n"}},
		{"far too long", hook, strings.Repeat("x", 4000), []string{"carl", "--password-file", "-"}, ending{2, "", "--user: no login can carry such a name and password: control bytes, or far too long\n"}},
		{"not UTF-8", hook, "\xff", []string{"carl", "--password-file", "-", "--json"}, ending{2, "", "--json: the password is not UTF-8, which JSON cannot say\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := runWith(proxiesEnv(t, c.vars), c.stdin, append([]string{"proxies", "--user"}, c.args...)...); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestProxiesOfOtherModes(t *testing.T) {
	passthrough := map[string]string{"ACCOUNTS_FILE": "-", "AUTH": "passthrough", "UPSTREAM": "http://gw.vendor.example:7777"}
	for _, c := range []struct {
		name string
		vars map[string]string
		args []string
		want ending
	}{
		{"passthrough", passthrough, []string{"user-cc-us"}, ending{0, "192.0.2.1:8080:user-cc-us:hunter2\n", ""}},
		{"passthrough, a touchy name", passthrough, []string{"user;cc.us"}, ending{0, "192.0.2.1:8080:user;cc.us:hunter2\n", "warning: the name" + touchyLetter}},
		{"passthrough, a colon", passthrough, []string{"us:er"}, ending{2, "", "--user: a username cannot contain a colon (RFC 7617 §2)\n"}},
		{"passthrough, a parameter", passthrough, []string{"user", "--country", "us"}, ending{2, "",
			"--user: with MASKRELAY_AUTH=passthrough the username is the vendor's own; write its parameters into it\n"}},
		{"open", map[string]string{"ACCOUNTS_FILE": "-", "AUTH": "open", "ALLOW_FROM": "10.0.0.0/8"}, []string{"alice"}, ending{2, "",
			"--user: with MASKRELAY_AUTH=open there are no accounts; customers need the host and the port alone\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"proxies", "--password-file", "-", "--user"}, c.args...)
			if got := runWith(proxiesEnv(t, c.vars), "hunter2", args...); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestProxiesErrors(t *testing.T) {
	const see = "\nmaskrelay: see `maskrelay proxies --help`\n"
	env := proxiesEnv(t, nil)
	for _, c := range []struct {
		name string
		env  []string
		args []string
		want string
	}{
		{"nobody", env, nil, "maskrelay: --user: missing; whose list is it?" + see},
		{"no lines", env, []string{"--user", "alice", "--count", "0"}, "maskrelay: --count: 0 is not between 1 and 100000" + see},
		{"all at once", env, []string{"--count", "100001", "--format", "xml", "--host", "a b", "--country", "", "--asn", "1-session-x"},
			`maskrelay: --user: missing; whose list is it?; --count: 100001 is not between 1 and 100000; ` +
				`--format: "xml" is not one of host:port:user:pass, user:pass@host:port, url; ` +
				`--host: "a b": the host is neither a name nor an address that customers could use; write proxy.example.com or proxy.example.com:8080; ` +
				`--country: empty; --asn: "1-session-x" has a dash, which ends a username parameter` + see},
		{"empty host and file", env, []string{"--user", "alice", "--host", "", "--password-file", ""}, "maskrelay: --host: empty; --password-file: empty" + see},
		{"JSON in a format", env, []string{"--user", "alice", "--json", "--format", "url"}, "maskrelay: --format: has no effect with --json" + see},
		{"unknown", env, []string{"--user", "alcie"}, "--user: there is no account \"alcie\"; did you mean \"alice\"?\n"},
		{"unlike any", env, []string{"--user", "zzzzzzzzzzzz"}, "--user: there is no account \"zzzzzzzzzzzz\"\n"},
		{"parameters in the name", env, []string{"--user", "alice-country-us"}, "--user: name must not have the segment \"country\", which is a username parameter; write the account's name, and what it asks for as flags (--country us)\n"},
		{"the kernel's port", proxiesEnv(t, one("LISTEN", "192.0.2.1:0")), []string{"--user", "alice"}, "--host: the port is missing, and the kernel chooses the listener's; write host:port\n"},
		{"no configuration", nil, []string{"--user", "alice"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := runWith(c.env, "", append([]string{"proxies"}, c.args...)...)
			if got.code != exitConfig || got.stdout != "" || c.want != "" && got.stderr != c.want {
				t.Errorf("got  %+v\nwant %q", got, c.want)
			}
		})
	}
	if got := runWith(proxiesEnv(t, one("LISTEN", "192.0.2.1:0")), "", "proxies", "--user", "alice", "--host", "a:1"); got.stdout != "a:1:alice:alicesecret\n" {
		t.Errorf("a port that is given: %+v", got)
	}
}

// closedPipe takes a little and then nothing any more, as a pipe whose reader has gone.
type closedPipe struct{ left int }

func (b *closedPipe) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errors.New("broken pipe")
	}
	return len(p), nil
}

// TestProxiesAreStreamed: a hundred thousand lines, and the end of a reader is an error.
func TestProxiesAreStreamed(t *testing.T) {
	env := proxiesEnv(t, nil)
	got := runWith(env, "", "proxies", "--user", "alice", "--count", "100000")
	if got.code != 0 || strings.Count(got.stdout, "\n") != maxProxies {
		t.Errorf("code %d, %d lines, %q", got.code, strings.Count(got.stdout, "\n"), got.stderr)
	}
	var stderr strings.Builder
	p := process{environ: env, stdin: strings.NewReader(""), stdout: &closedPipe{1 << 16}, stderr: &stderr}
	if code := run(t.Context(), []string{"proxies", "--user", "alice", "--count", "100000"}, p); code != exitFailed || stderr.String() != "maskrelay: proxies: broken pipe\n" {
		t.Errorf("code %d, %q", code, stderr.String())
	}
}

func TestSessions(t *testing.T) {
	form := regexp.MustCompile(`^[a-z0-9]{8}$`)
	const n = 20_000
	s, seen := newSessions(n), map[string]bool{}
	var letters [256]int
	for range n {
		id := s.next()
		if !form.MatchString(id) || seen[id] {
			t.Fatalf("%q is not of the form, or was there", id)
		}
		seen[id] = true
		for i := range len(id) {
			letters[id[i]]++
		}
	}
	// Each of 36 letters is to come 4,444 times; seven standard deviations are 460.
	for i := range len(sessionLetters) {
		if c := letters[sessionLetters[i]]; c < 3984 || c > 4904 {
			t.Errorf("%c comes %d times", sessionLetters[i], c)
		}
	}
}

func TestProxiesCompletion(t *testing.T) {
	env := proxiesEnv(t, nil)
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"--user", ""}, []string{"alice", "hashed", "odd.name_1", "off", "old"}},
		{[]string{"--format", ""}, proxyFormats},
		{[]string{"--country", ""}, nil},
	} {
		got := runWith(env, "", append([]string{"__complete", "proxies"}, c.args...)...)
		offered, _, _ := strings.Cut(got.stdout, ":4\n")
		if got.code != 0 || !slices.Equal(strings.Fields(offered), c.want) {
			t.Errorf("%v: %+v", c.args, got)
		}
	}
	if got := runWith(nil, "", "__complete", "proxies", "--user", ""); got.code != 0 || got.stdout != ":4\n" {
		t.Errorf("without a configuration: %+v", got)
	}
}
