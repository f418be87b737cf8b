package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// arrows are what each package of ours may import of ours, and why not more. A
// package that is missing here fails the test: decide its place first.
var arrows = map[string]struct {
	may string
	why string
}{
	"cmd/maskrelay":               {"*", "the program puts everything together"},
	"proxy":                       {"proxy/account proxy/guess proxy/limit proxy/tunnel proxy/usage masking upstream upstream/vendor", "the front; admin reads it through interfaces of the standard and metrics libraries"},
	"proxy/account":               {"", "accounts know nothing of connections"},
	"proxy/admin":                 {"", "it renders snapshots and decides nothing"},
	"proxy/capacity":              {"", "pure reads and arithmetic"},
	"proxy/fleet":                 {"", "the way to Redis; what is kept there is others'"},
	"proxy/guess":                 {"", "it counts failures, whoever failed"},
	"proxy/limit/redislimit":      {"proxy/limit proxy/fleet", "the limiter of a fleet"},
	"proxy/account/redisaccounts": {"proxy/account proxy/fleet", "accounts that a fleet shares"},
	"proxy/account/accountapi":    {"proxy/account proxy/account/redisaccounts proxy/admin", "the one place where accounts and the admin server meet"},
	"proxy/usage":                 {"", "bytes are counted for names, whatever they are"},
	"proxy/usage/redisusage":      {"proxy/usage proxy/fleet", "the ledger of a fleet"},
	"proxy/usage/usagetest":       {"proxy/usage", "the suite of its ledgers"},
	"proxy/webhook":               {"", "it delivers what it is given"},
	"proxy/limit":                 {"", "a limiter counts keys, whatever they are"},
	"proxy/limit/limittest":       {"proxy/limit", "the suite of that interface"},
	"proxy/tunnel":                {"", "the engine carries bytes; who is allowed what was decided before"},
	"masking":                     {"", "the mask must be provable alone; standard library only"},
	"upstream":                    {"masking upstream/vendor", "the vendor's side never sees customers' packages"},
	"upstream/vendor":             {"", "data and pure functions over it"},
	"upstream/upstreamtest":       {"", "demo, audit and tests share it"},
	"upstream/upstreamtest/audit": {"masking upstream/upstreamtest", "it knows a relay from outside only"},
	"integration":                 {"masking upstream/upstreamtest integration/lab", "black box: the built binary, not its packages"},
	"integration/lab":             {"masking upstream/upstreamtest", "the harness of integration"},
	"integration/soak":            {"masking upstream/upstreamtest integration/lab", "black box, as integration"},
	"integration/bench":           {"", "measures the built binary; generator and vendor are its own, light ones"},
}

// randomly are the packages that spread work over time, or choose, where guessing the choice is of no use to anyone.
const randomly = "proxy/account proxy/limit/redislimit proxy/usage/usagetest proxy/webhook upstream upstream/upstreamtest " +
	"integration/lab integration/soak integration/bench"

// outside are imports that only the named packages may have, and masking may have none.
var outside = map[string]string{
	"github.com/elazarl/goproxy":     "proxy integration/bench", // the bench measures goproxy alone beside ours
	"github.com/caarlos0/env/v11":    "cmd/maskrelay",
	"github.com/spf13/cobra":         "cmd/maskrelay",
	"github.com/pires/go-proxyproto": "proxy",
	"github.com/goccy/go-yaml":       "proxy/account upstream/vendor",
	"github.com/redis/go-redis/v9":   "proxy/fleet proxy/limit/redislimit proxy/account/redisaccounts proxy/usage/redisusage",
	"go.etcd.io/bbolt":               "proxy/usage",
	"unsafe":                         "proxy/tunnel", // system calls
	// What customers and vendors write is never matched by patterns: masking searches it in one pass.
	"regexp":       "cmd/maskrelay proxy/fleet integration/lab integration/soak integration/bench",
	"math/rand":    "",
	"math/rand/v2": randomly,
}

func TestArrows(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "maskrelay/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		from := strings.TrimPrefix(fields[0], "maskrelay/")
		rule, known := arrows[from]
		if !known {
			t.Errorf("%s has no place in the table of arrows", from)
			continue
		}
		for _, to := range fields[1:] {
			if room, ours := strings.CutPrefix(to, "maskrelay/"); ours {
				if rule.may != "*" && !slices.Contains(strings.Fields(rule.may), room) {
					t.Errorf("%s must not import %s: %s", from, room, rule.why)
				}
				continue
			}
			if only, named := outside[to]; named && !slices.Contains(strings.Fields(only), from) {
				t.Errorf("%s must not import %s: only %s may", from, to, only)
			}
			if from == "masking" && strings.Contains(to, ".") {
				t.Errorf("masking must not import %s: %s", to, rule.why)
			}
		}
	}
}
