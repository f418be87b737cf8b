package main

import (
	"bytes"
	"io"

	"github.com/rs/zerolog"
)

// Lines a second apart are too far apart to tell what came first in a drop.
func init() { zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00" }

// newLogger returns the program's logger and what it writes through, which the caller closes after the last line.
func newLogger(c LogConfig, out io.Writer) (zerolog.Logger, *logWriter) {
	level, err := zerolog.ParseLevel(string(c.Level))
	if err != nil {
		level = zerolog.InfoLevel // LogLevel takes only names that zerolog has
	}
	to := func(out io.Writer) zerolog.Logger {
		out = visibleWriter{out}
		if c.Format == LogConsole {
			out = zerolog.ConsoleWriter{Out: out, NoColor: true, TimeFormat: "15:04:05.000"}
		}
		return zerolog.New(out).Level(level).With().Timestamp().Logger()
	}
	lines := newLogWriter(out, func(dropped uint64) []byte {
		var line bytes.Buffer
		logger := to(&line)
		logger.Warn().Uint64("lines", dropped).Msg("log lines dropped: they were not read fast enough")
		return line.Bytes()
	})
	return to(lines), lines
}

// debugWriter logs lines of others at debug level.
type debugWriter struct{ zerolog.Logger }

func (w debugWriter) Write(b []byte) (int, error) {
	w.Debug().Bytes("text", b).Msg("from the standard library")
	return len(b), nil
}
