package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"maskrelay/integration/lab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// crossing is an event as package usage has them.
type crossing struct {
	Kind    string    `json:"event"`
	Account string    `json:"account"`
	Quota   int64     `json:"quota"`
	Used    int64     `json:"used"`
	Period  string    `json:"period"`
	At      time.Time `json:"time"`
}

var example = crossing{"quota.80", "alice", 9007199254740993, 81, "2026-11", time.Unix(1700000000, 0).UTC()}

// delivery is a request that the endpoint got.
type delivery struct {
	header http.Header
	body   []byte
	user   string
}

// endpoint is an HTTP server on loopback that answers as told.
type endpoint struct {
	*httptest.Server
	got chan delivery
}

// listen starts one; answer is given the number of the request, from 0.
func listen(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, n int)) *endpoint {
	t.Helper()
	e := &endpoint{got: make(chan delivery, 4096)}
	var n atomic.Int64
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the sender went away
		}
		user, _, _ := r.BasicAuth()
		e.got <- delivery{r.Header, body, user}
		answer(w, r, int(n.Add(1)-1))
	}))
	t.Cleanup(e.Close)
	return e
}

func status(codes ...int) func(http.ResponseWriter, *http.Request, int) {
	return func(w http.ResponseWriter, _ *http.Request, n int) {
		w.WriteHeader(codes[min(n, len(codes)-1)])
	}
}

func (e *endpoint) next(t *testing.T) delivery {
	t.Helper()
	select {
	case d := <-e.got:
		return d
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
		return delivery{}
	}
}

// start runs a Sender until stop is called or the test ends.
func start(t *testing.T, c Config) (s *Sender, stop func()) {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return s, stop
}

// result reads a counter, or the gauge under "waiting".
func (s *Sender) result(t *testing.T, name string) int {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(s)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "maskrelay_webhook_waiting" && name == "waiting" {
				return int(m.GetGauge().GetValue())
			}
			for _, l := range m.GetLabel() {
				if l.GetValue() == name {
					return int(m.GetCounter().GetValue())
				}
			}
		}
	}
	t.Fatalf("no metric for %q", name)
	return 0
}

func (s *Sender) waitFor(t *testing.T, name string, want int) {
	t.Helper()
	lab.Wait(t, 20*time.Second, fmt.Sprint(want, " ", name), func() bool { return s.result(t, name) == want })
}

func TestDelivery(t *testing.T) {
	e := listen(t, status(http.StatusNoContent))
	s, _ := start(t, Config{URL: strings.Replace(e.URL, "http://", "http://hook:pass@", 1) + "/quota?key=1", Secret: "s3cret"})
	before := time.Now().Unix()
	s.Send(example, "id-1")
	d := e.next(t)
	want := `{"id":"id-1","event":"quota.80","account":"alice","quota":9007199254740993,"used":81,"period":"2026-11","time":"2023-11-14T22:13:20Z"}`
	if string(d.body) != want {
		t.Errorf("body %s, want %s", d.body, want)
	}
	if d.header.Get("X-Maskrelay-Event") != "quota.80" || d.header.Get("Content-Type") != "application/json" || d.user != "hook" {
		t.Errorf("header %v, user %q", d.header, d.user)
	}
	signature := d.header.Get("X-Maskrelay-Signature")
	first, _, _ := strings.Cut(strings.TrimPrefix(signature, "t="), ",")
	at, err := strconv.ParseInt(first, 10, 64)
	if err != nil || at < before || at > time.Now().Unix() {
		t.Errorf("signature %q is of another time", signature)
	}
	if want := Sign("s3cret", time.Unix(at, 0), d.body); signature != want {
		t.Errorf("signature %q, want %q", signature, want)
	}
	s.waitFor(t, "delivered", 1)
	s.waitFor(t, "waiting", 0)
}

// The value was computed with openssl, so that both ends of a check are not our own.
func TestSign(t *testing.T) {
	got := Sign("key", time.Unix(1700000000, 0), []byte(`{"id":"1"}`))
	if want := "t=1700000000,v1=9e040cb90cefc5a04ab9a9848a74e2ff0489b4d8837b38d54555cb67e4f8e76e"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestWithoutASecretNothingIsSigned(t *testing.T) {
	e := listen(t, status(http.StatusOK))
	s, _ := start(t, Config{URL: e.URL})
	s.Send(example, "1")
	if d := e.next(t); d.header.Get("X-Maskrelay-Signature") != "" {
		t.Errorf("signed with nothing: %v", d.header)
	}
}

func TestRetry(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request, int){
		"5xx":       status(500, 200),
		"429":       status(429, 200),
		"404":       status(404, 200),
		"redirect":  status(302, 200),
		"permanent": status(308, 200),
		"cut off": func(w http.ResponseWriter, _ *http.Request, n int) {
			if n == 0 {
				panic(http.ErrAbortHandler)
			}
		},
		"redirect with a place": func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 0 {
				http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
				return
			}
			if r.URL.Path != "/" {
				w.WriteHeader(http.StatusGone)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := listen(t, answer)
			var mu sync.Mutex
			var troubles []error
			s, stop := start(t, Config{URL: e.URL + "/", Secret: "x", Trouble: func(err error) {
				mu.Lock()
				defer mu.Unlock()
				troubles = append(troubles, err)
			}})
			s.Send(example, "1")
			first, second := e.next(t), e.next(t)
			if !bytes.Equal(first.body, second.body) {
				t.Errorf("%s was followed by %s", first.body, second.body)
			}
			s.waitFor(t, "delivered", 1)
			s.waitFor(t, "retried", 1)
			stop()
			if len(troubles) != 2 || troubles[0] == nil || troubles[1] != nil {
				t.Errorf("troubles %v, want one and its end", troubles)
			}
		})
	}
}

func TestGone(t *testing.T) {
	e := listen(t, status(http.StatusGone, http.StatusOK))
	s, _ := start(t, Config{URL: e.URL})
	s.Send(example, "1")
	e.next(t)
	s.waitFor(t, "gone", 1)
	s.waitFor(t, "waiting", 0)
}

// An endpoint that hangs must hold up neither Send nor the end, and no more than its own events.
func TestHang(t *testing.T) {
	released := make(chan struct{})
	e := listen(t, func(w http.ResponseWriter, r *http.Request, n int) {
		if n == 0 {
			<-released
		}
	})
	defer close(released)
	s, stop := start(t, Config{URL: e.URL, Flush: 100 * time.Millisecond})
	s.Send(example, "hangs")
	e.next(t)
	s.Send(example, "passes")
	e.next(t)
	s.waitFor(t, "delivered", 1)
	begin := time.Now()
	stop()
	if took := time.Since(begin); took > tryTime {
		t.Errorf("the end took %v", took)
	}
	if lost := s.result(t, "lost"); lost != 1 {
		t.Errorf("%d lost, want the one that hangs", lost)
	}
}

func TestTheEndTriesOnceMore(t *testing.T) {
	var open atomic.Bool
	e := listen(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		if !open.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	s, stop := start(t, Config{URL: e.URL})
	for i := range 20 {
		s.Send(example, strconv.Itoa(i))
	}
	s.waitFor(t, "waiting", 20)
	for range 20 {
		e.next(t)
	}
	open.Store(true)
	stop()
	if got := s.result(t, "delivered"); got != 20 {
		t.Errorf("%d of 20 delivered at the end, %d lost", got, s.result(t, "lost"))
	}
}

func TestTheEndDoesNotTryForEver(t *testing.T) {
	e := listen(t, status(http.StatusServiceUnavailable))
	s, stop := start(t, Config{URL: e.URL})
	for i := range 20 {
		s.Send(example, strconv.Itoa(i))
	}
	stop()
	if got := s.result(t, "lost"); got != 20 {
		t.Errorf("%d of 20 lost", got)
	}
	if tries := len(e.got); tries > 40 {
		t.Errorf("%d tries of 20 events", tries)
	}
}

func TestSpoolIsBounded(t *testing.T) {
	s, err := New(Config{URL: "http://127.0.0.1:1/"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range spoolSize + 10 {
		s.Send(example, strconv.Itoa(i))
	}
	if got := s.result(t, "waiting"); got != spoolSize {
		t.Errorf("%d wait", got)
	}
	if got := s.result(t, "dropped"); got != 10 {
		t.Errorf("%d dropped", got)
	}
	e, _ := s.spool.take(time.Now())
	if !bytes.HasPrefix(e.body, []byte(`{"id":"10",`)) {
		t.Errorf("the oldest is %s, want that with id 10", e.body)
	}
	for i := range 5 {
		s.Send(example, "new "+strconv.Itoa(i))
	}
	if dropped := s.spool.back(e); dropped != false && s.result(t, "waiting") > spoolSize {
		t.Error("more wait than may")
	}
	if got := s.result(t, "waiting"); got > spoolSize {
		t.Errorf("%d wait after one came back", got)
	}
}

func TestEvents(t *testing.T) {
	for name, c := range map[string]struct {
		v    any
		body string // empty = cannot be sent
		kind string
	}{
		"a map":           {map[string]any{"event": "x", "n": 1}, `{"id":"\u003c1\"","event":"x","n":1}`, "x"},
		"nothing in it":   {struct{}{}, `{"id":"\u003c1\""}`, ""},
		"a list":          {[]int{1}, "", ""},
		"a string":        {"x", "", ""},
		"nil":             {nil, "", ""},
		"a channel":       {make(chan int), "", ""},
		"an event number": {map[string]any{"event": 1}, "", ""},
	} {
		e, err := newEvent(c.v, `<1"`, time.Now())
		if (err == nil) != (c.body != "") {
			t.Errorf("%s: error %v", name, err)
		}
		if err == nil && (string(e.body) != c.body || e.kind != c.kind || !json.Valid(e.body)) {
			t.Errorf("%s: %s of kind %q", name, e.body, e.kind)
		}
	}
	s, err := New(Config{URL: "http://127.0.0.1:1/"})
	if err != nil {
		t.Fatal(err)
	}
	s.Send([]int{1}, "1")
	if s.result(t, "invalid") != 1 || s.result(t, "waiting") != 0 {
		t.Error("an event that is none is not counted as invalid")
	}
}

func TestPause(t *testing.T) {
	for tries, want := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
		want *= time.Second
		seen := make(map[time.Duration]bool)
		for range 50 {
			p := pause(tries)
			if p > want || p <= want/2-1 {
				t.Fatalf("after %d tries %v, want half of %v to all", tries, p, want)
			}
			seen[p] = true
		}
		if len(seen) < 10 {
			t.Errorf("after %d tries hardly any chance: %v", tries, seen)
		}
	}
	if p := pause(1 << 20); p > longPause || p < longPause/2 {
		t.Errorf("after very many tries %v", p)
	}
}

func TestADayIsEnough(t *testing.T) {
	e := listen(t, status(http.StatusInternalServerError))
	s, err := New(Config{URL: e.URL})
	if err != nil {
		t.Fatal(err)
	}
	old, err := newEvent(example, "1", time.Now().Add(-giveUp))
	if err != nil {
		t.Fatal(err)
	}
	s.spool.put(old)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	s.waitFor(t, "expired", 1)
	s.waitFor(t, "waiting", 0)
	stop()
	<-done
}

// The URL holds credentials: no error may tell more of it than the host.
func TestErrorsDoNotTellTheURL(t *testing.T) {
	refusing := listen(t, status(http.StatusForbidden))
	closed := listen(t, status(http.StatusOK))
	closed.Close()
	badReply := listen(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		w.Header().Set("Location", "http://%zz/hush")
		w.WriteHeader(http.StatusFound)
	})
	for name, target := range map[string]string{
		"refuses": refusing.URL, "closed": closed.URL, "no TLS": strings.Replace(refusing.URL, "http:", "https:", 1), "bad place": badReply.URL,
	} {
		t.Run(name, func(t *testing.T) {
			u, err := url.Parse(target)
			if err != nil {
				t.Fatal(err)
			}
			host := u.Host
			u.User, u.Path, u.RawQuery = url.UserPassword("hush", "hush"), "/hush", "token=hush"
			told := make(chan error, 1)
			s, _ := start(t, Config{URL: u.String(), Secret: "hush", Trouble: func(err error) {
				select {
				case told <- err:
				default:
				}
			}})
			s.Send(example, "1")
			select {
			case err := <-told:
				if err == nil || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), host) {
					t.Errorf("told %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("nothing told")
			}
		})
	}
	for _, bad := range []string{"", "hush", "ftp://hush/", "http://", "http://hush:%zz@x/", "http://:80/hush", "://hush"} {
		if _, err := New(Config{URL: bad}); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%q: error %v", bad, err)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	const senders, each = 8, 50
	e := listen(t, status(http.StatusOK))
	s, stop := start(t, Config{URL: e.URL})
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() {
			for j := range each {
				s.Send(example, fmt.Sprint(i, "-", j))
			}
		})
	}
	all.Wait()
	s.waitFor(t, "delivered", senders*each)
	stop()
	var ids []string
	for range senders * each {
		var body struct{ ID string }
		if err := json.Unmarshal(e.next(t).body, &body); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, body.ID)
	}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != senders*each || len(e.got) != 0 {
		t.Errorf("%d of %d events, %d more", len(ids), senders*each, len(e.got))
	}
}
