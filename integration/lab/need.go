package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Missing skips the test because part is not on this machine, and fails it where the environment says CI=true.
func Missing(t testing.TB, part, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("missing part: %s (%s); integration/install-parts.sh installs it", part, why)
	}
	t.Skipf("missing part: %s (%s)", part, why)
}

// Need returns the path of each program, or ends the test by Missing. A name with a slash is a file that must exist.
func Need(t testing.TB, programs ...string) []string {
	t.Helper()
	paths := make([]string, 0, len(programs))
	for _, name := range programs {
		path, err := find(name)
		if err != nil {
			Missing(t, name, err.Error())
		}
		paths = append(paths, path)
	}
	return paths
}

// find looks in PATH and where Debian keeps daemons, which a user's PATH often leaves out.
func find(name string) (string, error) {
	if strings.Contains(name, "/") {
		_, err := os.Stat(name)
		return name, err
	}
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if p, sbinErr := exec.LookPath(filepath.Join(dir, name)); sbinErr == nil {
			return p, nil
		}
	}
	return "", err
}
