package masking

import (
	"bytes"
	"net/http"
	"strings"
)

// GatewayMade reports whether the vendor's gateway, not the target, made this plain-HTTP response. It reads fields that Response
// removes, so ask it first. It decides by what a target has no reason to send:
//
//   - at any status: 407, a status outside 100..599 but 999, one that only vendors use (452–455, 466, 490), a field that is named for a vendor
//     and for an error (X-Brd-Err-Code), as some send with a 200;
//   - a redirect to a place that holds a mark;
//   - 499, 522 and 525 unless a content network signed them;
//   - from 400: a vendor's or proxy program's error field, Proxy-Status with an error, Proxy-Agent, Proxy-Authenticate, a proxy
//     program as Server, Proxy-Connection with no other Server, a mark in a field that would reach the customer.
//
// What a gateway adds to answers it only forwards (Via, X-Cache, a vendor's timing fields) proves nothing: a target's own 404 through
// squid stays the target's.
func (p *Policy) GatewayMade(status int, h http.Header) bool {
	if byStatus(status, h) {
		return true
	}
	if status < 400 && p.byOwnError(h) {
		return true
	}
	if status >= 300 && status < 400 {
		return p.marks.inAny(h.Get("Location"))
	}
	return status >= 400 && (byProxyFields(h) || p.byErrorFields(h))
}

// GatewayReason reports whether an error's reason phrase is a vendor's code, of the kind NO_HOST_CONNECTION, or holds a mark. Targets
// write the phrases of RFC 9110 or none. Ask it only about answers of 400 and above.
func (p *Policy) GatewayReason(reason string) bool {
	if p.marks.in(reason) {
		return true
	}
	underscore := false
	for i := range len(reason) {
		switch c := reason[i]; {
		case c == '_' && i > 0 && i < len(reason)-1:
			underscore = true
		case c < 'A' || c > 'Z':
			return false
		}
	}
	return underscore
}

// byOwnError looks for fields that are a vendor's by name and speak of an error by name.
func (p *Policy) byOwnError(h http.Header) bool {
	var buf [64]byte
	for name := range h {
		if !strings.Contains(name, "rr") { // as all of them do; few others
			continue
		}
		folded := fold(buf[:0], name)
		if (p.vendor.has(folded) || p.marks.in(name)) && speaksOfError(folded) {
			return true
		}
	}
	return false
}

func byStatus(status int, h http.Header) bool {
	switch status {
	case http.StatusProxyAuthRequired, 452, 453, 454, 455, 466, 490:
		return true
	case 499, 522, 525:
		return !byContentNetwork(h)
	}
	return status < 100 || status > 599 && status != 999 // some large sites refuse robots with 999
}

// byContentNetwork reports whether a content network, which uses the same odd statuses as some vendors, signed the answer.
func byContentNetwork(h http.Header) bool {
	for _, name := range [...]string{"Cf-Ray", "X-Amz-Cf-Id", "X-Served-By", "X-Akamai-Request-Id", "X-Azure-Ref"} {
		if _, ok := h[name]; ok {
			return true
		}
	}
	server := strings.ToLower(h.Get("Server"))
	for _, network := range [...]string{"cloudflare", "cloudfront", "akamai", "fastly", "varnish", "yunjiasu", "bunnycdn"} {
		if strings.HasPrefix(server, network) {
			return true
		}
	}
	return false
}

func byProxyFields(h http.Header) bool {
	for _, name := range [...]string{"Proxy-Agent", "Proxy-Authenticate"} {
		if _, ok := h[name]; ok {
			return true
		}
	}
	if hasErrorParameter(h["Proxy-Status"]) {
		return true
	}
	switch program(h.Get("Server")) {
	case "squid", "tinyproxy", "privoxy", "3proxy", "mitmproxy", "polipo", "ccproxy", "goproxy", "proxy.py", "wingate", "gost", "freeproxy":
		return true
	case "":
		_, connection := h["Proxy-Connection"]
		return connection
	}
	return false
}

// program returns the first product name of a Server value in lower case: "squid" of "Squid/5.7 (Debian)".
func program(server string) string {
	if i := strings.IndexAny(server, "/ (,;"); i >= 0 {
		server = server[:i]
	}
	return strings.ToLower(server)
}

// byErrorFields looks for fields that a vendor or a proxy program sends with its own errors only, and for marks.
func (p *Policy) byErrorFields(h http.Header) bool {
	var buf [64]byte
	for name, values := range h {
		folded := fold(buf[:0], name)
		switch string(folded) {
		case "x-squid-error", "x-error-description", "x-proxy-error":
			return true
		}
		if p.vendor.has(folded) || p.marks.in(name) { // forwarded answers carry these too
			if speaksOfError(folded) {
				return true
			}
			continue
		}
		if p.response.strip.has(folded) {
			continue // forwarded answers carry these too
		}
		for _, v := range values {
			if p.marks.inAny(v) {
				return true
			}
		}
	}
	return false
}

// speaksOfError reports whether a folded name has a part between dashes that says error or reason.
func speaksOfError(folded []byte) bool {
	for part := range bytes.SplitSeq(folded, []byte("-")) {
		switch string(part) {
		case "err", "error", "errors", "reason":
			return true
		}
	}
	return false
}

// hasErrorParameter reports whether a Proxy-Status member carries an error (RFC 9209 §2.1.1).
func hasErrorParameter(values []string) bool {
	for _, v := range values {
		for i, quoted := 0, false; i < len(v); i++ {
			switch c := v[i]; {
			case quoted && c == '\\':
				i++
			case c == '"':
				quoted = !quoted
			case c == ';' && !quoted:
				if rest := strings.TrimLeft(v[i+1:], " \t"); strings.HasPrefix(rest, "error=") {
					return true
				}
			}
		}
	}
	return false
}
