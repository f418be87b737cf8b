package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// FUNC keeps fuzz.sh from taking these for targets of this package.
const fuzzedModule = `package fuzzed

import (
	"bytes"
	"testing"
)

FUNC FuzzGood(f *testing.F) {
	f.Add([]byte("x"))
	f.Fuzz(func(*testing.T, []byte) {})
}

FUNC FuzzBad(f *testing.F) {
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if !bytes.Equal(b, []byte("x")) {
			t.Error("planted")
		}
	})
}

FUNC FuzzBadSeed(f *testing.F) {
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, _ []byte) { t.Error("planted") })
}
`

// fuzzTime is a time in which a failing target fails, or a number of inputs, which takes a slow machine longer but is certain.
func fuzzTime(ok bool) string {
	if ok {
		return "50x"
	}
	return "2s"
}

// What "make fuzz" makes of targets: a failing one is named with its input and fails it, after the others had their turn.
func TestFailingFuzzTargetFailsMake(t *testing.T) {
	dir := t.TempDir()
	script, err := os.ReadFile("fuzz.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"integration", "broken", "words"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range map[string]string{
		"go.mod": "module fuzzed\n\ngo 1.26.0\n", "fuzzed.go": "package fuzzed\n", "fuzzed_test.go": strings.ReplaceAll(fuzzedModule, "FUNC", "func"), "integration/fuzz.sh": string(script),
		"broken/broken.go": "package broken\n", "broken/broken_test.go": "package broken\n\nimport \"testing\"\n\nfunc FuzzBroken(f *testing.F) { nothing() }\n",
		"words/words_test.go": "package words\n\nvar _ = `\nfunc FuzzWord(f *testing.F) {}\n`\n",
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
		{"does not compile", []string{"FuzzBroken"}, false, []string{"FAIL: fuzz target FuzzBroken of fuzzed/broken", "undefined: nothing"}},
		{"only in a string", []string{"FuzzWord"}, false, []string{"FAIL: there is no fuzz target FuzzWord in fuzzed/words"}},
		{"one", []string{"FuzzGood"}, true, []string{"fuzzed FuzzGood of fuzzed: execs: "}},
		{"none", []string{"FuzzAbsent"}, false, []string{"no such target: FuzzAbsent"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "integration/fuzz.sh"), tc.args...)
			cmd.Env = append(os.Environ(), "FUZZTIME="+fuzzTime(tc.ok), "FUZZ_JOBS=2", "GOFLAGS=")
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
