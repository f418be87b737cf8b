package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Build is which binary of the relay a test runs.
type Build string

const (
	// Tested has the race detector when the tests have it. Behaviour is tested with it.
	Tested Build = "tested"
	// Plain is without the race detector, for memory and speed.
	Plain Build = "plain"
)

// binaries builds each binary once per test process, on first use.
type binaries struct {
	dir   func() (string, error)
	mu    sync.Mutex
	paths map[Build]string
}

var built = &binaries{
	dir:   sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "maskrelay-lab-") }),
	paths: map[Build]string{},
}

// Binary returns the path of the relay's binary, building it on first use.
func Binary(t testing.TB, b Build) string {
	t.Helper()
	path, err := built.get(b)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (b *binaries) get(which Build) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if which == Tested && !raceEnabled {
		which = Plain
	}
	if path, ok := b.paths[which]; ok {
		return path, nil
	}
	dir, err := b.dir()
	if err != nil {
		return "", fmt.Errorf("directory for the binary: %w", err)
	}
	path := filepath.Join(dir, "maskrelay-"+string(which))
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-X main.version=0.0.0-test -X main.commit=0123456789ab", "-o", path}
	if which == Tested {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "maskrelay/cmd/maskrelay")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the relay: %w\n%s", err, out)
	}
	b.paths[which] = path
	return path, nil
}

// CleanUp removes the binaries; TestMain calls it after the last test.
func CleanUp() error {
	built.mu.Lock()
	defer built.mu.Unlock()
	if len(built.paths) == 0 {
		return nil
	}
	dir, err := built.dir()
	if err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
