package main

import (
	"errors"
	"fmt"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func newDemo(p process) *cobra.Command {
	o := demoOptions{Listen: "127.0.0.1:8080", Admin: "127.0.0.1:9090"}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole path on loopback: a vendor, a target, the relay, a customer",
		Long: `Start a stand-in vendor with its own credentials, a target site, the relay in front and one customer, all in this
process and on loopback. Print the proxy's URL, a curl line to paste, and the admin address; then send a little traffic.

No MASKRELAY_ variable is read, nothing needs to be installed. Ctrl-C ends it.`,
		Example: "  maskrelay demo\n  maskrelay demo --for 30s --listen 127.0.0.1:18080 --admin 127.0.0.1:19090",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkDemo(o); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			if err := runDemo(ctx, o, p.stdout); err != nil {
				return failed(fmt.Errorf("demo: %w", err))
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&o.For, "for", 0, "end after this time; 0 = only by a signal")
	cmd.Flags().StringVar(&o.Listen, "listen", o.Listen, "address of the proxy")
	cmd.Flags().StringVar(&o.Admin, "admin", o.Admin, "address of health, metrics and API")
	return cmd
}

// checkDemo reports every flag that cannot work, as usage errors.
func checkDemo(o demoOptions) error {
	var errs []error
	if o.For < 0 {
		errs = append(errs, fmt.Errorf("--for %s is below 0", o.For))
	}
	listen, err := parseAddress(o.Listen)
	if err != nil {
		errs = append(errs, fmt.Errorf("--listen: %w", err))
	}
	admin, adminErr := parseAddress(o.Admin)
	if adminErr != nil {
		errs = append(errs, fmt.Errorf("--admin: %w", adminErr))
	}
	if err == nil && adminErr == nil && listen.conflicts(admin) {
		errs = append(errs, fmt.Errorf("--admin %s is taken by --listen %s", admin, listen))
	}
	return errors.Join(errs...)
}
