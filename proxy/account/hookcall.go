package account

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// maxHookHead bounds the head of a hook's answer.
	maxHookHead = 64 << 10
	// maxHookRest is how much of a body that nobody reads is read for the sake of its connection.
	maxHookRest = 4 << 10
	// hookIdle is how long a connection to the hook is kept for the next call.
	hookIdle = 30 * time.Second
)

// asking is what a hook is asked.
type asking struct {
	d        digest
	name     string
	password *secret
	from     origin
}

// origin is who asked first for a credential, and where.
type origin struct {
	client   string // an address; empty = not known
	listener string
}

func originOf(ctx context.Context) origin {
	o := origin{listener: listenerOf(ctx)}
	if client := clientOf(ctx); client.IsValid() {
		o.client = client.String()
	}
	return o
}

// caller asks the hook, over connections that it keeps. Safe for concurrent use.
type caller struct {
	base      *url.URL // without userinfo
	headers   bool     // the style
	authorize string   // the Authorization field; empty = none
	timeout   time.Duration
	transport *http.Transport
}

func newCaller(config HookConfig) (*caller, error) {
	base, err := url.Parse(config.URL)
	// Neither url's error nor its text is quoted: both can hold a password.
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Hostname() == "" || base.Fragment != "" {
		return nil, errors.New("account: hook: the URL must be of the form http://host/path or https://host/path")
	}
	if config.TLS != nil && base.Scheme != "https" {
		return nil, errors.New("account: hook: certificates need an https:// URL")
	}
	c := &caller{base: base, timeout: config.Timeout}
	switch config.Style {
	case "", StyleJSON:
	case StyleHeaders:
		c.headers = true
	default:
		return nil, fmt.Errorf("account: hook: the style must be %s or %s", StyleJSON, StyleHeaders)
	}
	if c.authorize, err = authorization(base, config); err != nil {
		return nil, err
	}
	base.User = nil
	c.transport = &http.Transport{
		// A transport may finish a connection for later after the call has ended.
		DialContext:            (&net.Dialer{Timeout: config.Timeout}).DialContext,
		TLSHandshakeTimeout:    config.Timeout,
		MaxIdleConnsPerHost:    config.Concurrency,
		IdleConnTimeout:        hookIdle,
		MaxResponseHeaderBytes: maxHookHead,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
	}
	if config.TLS != nil {
		c.transport.TLSClientConfig = config.TLS.Clone()
	}
	return c, nil
}

// authorization returns the Authorization field of calls, empty for none.
func authorization(base *url.URL, config HookConfig) (string, error) {
	switch {
	case config.Token != "" && base.User != nil:
		return "", errors.New("account: hook: either the URL holds credentials or there is a token, not both")
	case !visible(config.Token):
		return "", errors.New("account: hook: the token must have visible ASCII characters only")
	case config.Token != "":
		return "Bearer " + config.Token, nil
	case base.User != nil:
		password, _ := base.User.Password()
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth(base.User.Username(), password)
		return r.Header.Get("Authorization"), nil
	}
	return "", nil
}

// visible reports whether s can stand in a field's value as it is.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// ask makes one call. The error is [ErrRefused] if the hook said so; any other is the
// hook's or the way's to it, and quotes neither the password nor the answer.
func (c *caller) ask(ctx context.Context, q asking) (*Account, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	request, err := c.request(ctx, q)
	if err != nil {
		return nil, err
	}
	// A transport, unlike a client, follows no redirects and puts no URL in its errors.
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("no answer within %s", c.timeout)
		case strings.Contains(err.Error(), "malformed"): // then it quotes what came; the types are not exported
			return nil, errors.New("what came is not HTTP")
		}
		return nil, err
	}
	defer func() {
		_, _ = io.CopyN(io.Discard, response.Body, maxHookRest)
		_ = response.Body.Close()
	}()
	if c.headers {
		return headersAnswer(q.name, response)
	}
	return jsonAnswer(q.name, response)
}

func (c *caller) request(ctx context.Context, q asking) (*http.Request, error) {
	target, method, body := *c.base, http.MethodGet, []byte(nil)
	if c.headers {
		target.RawQuery = headersQuery(target.RawQuery, q)
	} else {
		method, body = http.MethodPost, jsonQuestion(q)
	}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the request cannot be made") // err quotes the URL
	}
	request.Header.Set("User-Agent", "maskrelay")
	request.Header["Idempotency-Key"] = nil // not sent; a kept connection that turns out dead is tried again
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Accept", "application/json")
	}
	if c.authorize != "" {
		request.Header.Set("Authorization", c.authorize)
	}
	return request, nil
}

func jsonQuestion(q asking) []byte {
	// Strings can always be written.
	body, _ := json.Marshal(struct {
		Username string `json:"username"`
		Password string `json:"password"`
		Client   string `json:"client"`
		Listener string `json:"listener"`
	}{q.name, *q.password.text, q.from.client, q.from.listener})
	return body
}

// jsonAnswer reads an answer: 200 with an account, or 403.
func jsonAnswer(name string, response *http.Response) (*Account, error) {
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusForbidden:
		return nil, ErrRefused
	default:
		return nil, statusError(response.StatusCode)
	}
	media, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return nil, errors.New("the answer's Content-Type is not application/json")
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, maxJSON+1))
	if err != nil {
		return nil, errors.New("the answer broke off")
	}
	a, err := ParseJSON(name, data)
	if err != nil {
		return nil, fmt.Errorf("the answer is not an account: %w", err)
	}
	a.password = nil // the hook has checked it, and will again
	return a, nil
}

func statusError(status int) error {
	text := fmt.Sprintf("status %d %s", status, http.StatusText(status))
	switch {
	case status == http.StatusUnauthorized || status == http.StatusProxyAuthRequired:
		text += ": the hook does not accept the relay's own token or certificate"
	case status == http.StatusNotFound:
		text += ": is the URL right?"
	case status/100 == 3:
		text += ": redirects are not followed"
	}
	return errors.New(text)
}
