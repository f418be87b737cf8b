package integration

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"maskrelay/integration/lab"
	"maskrelay/upstream/upstreamtest"
)

// orderGateways start gateways that pass requests on in the order in which they get them.
var orderGateways = map[string]func(t *testing.T) (url string){
	"http": func(t *testing.T) string {
		v, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{Username: vendorUser, Password: "secret", Dial: dialLoopback})
		if err != nil {
			t.Fatal(err)
		}
		closeAtEnd(t, v)
		return "http://" + vendorUser + ":secret@" + v.Addr()
	},
	"socks5": func(t *testing.T) string {
		v, err := upstreamtest.StartSOCKS(upstreamtest.SOCKSConfig{Username: vendorUser, Password: "secret", Dial: dialLoopback})
		if err != nil {
			t.Fatal(err)
		}
		closeAtEnd(t, v)
		return "socks5://" + vendorUser + ":secret@" + v.Addr()
	},
	"direct": func(*testing.T) string { return "direct://" },
}

// dialLoopback keeps a browser's own requests from the network.
func dialLoopback(ctx context.Context, network, addr string) (net.Conn, error) {
	if host, _, err := net.SplitHostPort(addr); err != nil || host != "127.0.0.1" {
		return nil, errors.New("only the target is there")
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

func closeAtEnd(t *testing.T, c interface{ Close() error }) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// orderCustomer asks for all paths of a site that begin with what it is given, by itself or,
// with an address, through a proxy.
type orderCustomer func(t *testing.T, proxy, site string)

var orderCustomers = map[string]orderCustomer{"curl": curlAsks, "python": pythonAsks, "chromium": chromiumAsks}

// TestRequestOrder has the programs that customers use ask a target by themselves and through
// the relay: it must not see a difference in the lines of their requests, their order and
// their spelling. What differs is what is said from hop to hop, which no relay may pass on:
//
//   - curl and Chromium say Proxy-Connection to a proxy, where Chromium says Connection to a
//     target; neither is passed on.
//   - all say Proxy-Authorization to a proxy.
//   - Connection of urllib's, which wants each to be closed, and TE are for the next hop.
func TestRequestOrder(t *testing.T) {
	t.Parallel()
	for kind, start := range orderGateways {
		for name, ask := range orderCustomers {
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				judge, err := upstreamtest.StartJudge(upstreamtest.JudgeConfig{})
				if err != nil {
					t.Fatal(err)
				}
				closeAtEnd(t, judge)
				relay := startRelay(t, lab.Env{"UPSTREAM": start(t), "AUTH": "open", "ALLOW_FROM": "127.0.0.0/8", "ALLOW_PRIVATE": "true", "DENY_HOSTS": "*.com"})
				ask(t, "", judge.URL())
				want := orderHeads(judge)
				ask(t, relay.Addr, judge.URL())
				got := orderHeads(judge)[len(want):] // on later connections
				for _, heads := range [][][]string{want, got} {
					slices.SortFunc(heads, slices.Compare[[]string]) // a browser has several
				}
				if len(want) < 4 || len(want) != len(got) {
					t.Fatalf("%d requests by itself, %d through the relay", len(want), len(got))
				}
				for i := range want {
					if !slices.Equal(got[i], want[i]) {
						t.Errorf("the target sees through the relay\n\t%s\nand without\n\t%s", strings.Join(got[i], "\n\t"), strings.Join(want[i], "\n\t"))
					}
				}
			})
		}
	}
}

// orderHeads are the heads of the requests for /?case, less what is said from hop to hop.
func orderHeads(judge *upstreamtest.Judge) (heads [][]string) {
	for _, c := range judge.Conns() {
		for _, r := range c.Requests() {
			if !strings.HasPrefix(r.Target, "/?case") {
				continue
			}
			lines := slices.Clone(r.Lines)
			lines = slices.DeleteFunc(lines, func(line string) bool {
				name, _, _ := strings.Cut(line, ":")
				return slices.Contains([]string{"connection", "te"}, strings.ToLower(name))
			})
			heads = append(heads, append([]string{r.Method + " " + r.Target + " " + r.Proto}, lines...))
		}
	}
	return heads
}

func curlAsks(t *testing.T, proxy, site string) {
	curl := lab.Need(t, "curl")[0]
	for _, args := range [][]string{
		{"/?case=get"},
		{"-H", "x-ONE: 1", "-H", "accept: text/html", "-H", "X-one: 2", "-H", "Cookie: a=b", "-H", "user-agent: shop/1.0", "/?case=spelled"},
		{"-d", "a=b", "-e", "http://shop.example/", "-b", "c=d", "/?case=form"},
		{"-H", "Transfer-Encoding: chunked", "-d", "a=b", "/?case=chunked"},
		{"-H", "content-length: 3", "-H", "content-type: text/plain", "-d", "a=b", "/?case=lower"},
		{"-X", "DELETE", "-H", "Content-Length: 0", "-H", "X-After: 1", "/?case=nothing"},
		{"-X", "POST", "/?case=none"},
		{"-H", "Pragma: no-cache", "/?case=pragma"},
		{"-H", "User-Agent:", "-H", "Accept:", "-H", "Accept-Encoding: gzip", "/?case=bare"},
	} {
		args = slices.Clone(args)
		args[len(args)-1] = site + args[len(args)-1]
		if proxy != "" {
			args = append([]string{"-x", "http://" + proxy}, args...)
		}
		output(t, exec.Command(curl, append([]string{"-q", "-sS", "--max-time", "30", "--fail"}, args...)...))
	}
}

func pythonAsks(t *testing.T, proxy, site string) {
	python := lab.Need(t, debianPython)[0]
	const script = `
import http.client, os, urllib.request
proxy, site = os.environ["ASK_PROXY"], os.environ["ASK_SITE"]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": "http://" + proxy} if proxy else {}))
for path, data, headers in [
    ("/?case=get", None, {}),
    ("/?case=form", b"a=b", {"X-one": "1", "accept": "*/*"}),
    ("/?case=chunks", iter([b"a", b"b"]), {"Content-type": "text/plain"}),
]:
    with opener.open(urllib.request.Request(site + path, data=data, headers=headers), timeout=30) as r:
        r.read()
host = site.split("//")[1]
for path, method, body, headers in [
    ("/?case=client", "GET", None, {"user-agent": "x", "X-b": "1", "x-A": "2"}),
    ("/?case=client-put", "PUT", b"abc", {"content-type": "text/plain", "ACCEPT": "*/*"}),
    ("/?case=client-length", "PUT", b"abc", {"content-length": "3", "x-last": "1"}),
    ("/?case=client-chunks", "PATCH", iter([b"a", b"b"]), {"Cookie": "a=b"}),
    ("/?case=client-nothing", "POST", None, {}),
]:
    c = http.client.HTTPConnection(proxy or host, timeout=30)
    c.request(method, (site if proxy else "") + path, body, {"Host": host, **headers})
    c.getresponse().read()
    c.close()
`
	cmd := exec.Command(python, "-c", script)
	cmd.Env = []string{"ASK_PROXY=" + proxy, "ASK_SITE=" + site}
	output(t, cmd)
}

func chromiumAsks(t *testing.T, proxy, site string) {
	b := startBrowser(t, proxy, func(*browser, message) {})
	session := b.openTab(t)
	b.call(t, session, "Page.enable", none{}, nil)
	b.call(t, session, "Page.navigate", map[string]string{"url": site + "/?case=page"}, nil)
	lab.Wait(t, commandLimit, "the page to load", func() bool {
		return b.evaluate(t, session, "document.readyState + ' ' + location.search") == "complete ?case=page"
	})
	for _, ask := range []string{
		"fetch('/?case=fetch')",
		"fetch('/?case=post', {method: 'POST', body: 'a=b', headers: {'Content-Type': 'application/json', 'x-two': '2', 'X-One': '1'}})",
		"fetch('/?case=put', {method: 'PUT', body: new Uint8Array(100000)})",
		"fetch('/?case=delete', {method: 'DELETE'})",
		"fetch('/?case=post-nothing', {method: 'POST'})",
		"fetch('/?case=reload', {cache: 'reload'})",
	} {
		if got := b.evaluate(t, session, ask+".then(r => r.text()).then(() => 'done')"); got != "done" {
			t.Errorf("%s gave %q", ask, got)
		}
	}
}
