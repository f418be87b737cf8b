package main

import (
	"github.com/spf13/cobra"
)

func newServe(p process) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Relay until SIGTERM or SIGINT, then drain",
		Long: `Read the configuration from the environment, log it with secrets redacted, and relay.

SIGTERM or SIGINT drains: not ready for MASKRELAY_DRAIN_GRACE, then no new connections and at most
MASKRELAY_DRAIN_TIMEOUT for the open ones; a second signal cuts them. SIGHUP re-reads accounts and certificates.

Exit code 0 when drained, 1 when it failed while running, 2 for a bad configuration.`,
		Example: "  MASKRELAY_UPSTREAM=http://user:password@gw.vendor.example:7777 \\\n" +
			"  MASKRELAY_ACCOUNTS_FILE=/etc/maskrelay/accounts.yaml maskrelay serve",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := LoadConfig(p.environ)
			if err != nil {
				return badConfig(err)
			}
			if err := runServe(cmd.Context(), cfg, p.stderr); err != nil {
				return failed(err)
			}
			return nil
		},
	}
}
