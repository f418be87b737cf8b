package vendor

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

const plainPreset = "username: \"{login}\"\npassword: \"{password}\"\n"

func TestClassify(t *testing.T) {
	p := preset(t, plainPreset+`
classify:
  - {status: 407, reason: TRAFFIC_EXHAUSTED, cause: quota, advice: "top up"}
  - {status: 407, reason: "THREADS*", cause: threads}
  - {status: [502, 503], header: X-Err-Code, match: client_10110, cause: rate}
  - {status: [502, 503], header: X-Err-Code, cause: no_exit}
  - {status: any, body: "No Peers", cause: no_exit, advice: "ask for less"}
  - {status: 466, cause: quota}
  - {status: 407, cause: params}
advice: {rate: "slower", params: "spell it"}
`)
	none := func(string) string { return "" }
	tests := []struct {
		name   string
		answer Answer
		want   Verdict
	}{
		{"reason", Answer{Status: 407, Reason: "TRAFFIC_EXHAUSTED"}, Verdict{CauseQuota, true, "top up"}},
		{"reason in another case", Answer{Status: 407, Reason: "Traffic_Exhausted"}, Verdict{CauseQuota, true, "top up"}},
		{"longer reason", Answer{Status: 407, Reason: "TRAFFIC_EXHAUSTED!"}, Verdict{CauseParams, false, "spell it"}},
		{"shorter reason", Answer{Status: 407, Reason: "TRAFFIC"}, Verdict{CauseParams, false, "spell it"}},
		{"prefix", Answer{Status: 407, Reason: "THREADS_EXHAUSTED"}, Verdict{CauseThreads, true, advice[CauseThreads]}},
		{"nothing after the prefix", Answer{Status: 407, Reason: "threads"}, Verdict{CauseThreads, true, advice[CauseThreads]}},
		{"less than the prefix", Answer{Status: 407, Reason: "thread"}, Verdict{CauseParams, false, "spell it"}},
		{"header", Answer{Status: 502, Header: http.Header{"X-Err-Code": {"CLIENT_10110: slow down"}}.Get}, Verdict{CauseRate, true, "slower"}},
		{"header with something else", Answer{Status: 503, Header: http.Header{"X-Err-Code": {"x"}}.Get}, Verdict{CauseNoExit, true, advice[CauseNoExit]}},
		{"another status", Answer{Status: 500, Header: http.Header{"X-Err-Code": {"x"}}.Get}, Verdict{CauseServer, false, advice[CauseServer]}},
		{"no such header", Answer{Status: 502, Header: none}, Verdict{CauseServer, false, advice[CauseServer]}},
		{"no headers at all", Answer{Status: 502}, Verdict{CauseServer, false, advice[CauseServer]}},
		{"body", Answer{Status: 200, Header: none, Body: []byte("<p>Sorry, NO PEERS here")}, Verdict{CauseNoExit, true, "ask for less"}},
		{"body behind what is looked at", Answer{Status: 429, Body: append(make([]byte, maxBody), "no peers"...)}, Verdict{CauseRate, false, "slower"}},
		{"status alone", Answer{Status: 466, Reason: "x"}, Verdict{CauseQuota, false, advice[CauseQuota]}},
	}
	for _, tt := range tests {
		if got := p.Classify(tt.answer); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestClassifyByStatus(t *testing.T) {
	p, err := Load(Generic)
	if err != nil {
		t.Fatal(err)
	}
	want := map[int]Cause{
		0: CauseStatus, 200: CauseStatus, 302: CauseStatus, 400: CauseStatus, 401: CauseAuth, 402: CauseQuota, 403: CauseForbidden,
		404: CauseStatus, 407: CauseAuth, 408: CauseTimeout, 429: CauseRate, 466: CauseStatus, 499: CauseStatus,
		500: CauseServer, 502: CauseServer, 503: CauseServer, 504: CauseTimeout, 522: CauseServer, 599: CauseServer, 600: CauseStatus,
	}
	for status, cause := range want {
		if got := p.Classify(Answer{Status: status}); got != (Verdict{Cause: cause, Advice: p.Advice(cause)}) {
			t.Errorf("%d is %+v, want %s", status, got, cause)
		}
	}
}

// Advice goes into a log line after other words, and helps.
func TestAdvice(t *testing.T) {
	for _, name := range Names() {
		p, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		sentences := make(map[string]string)
		for _, c := range Causes() {
			sentences["advice."+string(c)] = p.Advice(c)
			switch c {
			case CauseAuth, CauseQuota, CauseThreads, CauseRate, CauseNoExit, CauseParams:
				if p.Advice(c) == "" {
					t.Errorf("%s has no advice about %s", name, c)
				}
			}
		}
		for _, s := range sentences {
			if strings.HasSuffix(s, ".") || strings.ContainsAny(s, "\n\r") {
				t.Errorf("%s: %q is not one sentence without a full stop", name, s)
			}
		}
	}
	if len(advice) != len(Causes())-1 { // none for CauseStatus
		t.Errorf("%d pieces of advice for %d causes", len(advice), len(Causes()))
	}
}

func TestPresetView(t *testing.T) {
	p := preset(t, plainPreset+"headers: [X-Test-*]\nmarks: [testvendor]\n")
	for scheme, want := range map[string]string{
		"http": "http://gw.test.example:8000", "socks5": "socks5://gw.test.example:8001", "https": "", "ftp": "", "": "",
	} {
		if got := p.DefaultURL(scheme); got != want {
			t.Errorf("the URL for %q is %q, want %q", scheme, got, want)
		}
	}
	if got := p.Marks(); !slices.Equal(got, []string{"testvendor", "gw.test.example"}) {
		t.Errorf("the marks are %v", got)
	}
	p.Marks()[0], p.Headers()[0], p.Spec().Marks[0] = "x", "x", "x"
	if p.Marks()[0] != "testvendor" || p.Headers()[0] != "X-Test-*" || p.Spec().Marks[0] != "testvendor" {
		t.Error("a caller can change the preset")
	}
	if p.Title() != "Test" {
		t.Errorf("the title is %q", p.Title())
	}
	generic, err := Load("")
	if err != nil || generic.Name != Generic || generic.DefaultURL("http") != "" || len(generic.Marks()) != 0 {
		t.Errorf("without a name it is %+v, %v", generic, err)
	}
}
