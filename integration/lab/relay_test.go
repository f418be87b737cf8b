package lab_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"maskrelay/integration/lab"
)

func TestRelayMetrics(t *testing.T) {
	const metrics = `# HELP calls_total Calls.
calls_total{result="ok"} 3
calls_total{result="in vain"} 0.5
calls_total_of_others 100
up 1
`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, metrics) }))
	defer server.Close()
	r := &lab.Relay{Admin: strings.TrimPrefix(server.URL, "http://")}
	for name, want := range map[string]float64{"calls_total": 3.5, "up": 1, "none": 0} {
		if got := r.Sum(t, name); got != want {
			t.Errorf("%s: sum %v, want %v", name, got, want)
		}
	}
	if got, ok := r.Metric(t, `calls_total{result="in vain"}`); got != 0.5 || !ok {
		t.Errorf("series: %v %v", got, ok)
	}
}

func TestRelayAsk(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, strings.Join([]string{r.Method, r.URL.Path, r.Header.Get("Content-Type"), string(body)}, " "))
	}))
	defer server.Close()
	r := &lab.Relay{Admin: strings.TrimPrefix(server.URL, "http://")}
	for _, tc := range []struct{ method, json, want string }{
		{http.MethodDelete, "", "DELETE /x  "},
		{http.MethodPatch, "{}", "PATCH /x application/json {}"},
	} {
		if status, answer, err := r.Ask(tc.method, "/x", tc.json); status != http.StatusTeapot || string(answer) != tc.want || err != nil {
			t.Errorf("%s: %d %q %v", tc.method, status, answer, err)
		}
	}
}
