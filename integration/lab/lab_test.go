package lab_test

import (
	"encoding/base64"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/masking"
)

func TestSearch(t *testing.T) {
	const mark = "mark-of-the-customer"
	encoded := base64.StdEncoding.EncodeToString([]byte(mark))
	cases := []struct {
		name   string
		pieces []string
		want   bool
	}{
		{"nothing", []string{"an innocent head"}, false},
		{"cut in two", []string{"x" + mark[:7], mark[7:] + "y"}, true},
		{"encoded in the first MiB", []string{encoded}, true},
		{"plain beyond the first MiB", []string{strings.Repeat("-", 1<<20), "--" + mark}, true},
		{"across the end of the first MiB", []string{strings.Repeat("-", 1<<20-5) + mark}, true},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			s := lab.NewSearch("stream", masking.NewMarks(mark))
			for _, piece := range tc.pieces {
				if n, err := s.Write([]byte(piece)); n != len(piece) || err != nil {
					t.Fatalf("Write: %d, %v", n, err)
				}
			}
			if got := len(s.Leaks()) > 0; got != tc.want {
				t.Errorf("leaks %v, want any: %v", s.Leaks(), tc.want)
			}
		})
	}
}

func TestFreePortsAreFreeAndDiffer(t *testing.T) {
	given := map[string]bool{}
	for range 50 {
		addr := lab.FreeAddr(t)
		if given[addr] {
			t.Fatalf("%s was given twice", addr)
		}
		given[addr] = true
		ln, err := net.Listen("tcp4", addr)
		if err != nil {
			t.Fatal(err)
		}
		if !lab.Listening(addr) {
			t.Errorf("%s has a listener", addr)
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestProcess(t *testing.T) {
	p := lab.Start(t, "sh", exec.Command("sh", "-c", "echo out; echo err >&2; exit 3"))
	if code := p.ExitCode(t, 10*time.Second); code != 3 {
		t.Errorf("exit code %d", code)
	}
	if !p.Stdout.Contains("out\n") || !p.Stderr.Contains("err\n") || p.Running() {
		t.Errorf("stdout %q, stderr %q, running %v", p.Stdout.Bytes(), p.Stderr.Bytes(), p.Running())
	}
}

func TestPollEnds(t *testing.T) {
	looks := 0
	if lab.Poll(30*time.Millisecond, func() bool { looks++; return false }) || looks < 2 {
		t.Errorf("gave up after %d looks", looks)
	}
	if !lab.Poll(time.Minute, func() bool { return true }) {
		t.Error("a true state was not seen")
	}
}
