package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Set by the linker (-X main.version=… -X main.commit=…) and never by the program.
var version, commit string

// buildInfo is which program this is.
type buildInfo struct {
	Version, Commit, Go string
}

// String is one line for people.
func (b buildInfo) String() string {
	return fmt.Sprintf("maskrelay %s (commit %s, %s)", b.Version, b.Commit, b.Go)
}

// readBuild asks the linker's variables first, then what the go command recorded.
func readBuild() buildInfo {
	info, _ := debug.ReadBuildInfo()
	return newBuildInfo(version, commit, info)
}

func newBuildInfo(version, commit string, info *debug.BuildInfo) buildInfo {
	b := buildInfo{Version: version, Commit: commit, Go: runtime.Version()}
	dirty := false
	if info != nil {
		if b.Version == "" {
			b.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision" && commit == "":
				b.Commit = s.Value
			case s.Key == "vcs.modified" && commit == "":
				dirty = s.Value == "true"
			}
		}
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "devel"
	}
	if b.Commit == "" {
		b.Commit = "unknown"
	} else if dirty {
		b.Commit += "-dirty"
	}
	return b
}

func newVersion(p process) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print version, commit and Go version",
		Example: "  maskrelay version",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if _, err := fmt.Fprintln(p.stdout, readBuild()); err != nil {
				return failed(err)
			}
			return nil
		},
	}
}
