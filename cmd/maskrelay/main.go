// Command maskrelay relays customers' proxy traffic through a vendor's gateways, masked and capped.
//
// Without a sub-command it serves. All configuration comes from environment variables that begin with
// MASKRELAY_; `maskrelay check` validates them and shows what is in force.
//
// Exit codes: 0 done, 1 failed while running, 2 bad configuration or usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

const (
	exitFailed = 1
	exitConfig = 2
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], process{
		environ: os.Environ(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
	}))
}

// process is what a command has of the world.
type process struct {
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer
}

// exitError ends the program with a code. Errors of any other type are cobra's own, about usage.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }

func (e *exitError) Unwrap() error { return e.err }

func failed(err error) error { return &exitError{exitFailed, err} }

func badConfig(err error) error { return &exitError{exitConfig, err} }

// run executes one command line and returns the exit code. Errors go to standard error, one a line: those of the configuration begin
// with their variable, all others with the program's name.
func run(ctx context.Context, args []string, p process) int {
	root := newRoot(p)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		_, _ = fmt.Fprintf(p.stderr, "maskrelay: %s\nmaskrelay: see `%s --help`\n", oneLine(err), cmd.CommandPath())
		return exitConfig
	}
	prefix := "maskrelay: "
	if exit.code == exitConfig {
		prefix = ""
	}
	for _, e := range flatten(exit.err) {
		_, _ = fmt.Fprintf(p.stderr, "%s%s\n", prefix, oneLine(e))
	}
	return exit.code
}

// newRoot is the command tree. The root itself serves.
func newRoot(p process) *cobra.Command {
	root := newServe(p)
	root.Use = "maskrelay"
	root.Short = "Relay customers' proxy traffic through a vendor's gateways, masked and capped"
	root.Long = `Relay customers' proxy traffic through a vendor's gateways, masked and capped.

Without a command it serves, configured by environment variables that begin with MASKRELAY_.
Exit code 0 when done, 1 when it failed while running, 2 for a bad configuration or usage.`
	root.Example = "  MASKRELAY_UPSTREAM=http://user:password@gw.vendor.example:7777 \\\n" +
		"  MASKRELAY_ACCOUNTS=alice:secret:2000 maskrelay"
	root.Version = readBuild().String()
	root.SetVersionTemplate("{{.Version}}\n")
	root.SuggestionsMinimumDistance = 2
	root.SilenceUsage = true
	root.SilenceErrors = true
	root.Args = cobra.ArbitraryArgs // so that an unknown command is answered with suggestions below
	serve := root.RunE
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		return serve(cmd, args)
	}
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.AddCommand(newServe(p), newDemo(p), newCheck(p), newDoctor(p), newAudit(p), newVendors(p), newProxies(p),
		newHashPassword(p), newUsage(p), newAccounts(p), newHealth(p), newVersion(p))
	root.InitDefaultCompletionCmd()
	completionExamples(root)
	return root
}

func unknownCommand(cmd *cobra.Command, name string) error {
	err := fmt.Errorf("unknown command %q", name)
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		err = fmt.Errorf("%w; did you mean %s?", err, near[0])
	}
	return err
}

// completionExamples gives cobra's completion commands what all others have.
func completionExamples(root *cobra.Command) {
	examples := map[string]string{
		"completion": "  maskrelay completion bash",
		"bash":       "  source <(maskrelay completion bash)",
		"zsh":        "  maskrelay completion zsh > \"${fpath[1]}/_maskrelay\"",
		"fish":       "  maskrelay completion fish | source",
		"powershell": "  maskrelay completion powershell | Out-String | Invoke-Expression",
	}
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		c.Example = examples[c.Name()]
		for _, shell := range c.Commands() {
			shell.Example = examples[shell.Name()]
		}
	}
}
