package admin

import (
	"encoding/csv"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// UsageRow is what one account has moved.
type UsageRow struct {
	Account string `json:"account"`
	// Sent and Received are bytes, as the customer sees them.
	Sent        int64 `json:"sent"`
	Received    int64 `json:"received"`
	Connections int64 `json:"connections"`
	// From and To are the time that the row is about, which may be more than was asked for.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

func (h *handler) serveUsage(w http.ResponseWriter, r *http.Request) {
	values, err := parameters(r, "account", "since", "format")
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	since, err := parseSince(values.Get("since"), time.Now().UTC())
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	format := values.Get("format")
	if !slices.Contains([]string{"", "json", "csv"}, format) {
		writeError(w, http.StatusBadRequest, "format: json or csv")
		return
	}
	rows, err := h.config.Usage(r.Context(), values.Get("account"), since)
	switch {
	case err != nil:
		writeError(w, http.StatusServiceUnavailable, err.Error())
	case format == "csv":
		writeUsageCSV(w, rows)
	default:
		if rows == nil {
			rows = []UsageRow{}
		}
		writeJSON(w, http.StatusOK, map[string][]UsageRow{"usage": rows})
	}
}

// parseSince reads a time, a date (UTC), or how long ago it was; the empty text is the
// beginning of this month.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		return t, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n <= math.MaxInt16 {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, errors.New("since: a time such as 2026-11-01T00:00:00Z, a date such as 2026-11-01, or how long ago, such as 24h or 7d")
}

func writeUsageCSV(w http.ResponseWriter, rows []UsageRow) {
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	out := csv.NewWriter(w)
	_ = out.Write([]string{"account", "sent", "received", "connections", "from", "to"}) // Flush has the error
	for _, row := range rows {
		number := func(n int64) string { return strconv.FormatInt(n, 10) }
		_ = out.Write([]string{
			row.Account, number(row.Sent), number(row.Received), number(row.Connections),
			row.From.UTC().Format(time.RFC3339), row.To.UTC().Format(time.RFC3339),
		})
	}
	out.Flush() // the reader may leave
}
