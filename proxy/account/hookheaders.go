package account

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// headersQuery appends the question to a URL's query, in the parameters that panels
// expect. The port of the client is not known to be of use, and the answer is for all
// targets, so neither is told.
func headersQuery(query string, q asking) string {
	client := q.from.client
	if client != "" {
		client = net.JoinHostPort(client, "0")
	}
	var b strings.Builder
	b.WriteString(query)
	for _, p := range [][2]string{
		{"user", q.name}, {"pass", *q.password.text}, {"client_addr", client}, {"local_addr", q.from.listener},
		{"service", "http"}, {"sps", "0"}, {"target", ""},
	} {
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p[0] + "=" + url.QueryEscape(p[1]))
	}
	return b.String()
}

// headersAnswer reads an answer: 204 with limits in fields of its head, or a refusal.
// Panels refuse with whatever they like; what rather speaks of trouble is none.
func headersAnswer(name string, response *http.Response) (*Account, error) {
	switch response.StatusCode {
	case http.StatusNoContent:
	case http.StatusOK, http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return nil, ErrRefused
	default:
		return nil, statusError(response.StatusCode)
	}
	a := &Account{Name: name}
	var problems []error
	for _, f := range []struct {
		field string
		set   func(v value) string
	}{
		{"userconns", func(v value) (text string) { a.MaxConns, text = v.whole(); return text }},
		{"userqps", func(v value) (text string) { a.ConnRate, text = v.rate(); return text }},
		{"userrate", func(v value) (text string) { a.Bandwidth, text = v.size(ParseBandwidth); return text }},
		{"usertotalrate", func(v value) (text string) {
			total, text := v.size(ParseBandwidth)
			if total > 0 {
				a.Bandwidth = total
			}
			return text
		}},
		{"pool", func(v value) (text string) { a.Pool, text = v.word().pool(); return text }},
		{"upstream", notHonoured},
		{"outgoing", notHonoured},
	} {
		v, text := fieldValue(response.Header, f.field)
		if text == "" && v.text != "" {
			text = f.set(v)
		}
		if text != "" {
			problems = append(problems, fmt.Errorf("the answer's %s %s", f.field, text))
		}
	}
	if text := a.headersPools(response.Header.Values("pools")); text != "" {
		problems = append(problems, errors.New("the answer's pools: "+text))
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return a, nil
}

// headersPools reads the pools, which are a list as fields of a head have them (RFC 9110
// §5.6.1): in one field or in several, with commas between, empty elements being none.
func (a *Account) headersPools(values []string) string {
	l, _ := listOf("pools")
	for element := range strings.SplitSeq(strings.Join(values, ","), ",") {
		v := value{kindString, strings.TrimSpace(element)}
		if v.text == "" {
			continue
		}
		if text := l.add(a, v); text != "" {
			return text
		}
		if text := l.problem(len(a.Pools)); text != "" {
			return text
		}
	}
	return ""
}

// notHonoured is the problem with an answer that sends the customer another way. To
// ignore it would send him through a gateway that was not meant for him.
func notHonoured(value) string {
	return "is not empty; an account cannot bring a gateway of its own, but the field pool can name one of the relay's pools"
}

// word is v taken for text.
func (v value) word() value { return value{kindString, v.text} }

// fieldValue returns the field of a head as a number, empty if there is none.
func fieldValue(head http.Header, field string) (value, string) {
	values := head.Values(field)
	if len(values) > 1 {
		return value{}, "is given twice"
	}
	if len(values) == 0 {
		return value{}, ""
	}
	v := value{kindInteger, strings.TrimSpace(values[0])}
	if strings.Contains(v.text, ".") {
		v.kind = kindFloat
	}
	return v, ""
}
