package upstreamtest

import (
	"fmt"
	"strings"
)

// presetAnswers are the vendors' refusals. Where a vendor documents no more than a status,
// the reason phrase is the registered one and there is no field.
var presetAnswers = map[string][]PresetAnswer{
	"brightdata":   brightDataAnswers,
	"oxylabs":      oxylabsAnswers,
	"decodo":       plainAnswers,
	"iproyal":      iproyalAnswers,
	"soax":         plainAnswers,
	"netnut":       netnutAnswers,
	"webshare":     webshareAnswers,
	"packetstream": plainAnswers,
	"geonode":      geonodeAnswers,
	"dataimpulse":  dataImpulseAnswers,
	"evomi":        append([]PresetAnswer{{Name: "412-city", Status: 412, Reason: "Precondition Failed", Cause: "no_exit"}}, plainAnswers...),
	"massive":      plainAnswers,
	"nimble":       nimbleAnswers,
	"infatica":     plainAnswers,
	"proxyempire":  plainAnswers,
	"froxy":        plainAnswers,
}

// plainAnswers are those of vendors that document no list.
var plainAnswers = []PresetAnswer{
	{Name: "407", Status: 407, Reason: "Proxy Authentication Required", Cause: "auth", Remembered: true},
	{Name: "502", Status: 502, Reason: "Bad Gateway", Cause: "server", Remembered: true},
	{Name: "503", Status: 503, Reason: "Service Unavailable", Cause: "server", Remembered: true},
	{Name: "522", Status: 522, Reason: "Connection timed out", Cause: "timeout", Remembered: true},
}

// brightDataAnswers are the error catalogue, each in both forms: with the private fields, and with
// the standard one (RFC 9209) that replaces them, whose code is written with a hyphen by some documents.
var brightDataAnswers = func() []PresetAnswer {
	all := []PresetAnswer{
		{Name: "407-bare", Status: 407, Reason: "Proxy Authentication Required", Cause: "auth"},
		{Name: "429-bare", Status: 429, Reason: "Too Many Requests", Cause: "rate"},
		{Name: "502-bare", Status: 502, Reason: "Bad Gateway", Cause: "server"},
		{Name: "502-luminati", Status: 502, Reason: "Proxy Error", Cause: "server",
			Header: []string{"X-Luminati-Error: Proxy Error", "X-Luminati-Timeline: 0-init", "X-Hola-Context: PROXY TEST", "Proxy Connection: close"}},
	}
	for i, a := range brightDataCodes {
		private, standard := a, a
		private.Header = []string{"X-Brd-Err-Code: " + a.Body, "X-Brd-Err-Msg: see the Bright Data error catalog", "X-Brd-Error: " + a.Reason}
		private.Body = ""
		code := a.Body
		if i%2 == 1 {
			code = strings.Replace(code, "_", "-", 1)
		}
		standard.Name += "-standard"
		standard.Header = []string{fmt.Sprintf(`Proxy-Status: brd.superproxy.io; received-status=%d; error=proxy_internal_error; details="%s: see the catalog"`, a.Status, code)}
		standard.Body = ""
		all = append(all, private, standard)
	}
	return all
}()

// brightDataCodes have the catalogue's code in Body.
var brightDataCodes = []PresetAnswer{
	{Name: "400-ip", Status: 400, Reason: "ip_requested_not_allocated_by_customer", Body: "client_10060", Cause: "params"},
	{Name: "400-countries", Status: 400, Reason: "Peer not found", Body: "client_10061", Cause: "no_exit"},
	{Name: "400-zone-countries", Status: 400, Reason: "Peer not found", Body: "client_10062", Cause: "no_exit"},
	{Name: "400-ip-format", Status: 400, Reason: "Bad IP format", Body: "client_10063", Cause: "params"},
	{Name: "401-denylist", Status: 401, Reason: "Auth failed: IP denylisted", Body: "client_10050", Cause: "auth"},
	{Name: "402-kyc", Status: 402, Reason: "Residential Failed bad_endpoint", Body: "policy_20130", Cause: "forbidden"},
	{Name: "402-robots", Status: 402, Reason: "Residential Failed bad_endpoint", Body: "policy_20140", Cause: "forbidden"},
	{Name: "403-port", Status: 403, Reason: "Bad port", Body: "policy_20020", Cause: "forbidden"},
	{Name: "403-own-site", Status: 403, Reason: "Forbidden: Target is blocked", Body: "policy_20031", Cause: "forbidden"},
	{Name: "403-allowlist", Status: 403, Reason: "Forbidden", Body: "client_10250", Cause: "forbidden"},
	{Name: "403-country", Status: 403, Reason: "Country is not permitted for targeting", Body: "policy_20230", Cause: "no_exit"},
	{Name: "407-login", Status: 407, Reason: "Authentication failed", Body: "client_10000", Cause: "auth"},
	{Name: "407-invalid", Status: 407, Reason: "Invalid Auth", Body: "client_10001", Cause: "auth"},
	{Name: "407-zone", Status: 407, Reason: "Auth failed: Zone not found", Body: "client_10002", Cause: "auth"},
	{Name: "407-missing", Status: 407, Reason: "Proxy Authentication Required", Body: "client_10010", Cause: "auth"},
	{Name: "407-suspended", Status: 407, Reason: "Account is suspended", Body: "client_10020", Cause: "quota"},
	{Name: "407-address", Status: 407, Reason: "Authentication failed", Body: "client_10030", Cause: "auth"},
	{Name: "407-kyc", Status: 407, Reason: "KYC Required", Body: "client_10040", Cause: "auth"},
	{Name: "407-ip", Status: 407, Reason: "IP parameter is incorrect", Body: "policy_20120", Cause: "params"},
	{Name: "429-account", Status: 429, Reason: "Account exceeded the allowed rate limits", Body: "client_10110", Cause: "rate"},
	{Name: "429-domain", Status: 429, Reason: "Requests rate to target is too high", Body: "policy_20220", Cause: "forbidden"},
	{Name: "429-domain-2", Status: 429, Reason: "Requests rate to target is too high", Body: "policy_20221", Cause: "forbidden"},
	{Name: "429-ip", Status: 429, Reason: "Requests rate per IP is too high", Body: "policy_20222", Cause: "rate"},
	{Name: "502-usage", Status: 502, Reason: "Zone has reached usage limit", Body: "client_10100", Cause: "quota"},
	{Name: "502-route", Status: 502, Reason: "Block direct route", Body: "client_10120", Cause: "no_exit"},
	{Name: "502-city", Status: 502, Reason: "Proxy Error", Body: "peer_30030", Cause: "no_exit"},
	{Name: "502-host", Status: 502, Reason: "Host is blocked in requested country", Body: "policy_20070", Cause: "forbidden"},
	{Name: "502-dns", Status: 502, Reason: "Could not resolve host", Body: "target_40001", Cause: "target_dns"},
	{Name: "502-dns-ipv6", Status: 502, Reason: "No IPv6 address", Body: "target_40011", Cause: "target_dns"},
	{Name: "502-other", Status: 502, Reason: "Bad Gateway", Body: "client_10999", Cause: "server", Remembered: true},
	{Name: "502-target", Status: 502, Reason: "Target is unreachable", Body: "target_41001", Cause: "target_unreachable", Remembered: true},
}

// oxylabs is an answer of Oxylabs' own: it explains itself in a field.
func oxylabs(status int, reason, name, description, cause string) PresetAnswer {
	return PresetAnswer{Name: name, Status: status, Reason: reason, Cause: cause, Header: []string{"X-Error-Description: " + description}}
}

var oxylabsAnswers = []PresetAnswer{
	oxylabs(400, "Bad Request", "400-parse", "Bad request: could not parse the request", "params"),
	oxylabs(400, "Bad Request", "400-params", "Bad request: unsupported parameters were used", "params"),
	oxylabs(403, "Access Denied", "403", "Access denied: restricted target", "forbidden"),
	oxylabs(407, "Access Denied", "407-login", "Access denied: user authentication failed", "auth"),
	oxylabs(407, "Access Denied", "407-traffic", "Access denied: traffic limit reached", "quota"),
	{Name: "407-bare", Status: 407, Reason: "Proxy Authentication Required", Cause: "auth"},
	oxylabs(500, "Internal Server Error", "500", "Internal server error", "server"),
	oxylabs(502, "Bad Response", "502-response", "Bad response: invalid HTTP response received", "server"),
	oxylabs(502, "Bad Gateway", "502-session", "Bad gateway: session failed", "session_lost"),
	oxylabs(502, "Bad Gateway", "502-exit", "Bad gateway: exit node not found (session has ended)", "no_exit"),
	oxylabs(504, "Timeout", "504", "Timeout: request timed out", "timeout"),
	oxylabs(504, "Timeout", "504-target", "Timeout: target is unreachable", "target_unreachable"),
	oxylabs(522, "Bad Response", "522", "Bad response: invalid response received", "timeout"),
	{Name: "400-bare", Status: 400, Reason: "Bad Request", Cause: "params"},
	{Name: "504-bare", Status: 504, Reason: "Gateway Timeout", Cause: "timeout"},
	{Name: "404-datacenter", Status: 404, Reason: "Not Found", Cause: "target_dns"},
	{Name: "429-datacenter", Status: 429, Reason: "Too Many Requests", Cause: "threads"},
	{Name: "503-datacenter", Status: 503, Reason: "Service Unavailable", Cause: "target_unreachable"},
	{Name: "525-datacenter", Status: 525, Reason: "No Exit Found", Cause: "no_exit"},
}

var iproyalAnswers = []PresetAnswer{
	{Name: "407", Status: 407, Reason: "Proxy Authentication Required", Cause: "auth", Remembered: true},
	{Name: "500", Status: 500, Reason: "Internal Error", Cause: "server"},
	{Name: "503", Status: 503, Reason: "No Exits Available", Cause: "no_exit"},
	{Name: "504", Status: 504, Reason: "Exit Connection Failed", Cause: "timeout"},
}

var netnutAnswers = []PresetAnswer{
	{Name: "400", Status: 400, Reason: "Bad Request", Cause: "params"},
	{Name: "403", Status: 403, Reason: "Forbidden", Cause: "forbidden", Body: "Website is blocked by NetNut\n"},
	{Name: "403-bare", Status: 403, Reason: "Forbidden", Cause: "forbidden"},
	{Name: "407", Status: 407, Reason: "Proxy Authentication Required", Cause: "auth"},
	{Name: "490", Status: 490, Reason: "Access point is not valid", Cause: "no_exit"},
	{Name: "500", Status: 500, Reason: "Internal Server Error", Cause: "server"},
	{Name: "502", Status: 502, Reason: "Bad Gateway", Cause: "session_lost"},
	{Name: "503", Status: 503, Reason: "Service Unavailable", Cause: "server"},
	{Name: "522", Status: 522, Reason: "Connection timed out", Cause: "timeout"},
}

var webshareAnswers = []PresetAnswer{
	{Name: "402", Status: 402, Reason: "Payment Required", Header: []string{"X-Webshare-Error-Reason: payment_required"}, Cause: "quota", Remembered: true},
	{Name: "403-bandwidth", Status: 403, Reason: "Forbidden", Header: []string{"X-Webshare-Error-Reason: bandwidth_limit_reached"}, Cause: "quota", Remembered: true},
	{Name: "402-bare", Status: 402, Reason: "Payment Required", Cause: "quota"},
	{Name: "403-host", Status: 403, Reason: "Forbidden", Header: []string{"X-Webshare-Error-Reason: client_connect_forbidden_host"}, Cause: "forbidden"},
	{Name: "403-host-older", Status: 403, Reason: "Forbidden", Header: []string{"X-Webshare-Reason: client_connect_forbidden_host"}, Cause: "forbidden"},
	{Name: "407", Status: 407, Reason: "Proxy Authentication Required", Header: []string{"X-Webshare-Error-Reason: invalid_credentials"}, Cause: "auth"},
	{Name: "407-bare", Status: 407, Reason: "Proxy Authentication Required", Cause: "auth"},
	{Name: "502", Status: 502, Reason: "Bad Gateway", Header: []string{"X-Webshare-Error-Reason: target_connect_failed"}, Cause: "server", Remembered: true},
	{Name: "502-older", Status: 502, Reason: "Bad Gateway", Header: []string{"X-Webshare-Error: connection"}, Cause: "server"},
	{Name: "503", Status: 503, Reason: "Service Unavailable", Cause: "server"},
}

var geonodeAnswers = []PresetAnswer{
	{Name: "403", Status: 403, Reason: "Forbidden", Cause: "params", Body: "Invalid request configuration.\n"},
	{Name: "403-bare", Status: 403, Reason: "Forbidden", Cause: "params"},
	{Name: "407", Status: 407, Reason: "Proxy Authentication Required", Cause: "auth"},
	{Name: "411", Status: 411, Reason: "Length Required", Cause: "auth", Body: "Your account has been blocked.\n"},
	{Name: "411-bare", Status: 411, Reason: "Length Required", Cause: "auth"},
	{Name: "429", Status: 429, Reason: "Too Many Requests", Cause: "rate"},
	{Name: "466", Status: 466, Reason: "Limit Reached", Cause: "quota"},
	{Name: "500", Status: 500, Reason: "Internal Server Error", Cause: "server"},
	{Name: "503", Status: 503, Reason: "Service Unavailable", Cause: "server"},
}

// dataImpulseAnswers: the reason phrase is the code.
var dataImpulseAnswers = []PresetAnswer{
	{Name: "403-port", Status: 403, Reason: "PORT_BLOCKED", Cause: "forbidden"},
	{Name: "403-site", Status: 403, Reason: "SITE_PERMANENTLY_BLOCKED", Cause: "forbidden"},
	{Name: "403-host", Status: 403, Reason: "HOST_BLOCKED", Cause: "forbidden"},
	{Name: "407-user", Status: 407, Reason: "NO_USER", Cause: "auth"},
	{Name: "407-traffic", Status: 407, Reason: "TRAFFIC_EXHAUSTED", Cause: "quota"},
	{Name: "407-requests", Status: 407, Reason: "REQUESTS_EXHAUSTED", Cause: "quota"},
	{Name: "407-threads", Status: 407, Reason: "THREADS_EXHAUSTED", Cause: "threads"},
	{Name: "407-port", Status: 407, Reason: "PORT_NOT_ALLOWED", Cause: "auth"},
	{Name: "407-blocked", Status: 407, Reason: "USER_BLOCKED", Cause: "auth"},
	{Name: "407-bare", Status: 407, Reason: "Proxy Authentication Required", Cause: "auth", Remembered: true},
	{Name: "500", Status: 500, Reason: "INTERNAL_SERVER_ERROR", Cause: "server"},
	{Name: "502", Status: 502, Reason: "NO_HOST_CONNECTION", Cause: "target_unreachable"},
	{Name: "503", Status: 503, Reason: "NO_RAY", Cause: "no_exit"},
}

var nimbleAnswers = []PresetAnswer{
	{Name: "400", Status: 400, Reason: "Bad Request", Cause: "params"},
	{Name: "401-target", Status: 401, Reason: "Unauthorized", Cause: "status"},
	{Name: "402", Status: 402, Reason: "Payment Required", Cause: "quota"},
	{Name: "403", Status: 403, Reason: "Forbidden", Cause: "forbidden"},
	{Name: "404-target", Status: 404, Reason: "Not Found", Cause: "status"},
	{Name: "407", Status: 407, Reason: "Proxy Authentication Required", Cause: "auth"},
	{Name: "500", Status: 500, Reason: "Internal Server Error", Cause: "server"},
	{Name: "502", Status: 502, Reason: "Bad Gateway", Cause: "target_unreachable"},
	{Name: "503", Status: 503, Reason: "Service Unavailable", Cause: "server"},
	{Name: "504", Status: 504, Reason: "Gateway Timeout", Cause: "target_unreachable"},
	{Name: "522", Status: 522, Reason: "Connection timed out", Cause: "timeout"},
	{Name: "525", Status: 525, Reason: "No IP Found", Cause: "no_exit"},
}
