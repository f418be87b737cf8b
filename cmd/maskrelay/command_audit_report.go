package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"maskrelay/upstream/upstreamtest/audit"
)

// maxTextLines bounds the leaks, and the wrong answers, that are printed; JSON has more.
const maxTextLines = 60

// writeText prints the matrix, then each leak and each wrong answer, the summary last.
func (r *auditResult) writeText(w io.Writer) error {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "WAY\tGATEWAY\tLISTENER\tCASES\tPASSED\tLEAKS\tWRONG")
	for _, c := range r.Cells {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%d\t%d\n", c.Way, c.Scheme, strings.TrimSuffix(c.Listener, " listener"), c.Cases, c.Passed, c.Leaks, c.Failures)
	}
	_ = table.Flush() // a builder takes everything
	for i, l := range r.Leaks {
		if i == maxTextLines {
			fmt.Fprintf(&b, "… and %d more; see --json\n", r.LeakCount-i)
			break
		}
		fmt.Fprintf(&b, "\nLEAK %s\n  to the %s: %s\n", spot(l.Spot), l.Where, l.Mark)
		if l.Excerpt != "" {
			fmt.Fprintf(&b, "  %s\n", l.Excerpt)
		}
	}
	for i, f := range r.Failures {
		if i == maxTextLines {
			fmt.Fprintf(&b, "… and %d more; see --json\n", r.FailureCount-i)
			break
		}
		fmt.Fprintf(&b, "\nWRONG %s\n  %s\n", spot(f.Spot), f.Problem)
		if f.Excerpt != "" {
			fmt.Fprintf(&b, "  %s\n", f.Excerpt)
		}
	}
	for i := range r.Live {
		r.Live[i].writeText(&b)
	}
	word := "OK"
	if !r.OK {
		word = "FAIL"
	}
	fmt.Fprintf(&b, "\n%s: %s in %.1f s\n", word, r.Summary, r.Seconds)
	_, err := io.WriteString(w, b.String())
	return err
}

func spot(s audit.Spot) string {
	return fmt.Sprintf("%s: %s through %s (%s), %s", s.Case, s.Way, s.Subject, s.Scheme, s.Listener)
}
