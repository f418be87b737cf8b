package vendor

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/agnivade/levenshtein"
	"github.com/goccy/go-yaml"
)

// files are the presets. A file that cannot be loaded is a failing test.
//
//go:embed presets/*.yaml
var files embed.FS

const presetDir = "presets"

// loaders parse each preset at most once, when it is first asked for.
var loaders = sync.OnceValue(func() map[string]func() (*Preset, error) {
	m := make(map[string]func() (*Preset, error))
	for _, name := range Names() {
		m[name] = sync.OnceValues(func() (*Preset, error) {
			file := presetDir + "/" + name + ".yaml"
			text, err := files.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("vendor: %w", err)
			}
			return parsePreset(file, text)
		})
	}
	return m
})

// Names are the presets' names, sorted, generic among them.
func Names() []string {
	entries, err := files.ReadDir(presetDir)
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// Load returns the preset of a name, in any case; "" is [Generic]. The error wraps
// [ErrUnknown] and suggests the nearest name, or else lists all. Every caller gets the
// same preset.
func Load(name string) (*Preset, error) {
	if name == "" {
		name = Generic
	}
	if load, ok := loaders()[strings.ToLower(name)]; ok {
		return load()
	}
	return nil, unknownPreset(name)
}

// unknownPreset suggests a name that starts alike or differs by a few letters.
func unknownPreset(name string) error {
	wanted := strings.ToLower(name)
	best, least := "", 1+max(2, len(wanted)/3)
	for _, known := range Names() {
		if len(wanted) > 2*len(known) {
			continue
		}
		d := levenshtein.ComputeDistance(wanted, known)
		if len(wanted) >= 3 && strings.HasPrefix(known, wanted) {
			d = min(d, 1)
		}
		if d < least {
			best, least = known, d
		}
	}
	shown := name
	if len(shown) > 32 {
		shown = shown[:32] + "..."
	}
	if best != "" {
		return fmt.Errorf("%w %q; did you mean %s?", ErrUnknown, shown, best)
	}
	return fmt.Errorf("%w %q; there are %s", ErrUnknown, shown, strings.Join(Names(), ", "))
}

// decodeSpec reads a preset's file strictly. Errors begin with file and line.
func decodeSpec(file string, text []byte) (spec Spec, err error) {
	d := yaml.NewDecoder(bytes.NewReader(text), yaml.DisallowUnknownField())
	if err := d.Decode(&spec); err != nil {
		if errors.Is(err, io.EOF) {
			return Spec{}, fmt.Errorf("vendor: %s:1: the file is empty", file)
		}
		var at yaml.Error
		if errors.As(err, &at) && at.GetToken() != nil {
			return Spec{}, fmt.Errorf("vendor: %s:%d: %s", file, at.GetToken().Position.Line, at.GetMessage())
		}
		return Spec{}, fmt.Errorf("vendor: %s: %w", file, err)
	}
	if err := d.Decode(new(Spec)); !errors.Is(err, io.EOF) {
		return Spec{}, fmt.Errorf("vendor: %s: more than one document", file)
	}
	return spec, nil
}

// lineOf is the line of the first key of path that the file has, 1 if none.
func lineOf(text []byte, path ...string) int {
	line := 1
	for n := 1; n <= len(path); n++ {
		p, err := yaml.PathString("$." + strings.Join(path[:n], "."))
		if err != nil {
			break
		}
		node, err := p.ReadNode(bytes.NewReader(text))
		if err != nil || node == nil || node.GetToken() == nil {
			break
		}
		line = node.GetToken().Position.Line
	}
	return line
}
