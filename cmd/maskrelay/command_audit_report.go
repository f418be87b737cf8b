package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"maskrelay/upstream/upstreamtest/audit"
)

const (
	// maxTextLines bounds the marks, and the wrong answers, that are printed; JSON has more.
	maxTextLines = 60
	// maxPlaces bounds the places that are printed of one mark.
	maxPlaces = 5
)

// writeText prints the matrix, then each leak and each wrong answer, the summary last.
func (r *auditResult) writeText(w io.Writer) error {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "WAY\tGATEWAY\tLISTENER\tCASES\tPASSED\tLEAKS\tWRONG")
	for _, c := range r.Cells {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%d\t%d\n", c.Way, c.Scheme, strings.TrimSuffix(c.Listener, " listener"), c.Cases, c.Passed, c.Leaks, c.Failures)
	}
	_ = table.Flush() // a builder takes everything
	r.writeLeaks(&b)
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
	r.writeAgain(&b)
	word := "OK"
	if !r.OK {
		word = "FAIL"
	}
	fmt.Fprintf(&b, "\n%s: %s in %.1f s\n", word, r.Summary, r.Seconds)
	_, err := io.WriteString(w, b.String())
	return err
}

// writeLeaks prints each mark that leaked, the most frequent first, and some of the places.
func (r *auditResult) writeLeaks(b *strings.Builder) {
	for i, m := range r.Marks {
		if i == maxTextLines {
			fmt.Fprintf(b, "… and %d more marks; see --json\n", len(r.Marks)-i)
			return
		}
		fmt.Fprintf(b, "\nLEAK to the %s: %s, in %d places\n", m.Where, m.Mark, m.Count)
		shown := 0
		for _, l := range r.Leaks {
			if l.Where != m.Where || l.Mark != m.Mark || shown == maxPlaces {
				continue
			}
			shown++
			fmt.Fprintf(b, "  %s\n", spot(l.Spot))
			if l.Excerpt != "" {
				fmt.Fprintf(b, "    at byte %d: %s\n", l.Offset, l.Excerpt)
			}
		}
	}
}

// writeAgain prints how to play again what went wrong, and nothing else.
func (r *auditResult) writeAgain(b *strings.Builder) {
	var names []string
	for _, l := range r.Leaks {
		names = append(names, l.Case)
	}
	for _, f := range r.Failures {
		names = append(names, f.Case)
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) > 0 {
		fmt.Fprintf(b, "\nOnly these again: maskrelay audit --case %s\n", strings.Join(names[:min(len(names), maxPlaces)], ","))
	}
}

func spot(s audit.Spot) string {
	return fmt.Sprintf("%s: %s through %s (%s), %s", s.Case, s.Way, s.Subject, s.Scheme, s.Listener)
}
