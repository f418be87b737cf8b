package integration

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// TestDemo pastes what the demo prints into a shell, as a person would.
func TestDemo(t *testing.T) {
	t.Parallel()
	lab.Need(t, "curl")
	admin := lab.FreeAddr(t)
	demo := lab.Start(t, "maskrelay demo", lab.RelayCommand(t, lab.Tested, nil, "demo", "--for", "20s", "--listen", lab.FreeAddr(t), "--admin", admin))
	curlLine := regexp.MustCompile(`(?m)curl -.*$`)
	var lines []string
	lab.Wait(t, 15*time.Second, "curl lines", func() bool {
		lines = curlLine.FindAllString(string(demo.Stdout.Bytes()), -1)
		return len(lines) > 0
	})
	for _, line := range lines {
		var out []byte
		var err error
		// The line may be printed a moment before the listener is there.
		if !lab.Poll(5*time.Second, func() bool {
			paste := exec.Command("sh", "-c", strings.Replace(line, "curl ", "curl --fail ", 1))
			paste.Env = append(os.Environ(), "no_proxy=localhost,127.0.0.1") // as many machines have it
			out, err = paste.Output()
			return err == nil && strings.Contains(string(out), `"method":"GET"`) // the target's own words
		}) {
			t.Errorf("%s: %v, %d bytes", line, err, len(out))
		}
	}
	// The targets are on loopback: only the relay's counters tell that nothing went around it.
	outcomes := regexp.MustCompile(`maskrelay_exchanges_total{outcome="[a-z_]+"} (\d+)`)
	metrics, err := exec.Command("curl", "-sS", "--noproxy", "*", "http://"+admin+"/metrics").Output()
	if err != nil {
		t.Fatal(err)
	}
	exchanges := 0
	for _, m := range outcomes.FindAllSubmatch(metrics, -1) {
		n, _ := strconv.Atoi(string(m[1]))
		exchanges += n
	}
	if exchanges < len(lines) {
		t.Errorf("%d exchanges for %d pasted lines", exchanges, len(lines))
	}
	if code := demo.ExitCode(t, 40*time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	checkLog(t, demo)
}
