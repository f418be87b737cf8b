package integration

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

const hookSecret = "webhook-key-0815"

// delivery is a webhook as its receiver got it.
type delivery struct {
	ID      string    `json:"id"`
	Event   string    `json:"event"`
	Account string    `json:"account"`
	Quota   int64     `json:"quota"`
	Used    int64     `json:"used"`
	Period  string    `json:"period"`
	Time    time.Time `json:"time"`
}

// receiver is an endpoint for webhooks that believes nothing.
type receiver struct {
	t  *testing.T
	mu sync.Mutex
	// got are the deliveries that were taken.
	got []delivery
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
	var d delivery
	if err == nil {
		err = json.Unmarshal(body, &d)
	}
	if err == nil {
		err = checkSignature(req.Header.Get("X-Maskrelay-Signature"), body)
	}
	if err == nil && (req.Method != http.MethodPost || req.Header.Get("X-Maskrelay-Event") != d.Event || d.ID == "") {
		err = fmt.Errorf("%s with %v", req.Method, req.Header)
	}
	if err != nil {
		r.t.Errorf("webhook: %v: %s", err, body)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, d)
	w.WriteHeader(http.StatusNoContent)
}

// checkSignature does what the documentation tells receivers to do.
func checkSignature(header string, body []byte) error {
	at, sum, ok := strings.Cut(strings.TrimPrefix(header, "t="), ",v1=")
	seconds, err := strconv.ParseInt(at, 10, 64)
	if !ok || err != nil {
		return fmt.Errorf("signature %q", header)
	}
	if age := time.Since(time.Unix(seconds, 0)); math.Abs(age.Seconds()) > 60 {
		return fmt.Errorf("signed %v ago", age)
	}
	mac := hmac.New(sha256.New, []byte(hookSecret))
	_, _ = io.WriteString(mac, at+".") // a hash has no errors
	_, _ = mac.Write(body)
	if given, err := hex.DecodeString(sum); err != nil || !hmac.Equal(given, mac.Sum(nil)) {
		return fmt.Errorf("signature %q is not of the body", header)
	}
	return nil
}

func (r *receiver) deliveries() []delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]delivery(nil), r.got...)
}

// TestQuotaWebhook uses a quota up on two relays while the receiver is down: once it is up it gets each crossing once.
func TestQuotaWebhook(t *testing.T) {
	t.Parallel()
	addr := lab.FreeAddr(t)
	p := startQuotaPair(t, "1MB", "monthly", lab.Env{"WEBHOOK_URL": "http://" + addr + "/hooks?x=1", "WEBHOOK_SECRET": hookSecret})
	one, two := openMover(t, p.relays[0].Addr, "metered", "m-password"), openMover(t, p.relays[1].Addr, "metered", "m-password")
	one.mustMove(t, 16, 450_000)
	two.mustMove(t, 16, 400_000)
	retried := func() (n float64) {
		for _, r := range p.relays {
			some, _ := r.Metric(t, `maskrelay_webhook_total{result="retried"}`)
			n += some
		}
		return n
	}
	lab.Wait(t, cutLimit, "a first try", func() bool { return retried() > 0 })
	one.mustMove(t, 16, 100_000)
	two.mustMove(t, 16, 100_000)
	one.waitCut(t, cutLimit)
	two.waitCut(t, cutLimit)

	r := &receiver{t: t}
	ln, err := net.Listen("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: r, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ln) // ends with the test
	}()
	t.Cleanup(func() {
		_ = server.Close() // it is to end
		<-done
	})
	lab.Wait(t, 30*time.Second, "both events", func() bool { return len(r.deliveries()) >= 2 })
	// Each relay books a few times more; whatever would come twice comes then.
	if lab.Poll(7*time.Second, func() bool { return len(r.deliveries()) > 2 }) {
		t.Errorf("more than two deliveries")
	}
	month := time.Now().UTC().Format("2006-01")
	seen := map[string]int{}
	for _, d := range r.deliveries() {
		seen[d.Event]++
		least := map[string]int64{"quota.80": 800_000, "quota.100": 1_000_000}[d.Event]
		if d.Account != "metered" || d.Quota != 1_000_000 || d.Period != month || d.Used < least || d.Used > one.sent+one.received+two.sent+two.received {
			t.Errorf("%+v", d)
		}
	}
	if seen["quota.80"] != 1 || seen["quota.100"] != 1 || len(seen) != 2 {
		t.Errorf("events %v", seen)
	}
	for _, relay := range p.relays {
		if waiting, ok := relay.Metric(t, "maskrelay_webhook_waiting"); !ok || waiting != 0 {
			t.Errorf("%v events wait", waiting)
		}
		if strings.Contains(string(relay.Stderr.Bytes()), hookSecret) {
			t.Error("the secret is in the log")
		}
	}
}
