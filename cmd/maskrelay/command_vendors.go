package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"maskrelay/upstream/vendor"
)

// vendorReport is what is known of a vendor; its JSON form is part of the interface.
type vendorReport struct {
	Name         string            `json:"name"`
	Title        string            `json:"title"`
	Gateways     []string          `json:"gateways"`
	SessionPorts string            `json:"session_ports,omitempty"`
	Username     string            `json:"username"` // templates
	Password     string            `json:"password"`
	LoginPrefix  string            `json:"login_prefix,omitempty"`
	Environment  []string          `json:"environment"`
	Parameters   []vendorParameter `json:"parameters"`
	Sticky       string            `json:"sticky,omitempty"`
	Examples     []vendorExample   `json:"examples"`
	Limits       []string          `json:"limits"`
	Refusals     []vendorRefusal   `json:"refusals"`
	Advice       []vendorAdvice    `json:"advice"`
	Sources      []string          `json:"sources"`
	Unverified   []string          `json:"unverified"`
}

// vendorParameter is one that customers may give.
type vendorParameter struct {
	Key      string   `json:"key"`
	Needs    []string `json:"needs,omitempty"`
	Excludes []string `json:"excludes,omitempty"`
	Only     []string `json:"countries,omitempty"`
	Form     string   `json:"form,omitempty"`
	Notes    []string `json:"notes,omitempty"`
}

// vendorExample is a customer's username and what the vendor gets in its place.
type vendorExample struct {
	Customer string `json:"customer"`
	Username string `json:"username"`
	Password string `json:"password"`
	Port     uint16 `json:"port,omitempty"`
}

// vendorRefusal is a rule by which the vendor's answers are read.
type vendorRefusal struct {
	Status string `json:"status"`
	Sign   string `json:"sign,omitempty"`
	Cause  string `json:"cause"`
	Advice string `json:"advice,omitempty"`
}

type vendorAdvice struct {
	Cause  string `json:"cause"`
	Advice string `json:"advice"`
}

func newVendors(p process) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "vendors [name]",
		Short: "List the vendors that are known, or explain one with an example login",
		Long: `List the vendors that MASKRELAY_UPSTREAMS_<n>_VENDOR can name. With a name, explain that one: its gateway, what to put into
the environment, what the vendor gets for a customer's username, what customers can ask for, the vendor's limits, how its
refusals are read and what to do about them, where all that is known from and what no document confirms.

For any other vendor there is generic, with templates of your own in _USERNAME and _PASSWORD.

Exit code 0, 2 for an unknown name.`,
		Example: "  maskrelay vendors\n  maskrelay vendors oxylabs\n  maskrelay vendors iproyal --json | jq -r '.environment[]'",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				return explainVendor(p.stdout, args[0], asJSON)
			}
			return listVendors(p.stdout, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: a list, or with a name one object")
	cmd.ValidArgsFunction = cobra.FixedCompletions(vendor.Names(), cobra.ShellCompDirectiveNoFileComp)
	return cmd
}

func explainVendor(w io.Writer, name string, asJSON bool) error {
	preset, err := vendor.Load(name)
	if err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "vendor: "))
	}
	r, err := newVendorReport(preset)
	if err == nil && asJSON {
		err = encodeJSON(w, r)
	} else if err == nil {
		_, err = io.WriteString(w, r.text())
	}
	if err != nil {
		return failed(err)
	}
	return nil
}

func listVendors(w io.Writer, asJSON bool) error {
	var all []vendorReport
	for _, name := range vendor.Names() {
		preset, err := vendor.Load(name)
		if err != nil {
			return failed(err)
		}
		r, err := newVendorReport(preset)
		if err != nil {
			return failed(err)
		}
		all = append(all, r)
	}
	write := writeVendors
	if asJSON {
		write = func(w io.Writer, all []vendorReport) error { return encodeJSON(w, all) }
	}
	if err := write(w, all); err != nil {
		return failed(err)
	}
	return nil
}

func writeVendors(w io.Writer, all []vendorReport) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line(t, "NAME", "GATEWAY", "PARAMETERS", "STICKY", "VENDOR")
	for _, r := range all {
		var keys []string
		for _, p := range r.Parameters {
			keys = append(keys, p.Key)
		}
		gateway := ""
		if len(r.Gateways) > 0 {
			_, gateway, _ = strings.Cut(r.Gateways[0], "://")
		}
		line(t, r.Name, orDash(gateway), orDash(strings.Join(keys, " ")), orDash(r.Sticky), r.Title)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n`maskrelay vendors NAME` explains one.\n")
	return err
}

func encodeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// newVendorReport gathers what a preset says. Its lists are never null in JSON.
func newVendorReport(preset *vendor.Preset) (vendorReport, error) {
	s := preset.Spec()
	r := vendorReport{
		Name: s.Name, Title: s.Title, Username: s.Username, Password: s.Password, LoginPrefix: s.LoginPrefix,
		Gateways: []string{}, Parameters: []vendorParameter{}, Examples: []vendorExample{}, Refusals: []vendorRefusal{},
		Sources: append([]string{}, s.Sources...), Unverified: append([]string{}, s.Unverified...),
		Limits: vendorLimits(s.Limits), Sticky: sticky(&s), Environment: vendorEnvironment(&s), Advice: vendorAdvices(preset),
	}
	for _, scheme := range []string{"http", "https", "socks5"} {
		if url := preset.DefaultURL(scheme); url != "" {
			r.Gateways = append(r.Gateways, url)
		}
	}
	if s.SessionPorts != nil {
		r.SessionPorts = fmt.Sprintf("%d-%d", s.SessionPorts.From, s.SessionPorts.To)
	}
	for _, rule := range s.Classify {
		r.Refusals = append(r.Refusals, newVendorRefusal(rule))
	}
	logins, err := vendor.NewLogins(vendor.LoginConfig{Preset: preset, Login: "LOGIN", Password: "PASSWORD"})
	if err != nil {
		return r, err
	}
	for _, key := range logins.Keys() {
		r.Parameters = append(r.Parameters, newVendorParameter(key, &s, logins))
	}
	for _, e := range s.Examples {
		example, err := newVendorExample(preset, e)
		if err != nil {
			return r, err
		}
		r.Examples = append(r.Examples, example)
	}
	return r, nil
}

// vendorEnvironment is what makes a relay use the preset.
func vendorEnvironment(s *vendor.Spec) []string {
	const prefix = envPrefix + "UPSTREAMS_0_"
	if s.Name == vendor.Generic {
		return []string{
			prefix + "URL=http://LOGIN:PASSWORD@gw.vendor.example:7777",
			prefix + "USERNAME=user-{login}{?country:-country-{country}}{?session:-session-{session}}",
			prefix + "PASSWORD={password}",
		}
	}
	login, password := "LOGIN", "PASSWORD"
	if len(s.Examples) > 0 {
		login, password = s.Examples[0].Login, s.Examples[0].Password
	}
	env := []string{prefix + "VENDOR=" + s.Name, prefix + "USERNAME=" + login}
	if strings.Contains(s.Username+s.Password, "{password}") {
		env = append(env, prefix+"PASSWORD="+password)
	}
	return env
}

// exampleCustomer is whose logins the examples show.
const exampleCustomer = "alice"

func newVendorExample(preset *vendor.Preset, e vendor.ExampleSpec) (vendorExample, error) {
	logins, err := vendor.NewLogins(vendor.LoginConfig{Preset: preset, Login: e.Login, Password: e.Password})
	if err != nil {
		return vendorExample{}, err
	}
	params, fault := vendor.ParseParams(e.Params)
	if fault != nil {
		return vendorExample{}, fmt.Errorf("vendors: the example of %s: %w", preset.Name, fault)
	}
	x := vendorExample{Customer: strings.TrimSuffix(exampleCustomer+"-"+e.Params, "-")}
	x.Username, x.Password = logins.Make(exampleCustomer, params)
	x.Port, _ = logins.Port(exampleCustomer, params)
	return x, nil
}

func newVendorRefusal(rule vendor.RuleSpec) vendorRefusal {
	r := vendorRefusal{Status: "any", Cause: string(rule.Cause), Advice: rule.Advice}
	if !rule.Status.Any {
		var list []string
		for _, status := range rule.Status.List {
			list = append(list, strconv.Itoa(status))
		}
		r.Status = strings.Join(list, ", ")
	}
	var signs []string
	if rule.Reason != "" {
		signs = append(signs, "reason "+rule.Reason)
	}
	switch {
	case rule.Header != "" && rule.Match != "":
		signs = append(signs, rule.Header+" holds "+strconv.Quote(rule.Match))
	case rule.Header != "":
		signs = append(signs, "has "+rule.Header)
	}
	if rule.Own {
		signs = append(signs, "never taken for a target's")
	}
	if rule.Body != "" {
		signs = append(signs, "body holds "+strconv.Quote(rule.Body))
	}
	r.Sign = strings.Join(signs, ", ")
	return r
}

// vendorCauses are those that an operator can do something about, in the order of how often they come.
var vendorCauses = []vendor.Cause{vendor.CauseAuth, vendor.CauseQuota, vendor.CauseThreads, vendor.CauseRate, vendor.CauseParams,
	vendor.CauseNoExit, vendor.CauseForbidden}

func vendorAdvices(preset *vendor.Preset) []vendorAdvice {
	list := []vendorAdvice{}
	for _, cause := range vendorCauses {
		if advice := preset.Advice(cause); advice != "" {
			list = append(list, vendorAdvice{string(cause), advice})
		}
	}
	return list
}

func vendorLimits(s vendor.LimitSpec) []string {
	list := []string{}
	if s.Threads > 0 {
		list = append(list, fmt.Sprintf("%d connections at once", s.Threads))
	}
	if len(s.ConnectPorts) > 0 {
		var ports []string
		for _, port := range s.ConnectPorts {
			ports = append(ports, strconv.Itoa(int(port)))
		}
		list = append(list, "target ports "+strings.Join(ports, ", "))
	}
	for note := range strings.SplitSeq(strings.ReplaceAll(s.Note, ". ", "; "), "; ") {
		if note != "" {
			list = append(list, note)
		}
	}
	return list
}

// sticky says in a few words how a session is kept, "" if it is not.
func sticky(s *vendor.Spec) string {
	var ways []string
	if strings.Contains(s.Username+s.Password, "{session}") {
		ways = append(ways, "id")
	}
	if s.SessionPorts != nil {
		ways = append(ways, fmt.Sprintf("one of %d ports", s.SessionPorts.To-s.SessionPorts.From+1))
	}
	if s.TTL != nil && strings.Contains(s.Username+s.Password, "{ttl") {
		shortest, longest := lifetimes(s.TTL)
		ways = append(ways, wholeUnit(shortest)+" to "+wholeUnit(longest))
	}
	return strings.Join(ways, ", ")
}

var unitLengths = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}

// lifetimes are the shortest and the longest that a vendor takes.
func lifetimes(s *vendor.TTLSpec) (shortest, longest time.Duration) {
	for i, u := range s.Units {
		length := unitLengths[u.Unit]
		low, high := time.Duration(max(u.Min, 1))*length, time.Duration(u.Max)*length
		if i == 0 || low < shortest {
			shortest = low
		}
		longest = max(longest, high)
	}
	return shortest, longest
}

// wholeUnit is d in its largest whole unit: 90s, 30m, 24h, 7d.
func wholeUnit(d time.Duration) string {
	for _, u := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d%u.length == 0 && d > u.length || d == u.length && u.name != "d" {
			return strconv.Itoa(int(d/u.length)) + u.name
		}
	}
	return strconv.Itoa(int(d/time.Second)) + "s"
}
