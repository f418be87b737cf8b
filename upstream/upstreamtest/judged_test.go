package upstreamtest

import (
	"strings"
	"testing"
)

func TestJudgedFields(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, name := range JudgedFields() {
		if v := strings.ToLower(name); seen[v] || strings.Trim(v, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			t.Errorf("%q", name)
		} else {
			seen[v] = true
		}
		req := &RecordedRequest{Lines: []string{"Host: a", strings.ToLower(name) + ": 1"}}
		if got := Verdict(req, "192.0.2.7:1"); got != Anonymous {
			t.Errorf("%s: %s", name, got)
		}
	}
	if len(seen) < 130 {
		t.Errorf("%d names", len(seen))
	}
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		own   string
		lines []string
		want  string
	}{
		"nothing":                      {"192.0.2.7", []string{"Host: shop.example", "User-Agent: a", "X-Requested-With: b", "Connection: close", "Cookie: v=1"}, Elite},
		"own address":                  {"192.0.2.7", []string{"X-Whatever: for 192.0.2.7!"}, Transparent},
		"own address, asked by port":   {"192.0.2.7:4711", []string{"X-Forwarded-For: 192.0.2.7"}, Transparent},
		"own IPv6 address":             {"[2001:DB8::7]:4711", []string{"Forwarded: for=\"[2001:db8::7]\""}, Transparent},
		"another's":                    {"192.0.2.7", []string{"X-Forwarded-For: 198.51.100.1"}, Anonymous},
		"by prefix":                    {"192.0.2.7", []string{"Proxy-Thing: 1"}, Anonymous},
		"in another spelling":          {"192.0.2.7", []string{"x_forwarded.for: unknown"}, Anonymous},
		"the target on own address":    {"127.0.0.1", []string{"Host: 127.0.0.1:8080"}, Elite},
		"no own address to look for":   {"", []string{"Accept: */*"}, Elite},
		"an application's own X-field": {"192.0.2.7", []string{"X-Api-Key: 1", "X-Amz-Date: 2"}, Elite},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := Verdict(&RecordedRequest{Lines: test.lines}, test.own); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestJudgePage(t *testing.T) {
	t.Parallel()
	j := startJudge(t, JudgeConfig{})
	c := dial(t, j.Addr())
	c.send("GET /judge HTTP/1.1\r\nHost: a\r\nx-Forwarded-for: 192.0.2.7\r\n\r\n")
	resp, body := c.response("GET")
	for _, line := range []string{"HTTP_X_FORWARDED_FOR = 192.0.2.7\n", "REMOTE_ADDR = 127.0.0.1\n", "HTTP_HOST = a\n", "REQUEST_URI = /judge\n"} {
		if !strings.Contains(body, line) {
			t.Errorf("no %q in %q", line, body)
		}
	}
	if resp.StatusCode != 200 || resp.ContentLength != int64(len(body)) {
		t.Errorf("%s, %d bytes", resp.Status, resp.ContentLength)
	}
	requests := j.Conns()[0].Requests()
	if len(requests) != 1 || Verdict(requests[0], "192.0.2.7") != Transparent || Verdict(requests[0], "192.0.2.8") != Anonymous {
		t.Errorf("judged wrongly: %+v", requests)
	}
}
