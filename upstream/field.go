package upstream

import "fmt"

// FieldError is what is wrong with one field of a [GatewayConfig] other than URL, so that
// the caller can name the setting that it came from.
type FieldError struct {
	Field string // of GatewayConfig, as "Warm"
	Err   error
}

// Error is the cause's text alone: the caller names the field in its own way.
func (e *FieldError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *FieldError) Unwrap() error { return e.Err }

func wrongField(field, format string, args ...any) error {
	return &FieldError{Field: field, Err: fmt.Errorf(format, args...)}
}
