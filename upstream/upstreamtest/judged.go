package upstreamtest

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
)

// What a judge finds out about a customer's proxy, from the worst on.
const (
	Transparent = "transparent" // the customer's own address reached the target
	Anonymous   = "anonymous"   // only that there is a proxy
	Elite       = "elite"       // neither
)

// judgedDisclosure, judgedClient, judgedPlatform, judgedProduct and judgedVendor are what
// proxy checkers and detection scripts look for, as they spell it, group by group. Of those
// that are looked for by prefix there are examples. Fields that frame a message
// (Connection, TE, Trailer, Transfer-Encoding, Upgrade) are not among them: every request may have them.
const (
	judgedDisclosure = `Via Forwarded X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Forwarded-Port X-Forwarded-Server X-Forwarded-By
	X-Forwarded-Prefix X-Forwarded Forwarded-For Forwarded-For-IP X-Forwarded-For-IP X-Forwarded-For-Original X-Original-Forwarded-For
	X-Forward-For X-Forwarder-For X-Forwared-For X-Fordwarded-For X_Fwd_IP_Addr Z-Forwarded-For S-Forwarded-For X-D-Forwarder X-XFF-0
	Keep-Alive Proxy-Connection Proxy-Authenticate Proxy-Authentication-Info Max-Forwards Proxy`
	judgedClient = `X-Real-IP XXX_Real_IP X-Client-IP Client-IP Client_IP X-ClientIP ClientIP True-Client-IP X-True-Client-IP X-Cluster-Client-IP
	X-Remote-IP X-Remote-Addr Remote-Addr Remote-Host Remote_Host_WP X-Originating-IP X-Original-IP X-Original-Remote-Addr X_Original_Host
	X-Original-URL X-Source-IP Source-IP X-From-IP X-Ip X-ProxyUser-Ip X-ProxyMesh-IP X-Coming-From Coming-From PC-Remote-Addr
	ClientAddress Client-Address X-Host X_Orig_Client X-Network-Info X-User X-Authenticated-User X_Cisco_BBSM_ClientIP
	X_AZC_Remote_Addr SP_Host SP_Client X_Sina_ProxyUser RLNClientIPAddr CUDA_CLIIP X-Qihoo-IP XCNOOL_Forwarded_For XCNOOL_Remote_Addr`
	judgedPlatform = `CF-Connecting-IP CF-Connecting-IPv6 CF-Pseudo-IPv4 CF-IPCountry CF-Ray CF-Visitor Fastly-Client-IP X-0-Client-IP
	X-AppEngine-User-IP X-Azure-SocketIP X-Azure-ClientIP Fly-Client-IP DO-Connecting-IP Incap-Client-IP Ali-CDN-Real-IP CDN-Src-IP
	CDN-Real-IP X-Envoy-External-Address WL-Proxy-Client-IP Proxy-Client-IP X-Amzn-Trace-Id X-Cloud-Trace-Context X-Request-Id Traceparent`
	judgedProduct = `Proxy-Agent X-Proxy-Id X-Proxy-Connection XRoxy-Connection XProxy-Connection MT-Proxy-ID X-BlueCoat-Via X-IWSaaS-Via X-MWG-Via
	EdgeWave-Proxy X-IMForwards X-Tinyproxy X-Varnish X-Cache X-Via X-NAI-ID X-Loop-Control X-WRProxy-ID X-TeamSite-PreRemap
	Surrogate-Capability Cache-Info X-Wap-Profile X-Nokia-RemoteSocket X-Nokia-LocalSocket X-Nokia-Gateway-Id ACCPROXYWS X-Accept-Encoding
	X-ARR-Log-Id X-CID-Hash X-Content-Opt X-Fikker X-Mato-Param X-Roaming X-Turbopage X_HTX_Agent Xonnection X_Locking
	X_IWProxy_Nesting X_Serial_Number`
	judgedVendor = `X-Brd-Debug X-Luminati-Ip X-Hola-Context X-Lpm-Session X-Crawlera-Session X-Oxylabs-Geo-Location X-Smartproxy-Session
	X-SU-Session X-Webshare-Token X-Subuser Zyte-Session`
)

// judgedPrefixes are those by which some checkers look, in the spelling of server variables.
var judgedPrefixes = []string{"PROXY", "XROXY", "XPROXY", "VIA", "XCNOOL", "X_NOKIA", "X_PROXY", "X_FORWARDED", "FORWARDED"}

// JudgedFields returns the name of every field that proxy judges look for in a request, in
// the spelling in which they look for it. The slice is the caller's.
func JudgedFields() []string {
	return slices.Concat(strings.Fields(judgedDisclosure), strings.Fields(judgedClient), strings.Fields(judgedPlatform),
		strings.Fields(judgedProduct), strings.Fields(judgedVendor))
}

// judgedVariables are the JudgedFields as server variables without HTTP_.
var judgedVariables = func() map[string]bool {
	all := map[string]bool{}
	for _, name := range JudgedFields() {
		all[variable(name)] = true
	}
	return all
}()

// variable is a field's name as CGI has it (RFC 3875 §4.1.18), without HTTP_.
func variable(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		}
		return '_'
	}, name)
}

// Verdict says what proxy checkers would say of a request that reached a target:
// [Transparent] if ownAddr, the customer's address with or without its port, stands
// anywhere in it; else [Anonymous] if it has one of [JudgedFields], or one that checkers
// know by its beginning; else [Elite].
func Verdict(req *RecordedRequest, ownAddr string) string {
	own := ownAddr
	if host, _, err := net.SplitHostPort(ownAddr); err == nil {
		own = host
	}
	if own != "" {
		for _, line := range req.Lines {
			if name, value, _ := strings.Cut(line, ":"); !strings.EqualFold(name, "Host") && strings.Contains(strings.ToLower(value), strings.ToLower(own)) {
				return Transparent
			}
		}
	}
	for _, line := range req.Lines {
		name, _, _ := strings.Cut(line, ":")
		if v := variable(strings.TrimSpace(name)); judgedVariables[v] || slices.ContainsFunc(judgedPrefixes, func(p string) bool { return strings.HasPrefix(v, p) }) {
			return Anonymous
		}
	}
	return Elite
}

// serveJudge tells the server variables of the request, as azenv.php does.
func serveJudge(w http.ResponseWriter, r *http.Request) {
	req, _ := r.Context().Value(requestKey{}).(*RecordedRequest)
	if req == nil {
		http.Error(w, "the request's head was not found", http.StatusInternalServerError)
		return
	}
	host, port, _ := net.SplitHostPort(r.RemoteAddr)
	lines := []string{"REMOTE_ADDR = " + host, "REMOTE_PORT = " + port, "REQUEST_METHOD = " + r.Method, "REQUEST_URI = " + r.RequestURI,
		"SERVER_PROTOCOL = " + r.Proto}
	for _, line := range req.Lines {
		name, value, _ := strings.Cut(line, ":")
		lines = append(lines, fmt.Sprintf("HTTP_%s = %s", variable(name), strings.TrimSpace(value)))
	}
	slices.Sort(lines)
	page := strings.Join(lines, "\n") + "\n"
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", fmt.Sprint(len(page)))
	_, _ = w.Write([]byte(page)) // a client that left is not the judge's trouble
}
