package integration

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// vulnerability is the one entry of a database: every version of golang.org/x/net has it in a function.
func vulnerability(t *testing.T, function string) (database string) {
	t.Helper()
	const (
		modules = `[{"path":"golang.org/x/net","vulns":[{"id":"GO-2099-0001","modified":"2026-01-01T00:00:00Z"}]}]`
		entry   = `{"schema_version":"1.3.1","id":"GO-2099-0001","modified":"2026-01-01T00:00:00Z","published":"2026-01-01T00:00:00Z",` +
			`"details":"Planted by a test.","affected":[{"package":{"name":"golang.org/x/net","ecosystem":"Go"},` +
			`"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}],` +
			`"ecosystem_specific":{"imports":[{"path":"golang.org/x/net/http/httpguts","symbols":[%q]}]}}]}`
	)
	dir := t.TempDir()
	for path, text := range map[string]string{
		"index/db.json": `{"modified":"2026-01-01T00:00:00Z"}`, "index/modules.json": modules, "ID/GO-2099-0001.json": fmt.Sprintf(entry, function),
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return (&url.URL{Scheme: "file", Path: dir}).String()
}

// What "make lint" makes of the vulnerability database's answers: only a known vulnerability in a function that the code calls fails it.
func TestKnownVulnerabilitiesFailLint(t *testing.T) {
	dry, err := exec.Command("make", "-C", "..", "-n", "lint").CombinedOutput()
	if err != nil || !strings.Contains(string(dry), "\nintegration/vulns.sh\n") {
		t.Fatalf("make lint does not run the script: %v\n%s", err, dry)
	}
	const warning = "warning: known vulnerabilities were not looked for"
	for _, tc := range []struct {
		name, setting string
		ok            bool
		want          string
	}{
		{"called", "VULNDB=" + vulnerability(t, "ValidHeaderFieldName"), false, "GO-2099-0001"},
		{"not called", "VULNDB=" + vulnerability(t, "PunycodeHostPort"), true, ""},
		{"database cannot be reached", "HTTPS_PROXY=http://127.0.0.1:1", true, warning},
		{"database is not one", "VULNDB=file://" + filepath.Join(t.TempDir(), "none"), false, "creating client: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "./vulns.sh", "./upstream") // one package: it is the answers that matter
			cmd.Env = append(os.Environ(), "CI=true", tc.setting)
			out, err := cmd.CombinedOutput()
			if (err == nil) != tc.ok || !strings.Contains(string(out), tc.want) {
				t.Errorf("%v, want success %v and %q:\n%s", err, tc.ok, tc.want, out)
			}
			if warned := strings.Count(string(out), "\n") == 1 && strings.HasPrefix(string(out), warning); warned != (tc.want == warning) {
				t.Errorf("one line of warning: %v:\n%s", warned, out)
			}
		})
	}
}
