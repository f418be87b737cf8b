package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"maskrelay/upstream/vendor"
)

// maxProxies is how many lines one list has at most.
const maxProxies = 100_000

// maxCompleted bounds the names that the shell is offered.
const maxCompleted = 200

// proxiesQuestion is what the flags ask for.
type proxiesQuestion struct {
	user         string
	wishes       wishes
	sticky       string // how long a session lives; "" = none
	count        int
	format       string
	host         string // "" = look for it
	passwordFile string // "-" = standard input; "" = none
	asJSON       bool
}

// wishes are the username parameters of all lines, as they are written there; "" = not given.
type wishes struct{ country, state, city, zip, asn, pool string }

func newProxies(p process) *cobra.Command {
	var q proxiesQuestion
	cmd := &cobra.Command{
		Use:   "proxies",
		Short: "Print a customer's proxy list, ready to paste into task settings",
		Long: `Print proxy lines of an account, ready to paste into task settings. The environment is serve's; nothing is dialled, and
the relay need not run.

Country, state, city, zip and asn are checked as the relay would check them: what no gateway of the customer's pool can do is
an error here too. Spaces and dashes in them become underscores. With --sticky every line has a session of its own, by which
it keeps its address for that time; without, all lines are the same.

The host is --host, else MASKRELAY_PUBLIC_ADDR, else the listener's own address, or this machine's name if that listens on
all addresses. A password that the accounts file has as a hash, or that a hook or Redis knows, must be given by
--password-file, which is compared with the hash; - is standard input. The lines hold the password: treat them as it.

Exit code 0, 2 for bad flags or variables.`,
		Example: "  maskrelay proxies --user alice\n" +
			"  maskrelay proxies --user alice --country us --city new_york --sticky 10m --count 500 >proxies.txt\n" +
			"  maskrelay proxies --user bob --password-file - --format url --host proxy.example.com:8080 <password.txt\n" +
			"  curl -x \"$(maskrelay proxies --user alice --format url)\" https://example.com/",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := q.validate(cmd); err != nil {
				return err
			}
			return runProxies(cmd.Context(), p, q)
		},
	}
	q.addFlags(cmd, p)
	return cmd
}

func (q *proxiesQuestion) addFlags(cmd *cobra.Command, p process) {
	f := cmd.Flags()
	f.StringVar(&q.user, "user", "", "account whose list it is")
	f.StringVar(&q.wishes.country, "country", "", "two letters, as us")
	f.StringVar(&q.wishes.state, "state", "", "as new_york")
	f.StringVar(&q.wishes.city, "city", "", "as los_angeles")
	f.StringVar(&q.wishes.zip, "zip", "", "postal code")
	f.StringVar(&q.wishes.asn, "asn", "", "number of the network, as 7922")
	f.StringVar(&q.wishes.pool, "pool", "", "pool of gateways, if the account may choose it")
	f.StringVar(&q.sticky, "sticky", "", "a session of its own for each line, for this long, as 10m")
	f.IntVar(&q.count, "count", 1, fmt.Sprintf("number of lines, up to %d", maxProxies))
	f.StringVar(&q.format, "format", formatColons, strings.Join(proxyFormats, ", "))
	f.StringVar(&q.host, "host", "", "host or host:port that customers use")
	f.StringVar(&q.passwordFile, "password-file", "", "file with the password; - is standard input")
	f.BoolVar(&q.asJSON, "json", false, "print a JSON array of objects")
	complete := func(flag string, f cobra.CompletionFunc) { cobra.CheckErr(cmd.RegisterFlagCompletionFunc(flag, f)) }
	complete("format", cobra.FixedCompletions(proxyFormats, cobra.ShellCompDirectiveNoFileComp))
	complete("sticky", cobra.FixedCompletions([]string{"1m", "10m", "30m", "1h"}, cobra.ShellCompDirectiveNoFileComp))
	complete("user", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return accountNames(p.environ), cobra.ShellCompDirectiveNoFileComp
	})
	for _, flag := range []string{"country", "state", "city", "zip", "asn", "pool", "count", "host"} {
		complete(flag, cobra.NoFileCompletions)
	}
}

// validate reports every flag that cannot work by itself, as usage errors, and cleans up what can be meant in one way only.
func (q *proxiesQuestion) validate(cmd *cobra.Command) error {
	var errs []error
	changed := cmd.Flags().Changed
	if q.user == "" {
		errs = append(errs, errors.New("--user: missing; whose list is it?"))
	}
	if q.count < 1 || q.count > maxProxies {
		errs = append(errs, fmt.Errorf("--count: %d is not between 1 and %d", q.count, maxProxies))
	}
	switch {
	case !slices.Contains(proxyFormats, q.format):
		errs = append(errs, fmt.Errorf("--format: %q is not one of %s", q.format, strings.Join(proxyFormats, ", ")))
	case q.asJSON && changed("format"):
		errs = append(errs, errors.New("--format: has no effect with --json"))
	}
	if q.host != "" {
		if _, _, err := splitPublic(q.host); err != nil {
			errs = append(errs, fmt.Errorf("--host: %w", err))
		}
	}
	words := strings.NewReplacer(" ", "_", "-", "_")
	q.wishes.state, q.wishes.city = words.Replace(q.wishes.state), words.Replace(q.wishes.city)
	for _, f := range q.flags() {
		if changed(f.name) && *f.value == "" {
			errs = append(errs, fmt.Errorf("--%s: empty", f.name))
		}
		// Here a value could become another parameter, and the relay would not see it.
		if strings.Contains(*f.value, "-") {
			errs = append(errs, fmt.Errorf("--%s: %q has a dash, which ends a username parameter", f.name, *f.value))
		}
		if f.key != vendor.Pool && f.key != vendor.TTL { // of those two, letters have a case
			*f.value = strings.ToLower(*f.value)
		}
	}
	for _, name := range []string{"host", "password-file"} {
		if value, err := cmd.Flags().GetString(name); changed(name) && value == "" && err == nil {
			errs = append(errs, fmt.Errorf("--%s: empty", name))
		}
	}
	return errors.Join(errs...)
}

// wishFlag is a flag whose value becomes that of a username parameter.
type wishFlag struct {
	name  string
	key   vendor.Key
	value *string
}

// flags are those of the wishes, in the order of the username.
func (q *proxiesQuestion) flags() []wishFlag {
	w := &q.wishes
	return []wishFlag{
		{"country", vendor.Country, &w.country}, {"state", vendor.State, &w.state}, {"city", vendor.City, &w.city},
		{"zip", vendor.Zip, &w.zip}, {"asn", vendor.ASN, &w.asn}, {"sticky", vendor.TTL, &q.sticky}, {"pool", vendor.Pool, &w.pool},
	}
}

// params are the username parameters of a line with that session, "" without any.
func (q *proxiesQuestion) params(session string) string {
	var b strings.Builder
	pair := func(key vendor.Key, value string) {
		if value == "" {
			return
		}
		if b.Len() > 0 {
			b.WriteByte('-')
		}
		b.WriteString(string(key) + "-" + value)
	}
	for _, f := range q.flags() {
		if f.key == vendor.TTL && *f.value != "" {
			pair(vendor.Session, session)
		}
		pair(f.key, *f.value)
	}
	return b.String()
}

// flagOf names the flag that a parameter came from.
func (q *proxiesQuestion) flagOf(key vendor.Key) string {
	for _, f := range q.flags() {
		if f.key == key {
			return f.name
		}
	}
	return "sticky" // the session
}

func runProxies(ctx context.Context, p process, q proxiesQuestion) error {
	cfg, err := LoadConfig(p.environ)
	if err != nil {
		return badConfig(err)
	}
	list := proxyList{question: q}
	for _, step := range []func() error{
		func() error { return list.findAccount(cfg) },
		func() error { return list.findHost(cfg) },
		func() error { return checkWishes(cfg, &list) },
		func() error { return list.findPassword(ctx, cfg, p.stdin) },
		list.checkLogin,
	} {
		if err := step(); err != nil {
			return badConfig(err)
		}
	}
	for _, warning := range list.allWarnings() {
		if _, err := fmt.Fprintf(p.stderr, "warning: %s\n", warning); err != nil {
			return failed(err)
		}
	}
	if err := list.write(p.stdout); err != nil {
		return failed(fmt.Errorf("proxies: %w", err))
	}
	return nil
}

// accountNames are names that the shell may offer: of the accounts file and the list, sorted.
func accountNames(environ []string) []string {
	cfg, err := LoadConfig(environ)
	if err != nil || cfg.Accounts == nil {
		return nil
	}
	names := namesOf(cfg)
	slices.Sort(names)
	return names[:min(len(names), maxCompleted)]
}
