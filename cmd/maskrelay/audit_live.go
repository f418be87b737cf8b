package main

import (
	"context"
	"net/url"
	"strings"
)

// liveResult is what a real gateway showed and what came of it through the relay.
type liveResult struct {
	Gateway string   `json:"gateway"`
	Leaks   []string `json:"leaks"`
	Problem string   `json:"problem,omitempty"`
}

func (r *liveResult) writeText(b *strings.Builder) {}

func (b *auditBench) live(ctx context.Context, cfg *Config, target *url.URL) ([]liveResult, error) {
	return nil, nil
}
