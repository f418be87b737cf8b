package integration

import (
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// gatewayLoss is how a gateway is lost in the middle of a drop.
type gatewayLoss struct {
	lose func(*testing.T, *lab.Gateway)
	cure func(*testing.T, *lab.Gateway)
	// failed is how many of lossSetups customers may go without, at the most.
	failed int
	cause  string
}

const lossSetups = 3000

func fall(ill lab.Ill) func(*testing.T, *lab.Gateway) {
	return func(t *testing.T, g *lab.Gateway) { t.Helper(); g.Fall(t, ill) }
}

func send(sig os.Signal) func(*testing.T, *lab.Gateway) {
	return func(t *testing.T, g *lab.Gateway) { t.Helper(); g.Signal(t, sig) }
}

// lossWait is the relay's patience in these tests: the customers' own is longer.
var lossWait = lab.Env{"DIAL_TIMEOUT": "2s", "CONNECT_TIMEOUT": "2s"}

// TestDropLosesAGateway loses one of three gateways in the ways in which they are lost. Customers whose set-ups were under way may fail where no retry is
// affordable, or with the killed process; then the gateway is out of use, the log says so once, the relay stays ready, and the gateway comes back by itself.
func TestDropLosesAGateway(t *testing.T) {
	cured := fall(lab.Ill{})
	losses := map[string]gatewayLoss{
		"resets":       {lose: fall(lab.Ill{Percent: 100, Answer: lab.Resets}), cure: cured, failed: lossSetups / 50, cause: "closed"},
		"silent":       {lose: fall(lab.Ill{Percent: 100, Answer: lab.Silence}), cure: cured, failed: lossSetups / 5, cause: "timeout"},
		"frozen":       {lose: send(syscall.SIGSTOP), cure: send(syscall.SIGCONT), failed: lossSetups / 5, cause: "timeout"},
		"hangs up":     {lose: fall(lab.Ill{Percent: 100}), cure: cured, failed: lossSetups / 50, cause: "closed"},
		"talks rot":    {lose: fall(lab.Ill{Percent: 100, Answer: "SSH-2.0-OpenSSH_9.2\r\n\r\n"}), cure: cured, failed: lossSetups / 50, cause: "malformed"},
		"wrong login":  {lose: fall(lab.Ill{Percent: 100, Answer: "HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"}), cure: cured, failed: lossSetups / 50, cause: "auth"},
		"unavailable":  {lose: fall(lab.Ill{Percent: 100, Answer: "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"}), cure: cured, failed: lossSetups / 50, cause: "server"},
		"mostly fails": {lose: fall(lab.Ill{Percent: 80, Answer: ailing}), cure: cured, failed: lossSetups / 50, cause: "server"},
	}
	for name, loss := range losses {
		t.Run(name, func(t *testing.T) { loseGateway(t, loss) })
	}
}

func loseGateway(t *testing.T, loss gatewayLoss) {
	s := openShop(t, 3, lossWait)
	if d, _ := s.drop(t, lossSetups); d.Failed() > 0 {
		t.Fatalf("with healthy gateways: %v", d)
	}
	loss.lose(t, s.gateways[2])
	d := s.crowd.Drop(t, lossSetups, dropWorkers)
	t.Logf("the loss: %v", d)
	if d.Failed() > loss.failed {
		t.Errorf("%d failed, at most %d may", d.Failed(), loss.failed)
	}
	lab.Wait(t, 10*time.Second, "the log to say that it is out of use", func() bool { return len(gatewayLines(s.relay, downLine, "g2")) == 1 })
	if line := gatewayLines(s.relay, downLine, "g2")[0]; !strings.Contains(line, `"cause":"`+loss.cause+`"`) || !strings.Contains(line, `"advice":"`) {
		t.Errorf("not for %s, or without advice: %s", loss.cause, line)
	}
	s.relay.WaitReadiness(t, http.StatusOK)
	loss.cure(t, s.gateways[2])
	lab.Wait(t, 60*time.Second, "the gateway to be back", func() bool {
		if d := s.crowd.Drop(t, 20, 4); d.Failed() > 0 {
			t.Errorf("while it comes back: %v", d)
		}
		up, _ := s.relay.Metric(t, `maskrelay_upstream_up{upstream="g2"}`)
		return up == 1
	})
	for i := range 2 {
		if lines := gatewayLines(s.relay, downLine, gatewayNamed(i)); len(lines) > 0 {
			t.Errorf("a healthy gateway went, too: %q", lines)
		}
	}
	if lines := len(gatewayLines(s.relay, `"event":"`, "g2")); lines > 4 {
		t.Errorf("%d lines about one loss", lines)
	}
}

// TestDropWithASlowGateway has one gateway of three take two seconds: nobody fails for it, it goes, and is back when it is fast again.
func TestDropWithASlowGateway(t *testing.T) {
	s := openShop(t, 3, nil)
	s.gateways[0].Fall(t, lab.Ill{Delay: 2100 * time.Millisecond})
	if d, _ := s.drop(t, 2000); d.Failed() > 0 {
		t.Errorf("failed: %v", d)
	}
	lab.Wait(t, 10*time.Second, "the slow gateway to go", func() bool { return len(gatewayLines(s.relay, downLine, "g0")) == 1 })
	if line := gatewayLines(s.relay, downLine, "g0")[0]; !strings.Contains(line, `"cause":"slow"`) {
		t.Error(line)
	}
	if d, _ := s.drop(t, 1000); d.Failed() > 0 || d.Well.Max > 2*time.Second {
		t.Errorf("with the slow one out of use: %v", d)
	}
	s.gateways[0].Fall(t, lab.Ill{})
	lab.Wait(t, 60*time.Second, "it to be back", func() bool {
		s.crowd.Drop(t, 20, 4)
		up, _ := s.relay.Metric(t, `maskrelay_upstream_up{upstream="g0"}`)
		return up == 1
	})
}

// TestDropLosesAProgram kills one of two gateways' programs, then the other, and starts them again: the relay is unready only while there is none.
func TestDropLosesAProgram(t *testing.T) {
	s := openShop(t, 2, lossWait)
	wait := s.crowd.StartDrop(t, lossSetups, dropWorkers)
	s.gateways[0].Signal(t, syscall.SIGKILL)
	<-s.gateways[0].Done()
	d := wait()
	t.Logf("one killed: %v", d)
	// Tunnels and set-ups of that moment end with it; a set-up may be tried again, an open tunnel cannot.
	if d.Failed() > dropWorkers/2+lossSetups/50 {
		t.Errorf("%d failed", d.Failed())
	}
	s.relay.WaitReadiness(t, http.StatusOK)
	if d := s.crowd.Drop(t, 500, 64); d.Failed() > 0 {
		t.Errorf("with one gateway left: %v", d)
	}
	s.gateways[1].Signal(t, syscall.SIGKILL)
	<-s.gateways[1].Done()
	d = s.crowd.Drop(t, 500, 64)
	t.Logf("both killed: %v", d)
	if d.Served > 0 || len(d.Errors) > 0 || d.Refused.Max > 2*time.Second {
		t.Errorf("without a gateway: %v", d)
	}
	s.relay.WaitReadiness(t, http.StatusServiceUnavailable)
	for i, g := range s.gateways {
		s.gateways[i] = lab.StartGateway(t, g.Addr)
	}
	s.relay.WaitReadiness(t, http.StatusOK)
	lab.Wait(t, 20*time.Second, "both to be back", func() bool { return s.relay.Sum(t, "maskrelay_upstream_up") == 2 })
	if d := s.crowd.Drop(t, 500, 64); d.Failed() > 0 {
		t.Errorf("with both back: %v", d)
	}
	for i := range 2 {
		if down, up := gatewayLines(s.relay, downLine, gatewayNamed(i)), gatewayLines(s.relay, upLine, gatewayNamed(i)); len(down) != 1 || len(up) != 1 {
			t.Errorf("%q %q", down, up)
		}
	}
}
