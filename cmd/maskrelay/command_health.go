package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	healthTimeout = 2 * time.Second
	maxHealthBody = 4 << 10 // of the reasons that are shown
)

func newHealth(p process) *cobra.Command {
	return &cobra.Command{
		Use:   "health",
		Short: "Ask the running relay whether it is ready",
		Long: `Ask /readyz at MASKRELAY_ADMIN_LISTEN, within 2 seconds. Exit code 0 when ready, else 1 with the reason.
Meant for a container's HEALTHCHECK; no other variable is read.`,
		Example: "  maskrelay health && echo ready",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			address, err := adminAddress(p.environ)
			if err != nil {
				return failed(err)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), healthTimeout)
			defer cancel()
			if err := askReady(ctx, address); err != nil {
				return failed(fmt.Errorf("health: %w", err))
			}
			_, err = fmt.Fprintln(p.stdout, "ready")
			if err != nil {
				return failed(err)
			}
			return nil
		},
	}
}

// adminAddress is where the relay that was started with environ can be asked from this machine.
func adminAddress(environ []string) (string, error) {
	c, err := loadSome(environ, "ADMIN_LISTEN")
	if err != nil {
		return "", err
	}
	if c.Admin.AdminListen == "" {
		return "", errors.New(envPrefix + "ADMIN_LISTEN: empty, so the relay has no admin server to ask")
	}
	return c.Admin.AdminListen.fromHere(), nil
}

// askReady is nil if the relay says that it is ready. No proxy of the environment is used and no redirect followed.
func askReady(ctx context.Context, address string) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return err
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxHealthBody))
	if err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSuffix(res.Status+": "+strings.TrimSpace(string(body)), ": "))
	}
	return nil
}
