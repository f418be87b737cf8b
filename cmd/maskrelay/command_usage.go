package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"maskrelay/proxy/fleet"
	"maskrelay/proxy/usage"
	"maskrelay/proxy/usage/redisusage"
)

const (
	usageTimeout     = 30 * time.Second // of the whole command: a report may be about 100,000 accounts
	usageDialTimeout = 2 * time.Second
	maxUsageReply    = 256 << 20 // far beyond usage.MaxNames rows
)

// usageQuestion is what the flags ask for.
type usageQuestion struct {
	usage.Query
	format string
}

func newUsage(p process) *cobra.Command {
	var account, since, format string
	cmd := &cobra.Command{
		Use:   "usage",
		Short: "Print bytes and connections per account",
		Long: `Print what accounts have moved, in bytes as the customer sees them, and how many connections they opened.

The running relay at MASKRELAY_ADMIN_LISTEN is asked, with MASKRELAY_ADMIN_TOKEN if that is set. Where none listens, the
ledger is read instead: Redis at MASKRELAY_REDIS_URL, or the file MASKRELAY_USAGE_FILE. With Redis the figures are the
fleet's, less what relays have not booked yet, which is seconds old.

--since is a time ago (24h, 7d), a date in UTC (2026-11-01) or a time (2026-11-01T12:00:00Z); the ledger goes back to the
beginning of that hour, day or month, as finely as it still knows, and each row says from when. Sizes in the table are powers
of 1000; csv and json have exact bytes.

Exit code 0, 1 when nobody could be asked, 2 for bad flags or variables.`,
		Example: "  maskrelay usage\n  maskrelay usage --account alice --since 7d\n  maskrelay usage --since 2026-11-01 --format csv >november.csv",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := parseUsage(cmd.Flags().Changed("account"), account, since, format)
			if err != nil {
				return err
			}
			return runUsage(cmd.Context(), p, q)
		},
	}
	cmd.Flags().StringVar(&account, "account", "", "this account only")
	cmd.Flags().StringVar(&since, "since", "", "from this time on; the beginning of the month (UTC) if left out")
	cmd.Flags().StringVar(&format, "format", "table", "table, csv or json")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(usageFormats, cobra.ShellCompDirectiveNoFileComp)))
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("account", cobra.NoFileCompletions))
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("since", cobra.FixedCompletions([]string{"24h", "7d", "30d"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// parseUsage reports every flag that cannot work, as usage errors.
func parseUsage(accountGiven bool, account, since, format string) (usageQuestion, error) {
	var errs []error
	q := usageQuestion{usage.Query{Account: account}, format}
	if accountGiven && (account == "" || len(account) > usage.MaxName) {
		errs = append(errs, fmt.Errorf("--account: not a name of 1 to %d bytes", usage.MaxName))
	}
	var err error
	if q.Since, err = parseSince(since, time.Now().UTC()); err != nil {
		errs = append(errs, fmt.Errorf("--since: %w", err))
	}
	if !slices.Contains(usageFormats, format) {
		errs = append(errs, fmt.Errorf("--format: %q is not one of %s", format, strings.Join(usageFormats, ", ")))
	}
	return q, errors.Join(errs...)
}

// parseSince reads a time ago, a date or a time; nothing is the beginning of now's month.
func parseSince(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t, err = time.Parse(time.DateOnly, s)
	}
	if err != nil {
		ago, ok := parseAgo(s)
		if !ok {
			return time.Time{}, fmt.Errorf("%q is not a time; write 24h, 7d, 2026-11-01 or 2026-11-01T12:00:00Z", s)
		}
		return now.Add(-ago), nil
	}
	if t.After(now) {
		return time.Time{}, fmt.Errorf("%q lies ahead", s)
	}
	return t, nil
}

// parseAgo reads a positive duration, or whole days as 7d.
func parseAgo(s string) (time.Duration, bool) {
	const maxDays = 36500
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 32)
		return time.Duration(n) * 24 * time.Hour, err == nil && n > 0 && n <= maxDays
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d > 0
}

func runUsage(ctx context.Context, p process, q usageQuestion) error {
	cfg, err := loadSome(p.environ, "ADMIN_LISTEN", "ADMIN_TOKEN", "REDIS_URL", "REDIS_CA_FILE", "NODE_NAME", "USAGE_FILE")
	if err != nil {
		return badConfig(err)
	}
	ctx, cancel := context.WithTimeout(ctx, usageTimeout)
	defer cancel()
	rows, err := usageRows(ctx, cfg, q.Query)
	if err != nil {
		return failed(fmt.Errorf("usage: %w", err))
	}
	if err := writeUsage(p.stdout, q, rows); err != nil {
		return failed(err)
	}
	return nil
}

// usageRows asks the running relay, or reads the ledger if none listens.
func usageRows(ctx context.Context, cfg *Config, q usage.Query) ([]usageRow, error) {
	nobody := errors.New(envPrefix + "ADMIN_LISTEN is empty")
	if cfg.Admin.AdminListen != "" {
		rows, err := askUsage(ctx, cfg.Admin, q)
		var dial *net.OpError
		if !errors.As(err, &dial) || dial.Op != "dial" {
			return rows, err
		}
		nobody = dial
	}
	rows, err := ledgerRows(ctx, cfg, q)
	if err != nil {
		return nil, fmt.Errorf("no relay could be asked (%w), and %w", nobody, err)
	}
	return rows, nil
}

func ledgerRows(ctx context.Context, cfg *Config, q usage.Query) ([]usageRow, error) {
	ledger, err := openLedger(cfg)
	if err != nil {
		return nil, err
	}
	rows, err := ledger.Report(ctx, q)
	if err = errors.Join(err, ledger.Close()); err != nil {
		return nil, err
	}
	out := make([]usageRow, len(rows))
	for i, r := range rows {
		out[i] = usageRow{r.Account, r.Sent, r.Received, r.Connections, r.From, r.To}
	}
	return out, nil
}

// usageReader is what the command needs of a ledger.
type usageReader interface {
	Report(ctx context.Context, q usage.Query) ([]usage.Row, error)
	Close() error
}

// openLedger opens the ledger that serve would keep. The caller closes it.
func openLedger(cfg *Config) (usageReader, error) {
	if cfg.Fleet != nil {
		client, err := fleet.Open(*cfg.Fleet)
		if err != nil {
			return nil, err
		}
		return fleetLedger{redisusage.New(client), client}, nil
	}
	if cfg.UsageFile == "" {
		return nil, fmt.Errorf("neither %[1]sREDIS_URL nor %[1]sUSAGE_FILE names a ledger", envPrefix)
	}
	// Opening would make the file.
	if _, err := os.Stat(cfg.UsageFile); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%sUSAGE_FILE: %w", envPrefix, err)
	}
	return usage.OpenFile(cfg.UsageFile)
}

// askUsage asks the relay behind the admin address. No proxy of the environment is used and no redirect followed.
func askUsage(ctx context.Context, admin AdminConfig, q usage.Query) (rows []usageRow, err error) {
	parameters := url.Values{"since": {q.Since.UTC().Format(time.RFC3339)}, "format": {"json"}}
	if q.Account != "" {
		parameters.Set("account", q.Account)
	}
	address := admin.AdminListen.fromHere()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/api/v1/usage?"+parameters.Encode(), nil)
	if err != nil {
		return nil, err
	}
	if admin.AdminToken != "" {
		req.Header.Set("Authorization", "Bearer "+admin.AdminToken.Reveal())
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: usageDialTimeout}).DialContext},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the relay at %s: %w", address, errors.Unwrap(err)) // less the method and the long URL
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	rows, err = readUsageReply(res)
	if err != nil {
		return nil, fmt.Errorf("the relay at %s: %w", address, err)
	}
	return rows, nil
}

// readUsageReply takes the rows out of the API's answer.
func readUsageReply(res *http.Response) ([]usageRow, error) {
	if res.StatusCode != http.StatusOK {
		var reply struct{ Error string }
		body, err := io.ReadAll(io.LimitReader(res.Body, maxHealthBody))
		if err == nil && json.Unmarshal(body, &reply) != nil {
			reply.Error = ""
		}
		err = errors.New(strings.TrimSuffix(res.Status+": "+visible(reply.Error), ": "))
		if res.StatusCode == http.StatusUnauthorized {
			err = fmt.Errorf("%w; is %sADMIN_TOKEN the relay's?", err, envPrefix)
		}
		return nil, err
	}
	var reply struct {
		Usage *[]usageRow `json:"usage"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxUsageReply)).Decode(&reply); err != nil {
		return nil, fmt.Errorf("the answer is no usage: %w", err)
	}
	if reply.Usage == nil {
		return nil, errors.New("the answer is no usage")
	}
	return *reply.Usage, nil
}

// fleetLedger closes its own way to Redis.
type fleetLedger struct {
	usageReader
	client *fleet.Client
}

// Report implements usageReader, and says what is the matter with Redis.
func (l fleetLedger) Report(ctx context.Context, q usage.Query) ([]usage.Row, error) {
	rows, err := l.usageReader.Report(ctx, q)
	return rows, fleet.Explain(err)
}

// Close implements usageReader.
func (l fleetLedger) Close() error { return errors.Join(l.usageReader.Close(), l.client.Close()) }
