package main

import (
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestBuildInfo(t *testing.T) {
	vcs := &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}}}
	for _, c := range []struct {
		name            string
		version, commit string
		info            *debug.BuildInfo
		want            string
	}{
		{"by the linker", "2.0.0", "def", vcs, "maskrelay 2.0.0 (commit def, "},
		{"by go install", "", "", vcs, "maskrelay v1.2.3 (commit abc-dirty, "},
		{"by go build", "", "", &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, "maskrelay devel (commit unknown, "},
		{"by nobody", "", "", nil, "maskrelay devel (commit unknown, "},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := newBuildInfo(c.version, c.commit, c.info).String(); got != c.want+runtime.Version()+")" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestVersionCommand(t *testing.T) {
	byCommand, byFlag := runWith(nil, "", "version"), runWith(nil, "", "--version")
	if byCommand.code != 0 || !strings.HasPrefix(byCommand.stdout, "maskrelay ") || byCommand != byFlag {
		t.Errorf("version: %+v, --version: %+v", byCommand, byFlag)
	}
}
