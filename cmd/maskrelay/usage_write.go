package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"maskrelay/proxy/usage"
)

// usageFormats are the choices of --format, the first the default.
var usageFormats = []string{"table", "csv", "json"}

// usageRow is what one account moved in a time, as the API and --format json have it.
type usageRow struct {
	Account     string    `json:"account"`
	Sent        int64     `json:"sent"`        // bytes, as the customer sees them
	Received    int64     `json:"received"`    // likewise
	Connections int64     `json:"connections"` // opened
	From        time.Time `json:"from"`        // the zero time = all that is known
	To          time.Time `json:"to"`
}

func (r usageRow) sums() usage.Sums {
	return usage.Sums{Sent: r.Sent, Received: r.Received, Connections: r.Connections}
}

// writeUsage prints the rows in the order of their accounts.
func writeUsage(w io.Writer, q usageQuestion, rows []usageRow) error {
	rows = slices.Clone(rows)
	slices.SortFunc(rows, func(a, b usageRow) int { return strings.Compare(a.Account, b.Account) })
	switch q.format {
	case "csv":
		return writeUsageCSV(w, rows)
	case "json":
		return writeUsageJSON(w, q, rows)
	}
	return writeUsageTable(w, q, rows)
}

func usageTotal(rows []usageRow) usage.Sums {
	var total usage.Sums
	for _, r := range rows {
		total = total.Plus(r.sums())
	}
	return total
}

// writeUsageCSV has no row for the total, which a sheet would add up once more.
func writeUsageCSV(w io.Writer, rows []usageRow) error {
	out := csv.NewWriter(w)
	records := [][]string{{"account", "sent", "received", "connections", "from", "to"}}
	for _, r := range rows {
		records = append(records, []string{
			r.Account, strconv.FormatInt(r.Sent, 10), strconv.FormatInt(r.Received, 10), strconv.FormatInt(r.Connections, 10),
			r.From.UTC().Format(time.RFC3339), r.To.UTC().Format(time.RFC3339),
		})
	}
	return out.WriteAll(records)
}

func writeUsageJSON(w io.Writer, q usageQuestion, rows []usageRow) error {
	type sums struct {
		Sent        int64 `json:"sent"`
		Received    int64 `json:"received"`
		Connections int64 `json:"connections"`
	}
	if rows == nil {
		rows = []usageRow{}
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(struct {
		Since time.Time  `json:"since"` // as asked; a row's from may lie before
		Usage []usageRow `json:"usage"`
		Total sums       `json:"total"`
	}{q.Since.UTC(), rows, sums(usageTotal(rows))})
}

func writeUsageTable(w io.Writer, q usageQuestion, rows []usageRow) error {
	table := [][]string{{"ACCOUNT", "SENT", "RECEIVED", "TOGETHER", "CONNECTIONS"}}
	add := func(name string, s usage.Sums) {
		table = append(table, []string{name, humanSize(s.Sent), humanSize(s.Received), humanSize(s.Bytes()), strconv.FormatInt(s.Connections, 10)})
	}
	for _, r := range rows {
		add(visible(r.Account), r.sums())
	}
	add(fmt.Sprintf("(%d in all)", len(rows)), usageTotal(rows)) // no account's name can have these letters
	var out strings.Builder
	widths := make([]int, len(table[0]))
	for _, cells := range table {
		for i, cell := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, cells := range table {
		fmt.Fprintf(&out, "%-*s", widths[0], cells[0])
		for i, cell := range cells[1:] {
			fmt.Fprintf(&out, "  %*s", widths[i+1], cell)
		}
		out.WriteByte('\n')
	}
	out.WriteString("\n" + usageSpan(q, rows) + "\n")
	_, err := io.WriteString(w, out.String())
	return err
}

// usageSpan says which time the rows are about.
func usageSpan(q usageQuestion, rows []usageRow) string {
	if len(rows) == 0 {
		return "Nothing was moved since " + q.Since.UTC().Format(time.RFC3339) + "."
	}
	from, to := rows[0].From, rows[0].To
	for _, r := range rows {
		if r.From.Before(from) {
			from = r.From
		}
		if r.To.After(to) {
			to = r.To
		}
	}
	until := to.UTC().Format(time.RFC3339) + "."
	if from.IsZero() {
		return "From the beginning to " + until
	}
	return "From " + from.UTC().Format(time.RFC3339) + " to " + until
}

// humanSize is n bytes in three digits and a unit, powers of 1000.
func humanSize(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, unit := float64(n), 0
	for v >= 999.5 && unit < len(sizeUnits)-1 {
		v /= 1000
		unit++
	}
	decimals := 2
	switch {
	case v >= 99.95:
		decimals = 0
	case v >= 9.995:
		decimals = 1
	}
	return strconv.FormatFloat(v, 'f', decimals, 64) + " " + sizeUnits[unit]
}

var sizeUnits = []string{"B", "KB", "MB", "GB", "TB", "PB", "EB"}
