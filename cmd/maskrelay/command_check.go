package main

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"maskrelay/proxy/capacity"
)

// report is what check found; its JSON form is part of the interface.
type report struct {
	Valid    bool             `json:"valid"`
	Errors   []string         `json:"errors,omitempty"`
	Settings []Setting        `json:"settings,omitempty"`
	Limits   []capacity.Limit `json:"limits,omitempty"`
	MaxConns int              `json:"max_conns,omitempty"`
	BoundBy  string           `json:"bound_by,omitempty"`
	Warnings []string         `json:"warnings,omitempty"`
}

// hostSource is where check reads the machine's limits; tests give their own.
type hostSource struct {
	root   fs.FS
	rlimit func() (soft, hard uint64, err error)
}

func newCheck(p process) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Validate the configuration as serve would, and show what this host allows",
		Long: `Validate the environment, the accounts and the certificates exactly as serve would. Print the configuration in force with
secrets redacted, then what this host allows as a number of tunnels, then warnings. Nothing is listened on or dialled.

Exit code 2 with all errors on standard error when the configuration is bad.`,
		Example: "  maskrelay check\n  maskrelay check --json | jq .max_conns",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return runCheck(p, asJSON, hostSource{os.DirFS("/"), capacity.OpenFiles})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON; with errors in it too")
	return cmd
}

func runCheck(p process, asJSON bool, src hostSource) error {
	cfg, err := LoadConfig(p.environ)
	if err != nil {
		if asJSON {
			r := report{}
			for _, e := range flatten(err) {
				r.Errors = append(r.Errors, oneLine(e))
			}
			if werr := writeJSON(p.stdout, r); werr != nil {
				return failed(werr)
			}
		}
		return badConfig(err)
	}
	r := newReport(cfg, src)
	write := writeText
	if asJSON {
		write = writeJSON
	}
	if err := write(p.stdout, r); err != nil {
		return failed(err)
	}
	return nil
}

func newReport(cfg *Config, src hostSource) report {
	host, err := capacity.ReadHost(src.root, src.rlimit)
	host.OpenFilesKept = cfg.warmConns()
	shape := cfg.Shape()
	r := report{Valid: true, Settings: cfg.Effective(), Limits: host.Limits(shape), Warnings: cfg.Warnings()}
	r.MaxConns, r.BoundBy = host.MaxConns(shape)
	for _, e := range flatten(err) {
		r.Warnings = append(r.Warnings, oneLine(e))
	}
	switch {
	case cfg.MaxConns == 0:
	case cfg.MaxConns > r.MaxConns:
		r.Warnings = append(r.Warnings, fmt.Sprintf("%sMAX_CONNS: %d is more than the %d that this host allows, bound by %s",
			envPrefix, cfg.MaxConns, r.MaxConns, r.BoundBy))
		fallthrough
	default:
		r.MaxConns, r.BoundBy = boundedByFiles(cfg.MaxConns, host), capacity.FileDescriptors
		if r.MaxConns == cfg.MaxConns {
			r.BoundBy = envPrefix + "MAX_CONNS"
		}
	}
	return r
}

func writeJSON(w io.Writer, r report) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

func writeText(w io.Writer, r report) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range r.Settings {
		line(t, s.Name, orDash(s.Value))
	}
	line(t)
	if err := t.Flush(); err != nil {
		return err
	}
	line(t, "LIMIT", "TUNNELS", "", "FROM")
	for _, l := range r.Limits {
		count, mark := "-", ""
		if l.Binds() {
			count = strconv.Itoa(l.Tunnels)
		}
		if l.Name == r.BoundBy {
			mark = "binds"
		}
		line(t, l.Name, count, mark, l.Detail)
	}
	line(t)
	if err := t.Flush(); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "This relay takes %d connections, bound by %s.\n", r.MaxConns, r.BoundBy); err != nil {
		return err
	}
	for _, warning := range r.Warnings {
		if _, err := fmt.Fprintf(w, "warning: %s\n", warning); err != nil {
			return err
		}
	}
	return nil
}

// line writes a row of a table; the table keeps any error for its Flush.
func line(t *tabwriter.Writer, cells ...string) {
	for i, c := range cells {
		if i > 0 {
			_, _ = io.WriteString(t, "\t")
		}
		_, _ = io.WriteString(t, c)
	}
	_, _ = io.WriteString(t, "\n")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
