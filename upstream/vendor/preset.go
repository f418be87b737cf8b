package vendor

import (
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Generic is the preset of a vendor that is not known: fixed credentials, or templates
// of the operator's own.
const Generic = "generic"

// ErrUnknown means that there is no preset of a name.
var ErrUnknown = errors.New("vendor: unknown preset")

// Preset is what is known of one vendor. It is immutable and safe for concurrent use.
type Preset struct {
	Name string

	spec Spec
	text []byte // of the file
	file string

	templates [2][]node // of the username and of the password
	fields    [iSession]spelling
	session   sessionRule
	ttl       lifetime
	rules     []rule
}

// Spec returns what the preset's file says. It is the caller's own copy.
func (p *Preset) Spec() Spec {
	spec, err := decodeSpec(p.file, p.text)
	if err != nil { // it was decoded before
		return Spec{Name: p.Name}
	}
	return spec
}

// Title is the vendor's name and product, for people.
func (p *Preset) Title() string { return p.spec.Title }

// DefaultURL is scheme://host:port of the vendor's gateway for a scheme, http, https or
// socks5; "" if there is none.
func (p *Preset) DefaultURL(scheme string) string {
	var port uint16
	switch scheme {
	case "http":
		port = p.spec.Gateway.HTTP
	case "https":
		port = p.spec.Gateway.HTTPS
	case "socks5":
		port = p.spec.Gateway.SOCKS5
	}
	if p.spec.Gateway.Host == "" || port == 0 {
		return ""
	}
	return scheme + "://" + net.JoinHostPort(p.spec.Gateway.Host, strconv.Itoa(int(port)))
}

// OfHost is the name of the preset whose vendor has a gateway in the domain of a host, ""
// if none is known to.
func OfHost(host string) string {
	host = "." + strings.ToLower(host)
	for _, name := range Names() {
		p, err := Load(name)
		if err != nil || p.spec.Gateway.Host == "" {
			continue
		}
		labels := strings.Split(p.spec.Gateway.Host, ".")
		domain := strings.Join(labels[max(0, len(labels)-2):], ".")
		if strings.HasSuffix(host, "."+domain) {
			return name
		}
	}
	return ""
}

// Marks are strings that must never reach a customer: the vendor's names and domains.
func (p *Preset) Marks() []string {
	marks := slices.Clone(p.spec.Marks)
	if host := p.spec.Gateway.Host; host != "" && !slices.Contains(marks, host) {
		marks = append(marks, host)
	}
	return marks
}

// Headers are fields of answers that must never reach a customer, names or "X-Foo-*".
func (p *Preset) Headers() []string { return slices.Clone(p.spec.Headers) }

// Classify says what a refusal means: by the first of the preset's rules that matches,
// or else by the status alone: 401 and 407 auth, 402 quota, 403 forbidden, 408 and 504
// timeout, 429 rate, other 5xx server, and status.
func (p *Preset) Classify(a Answer) Verdict {
	for i := range p.rules {
		if r := &p.rules[i]; r.matches(&a) {
			v := Verdict{Cause: r.cause, Own: r.own(), Advice: r.advice}
			if v.Advice == "" {
				v.Advice = p.Advice(r.cause)
			}
			return v
		}
	}
	c := statusCause(a.Status)
	return Verdict{Cause: c, Advice: p.Advice(c)}
}

// Advice is a sentence for the operator about a cause: what it means and what to do. It
// is empty for causes that are nobody's to mend.
func (p *Preset) Advice(c Cause) string {
	if s := p.spec.Advice[c]; s != "" {
		return s
	}
	return advice[c]
}

func statusCause(status int) Cause {
	switch {
	case status == 401, status == 407:
		return CauseAuth
	case status == 402:
		return CauseQuota
	case status == 403:
		return CauseForbidden
	case status == 408, status == 504:
		return CauseTimeout
	case status == 429:
		return CauseRate
	case 500 <= status && status <= 599:
		return CauseServer
	default:
		return CauseStatus
	}
}

// advice is what to do about a cause where a preset knows nothing better.
var advice = map[Cause]string{
	CauseAuth:        "the vendor refused the login: check its username and password, whether the account is active, and whether the vendor allows this host's address",
	CauseQuota:       "the balance or traffic at the vendor is used up: top it up or raise the plan, or give the pool another gateway meanwhile",
	CauseThreads:     "the plan's limit of simultaneous connections is reached: lower the gateway's MAX_CONNS below it, raise the plan, or add a gateway with another login",
	CauseRate:        "the vendor limits new requests per second: spread the traffic over more gateways or logins, lower the accounts' connection rate, or ask the vendor for a higher limit",
	CauseParams:      "the vendor did not accept the login's parameters: compare the username template with the vendor's documentation, and ask the vendor which targeting the plan includes",
	CauseNoExit:      "the vendor has no exit for what was asked: ask for less (a country without city, zip or asn), or give the pool a vendor with more exits there",
	CauseSession:     "the session's exit went offline: the next request gets another; if it happens often, use a shorter ttl",
	CauseForbidden:   "the vendor does not serve this target: ask him to unblock it, or send it through another vendor",
	CauseTargetDNS:   "the target's name does not resolve at the vendor: check the name",
	CauseUnreachable: "the target does not answer the vendor's exit: check that the target is up and whether it blocks proxies",
	CauseTimeout:     "the vendor did not answer in time: if it goes on, look at the vendor's status page and at the route to the gateway",
	CauseServer:      "the vendor has trouble of his own: look at his status page, and give the pool a second gateway",
}

// maxBody is how much of an answer's body rules look at, in bytes.
const maxBody = 4096

// rule is a RuleSpec, ready. Texts to compare are lower case.
type rule struct {
	status Statuses
	reason string
	prefix bool   // reason is only the beginning
	header string // as written
	match  string
	body   string
	cause  Cause
	says   bool // that it is the vendor's own
	advice string
}

func makeRule(s *RuleSpec) rule {
	r := rule{
		status: s.Status, header: s.Header, match: strings.ToLower(s.Match),
		body: strings.ToLower(s.Body), cause: s.Cause, says: s.Own, advice: s.Advice,
	}
	r.reason, r.prefix = strings.CutSuffix(strings.ToLower(s.Reason), "*")
	return r
}

// own reports whether only the vendor himself can have made an answer that matches, or
// that is said of it.
func (r *rule) own() bool { return r.says || r.reason != "" || r.header != "" || r.body != "" }

func (r *rule) matches(a *Answer) bool {
	return r.status.has(a.Status) && r.matchesReason(a.Reason) && r.matchesHeader(a.Header) &&
		(r.body == "" || containsFold(a.Body[:min(len(a.Body), maxBody)], r.body))
}

func (r *rule) matchesReason(reason string) bool {
	switch {
	case r.reason == "":
		return true
	case r.prefix && len(reason) > len(r.reason):
		reason = reason[:len(r.reason)]
	}
	return strings.EqualFold(reason, r.reason)
}

func (r *rule) matchesHeader(get func(string) string) bool {
	if r.header == "" {
		return true
	}
	if get == nil {
		return false
	}
	v := get(r.header)
	return v != "" && containsFold(v, r.match)
}

// containsFold reports whether s holds part, which is lower case, in any ASCII case.
func containsFold[T string | []byte](s T, part string) bool {
	for i := 0; i+len(part) <= len(s); i++ {
		j := 0
		for j < len(part) && lowerByte(s[i+j]) == part[j] {
			j++
		}
		if j == len(part) {
			return true
		}
	}
	return false
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c - 'A' + 'a'
	}
	return c
}
