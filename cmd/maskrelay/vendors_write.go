package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"maskrelay/upstream/vendor"
)

// vendorTextWidth is where sentences are broken.
const vendorTextWidth = 110

// sampleParams have a value for every key that each vendor of that key takes somewhere.
var sampleParams = vendor.Params{Country: "us", State: "california", City: "los_angeles", Zip: "90001", ASN: "7922", Session: "a1", TTL: time.Hour}

// placeForms are what customers write, whichever the vendor.
var placeForms = map[vendor.Key]string{vendor.Country: "two letters (ISO 3166-1)", vendor.State: "words joined by _", vendor.City: "words joined by _",
	vendor.Zip: "letters and digits", vendor.ASN: "a number"}

// newVendorParameter says of a key what customers must know.
func newVendorParameter(key vendor.Key, s *vendor.Spec, logins *vendor.Logins) vendorParameter {
	p := vendorParameter{Key: string(key), Form: placeForms[key], Needs: needsOf(key, logins)}
	field := s.Fields[key]
	for _, other := range field.Excludes {
		p.Excludes = append(p.Excludes, string(other))
	}
	for country, others := range field.NeedsIn {
		for _, other := range others {
			p.Needs = slices.DeleteFunc(p.Needs, func(n string) bool { return n == string(other) })
			p.Notes = append(p.Notes, "in "+country+" it needs "+string(other))
		}
	}
	slices.Sort(p.Notes)
	p.Only = field.Only
	switch {
	case key == vendor.Session && s.Session != nil:
		p.Form = sessionForm(s)
		p.Notes = notes(s.Session.Note)
		if s.Session.Geo {
			p.Notes = append(p.Notes, "with another place it is another session")
		}
		if s.Session.Strict != "" {
			p.Notes = append(p.Notes, "for a template of your own: "+s.Session.Strict)
		}
	case key == vendor.TTL && s.TTL != nil:
		p.Form = ttlForm(s.TTL)
		p.Notes = notes(s.TTL.Note)
	}
	return p
}

func notes(note string) []string {
	if note == "" {
		return nil
	}
	return []string{note}
}

// needsOf asks the logins, which also know what only the templates demand.
func needsOf(key vendor.Key, logins *vendor.Logins) []string {
	var needs []string
	given := []vendor.Key{key}
	for range vendor.Keys() {
		fault := logins.Fault(only(given))
		if fault == nil || fault.Kind != vendor.Needs || slices.Contains(given, fault.Other) {
			break
		}
		if fault.Key == key {
			needs = append(needs, string(fault.Other))
		}
		given = append(given, fault.Other)
	}
	return needs
}

// only is sampleParams with these keys and no others.
func only(keys []vendor.Key) vendor.Params {
	has := func(k vendor.Key) bool { return slices.Contains(keys, k) }
	p := sampleParams
	for key, value := range map[vendor.Key]*string{vendor.Country: &p.Country, vendor.State: &p.State, vendor.City: &p.City,
		vendor.Zip: &p.Zip, vendor.ASN: &p.ASN, vendor.Session: &p.Session} {
		if !has(key) {
			*value = ""
		}
	}
	if !has(vendor.TTL) {
		p.TTL = 0
	}
	return p
}

func sessionForm(s *vendor.Spec) string {
	const customers = "up to 64 letters, digits and _, sent as "
	switch {
	case !strings.Contains(s.Username+s.Password, "{session}"):
		return fmt.Sprintf(customers+"one of the ports %d-%d", s.SessionPorts.From, s.SessionPorts.To)
	case s.Session.Charset == "":
		return fmt.Sprintf(customers+"a number, %d to %d", s.Session.Min, s.Session.Max)
	}
	names := map[string]string{"alnum": "letters and digits", "lower": "small letters and digits", "digits": "digits", "hex": "hexadecimal digits"}
	return fmt.Sprintf(customers+"%d %s", s.Session.Length, names[s.Session.Charset])
}

func ttlForm(s *vendor.TTLSpec) string {
	names := map[string]string{"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
	var units []string
	for _, u := range s.Units {
		units = append(units, fmt.Sprintf("%d to %d %s", max(u.Min, 1), u.Max, names[u.Unit]))
	}
	form := "whole " + strings.Join(units, ", or ")
	if s.Default > 0 {
		form += "; " + wholeUnit(s.Default) + " without one"
	}
	return form
}

// page is text in sections.
type page struct{ strings.Builder }

func (p *page) section(title string) { p.WriteString("\n" + title + "\n") }

// paragraph writes s after two blanks and a head that is padded to width, broken into lines.
func (p *page) paragraph(head string, width int, s string) {
	indent := 2 + width
	p.WriteString("  " + head)
	at := 2 + len(head)
	for i, word := range strings.Fields(s) {
		switch {
		case i == 0:
			p.WriteString(strings.Repeat(" ", max(indent-at, 0)))
			at = max(at, indent)
		case at+1+len(word) > vendorTextWidth:
			p.WriteString("\n" + strings.Repeat(" ", indent))
			at = indent
		default:
			p.WriteString(" ")
			at++
		}
		p.WriteString(word)
		at += len(word)
	}
	p.WriteString("\n")
}

func (p *page) list(title string, items []string) {
	if len(items) == 0 {
		return
	}
	p.section(title)
	for _, item := range items {
		p.paragraph("-", 2, item)
	}
}

// text is the report for people.
func (r vendorReport) text() string {
	p := &page{}
	p.WriteString(r.Name + ": " + r.Title + "\n")
	r.environment(p)
	r.examples(p)
	r.parameters(p)
	p.list("LIMITS", r.Limits)
	r.refusals(p)
	p.section("WHAT TO DO")
	for _, a := range r.Advice {
		p.paragraph(a.Cause, 11, a.Advice)
	}
	p.list("FROM", r.Sources)
	p.list("NOT VERIFIED", r.Unverified)
	return p.String()
}

func (r vendorReport) environment(p *page) {
	if len(r.Gateways) > 0 {
		p.section("GATEWAY")
		for _, url := range r.Gateways {
			p.WriteString("  " + url + "\n")
		}
		if r.SessionPorts != "" {
			p.paragraph("", 0, "and the ports "+r.SessionPorts+" for sessions")
		}
	}
	p.section("ENVIRONMENT")
	p.WriteString(strings.Join(r.Environment, "\n") + "\n")
	if r.Name == vendor.Generic {
		p.paragraph("", 0, "Without templates the login of the URL is sent as it is, and customers cannot ask for anything.")
		return
	}
	hint := "_URL takes another gateway"
	if len(r.Gateways) > 1 {
		hint += ", a scheme alone (socks5://) that of the list"
	}
	p.paragraph("", 0, hint+"; _PASSWORD_FILE keeps the password in a file.")
	if r.LoginPrefix != "" {
		p.paragraph("", 0, "The login may be pasted with "+r.LoginPrefix+" before it or without.")
	}
}

func (r vendorReport) examples(p *page) {
	if len(r.Examples) == 0 {
		return
	}
	p.section("EXAMPLES")
	for i, e := range r.Examples {
		if i > 0 {
			p.WriteString("\n")
		}
		p.WriteString("  customer  " + e.Customer + "\n  username  " + e.Username + "\n  password  " + e.Password + "\n")
		if e.Port != 0 {
			p.WriteString(fmt.Sprintf("  port      %d\n", e.Port))
		}
	}
	p.section("TEMPLATES")
	p.WriteString("  username  " + r.Username + "\n  password  " + r.Password + "\n")
}

func (r vendorReport) parameters(p *page) {
	if len(r.Parameters) == 0 {
		return
	}
	p.section("PARAMETERS")
	for _, param := range r.Parameters {
		var says []string
		if param.Form != "" {
			says = append(says, param.Form)
		}
		if len(param.Needs) > 0 {
			says = append(says, "needs "+strings.Join(param.Needs, " and "))
		}
		if len(param.Excludes) > 0 {
			says = append(says, "not together with "+strings.Join(param.Excludes, " or "))
		}
		if len(param.Only) > 0 {
			says = append(says, "only in "+strings.Join(param.Only, ", "))
		}
		p.paragraph(param.Key, 11, strings.Join(append(says, param.Notes...), "; "))
	}
}

func (r vendorReport) refusals(p *page) {
	if len(r.Refusals) == 0 {
		p.section("REFUSALS are read by their status")
		return
	}
	p.section("REFUSALS (the first that fits; all others are read by their status)")
	width := 0
	for _, x := range r.Refusals {
		width = max(width, len(x.Status)+2+len(x.Sign))
	}
	for _, x := range r.Refusals {
		head := strings.TrimRight(x.Status+"  "+x.Sign, " ")
		p.paragraph(head, width+2, x.Cause)
		if x.Advice != "" {
			p.paragraph("", 4, x.Advice)
		}
	}
}
