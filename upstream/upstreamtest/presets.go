package upstreamtest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// PresetAnswer is a refusal as the gateway of one vendor words it, and what it means. The
// table is written from the vendors' documentation and from public captures, not from the
// presets, so that a preset can be tested against it.
type PresetAnswer struct {
	// Preset is the vendor's preset.
	Preset string
	// Name tells the vendor's answers apart; it begins with the status.
	Name string
	// Status and Reason are the status line's.
	Status int
	Reason string
	// Header is what the vendor adds, a line each, "Name: value".
	Header []string
	// Body is the beginning of the vendor's page, "" for none.
	Body string
	// Cause is what the vendor means, in the words of the relay's log and metrics.
	Cause string
	// Remembered marks an answer that no source of the vendor's documents.
	Remembered bool
}

// Behaviour answers every request on a connection with it.
func (a PresetAnswer) Behaviour() Behaviour {
	raw := a.Bytes()
	return eachRequest(func(*Vendor) []byte { return raw })
}

// Bytes is the answer as it stands on the wire, with an exact Content-Length.
func (a PresetAnswer) Bytes() []byte {
	m := message{first: fmt.Sprintf("HTTP/1.1 %d %s", a.Status, a.Reason), lines: slices.Clone(a.Header)}
	if a.Status == http.StatusProxyAuthRequired {
		m.lines = append(m.lines, `Proxy-Authenticate: Basic realm="`+a.Preset+`"`)
	}
	m.lines = append(m.lines, fmt.Sprintf("Content-Length: %d", len(a.Body)))
	return append(m.bytes(), a.Body...)
}

// Field returns the value of a header field, "" without. Case does not matter.
func (a PresetAnswer) Field(name string) string {
	for _, line := range a.Header {
		if n, value, _ := strings.Cut(line, ": "); strings.EqualFold(n, name) {
			return value
		}
	}
	return ""
}

// PresetErrors returns the answers of one preset's vendor, nil for an unknown one. The
// slice is the caller's.
func PresetErrors(preset string) []PresetAnswer {
	answers := slices.Clone(presetAnswers[preset])
	for i := range answers {
		answers[i].Preset = preset
	}
	return answers
}

// PresetNames returns the presets whose answers are known, sorted.
func PresetNames() []string {
	names := make([]string, 0, len(presetAnswers))
	for name := range presetAnswers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// presetRefusals are all answers by name: "preset-oxylabs-407-traffic".
func presetRefusals() map[string]Behaviour {
	all := map[string]Behaviour{}
	for _, preset := range PresetNames() {
		for _, a := range PresetErrors(preset) {
			all["preset-"+preset+"-"+a.Name] = a.Behaviour()
		}
	}
	return all
}
