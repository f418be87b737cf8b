package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

const (
	tryTime    = 5 * time.Second
	flushTime  = 3 * time.Second
	workers    = 4 // deliveries at the same time, so that one that hangs does not hold up the rest
	answerSize = 64 << 10
)

// Config says where events go. URL is needed.
type Config struct {
	// URL is http:// or https://, with a user and password in it if the endpoint asks for them.
	URL string
	// Secret keys the signature; without it there is none.
	Secret string
	// TLS is for https://; nil = the system's authorities.
	TLS *tls.Config
	// Flush bounds the last tries when Run's context ends; 0 = 3 s.
	Flush time.Duration
	// Trouble is told why a delivery failed, when the one before it did not, and nil when one
	// works again. One call at a time; may be nil.
	Trouble func(error)
}

// Sender delivers. Safe for concurrent use; what is sent waits until Run is called.
type Sender struct {
	config Config
	url    *url.URL
	http   *http.Transport // not a Client, which would look at redirects
	spool  *spool
	counts counts

	mu       sync.Mutex // guards troubled, and calls of Trouble
	troubled bool
}

// New returns a Sender. The error says what is wrong with the URL without telling it.
func New(c Config) (*Sender, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, errors.New("webhook: not a URL of an endpoint; write https://host/path")
	}
	if c.Flush <= 0 {
		c.Flush = flushTime
	}
	return &Sender{
		config: c,
		url:    u,
		spool:  newSpool(),
		counts: newCounts(),
		http: &http.Transport{ // no proxy: what the environment says of one is for other programs
			TLSClientConfig:     c.TLS.Clone(),
			TLSHandshakeTimeout: tryTime,
			MaxIdleConnsPerHost: workers,
			IdleConnTimeout:     time.Minute,
			ForceAttemptHTTP2:   true,
		},
	}, nil
}

// Send has v delivered under the id. It never blocks: beyond 1024 that wait, the oldest is
// dropped and counted. V becomes a JSON object; its member "event" also goes into a header. What
// cannot become one is counted as invalid.
func (s *Sender) Send(v any, id string) {
	e, err := newEvent(v, id, time.Now())
	if err != nil {
		s.counts.results.WithLabelValues(resultInvalid).Inc()
		return
	}
	if s.spool.put(e) {
		s.counts.results.WithLabelValues(resultDropped).Inc()
	}
}

// Run delivers until ctx ends; then it tries once more what waits, for a bounded time, and
// counts the rest as lost. It is to be called once.
func (s *Sender) Run(ctx context.Context) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	var all sync.WaitGroup
	for range workers {
		all.Go(func() { s.work(ctx, life) })
	}
	<-ctx.Done()
	timer := time.AfterFunc(s.config.Flush, end)
	all.Wait()
	timer.Stop()
	end()
	s.counts.results.WithLabelValues(resultLost).Add(float64(s.spool.clear()))
	s.http.CloseIdleConnections()
}

// work delivers what is due until ctx ends, and then whatever it has not yet tried since.
func (s *Sender) work(ctx, life context.Context) {
	for {
		if ctx.Err() != nil {
			s.flush(life)
			return
		}
		e, next := s.spool.take(time.Now())
		if e != nil {
			s.try(life, e)
			continue
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-s.spool.more:
		}
		timer.Stop()
	}
}

// flush tries each event that waits once more.
func (s *Sender) flush(life context.Context) {
	for life.Err() == nil {
		e := s.spool.takeLast()
		if e == nil {
			return
		}
		s.try(life, e)
	}
}

// try delivers the event once and decides what becomes of it.
func (s *Sender) try(ctx context.Context, e *event) {
	status, err := s.post(ctx, e)
	if err != nil && ctx.Err() != nil { // the end, not the endpoint
		s.spool.back(e)
		return
	}
	now := time.Now()
	result := ""
	switch {
	case err == nil && status/100 == 2:
		result = resultDelivered
	case err == nil && status == http.StatusGone:
		result, err = resultGone, s.refused(status)
	case now.Sub(e.born) >= giveUp:
		result = resultExpired
	}
	if err == nil && result != resultDelivered {
		err = s.refused(status)
	}
	s.tell(err)
	if result == "" {
		s.counts.results.WithLabelValues(resultRetried).Inc()
		e.due = now.Add(pause(e.tries))
		e.tries++
		if s.spool.back(e) {
			s.counts.results.WithLabelValues(resultDropped).Inc()
		}
		return
	}
	s.counts.results.WithLabelValues(result).Inc()
	s.spool.done()
}

func (s *Sender) refused(status int) error {
	return fmt.Errorf("webhook: %s answered %d", s.url.Host, status)
}

// tell passes on the first failure after a success, and the first success after a failure.
func (s *Sender) tell(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if (err != nil) == s.troubled {
		return
	}
	s.troubled = err != nil
	if s.config.Trouble != nil {
		s.config.Trouble(err)
	}
}

// post sends the event once. Its error names the host only.
func (s *Sender) post(ctx context.Context, e *event) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url.Scheme+"://"+s.url.Host, bytes.NewReader(e.body))
	if err != nil {
		return 0, fmt.Errorf("webhook: no request to %s can be made", s.url.Host)
	}
	request.URL.Path, request.URL.RawPath, request.URL.RawQuery = s.url.Path, s.url.RawPath, s.url.RawQuery
	if s.url.User != nil {
		password, _ := s.url.User.Password()
		request.SetBasicAuth(s.url.User.Username(), password)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "maskrelay-webhook")
	if e.kind != "" {
		request.Header.Set("X-Maskrelay-Event", e.kind)
	}
	if s.config.Secret != "" {
		request.Header.Set("X-Maskrelay-Signature", Sign(s.config.Secret, time.Now(), e.body))
	}
	response, err := s.http.RoundTrip(request)
	if err != nil {
		return 0, fmt.Errorf("webhook: %s: %w", s.url.Host, err)
	}
	// What it says does not matter; it is read so that the connection can be used again.
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, answerSize))
	return response.StatusCode, response.Body.Close()
}

// Sign returns the value of the signature header for a body sent at that time.
func Sign(secret string, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(t + "."))
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// newEvent writes the body: the members of v with the id before them.
func newEvent(v any, id string, now time.Time) (*event, error) {
	object, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var header struct {
		Event string `json:"event"`
	}
	if object[0] != '{' || json.Unmarshal(object, &header) != nil {
		return nil, errors.New("webhook: an event is a JSON object")
	}
	name, err := json.Marshal(id)
	if err != nil {
		return nil, err
	}
	body := append([]byte(`{"id":`), name...)
	if len(object) > len("{}") {
		body = append(body, ',')
	}
	return &event{kind: header.Event, body: append(body, object[1:]...), born: now, due: now}, nil
}
