package main

import (
	"github.com/rs/zerolog"

	"maskrelay/upstream"
)

// gatewayNews logs what happens to the gateways: what an operator should act on as a
// warning, the rest as information.
func gatewayNews(logger zerolog.Logger) func(upstream.Event) {
	messages := map[upstream.EventKind]string{
		upstream.EventDown:        "a gateway is out of use",
		upstream.EventUp:          "a gateway is in use again",
		upstream.EventTrouble:     "a gateway refuses exchanges",
		upstream.EventTroubleOver: "a gateway serves again",
	}
	return func(e upstream.Event) {
		level := zerolog.InfoLevel
		if e.Kind == upstream.EventDown || e.Kind == upstream.EventTrouble {
			level = zerolog.WarnLevel
		}
		details := map[string]any{}
		if e.Cause != "" {
			details["cause"] = string(e.Cause)
		}
		if e.Advice != "" {
			details["advice"] = e.Advice
		}
		if e.For > 0 {
			details["for_ms"] = e.For.Milliseconds()
		}
		logger.WithLevel(level).Str("upstream", e.Gateway).Str("event", string(e.Kind)).Fields(details).AnErr("error", e.Err).Msg(messages[e.Kind])
	}
}
