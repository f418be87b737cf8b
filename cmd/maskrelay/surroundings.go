package main

import (
	"context"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"maskrelay/proxy/capacity"
)

// surroundings are what a relay runs in: the host with its memory, Go's collector, and the way the log takes.
type surroundings struct {
	host      capacity.Host
	pressure  *capacity.Pressure
	collector *collector // nil = as Go has it
	lines     *logWriter
}

// readSurroundings reads the host's limits. What cannot be read is logged and does not bind.
func readSurroundings(lines *logWriter, logger zerolog.Logger) surroundings {
	root := os.DirFS("/")
	host, err := capacity.ReadHost(root, capacity.OpenFiles)
	if err != nil {
		logger.Warn().Err(err).Msg("not all of the host's limits are known")
	}
	return surroundings{host: host, pressure: capacity.NewPressure(root), lines: lines}
}

// maxConns is what the operator says, or what the host allows. File descriptors bind even the operator: beyond them nothing works.
func (s surroundings) maxConns(cfg *Config, logger zerolog.Logger) int {
	allowed, boundBy := s.host.MaxConns(cfg.Shape())
	n := cfg.MaxConns
	switch {
	case n == 0:
		logger.Info().Int("max_conns", allowed).Str("bound_by", boundBy).Msg("capacity of this host")
		return allowed
	case n > allowed:
		n = boundedByFiles(n, s.host)
		logger.Warn().Int("max_conns", cfg.MaxConns).Int("host_allows", allowed).Str("bound_by", boundBy).Int("taken", n).
			Msg("MASKRELAY_MAX_CONNS is more than this host allows")
	}
	return n
}

// boundedByFiles is n, or what the limit of open files allows if that is less.
func boundedByFiles(n int, host capacity.Host) int {
	if pairs := filePairs(host); pairs > 0 {
		return min(n, pairs)
	}
	return n
}

// filePairs is the pairs of file descriptors that tunnels can have, 0 if the limit is not known. As with all limits, a relay
// tries with MinConns at the least.
func filePairs(host capacity.Host) int {
	if pairs := host.FilePairs(); pairs > 0 {
		return max(pairs, capacity.MinConns)
	}
	return 0
}

func (s surroundings) filePairs() int { return filePairs(s.host) }

// watch looks at the memory until ctx ends, and logs when the relay begins and ends to refuse connections for it.
func (s surroundings) watch(ctx context.Context, logger zerolog.Logger) {
	const adjustEvery = 4 // samples

	if s.pressure.Full() { // from the start
		logPressure(s.pressure, logger)
	}
	tick := time.NewTicker(capacity.PressureInterval)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.pressure.Sample() {
			logPressure(s.pressure, logger)
		}
		if s.collector != nil && n%adjustEvery == 0 {
			s.collector.adjust()
		}
	}
}

func logPressure(p *capacity.Pressure, logger zerolog.Logger) {
	if p.Full() {
		logger.Warn().Str("memory", p.Reason()).Msg("memory runs out: new connections are refused")
		return
	}
	logger.Info().Str("memory", p.Reason()).Msg("memory suffices again: new connections are taken")
}

// metrics are the series of what is around the relay.
func (s surroundings) metrics() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "maskrelay_memory_pressure",
			Help: "Largest share of a memory limit in use (cgroup, machine, TCP buffers), 0 to 1. Above 0.9 new connections are refused, until it is below 0.85.",
		}, s.pressure.Ratio),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "maskrelay_log_lines_dropped_total",
			Help: "Log lines that were lost because standard error was not read fast enough, or failed.",
		}, func() float64 { return float64(s.lines.Dropped()) }),
	}
}
