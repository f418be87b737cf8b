package upstreamtest

import (
	"maps"
	"slices"
	"strings"
)

// vendorTraces are the fields that each vendor's gateway puts on what it serves, by
// vendor. A field whose name alone tells the vendor has a value that does not, so that a
// mask which knows values only is found out.
var vendorTraces = map[string][]string{
	"brightdata": {"x-brd-ip: {exit}", "x-brd-gip: {trace}", "x-brd-status-code: 200", "x-brd-timeline: {trace}-init:0",
		"x-brd-peer-timeline: {trace}", "x-brd-timestamp: {trace}", "x-brd-debug: req_id={trace}; peer_ip={exit}; destination_ip={exit}; billed=1",
		`Proxy-Status: brd.superproxy.io; received-status=200; details="{trace}"`},
	"brightdata-legacy": {"x-luminati-ip: {exit}", "x-luminati-timeline: {trace}", "x-luminati-tun-timeline: {trace}",
		"x-luminati-status-code: 200", "x-hola-context: {trace}", "x-hola-unblocker-debug: {trace}", "Proxy Connection: {trace}"},
	"proxy-manager": {"x-lpm-port: {trace}", "x-lpm-session: {trace}", "x-hola-context: PROXY {trace}", "x-debug-bw-in: {trace}",
		"x-debug-bw-out: {trace}"},
	"oxylabs":  {"X-Oxylabs-Client-Id: {trace}", "X-Oxylabs-Job-Id: {trace}", "X-Oxylabs-Exit-IP: {exit}"},
	"webshare": {"X-Webshare-Reason: {trace}", "X-Webshare-Request-Id: {trace}", "X-Webshare-Exit-IP: {exit}"},
	"zyte": {"X-Crawlera-Version: {trace}", "X-Crawlera-Slave: {exit}:3128", "X-Crawlera-Session: {trace}", "X-Crawlera-Next-Request-In: {trace}",
		"Zyte-Request-Id: {trace}", "X-Zyte-Session: {trace}"},
	"anyip":      {"X-AnyIP-Session: {trace}", "X-AnyIP-Exit: {exit}"},
	"proxies-fo": {"X-Proxies-Fo-Session: {trace}", "X-Proxies-Exit: {exit}"},
	"squid": {"X-Cache: MISS from {host}", "X-Cache-Lookup: MISS from {host}:3128", "Via: 1.1 {host} (squid/5.7)", "X-Squid-Trace: {trace}",
		"Cache-Status: {host}; fwd=miss; detail={trace}"},
	"generic": {"Server: {brand}/2", "Proxy-Agent: {brand}/2", "Proxy-agent: {trace}", "Via: 1.1 {trace}", "Date: Thu, 01 Jan 1970 00:00:00 GMT",
		"Proxy-Connection: keep-alive", "X-Proxy-Id: {trace}", "X-Proxy-Node: {exit}", "XRoxy-Connection: {trace}", "X-Request-Id: {lower}-8f14e45f",
		"Set-Cookie: {lower}_gw=8f14e45f; Path=/", "X-Tinyproxy: {trace}", "MT-Proxy-ID: {trace}"},
}

// vendorSpellings are the presets' names as they stand in X-<name>-* fields.
var vendorSpellings = map[string]string{
	"brightdata": "BrightData", "decodo": "Decodo", "iproyal": "IPRoyal", "soax": "Soax", "netnut": "NetNut", "packetstream": "PacketStream",
	"geonode": "Geonode", "dataimpulse": "DataImpulse", "evomi": "Evomi", "massive": "Massive", "nimble": "Nimble", "infatica": "Infatica",
	"proxyempire": "ProxyEmpire", "froxy": "Froxy", "smartproxy": "Smartproxy", "rayobyte": "Rayobyte", "nodemaven": "NodeMaven",
	"thordata": "Thordata", "proxyseller": "ProxySeller",
}

// VendorHeaders returns the field lines that the gateways of real vendors put on what they
// serve, by vendor. Values hold the brand, an exit address and a trace as a [Vendor] of
// [DefaultBrand] has them in its Marks. The map is the caller's.
func VendorHeaders() map[string][]string {
	all := map[string][]string{}
	v := &Vendor{config: VendorConfig{Brand: DefaultBrand}}
	for name, lines := range traces() {
		for _, line := range lines {
			all[name] = append(all[name], string(v.expand(line)))
		}
	}
	return all
}

// traces are vendorTraces with those of the vendors of whom no more than a name is known.
func traces() map[string][]string {
	all := maps.Clone(vendorTraces)
	for name, spelled := range vendorSpellings {
		own := []string{"X-" + spelled + "-Session: {trace}", "X-" + spelled + "-Exit-IP: {exit}", "x-" + strings.ToLower(spelled) + "-node: {trace}"}
		all[name] = slices.Concat(all[name], own)
	}
	return all
}

// brandedFields are fields of ordinary names with the brand in their values, by case name.
var brandedFields = map[string]string{
	"set-cookie":           "Set-Cookie: sid=1; Domain=.{lower}.example; Path=/",
	"set-cookie-name":      "Set-Cookie: {lower}_sid=8f14e45f; HttpOnly",
	"refresh":              "Refresh: 600; url=https://{host}/billing",
	"link":                 "Link: <https://{host}/style.css>; rel=preload",
	"content-location":     "Content-Location: https://{host}/answer",
	"location":             "Location: https://{host}/",
	"alt-svc":              `Alt-Svc: h3="{host}:443"; ma=86400`,
	"alt-used":             "Alt-Used: {host}",
	"nel":                  `NEL: {"report_to":"{lower}","max_age":604800}`,
	"report-to":            `Report-To: {"group":"gw","max_age":604800,"endpoints":[{"url":"https://{host}/r"}]}`,
	"reporting-endpoints":  `Reporting-Endpoints: gw="https://{host}/r"`,
	"csp":                  "Content-Security-Policy: default-src 'self' https://{host}",
	"csp-report-only":      "Content-Security-Policy-Report-Only: default-src *; report-uri https://{host}/csp",
	"expect-ct":            `Expect-CT: max-age=0, report-uri="https://{host}/ct"`,
	"public-key-pins":      `Public-Key-Pins: pin-sha256="x"; report-uri="https://{host}/pins"`,
	"server":               "Server: {brand}/4.2",
	"server-timing":        `Server-Timing: gw;desc="{brand} peer";dur=12`,
	"via":                  "Via: 1.1 {host} ({brand}/4.2)",
	"via-own-name":         "Via: HTTP/1.1 {trace}",
	"warning":              `Warning: 110 {host} "Response is stale"`,
	"warning-caches":       `Warning: 113 cache-7 "Heuristic Expiration {trace}"`,
	"proxy-status":         `Proxy-Status: {host}; received-status=200; details="{brand} peer"`,
	"proxy-authenticate":   `Proxy-Authenticate: Basic realm="{brand}"`,
	"proxy-auth-info":      "Proxy-Authentication-Info: nextnonce={trace}",
	"proxy-agent":          "Proxy-Agent: {trace}",
	"www-authenticate":     `WWW-Authenticate: Basic realm="{brand}"`,
	"authentication-info":  "Authentication-Info: nextnonce={lower}",
	"cache-status":         "Cache-Status: {trace}; hit",
	"x-powered-by":         "X-Powered-By: {brand}",
	"x-served-by":          "X-Served-By: peer-7.{lower}.example",
	"p3p":                  `P3P: policyref="https://{host}/p3p.xml"`,
	"etag":                 `ETag: "{lower}-1"`,
	"content-disposition":  `Content-Disposition: inline; filename="{lower}.html"`,
	"access-control":       "Access-Control-Allow-Origin: https://{host}",
	"access-control-names": "Access-Control-Expose-Headers: X-{brand}-Session",
	"timing-allow-origin":  "Timing-Allow-Origin: https://{host}",
	"sourcemap":            "SourceMap: https://{host}/map",
	"vary":                 "Vary: X-{brand}-Session",
	"cdn-loop":             "CDN-Loop: {host}",
	"strict-transport":     "Strict-Transport-Security: max-age=1; {lower}",
	"keep-alive":           "Keep-Alive: timeout=5, {trace}",
	"name":                 "{brand}: 1",
	"name-within":          "X-Via-{brand}-Node: 1",
	"name-lower-case":      "x_{lower}_node: 1",
	"name-with-space":      "Proxy {brand}: 1",
	"name-with-8bit":       "X-{brand}-\xfcber: 1",
	"name-spaced-colon":    "X-{brand}-Node : 1",
	"8bit":                 "X-City: Z\xfcrich \x80 {brand}",
	"folded":               "X-Node: a\r\n {brand}",
	"folded-tab":           "X-Node: {brand}\r\n\t{brand}",
	"twice":                "X-Node: innocent\r\nX-Node: {brand}",
	"nominated":            "Connection: X-Peer-Number\r\nX-Peer-Number: {trace}",
	"nominated-by-proxy":   "Proxy-Connection: X-Peer-Number\r\nX-Peer-Number: {trace}",
	"base64":               "X-Trace: {base64}",
	"base64-within":        "Set-Cookie: route=eu7{base64}; Path=/",
	"escaped":              "Content-Location: https://cdn.example/?by={escaped}",
	"4k":                   "X-Blob: " + longValue + "{brand}",
}

// longValue fills a field that no usual buffer of a parser holds with its neighbours.
var longValue = strings.Repeat("0123456789abcdef", 256)

// headerHostilities are vendors who serve and leave their traces on the way.
func headerHostilities() []Hostility {
	var all []Hostility
	for name, lines := range traces() {
		all = append(all,
			Hostility{Name: "headers-" + name, Ways: everyWay, Serves: true, HTTP: serves(meddling{lines: lines})},
			Hostility{Name: "upgraded-headers-" + name, Ways: ByWebsocket, Serves: true, HTTP: serves(meddling{lines: lines, upgrade: true})})
	}
	for name, line := range brandedFields {
		all = append(all,
			Hostility{Name: "field-" + name, Ways: everyWay, Serves: true, HTTP: serves(meddling{lines: []string{line}})})
		if name == "name-with-8bit" {
			continue // a handshake with it may be refused as well: RFC 9110 §5.1 knows no such name
		}
		all = append(all,
			Hostility{Name: "upgraded-field-" + name, Ways: ByWebsocket, Serves: true, HTTP: serves(meddling{lines: []string{line}, upgrade: true})})
	}
	return append(all,
		Hostility{Name: "reason-brand", Ways: everyWay, Serves: true, HTTP: serves(meddling{reason: "{brand} peer OK"})},
		Hostility{Name: "reason-8bit", Ways: everyWay, Serves: true, HTTP: serves(meddling{reason: "{brand} \xfcber \x80"})},
		Hostility{Name: "reason-code", Ways: everyWay, Serves: true, HTTP: serves(meddling{reason: "PEER_{brand}"})},
		Hostility{Name: "upgraded-reason", Ways: ByWebsocket, Serves: true, HTTP: serves(meddling{reason: "{brand} switches", upgrade: true})},
	)
}
