package integration

import (
	"encoding/base64"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"maskrelay/integration/lab"
)

// TestStickyProxyLines: each line has a session of its own at the vendor, keeps it, and no word of the customer's is in it.
func TestStickyProxyLines(t *testing.T) {
	t.Parallel()
	s := startSold(t, lab.Env{
		"UPSTREAMS_0_USERNAME": "customer-{login}{?country:-cc-{country}}{?city:-city-{city}}{?session:-sessid-{session}}{?ttl:-sesstime-{ttl_minutes}}",
	})
	form := regexp.MustCompile(`^customer-operator-cc-us-city-new_york-sessid-([^-]+)-sesstime-10$`)
	lines := s.lines(t, "--user", "bob.b-1", "--country", "US", "--city", "New York", "--sticky", "10m", "--count", "3", "--format", "url")
	sessions := map[string]string{} // at the vendor, by the line
	for range 2 {
		for _, line := range lines {
			s.curl(t, "https", "-x", line)
			logins := s.logins(t)
			last := logins[len(logins)-1]
			m := form.FindStringSubmatch(last)
			if m == nil {
				t.Fatalf("the vendor was told %q", last)
			}
			if was, ok := sessions[line]; ok && was != m[1] {
				t.Errorf("%s has the session %s, and had %s", line, m[1], was)
			}
			if strings.Contains(line, m[1]) || strings.Contains(last, "bob") {
				t.Errorf("the vendor was told %q by %q", last, line)
			}
			sessions[line] = m[1]
		}
	}
	if distinct := len(slices.Compact(slices.Sorted(maps.Values(sessions)))); distinct != 3 || len(sessions) != 3 {
		t.Errorf("%d sessions of %d lines", distinct, len(sessions))
	}
}

// logins are the usernames that the vendor received, in order.
func (s *sold) logins(t *testing.T) []string {
	t.Helper()
	var logins []string
	for _, conn := range s.vendor.Conns() {
		for _, r := range conn.Requests() {
			token, _ := strings.CutPrefix(r.Header.Get("Proxy-Authorization"), "Basic ")
			login, err := base64.StdEncoding.DecodeString(token)
			if err != nil {
				t.Fatal(err)
			}
			username, _, _ := strings.Cut(string(login), ":")
			logins = append(logins, username)
		}
	}
	return logins
}
