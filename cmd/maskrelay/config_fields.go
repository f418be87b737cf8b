package main

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// field is one variable of a configuration struct.
type field struct {
	name  string // the variable behind the prefix that fields was given
	goes  string // the Go field's name, by which the env package reports errors
	value reflect.Value
}

var (
	secretType   = reflect.TypeFor[Secret]()
	durationType = reflect.TypeFor[time.Duration]()
)

func (f field) secret() bool { return f.value.Type() == secretType }

// text is the value as the variable takes it; a secret's is stars.
func (f field) text() string {
	if f.value.Type() == durationType {
		return shortDuration(time.Duration(f.value.Int()))
	}
	return fmt.Sprint(f.value.Interface())
}

// fields walks the struct that v points to in order, nested sections included.
func fields(v any, prefix string) []field {
	return walk(reflect.ValueOf(v).Elem(), prefix)
}

func walk(v reflect.Value, prefix string) []field {
	var out []field
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, tagged := f.Tag.Lookup("env")
		switch {
		case !f.IsExported() || name == "-":
		case tagged:
			out = append(out, field{name: prefix + name, goes: f.Name, value: v.Field(i)})
		case f.Type.Kind() == reflect.Struct:
			out = append(out, walk(v.Field(i), prefix+f.Tag.Get("envPrefix"))...)
		}
	}
	return out
}

// fieldNames maps the Go names of v's fields to variable names behind prefix.
func fieldNames(v any, prefix string) map[string]string {
	names := map[string]string{}
	for _, f := range fields(v, prefix) {
		names[f.goes] = f.name
	}
	return names
}

// shortDuration is 10m where the standard library writes 10m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
