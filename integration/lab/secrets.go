package lab

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"maskrelay/masking"
)

// minSecret is how long a value must be to be searched for: "x", "pw" or "secret" occur by chance. A test that wants to be sure of a secret
// makes it longer.
const minSecret = 8

// planted are secrets that no relay's environment names: what customers send, what a hook knows.
var planted struct {
	mu     sync.Mutex
	values []string
}

// Plant adds secrets that nothing of any relay started from now on may show, beside those of its own environment.
func Plant(secrets ...string) {
	planted.mu.Lock()
	defer planted.mu.Unlock()
	for _, s := range secrets {
		if len(s) >= minSecret && !slices.Contains(planted.values, s) {
			planted.values = append(planted.values, s)
		}
	}
}

var (
	secretVariable = regexp.MustCompile(`^(ADMIN_TOKEN|SESSION_KEY|AUTH_TOKEN|WEBHOOK_SECRET|UPSTREAMS_\d+_PASSWORD)$`)
	urlVariable    = regexp.MustCompile(`^(UPSTREAM|UPSTREAMS_\d+_URL|REDIS_URL|AUTH_URL|WEBHOOK_URL)$`)
	filePassword   = regexp.MustCompile(`(?m)[{,\s-]password:\s*(?:"([^"\n]*)"|'([^'\n]*)'|([^\s,}]+))`)
)

// SecretsOf returns the secrets of a relay's environment ("MASKRELAY_NAME=value"), those in the files that it names included, and all
// that were planted. Those shorter than 8 bytes are left out.
func SecretsOf(environ []string) []string {
	var found []string
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		name, ours := strings.CutPrefix(name, "MASKRELAY_")
		if !ours {
			continue
		}
		if base, isFile := strings.CutSuffix(name, "_FILE"); isFile && (base == "ACCOUNTS" || secretVariable.MatchString(base) || urlVariable.MatchString(base)) {
			text, err := os.ReadFile(value)
			if err != nil {
				continue // the relay says so itself
			}
			if name != "ACCOUNTS_FILE" {
				name = base
			}
			value = strings.TrimSpace(string(text))
		}
		found = append(found, secretsIn(name, value)...)
	}
	planted.mu.Lock()
	found = append(found, planted.values...)
	planted.mu.Unlock()
	for _, s := range slices.Clone(found) { // as a line of the log would have it
		if quoted, err := json.Marshal(s); err == nil {
			found = append(found, strings.Trim(string(quoted), `"`))
		}
	}
	slices.Sort(found)
	return slices.DeleteFunc(slices.Compact(found), func(s string) bool { return len(s) < minSecret })
}

func secretsIn(name, value string) (found []string) {
	switch {
	case secretVariable.MatchString(name):
		return []string{value}
	case urlVariable.MatchString(name):
		if u, err := url.Parse(value); err == nil && u.User != nil {
			password, _ := u.User.Password()
			found = append(found, password)
		}
		// Also as it stands: a URL that cannot be parsed has a secret, too.
		if _, rest, ok := strings.Cut(value, "://"); ok {
			if at := strings.LastIndexByte(rest, '@'); at > 0 {
				_, written, _ := strings.Cut(rest[:at], ":")
				found = append(found, written)
			}
		}
	case name == "ACCOUNTS":
		for entry := range strings.SplitSeq(value, ",") {
			if parts := strings.Split(entry, ":"); len(parts) > 1 {
				found = append(found, parts[1])
			}
		}
	case name == "ACCOUNTS_FILE":
		for _, m := range filePassword.FindAllStringSubmatch(value, -1) {
			found = append(found, m[1]+m[2]+m[3])
		}
	}
	return found
}

// tells are commands whose standard output tells a customer's password, which is what they are for.
var tells = []string{"proxies"}

// watch is what looks for the secrets of one process.
type watch struct {
	name  string
	marks *masking.Marks
	told  bool // standard output may hold them
}

// watchSecrets returns nil for a process that is no relay's, or has no secrets.
func watchSecrets(name string, args, environ []string) *watch {
	if !slices.ContainsFunc(environ, func(e string) bool { return strings.HasPrefix(e, "MASKRELAY_") }) {
		return nil
	}
	secrets := SecretsOf(environ)
	if len(secrets) == 0 {
		return nil
	}
	return &watch{name: name, marks: masking.NewMarks(secrets...), told: len(args) > 1 && slices.Contains(tells, args[1])}
}

// search fails the test if text holds a secret: as it is, in base64 (a Basic login has it at any offset) or URL-escaped. The secret is named, for
// it is a test's.
func (w *watch) search(t testing.TB, where string, text []byte) {
	t.Helper()
	if w == nil {
		return
	}
	s := NewSearch(fmt.Sprintf("%s: %s", w.name, where), w.marks)
	_, _ = s.Write(text) // it never fails
	for i, leak := range s.Leaks() {
		if i == 3 {
			break
		}
		at := min(int(leak.Offset), len(text))
		t.Errorf("a secret shows: %v: …%q…", leak, text[max(0, at-80):min(len(text), at+120)])
	}
}

// shown are the pages of a relay that say something about it. Profiles of goroutines come in two forms: one has the stacks, the other the labels.
var shown = []string{
	"/", "/metrics", "/healthz", "/readyz", "/api/v1/upstreams", "/api/v1/accounts", "/api/v1/accounts?limit=1000", "/api/v1/usage", "/api/v1/drain", "/api/v1/reload",
	"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=1", "/debug/pprof/goroutine?debug=2",
}

// searchPages looks for secrets in what a running relay shows to its operator, and in the process list. A relay that does not run, or is stopped by a
// signal, shows nothing.
func (r *Relay) searchPages(t testing.TB) {
	t.Helper()
	if r.secrets == nil || !r.Running() || stopped(r.PID()) {
		return
	}
	if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", r.PID())); err == nil {
		r.secrets.search(t, "process list", line)
	}
	for _, path := range shown {
		_, body, err := r.askAs(r.token, path)
		if err != nil {
			return // it has no admin listener, or is on its way out
		}
		r.secrets.search(t, path, body)
	}
}

// stopped reports whether a process is under SIGSTOP.
func stopped(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	text := string(stat)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	return len(fields) == 0 || fields[0] == "T" || fields[0] == "Z"
}

// tokenOf is the admin token of an environment, empty without one.
func tokenOf(env Env) string {
	if path := env["ADMIN_TOKEN_FILE"]; path != "" {
		if text, err := os.ReadFile(path); err == nil {
			return strings.TrimSpace(string(text))
		}
	}
	return env["ADMIN_TOKEN"]
}
