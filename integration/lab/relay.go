package lab

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Env is a relay's configuration; the names leave MASKRELAY_ out. Every other variable of the test's environment stays away from the relay.
type Env map[string]string

// Relay is a running maskrelay.
type Relay struct {
	*Process
	Addr  string // of the proxy listener
	Admin string // of the admin listener
	token string // that the admin listener wants
}

// startLimit is how long a relay may take until it is ready.
const startLimit = 20 * time.Second

// RelayCommand returns the command without starting it.
func RelayCommand(t testing.TB, b Build, env Env, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(Binary(t, b), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	for name, value := range env {
		if process, ok := strings.CutPrefix(name, "!"); ok { // "!GOGC" sets GOGC itself
			cmd.Env = append(cmd.Env, process+"="+value)
			continue
		}
		cmd.Env = append(cmd.Env, "MASKRELAY_"+name+"="+value)
	}
	slices.Sort(cmd.Env)
	return cmd
}

// StartRelay starts "maskrelay serve" and waits until it is ready. LISTEN and ADMIN_LISTEN are free loopback ports unless env has them.
// Loopback targets on any port are allowed unless env says otherwise.
func StartRelay(t testing.TB, b Build, env Env) *Relay {
	t.Helper()
	return StartRelayLogging(t, b, env, nil)
}

// StartRelayLogging is StartRelay with a reader for the log, which is then not kept: of a long run it is too long. log's Write is called by one
// goroutine. nil keeps the log's end, as StartRelay does.
func StartRelayLogging(t testing.TB, b Build, env Env, log io.Writer) *Relay {
	t.Helper()
	r := launchRelay(t, b, env, log)
	r.WaitReadiness(t, http.StatusOK)
	return r
}

// StartUnreadyRelay is StartRelay for a relay that has a reason not to be ready yet: it waits until that is what it says.
func StartUnreadyRelay(t testing.TB, b Build, env Env) *Relay {
	t.Helper()
	r := launchRelay(t, b, env, nil)
	r.WaitReadiness(t, http.StatusServiceUnavailable)
	return r
}

// WaitReadiness waits until /readyz has that status.
func (r *Relay) WaitReadiness(t testing.TB, want int) {
	t.Helper()
	Wait(t, startLimit, fmt.Sprintf("%s to say %d to /readyz", r.Name, want), func() bool {
		if !r.Running() {
			t.Fatalf("%s ended before that:\n%s", r.Name, r.Stderr.Bytes())
		}
		status, _, err := r.Get("/readyz")
		return err == nil && status == want
	})
}

func launchRelay(t testing.TB, b Build, env Env, log io.Writer) *Relay {
	t.Helper()
	full := Env{"LISTEN": FreeAddr(t), "ADMIN_LISTEN": FreeAddr(t), "ALLOW_PRIVATE": "true", "ALLOW_PORTS": "*"}
	if b == Tested { // where memory and speed are measured, the log is the test's choice
		full["LOG_LEVEL"] = "debug"
	}
	for name, value := range env {
		full[name] = value
	}
	r := &Relay{Addr: full["LISTEN"], Admin: full["ADMIN_LISTEN"], token: tokenOf(full)}
	cmd := RelayCommand(t, b, full, "serve")
	name := "maskrelay " + r.Addr
	if log != nil {
		cmd.Stderr = searchedLog(t, name, cmd, log)
	}
	r.Process = Start(t, name, cmd)
	t.Cleanup(func() { r.searchPages(t) }) // before Start's own, which ends it
	return r
}

// searchedLog is log with the search for secrets that a log which is kept gets at its end.
func searchedLog(t testing.TB, name string, cmd *exec.Cmd, log io.Writer) io.Writer {
	w := watchSecrets(name, cmd.Args, cmd.Env)
	if w == nil {
		return log
	}
	s := NewSearch(name+": standard error", w.marks)
	t.Cleanup(func() { // after Start's own: nothing is written any more
		for _, leak := range s.Leaks() {
			t.Errorf("a secret shows: %v", leak)
		}
	})
	return io.MultiWriter(s, log)
}

// adminClient is not http.DefaultClient: the environment's proxy settings must not reach loopback, and every wait has an end.
var adminClient = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 1, DisableKeepAlives: true}}

// Get asks the admin listener and returns status and body.
func (r *Relay) Get(path string) (int, []byte, error) { return r.Ask(http.MethodGet, path, "") }

// Ask is Get with any method, and with a JSON body unless it is empty.
func (r *Relay) Ask(method, path, json string) (int, []byte, error) {
	req, err := http.NewRequest(method, "http://"+r.Admin+path, strings.NewReader(json))
	if err != nil {
		return 0, nil, err
	}
	if json != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	return answerTo(req)
}

// askAs is Get with a token, if there is one.
func (r *Relay) askAs(token, path string) (int, []byte, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+r.Admin+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return answerTo(req)
}

func answerTo(req *http.Request) (int, []byte, error) {
	resp, err := adminClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if closeErr := resp.Body.Close(); err == nil {
		err = closeErr
	}
	return resp.StatusCode, body, err
}

// Metric returns the value of one series as /metrics spells it (`maskrelay_connections{kind="tunnel"}`), and false when it is not there.
func (r *Relay) Metric(t testing.TB, series string) (float64, bool) {
	t.Helper()
	status, body, err := r.Get("/metrics")
	if err != nil || status != http.StatusOK {
		t.Fatalf("metrics: status %d: %v", status, err)
	}
	return findSeries(body, series)
}

// Sum returns the sum of all series of one name.
func (r *Relay) Sum(t testing.TB, name string) (sum float64) {
	t.Helper()
	status, body, err := r.Get("/metrics")
	if err != nil || status != http.StatusOK {
		t.Fatalf("metrics: status %d: %v", status, err)
	}
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSpace(line)
		series, value := line[:strings.LastIndexByte(line, ' ')+1], line[strings.LastIndexByte(line, ' ')+1:]
		if of, _, _ := strings.Cut(strings.TrimSpace(series), "{"); of != name {
			continue
		}
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("metrics: line %q: %v", line, err)
		}
		sum += f
	}
	return sum
}

func findSeries(text []byte, series string) (float64, bool) {
	for line := range strings.Lines(string(text)) {
		value, ok := strings.CutPrefix(strings.TrimSpace(line), series+" ")
		if !ok {
			continue
		}
		if f, err := strconv.ParseFloat(value, 64); err == nil {
			return f, true
		}
	}
	return 0, false
}

// Tunnels returns how many tunnels are open.
func (r *Relay) Tunnels(t testing.TB) int {
	t.Helper()
	n, _ := r.Metric(t, `maskrelay_connections{kind="tunnel"}`)
	return int(n)
}

// Exchange is one "exchange" line of the relay's log.
type Exchange struct {
	Message  string  `json:"message"`
	ID       string  `json:"id"`
	Account  string  `json:"account"`
	Client   string  `json:"client"`
	Method   string  `json:"method"`
	Target   string  `json:"target"`
	Upstream string  `json:"upstream"`
	Outcome  string  `json:"outcome"`
	Status   int     `json:"status"`
	Sent     int64   `json:"sent"`
	Received int64   `json:"received"`
	Duration float64 `json:"duration_ms"`
	Cause    string  `json:"cause"`
}

// Exchanges returns the "exchange" lines so far. Every line of a relay's log must be a JSON object; another one is an error,
// except what the race detector and a crash print, which is shown whole.
func (r *Relay) Exchanges() ([]Exchange, error) {
	var list []Exchange
	sc := bufio.NewScanner(strings.NewReader(string(r.Stderr.Bytes())))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var e Exchange
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("log line %q: %w", sc.Text(), err)
		}
		if e.Message == "exchange" {
			list = append(list, e)
		}
	}
	return list, sc.Err()
}
