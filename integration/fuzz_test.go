package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const fuzzedModule = `package fuzzed

import (
	"bytes"
	"testing"
)

func FuzzGood(f *testing.F) {
	f.Add([]byte("x"))
	f.Fuzz(func(*testing.T, []byte) {})
}

func FuzzBad(f *testing.F) {
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if !bytes.Equal(b, []byte("x")) {
			t.Error("planted")
		}
	})
}

func FuzzBadSeed(f *testing.F) {
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, _ []byte) { t.Error("planted") })
}
`

// What "make fuzz" makes of targets: a failing one is named with its input and fails it, after the others had their turn.
func TestFailingFuzzTargetFailsMake(t *testing.T) {
	dir := t.TempDir()
	script, err := os.ReadFile("fuzz.sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "integration"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		"go.mod": "module fuzzed\n\ngo 1.26.0\n", "fuzzed.go": "package fuzzed\n", "fuzzed_test.go": fuzzedModule, "integration/fuzz.sh": string(script),
	} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name string
		args []string
		ok   bool
		want []string
	}{
		{"all", nil, false, []string{
			"fuzzed FuzzGood of fuzzed", "FAIL: fuzz target FuzzBad of fuzzed", "input: " + dir + "/testdata/fuzz/FuzzBad/", "FAIL: fuzz target FuzzBadSeed of fuzzed",
		}},
		{"one", []string{"FuzzGood"}, true, []string{"fuzzed FuzzGood of fuzzed"}},
		{"none", []string{"FuzzAbsent"}, false, []string{"no such target: FuzzAbsent"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "integration/fuzz.sh"), tc.args...)
			cmd.Env = append(os.Environ(), "FUZZTIME=2s", "FUZZ_JOBS=2", "GOFLAGS=")
			out, err := cmd.CombinedOutput()
			if (err == nil) != tc.ok {
				t.Errorf("%v, want success %v", err, tc.ok)
			}
			for _, want := range tc.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
		})
	}
	for _, ci := range []string{"true", ""} {
		dry, err := exec.CommandContext(t.Context(), "make", "-C", "..", "-n", "test", "CI="+ci).CombinedOutput()
		if err != nil || strings.Contains(string(dry), "fuzz.sh") != (ci == "true") {
			t.Errorf("make test with CI=%q: %v\n%s", ci, err, dry)
		}
	}
}
