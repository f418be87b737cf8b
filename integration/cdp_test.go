package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// browser is headless Chromium, driven by the DevTools protocol over its pipe: messages end with a zero byte.
type browser struct {
	out     *os.File
	mu      sync.Mutex
	next    int
	answers map[int]chan message
	events  func(message)
}

// message is what the protocol carries, both ways.
type message struct {
	ID        int             `json:"id,omitempty"`
	SessionID string          `json:"sessionId,omitempty"`
	Method    string          `json:"method,omitempty"`
	Params    json.RawMessage `json:"params,omitempty"`
	Result    json.RawMessage `json:"result,omitempty"`
	Error     *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// startBrowser starts Chromium with a proxy, without one for an empty address. events is called for each event, from the reading goroutine, so it must not wait for an answer.
func startBrowser(t *testing.T, proxy string, events func(*browser, message)) *browser {
	t.Helper()
	program := lab.Need(t, "chromium")[0]
	ways := []string{"--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"} // its own requests stay here
	if proxy != "" {
		ways = []string{"--proxy-server=http://" + proxy, "--proxy-bypass-list=<-loopback>"}
	}
	args := []string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions", "--remote-debugging-pipe",
		"--user-data-dir=" + openDir(t)}
	cmd := exec.Command(program, slices.Concat(args, ways, []string{"about:blank"})...)
	fromUs, toBrowser, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromBrowser, toUs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{fromUs, toUs} // file descriptors 3 and 4
	lab.Start(t, "chromium", cmd)
	for _, f := range []*os.File{fromUs, toUs} {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	b := &browser{out: toBrowser, answers: map[int]chan message{}}
	b.events = func(m message) { events(b, m) }
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.read(bufio.NewReader(fromBrowser))
	}()
	t.Cleanup(func() {
		_ = toBrowser.Close()   // the end of its input ends the browser
		_ = fromBrowser.Close() // and this the reading
		<-done
	})
	return b
}

func (b *browser) read(r *bufio.Reader) {
	for {
		raw, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var m message
		if json.Unmarshal(raw[:len(raw)-1], &m) != nil {
			return
		}
		if m.ID == 0 {
			b.events(m)
			continue
		}
		b.mu.Lock()
		answer := b.answers[m.ID]
		delete(b.answers, m.ID)
		b.mu.Unlock()
		if answer != nil {
			answer <- m
		}
	}
}

// send sends a command and returns where its answer will come.
func (b *browser) send(session, method string, params any) (<-chan message, error) {
	raw, err := json.Marshal(params)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	text, err := json.Marshal(message{ID: b.next, SessionID: session, Method: method, Params: raw})
	if err != nil {
		return nil, err
	}
	answer := make(chan message, 1)
	b.answers[b.next] = answer
	_, err = b.out.Write(append(text, 0))
	return answer, err
}

// call sends a command and decodes its result into result, unless that is nil.
func (b *browser) call(t *testing.T, session, method string, params, result any) {
	t.Helper()
	answer, err := b.send(session, method, params)
	if err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	timer := time.NewTimer(commandLimit)
	defer timer.Stop()
	select {
	case m := <-answer:
		if m.Error != nil {
			t.Fatalf("%s: %s", method, m.Error.Message)
		}
		if result == nil {
			return
		}
		if err := json.Unmarshal(m.Result, result); err != nil {
			t.Fatalf("%s: %v", method, err)
		}
	case <-timer.C:
		t.Fatalf("%s: no answer", method)
	}
}

// none is a command without parameters.
type none struct{}

// openTab opens an empty page and returns its session.
func (b *browser) openTab(t *testing.T) string {
	t.Helper()
	var target struct {
		TargetID string `json:"targetId"`
	}
	b.call(t, "", "Target.createTarget", map[string]string{"url": "about:blank"}, &target)
	var session struct {
		SessionID string `json:"sessionId"`
	}
	b.call(t, "", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
	return session.SessionID
}

// evaluate returns the string value of a JavaScript expression.
func (b *browser) evaluate(t *testing.T, session, expression string) string {
	t.Helper()
	var result struct {
		Result struct {
			Value any `json:"value"`
		} `json:"result"`
	}
	b.call(t, session, "Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}, &result)
	return fmt.Sprint(result.Result.Value)
}
