package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// sources returns the text of the module's Go files, those of tests or the others.
func sources(t *testing.T, tests bool) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir("../..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") != tests {
			return err
		}
		b, err := os.ReadFile(path)
		all.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// named returns what a document says that matches.
func named(t *testing.T, document, pattern string) []string {
	t.Helper()
	b, err := os.ReadFile("../../" + document)
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(pattern).FindAllString(string(b), -1)
	if len(names) < 10 {
		t.Fatalf("only %d names in %s", len(names), document)
	}
	return names
}

// TestPromisesHaveTests: a promise rests on tests that are there.
func TestPromisesHaveTests(t *testing.T) {
	tests := sources(t, true)
	for _, name := range named(t, "SECURITY.md", `\b(Test|Fuzz)[A-Z]\w+`) {
		if !strings.Contains(tests, "\nfunc "+name+"(") {
			t.Errorf("SECURITY.md names %s, which is nowhere", name)
		}
	}
}

// TestReadmesMetricsExist: alerts are written after the README. Most names are put together from maskrelay_ and the rest.
func TestReadmesMetricsExist(t *testing.T) {
	code := sources(t, false)
	for _, name := range named(t, "README.md", `\bmaskrelay_[a-z_]+`) {
		rest := strings.TrimPrefix(name, "maskrelay_")
		if !strings.Contains(code, `"`+name+`"`) && !strings.Contains(code, `"`+rest+`"`) && !strings.Contains(code, `"`+strings.TrimPrefix(rest, "upstream_")+`"`) {
			t.Errorf("README.md names the metric %s, which is nowhere", name)
		}
	}
}
