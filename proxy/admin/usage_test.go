package admin

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestUsage(t *testing.T) {
	t.Parallel()
	from, to := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 11, 21, 8, 0, 0, 0, time.FixedZone("", 3600))
	var account string
	var since time.Time
	addr := start(t, Config{Usage: func(_ context.Context, a string, s time.Time) ([]UsageRow, error) {
		account, since = a, s
		switch a {
		case "nobody":
			return nil, nil
		case "lost":
			return nil, errors.New("no answer from Redis in time")
		}
		return []UsageRow{{"alice", 1, 2, 3, from, to}, {`odd,"name`, 4, 5, 6, from, to}}, nil
	}})
	got := raw(t, addr, request("GET /api/v1/usage?account=alice&since=2026-11-01", ""))
	if got.status != 200 || account != "alice" || !since.Equal(from) || got.body != `{"usage":[`+
		`{"account":"alice","sent":1,"received":2,"connections":3,"from":"2026-11-01T00:00:00Z","to":"2026-11-21T08:00:00+01:00"},`+
		`{"account":"odd,\"name","sent":4,"received":5,"connections":6,"from":"2026-11-01T00:00:00Z","to":"2026-11-21T08:00:00+01:00"}]}`+"\n" {
		t.Errorf("JSON: %d %s, asked for %q since %v", got.status, got.body, account, since)
	}
	got = raw(t, addr, request("GET /api/v1/usage?format=csv", ""))
	if got.status != 200 || got.header.Get("Content-Type") != "text/csv; charset=utf-8" || account != "" || got.body !=
		"account,sent,received,connections,from,to\n"+
			"alice,1,2,3,2026-11-01T00:00:00Z,2026-11-21T07:00:00Z\n"+
			"\"odd,\"\"name\",4,5,6,2026-11-01T00:00:00Z,2026-11-21T07:00:00Z\n" {
		t.Errorf("CSV: %d %s", got.status, got.body)
	}
	if got = raw(t, addr, request("GET /api/v1/usage?account=nobody&format=json", "")); got.body != `{"usage":[]}`+"\n" {
		t.Errorf("nobody: %s", got.body)
	}
	if got = raw(t, addr, request("GET /api/v1/usage?account=lost", "")); got.status != 503 || got.body != `{"error":"no answer from Redis in time"}`+"\n" {
		t.Errorf("lost: %d %s", got.status, got.body)
	}
}

func TestParseSince(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"":                          "2026-11-01T00:00:00Z",
		"2026-10-31":                "2026-10-31T00:00:00Z",
		"2026-10-31T12:00:00+02:00": "2026-10-31T10:00:00Z",
		"90m":                       "2026-11-21T06:30:00Z",
		"24h":                       "2026-11-20T08:00:00Z",
		"7d":                        "2026-11-14T08:00:00Z",
		"0d":                        "2026-11-21T08:00:00Z",
		"2026-13-01":                "",
		"-1h":                       "",
		"-1d":                       "",
		"1.5d":                      "",
		"40000d":                    "",
		"5":                         "",
		"now":                       "",
	} {
		got, err := parseSince(text, now)
		if want == "" {
			if err == nil {
				t.Errorf("%q was taken as %v", text, got)
			}
			continue
		}
		if err != nil || got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q is %v, %v; want %s", text, got, err, want)
		}
	}
}
