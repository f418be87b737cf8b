package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// ordinaryFields are those that any server has; their names tell nothing.
var ordinaryFields = []string{
	"Date", "Server", "Content-Type", "Content-Length", "Content-Encoding", "Content-Language", "Transfer-Encoding", "Connection",
	"Proxy-Connection", "Keep-Alive", "Cache-Control", "Expires", "Pragma", "Vary", "Etag", "Last-Modified", "Accept-Ranges", "Age",
	"Location", "Retry-After", "Set-Cookie", "Allow", "Mime-Version", "Strict-Transport-Security", "Alt-Svc",
}

// ordinaryServers are programs that anybody runs; the mask removes what proxies among them add.
var ordinaryServers = []string{"nginx", "apache", "cloudflare", "squid", "openresty", "envoy", "haproxy", "caddy", "iis", "microsoft-iis", "litespeed", "istio-envoy"}

var (
	hostWord  = regexp.MustCompile(`(?i)\b(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,24}\b`)
	realmWord = regexp.MustCompile(`(?i)realm="([^"]{4,64})"`)
)

// shownWords are what the gateway has shown of itself: hosts, realm and server's name in answers of its own.
func (l *liveVisit) shownWords() (words []string) {
	for i := range l.result.Asked {
		a := &l.result.Asked[i]
		if !a.own {
			continue
		}
		words = append(words, hostWord.FindAllString(a.Shows, -1)...)
		for _, f := range a.Fields {
			words = append(words, wordsOf(f)...)
		}
	}
	target := strings.ToLower(l.target.Hostname())
	words = slices.DeleteFunc(words, func(w string) bool {
		w = strings.ToLower(w)
		return w == target || w == nowhere || strings.HasSuffix(nowhere, w) || strings.Contains(w, redacted) ||
			strings.EqualFold(w, string(l.config.Brand)) || strings.HasSuffix(w, ".html") || strings.HasSuffix(w, "w3.org")
	})
	slices.Sort(words)
	return slices.Compact(words)
}

// wordsOf are the words of one field that could name the vendor.
func wordsOf(f liveField) (words []string) {
	words = hostWord.FindAllString(f.Value, -1)
	switch strings.ToLower(f.Name) {
	case "proxy-authenticate":
		for _, m := range realmWord.FindAllStringSubmatch(f.Value, -1) {
			words = append(words, m[1])
		}
	case "server", "proxy-agent":
		name, _, _ := strings.Cut(f.Value, "/")
		name, _, _ = strings.Cut(strings.TrimSpace(name), " ")
		if len(name) >= 4 && !slices.Contains(ordinaryServers, strings.ToLower(name)) {
			words = append(words, name)
		}
	}
	return words
}

// advise says what no list knows of what the vendor shows.
func (l *liveVisit) advise() {
	var fields, words []string
	for i := range l.result.Asked {
		a := &l.result.Asked[i]
		for _, f := range a.Fields {
			ordinary := slices.ContainsFunc(ordinaryFields, func(o string) bool { return strings.EqualFold(o, f.Name) })
			if a.own && !f.Removed && !ordinary {
				fields = append(fields, f.Name)
			}
		}
	}
	for _, w := range l.shownWords() {
		if _, _, known := l.config.Policy.Marks().Find([]byte(w)); !known {
			words = append(words, w)
		}
	}
	add := func(variable string, list []string, why string) {
		slices.Sort(list)
		if list = slices.Compact(list); len(list) > 0 {
			l.result.Advice = append(l.result.Advice, fmt.Sprintf("%s%s: %s: %s", envPrefix, variable, why, strings.Join(list, ",")))
		}
	}
	add("STRIP_RESPONSE_HEADERS", fields, "the vendor's own answers have fields that no list knows; add")
	add("VENDOR_MARKS", words, "the vendor's own answers have words that no list knows; add those that name him")
}

func (r *liveResult) writeText(b *strings.Builder) {
	fmt.Fprintf(b, "\nLIVE %s (%s)\n", r.Gateway, r.URL)
	if r.Problem != "" {
		fmt.Fprintf(b, "  %s\n", r.Problem)
	}
	for i := range r.Asked {
		a := &r.Asked[i]
		fmt.Fprintf(b, "  %s\n    the vendor shows: %s%s\n", a.Request, a.Shows, a.Error)
		for _, f := range a.Fields {
			state := "passes"
			if f.Removed {
				state = "removed"
			}
			fmt.Fprintf(b, "      %-8s %s: %s\n", state, f.Name, f.Value)
		}
		through := "no answer"
		if a.Through > 0 {
			through = fmt.Sprint(a.Through)
		}
		fmt.Fprintf(b, "    through the relay: %s\n", through)
	}
	for _, leak := range r.Leaks {
		fmt.Fprintf(b, "  LEAK %s\n", leak)
	}
	for _, advice := range r.Advice {
		fmt.Fprintf(b, "  advice: %s\n", advice)
	}
}
