package main

import (
	"strings"
	"testing"
)

// TestServeRefusesBadConfig: nothing starts, under either name of the command.
func TestServeRefusesBadConfig(t *testing.T) {
	for _, args := range [][]string{nil, {"serve"}} {
		got := runWith(environ(goodEnv(), one("HEALTH_INTERVAL", "1ms")), "", args...)
		if got != (ending{exitConfig, "", "MASKRELAY_HEALTH_INTERVAL: 1ms is not between 1s and 1h\n"}) {
			t.Errorf("maskrelay %v: %+v", args, got)
		}
	}
}

func TestServeTakesNoArguments(t *testing.T) {
	if got := runWith(nil, "", "serve", "now"); got.code != exitConfig || !strings.HasPrefix(got.stderr, "maskrelay: unknown command \"now\"") {
		t.Errorf("got %+v", got)
	}
}
