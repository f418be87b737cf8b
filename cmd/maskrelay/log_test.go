package main

import (
	"bytes"
	"encoding/json"
	"regexp"
	"testing"
	"time"
)

// A line's time has milliseconds, in both formats.
func TestLogTime(t *testing.T) {
	for format, pattern := range map[LogFormat]string{
		LogJSON:    `"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d)"`,
		LogConsole: `^\d\d:\d\d:\d\d\.\d{3} `,
	} {
		var out bytes.Buffer
		logger, lines := newLogger(LogConfig{Level: "info", Format: format}, &out)
		for range 3 { // one of them is not at a whole second
			logger.Info().Msg("line")
			time.Sleep(7 * time.Millisecond)
		}
		lines.Close()
		if !regexp.MustCompile(pattern).Match(out.Bytes()) {
			t.Errorf("%s: %s", format, out.Bytes())
		}
		if whole := regexp.MustCompile(`:\d\d\.000`).FindAll(out.Bytes(), -1); len(whole) == 3 {
			t.Errorf("%s: whole seconds only: %s", format, out.Bytes())
		}
		if format == LogJSON && !json.Valid(bytes.Split(out.Bytes(), []byte("\n"))[0]) {
			t.Errorf("not JSON: %s", out.Bytes())
		}
	}
}
