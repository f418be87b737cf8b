//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Roles of this program.
const (
	roleVendor    = "vendor"
	roleGenerator = "generator"
	roleGoproxy   = "goproxy"
	roleSplice    = "go-splice"
)

var roles = map[string]func() error{roleVendor: runVendor, roleGenerator: runGenerator, roleGoproxy: runGoproxy, roleSplice: runSplice}

func main() { os.Exit(run()) }

// run returns the exit code: 1 when the bench could not be run, 2 for wrong flags.
func run() int {
	if role := os.Getenv(roleVariable); role != "" {
		return code(play(role))
	}
	opt, err := parseOptions(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 2
	}
	if os.Getenv(insideVariable) != inOwnNamespace {
		if code, ok := inNamespace(); ok {
			return code
		}
	} else if err := furnish(); err != nil {
		return code(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return code(runBench(ctx, opt))
}

// play runs a role to its end.
func play(role string) error {
	run, ok := roles[role]
	if !ok {
		return fmt.Errorf("%s: unknown role %q", roleVariable, role)
	}
	return run()
}

func code(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}
