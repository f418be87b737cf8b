package integration

import (
	"encoding/json"
	"sync"
	"testing"

	"maskrelay/integration/lab"
)

// credentialsOnce answers a proxy's challenge with the customer's credentials and lets every other request go on.
type credentialsOnce struct {
	mu         sync.Mutex
	challenged []string // where the challenges came from, as the browser says
	errs       []error
}

func (c *credentialsOnce) event(b *browser, m message) {
	var params struct {
		RequestID string `json:"requestId"`
		Challenge struct {
			Source string `json:"source"`
			Realm  string `json:"realm"`
		} `json:"authChallenge"`
	}
	if json.Unmarshal(m.Params, &params) != nil {
		return
	}
	var err error
	switch m.Method {
	case "Fetch.requestPaused":
		_, err = b.send(m.SessionID, "Fetch.continueRequest", map[string]string{"requestId": params.RequestID})
	case "Fetch.authRequired":
		_, err = b.send(m.SessionID, "Fetch.continueWithAuth", map[string]any{"requestId": params.RequestID,
			"authChallengeResponse": map[string]string{"response": "ProvideCredentials", "username": customerName, "password": customerPassword}})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.Method == "Fetch.authRequired" {
		c.challenged = append(c.challenged, params.Challenge.Source+" "+params.Challenge.Realm)
	}
	if err != nil {
		c.errs = append(c.errs, err)
	}
}

// TestChromium loads pages, asks from their scripts and uploads, through each load balancer.
func TestChromium(t *testing.T) {
	t.Parallel()
	lab.Need(t, "chromium")
	for balancerKind, vendorKind := range map[string]string{"haproxy": "squid", "nginx": "tinyproxy"} {
		t.Run(balancerKind, func(t *testing.T) {
			t.Parallel()
			c := customerSees{stack: startStack(t, balancerKind, vendorKind, lab.Env{"BRAND": "Fast Proxy"}), site: startTarget(t, "")}
			login := &credentialsOnce{}
			b := startBrowser(t, c.stack.customer.Addr(), login.event)
			session := b.openTab(t)
			b.call(t, session, "Fetch.enable", map[string]any{"handleAuthRequests": true}, nil)
			b.call(t, session, "Page.enable", none{}, nil)
			b.call(t, session, "Security.setIgnoreCertificateErrors", map[string]bool{"ignore": true}, nil)
			for _, scheme := range []string{"https", "http"} {
				var nav struct {
					ErrorText string `json:"errorText"`
				}
				b.call(t, session, "Page.navigate", map[string]string{"url": c.url(scheme, "/page")}, &nav)
				if nav.ErrorText != "" {
					t.Fatalf("%s: %s", scheme, nav.ErrorText)
				}
				lab.Wait(t, commandLimit, "the page to load", func() bool {
					return b.evaluate(t, session, "document.readyState + ' ' + document.title") == "complete "+pageTitle
				})
				if got := b.evaluate(t, session, "fetch('/hello').then(r => r.text())"); got != helloText {
					t.Errorf("%s: fetch gave %q", scheme, got)
				}
				const upload = "fetch('/digest', {method: 'POST', body: new Uint8Array(1000000)}).then(r => r.text())"
				if got := b.evaluate(t, session, upload); len(got) < 8 || got[:8] != "1000000 " {
					t.Errorf("%s: upload gave %q", scheme, got)
				}
			}
			login.mu.Lock()
			defer login.mu.Unlock()
			if len(login.challenged) == 0 || login.challenged[0] != "Proxy Fast Proxy" {
				t.Errorf("challenges %q, want the proxy's with our realm", login.challenged)
			}
			for _, err := range login.errs {
				t.Error(err)
			}
		})
	}
}
