package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"maskrelay/upstream/upstreamtest/audit"
)

// auditFlags are the command line.
type auditFlags struct {
	asJSON, live, list bool
	target, only       string
	timeout            time.Duration
	stages             int
	targetURL          *url.URL
}

const (
	auditTimeout = 15 * time.Minute
	maxStages    = 64
)

func newAudit(p process) *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Prove the mask: this configuration between a hostile vendor and a proxy judge",
		Long: `Prove the mask on this configuration. Relays with its policy (BRAND, VENDOR_MARKS, STRIP_*, the gateways' presets, logins and
templates) run in this process, on loopback, between a scripted hostile vendor and a target that judges proxies. Every case goes by
CONNECT, plain HTTP and websocket, through http, https and socks5 gateways, and comes to a plain and to a TLS listener. Every byte that
customer, vendor and target received is searched: for the vendor's names, domains, addresses and credentials; for the customer's
address, account, password, session and fields; for the relay's own traces. Also: the relay's own replies must be the same for every cause.

It reads the environment as serve does, and touches nothing of it: no running relay, gateway, Redis, hook, webhook or usage file. The customer
is a planted one. In a plain answer below 400 the body is the target's: what a vendor writes there instead cannot be told from it, and is not judged.

--live goes on to the real gateways, with eight real requests each, which the vendor bills as any: what does this vendor show to a client
of his own, does anything of it come through the relay, and which of it does no list know.

Exit code 0 when all is masked, 1 on any leak or wrong answer, 2 for a bad configuration or usage.

In the table CASES are exchanges: one for each case in this way, by this gateway, to this listener. LEAKS are those in which somebody received
what he must not, WRONG those whose answer was not the right one without that. In the lists | stands for a line's end.

JSON: ok, summary, exchanges, seconds, matrix (way, scheme, listener, cases, passed, leaks, failures), leak_count, leak_marks (where, mark,
count), leaks (case, gateway, scheme, way, listener, where, mark, offset, excerpt; 1000 at most), failure_count, failures (case…, problem, excerpt), replies (status, closes, count,
bytes); with --live also live (gateway, url, asked (request, vendor_shows, fields, error, relay_status), leaks, advice, problem).`,
		Example: "  maskrelay audit\n  maskrelay audit --json | jq '.leaks[]'\n  maskrelay audit --list | grep 407\n  maskrelay audit --case 407,own-\n  maskrelay audit --live --target https://shop.example/",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if f.list {
				_, err := fmt.Fprintln(p.stdout, strings.Join(audit.Names(), "\n"))
				return err
			}
			return runAudit(ctx, p, f)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	flags.BoolVar(&f.live, "live", false, "also ask the real gateways; costs a few requests at each vendor")
	flags.StringVar(&f.target, "target", "", "what --live asks for: an http or https URL (default as doctor's)")
	flags.StringVar(&f.only, "case", "", "only the cases whose name holds one of these texts, comma-separated; see --list")
	flags.BoolVar(&f.list, "list", false, "print the names of the cases, and do nothing else")
	flags.DurationVar(&f.timeout, "timeout", auditTimeout, "end of everything")
	flags.IntVar(&f.stages, "stages", 0, "relays side by side for each kind of gateway; 0 = chosen")
	return cmd
}

// chosenCases reports which cases a list of texts means; nil = all. A text that is in no
// name is an error, and so are texts that mean none for these subjects.
func chosenCases(list string, subjects []audit.Subject) (func(name string) bool, error) {
	if list == "" {
		return nil, nil
	}
	var errs []error
	played, texts := audit.Names(subjects...), strings.Split(list, ",")
	names := slices.Concat(played, audit.Names()) // a case of the login is for those who have one
	for _, text := range texts {
		if text == "" || !slices.ContainsFunc(names, func(name string) bool { return strings.Contains(name, text) }) {
			errs = append(errs, fmt.Errorf("--case: no case has %q in its name; --list prints all names", text))
		}
	}
	chosen := func(name string) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(name, text) })
	}
	if len(errs) == 0 && !slices.ContainsFunc(played, chosen) {
		errs = append(errs, errors.New("--case: these cases are for gateways with a login, and none has one"))
	}
	return chosen, errors.Join(errs...)
}

// auditResult is what the audit found; its JSON form is part of the interface.
type auditResult struct {
	OK      bool   `json:"ok"`
	Summary string `json:"summary"`
	*audit.Report
	Live []liveResult `json:"live,omitempty"`
}

// checkAudit reports every flag that cannot work, each error beginning with its flag.
func checkAudit(f *auditFlags, cfg *Config) error {
	var errs []error
	if f.timeout <= 0 {
		errs = append(errs, errors.New("--timeout: is not positive"))
	}
	if f.stages < 0 || f.stages > maxStages {
		errs = append(errs, fmt.Errorf("--stages: %d is not between 0 and %d", f.stages, maxStages))
	}
	if f.target != "" && !f.live {
		errs = append(errs, errors.New("--target: needs --live"))
	}
	if f.live && cfg.Auth.Mode == AuthPassthrough {
		errs = append(errs, errors.New("--live: with "+envPrefix+"AUTH=passthrough the relay has no login of its own to ask with"))
	}
	target, _, err := parseDoctorTarget(f.target, cfg)
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("--target: %w", err))
	case target.Scheme == "tcp" && f.target != "":
		errs = append(errs, errors.New("--target: the scheme is not http or https"))
	}
	f.targetURL = target
	return errors.Join(errs...)
}

func runAudit(ctx context.Context, p process, f auditFlags) error {
	cfg, err := LoadConfig(p.environ)
	if err != nil {
		return badConfig(err)
	}
	if err := checkAudit(&f, cfg); err != nil {
		return badConfig(err)
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	bench, err := newAuditBench()
	if err != nil {
		return failed(fmt.Errorf("audit: %w", err))
	}
	defer bench.close()
	c := audit.Config{Subjects: bench.subjects(cfg), Stages: f.stages, Progress: progressTo(p.stderr)}
	if len(c.Subjects) == 0 {
		return badConfig(errors.New(envPrefix + "UPSTREAM: direct:// has no vendor; there is nothing to hide"))
	}
	if c.Cases, err = chosenCases(f.only, c.Subjects); err != nil {
		return badConfig(err)
	}
	report, err := audit.Run(ctx, c)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return failed(fmt.Errorf("audit: not over after %s; see --timeout", f.timeout))
	case errors.Is(err, context.Canceled):
		return failed(errors.New("audit: interrupted, nothing is proven"))
	case err != nil:
		return failed(fmt.Errorf("audit: %w", err))
	}
	result := &auditResult{Report: report, OK: report.OK}
	if f.live {
		if result.Live, err = bench.live(ctx, cfg, f.targetURL); err != nil {
			return failed(fmt.Errorf("audit: %w", err))
		}
	}
	return result.tell(p, f.asJSON)
}

// tell prints the result; the error is the exit code's.
func (r *auditResult) tell(p process, asJSON bool) error {
	r.conclude()
	var err error
	if asJSON {
		enc := json.NewEncoder(p.stdout)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = r.writeText(p.stdout)
	}
	if err != nil {
		return failed(err)
	}
	if !r.OK {
		return failed(errors.New("audit: " + r.Summary))
	}
	return nil
}

// conclude fills in what is to be said of everything.
func (r *auditResult) conclude() {
	live := 0
	for i := range r.Live {
		live += len(r.Live[i].Leaks)
		if r.Live[i].Problem != "" {
			r.OK = false
		}
	}
	r.OK = r.OK && live == 0
	switch {
	case r.OK:
		r.Summary = fmt.Sprintf("masked: %d exchanges, no leak", r.Exchanges)
	default:
		r.Summary = fmt.Sprintf("%d leaks, %d wrong answers in %d exchanges", r.LeakCount+live, r.FailureCount, r.Exchanges)
	}
}

// progressTo shows how far the audit is on a terminal, nil elsewhere.
func progressTo(w io.Writer) func(done, total int) {
	if !isTerminal(w) {
		return nil
	}
	var last time.Time
	return func(done, total int) {
		if now := time.Now(); done == total || now.Sub(last) > 200*time.Millisecond {
			last = now
			_, _ = fmt.Fprintf(w, "\r%d of %d exchanges", done, total)
			if done == total {
				_, _ = fmt.Fprint(w, "\r\x1b[K")
			}
		}
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
