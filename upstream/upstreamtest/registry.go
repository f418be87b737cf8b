package upstreamtest

import (
	"strings"
	"time"
)

// Behaviours returns every behaviour by name, in a new map. Names never change
// their meaning. Those that answer a CONNECT with an open tunnel have names
// that begin with "relay" or "tunnel"; all others are faults, which a relay has to turn
// into a reply of its own. Names that begin with "preset-" are the refusals of
// [PresetErrors].
func Behaviours() map[string]Behaviour {
	all := map[string]Behaviour{}
	for _, group := range []map[string]Behaviour{relays(), tunnels(), refusals(), endings(), heads(), presetRefusals()} {
		for name, b := range group {
			all[name] = b
		}
	}
	return all
}

// relays are honest gateways with odd but valid replies.
func relays() map[string]Behaviour {
	return map[string]Behaviour{
		"relay":                     Relay{},
		"relay-slow":                Slow(16, time.Millisecond),
		"relay-split":               SplitReply(),
		"relay-informational-first": InformationalFirst(),
		"relay-204":                 No200Tunnel(),
		"relay-299":                 relayReply("HTTP/1.1 299 {brand} Odd\r\nVia: 1.1 {brand}\r\n\r\n"),
		"relay-http10":              relayReply("HTTP/1.0 200 {brand} Connection established\r\nProxy-agent: {brand}\r\n\r\n"),
		"relay-no-reason":           relayReply("HTTP/1.1 200\r\n\r\n"),
		"relay-empty-reason":        relayReply("HTTP/1.1 200 \r\n\r\n"),
		"relay-bare-lf":             relayReply("HTTP/1.1 200 {brand}\nX-{brand}-Session: 1\n\n"),
		"relay-length-zero":         relayReply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-{brand}-Session: 1\r\n\r\n"),
		"relay-connection-close":    relayReply("HTTP/1.1 200 OK\r\nConnection: close\r\nProxy-Connection: close\r\n\r\n"),
		"relay-spaced-field":        relayReply("HTTP/1.1 200 OK\r\nProxy Connection: {brand}\r\n\r\n"),
		"relay-8bit-field":          relayReply("HTTP/1.1 200 OK\r\nX-{brand}-City: Z\xfcrich\r\n\r\n"),
		"relay-8k-head":             relayReply("HTTP/1.1 200 OK\r\nX-{brand}-Blob: " + strings.Repeat("b", 8<<10) + "\r\n\r\n"),
		"relay-stale-keep-alive":    StaleKeepAlive(),
	}
}

// tunnels open and then do as they please.
func tunnels() map[string]Behaviour {
	return map[string]Behaviour{
		"tunnel-early-data":      EarlyData([]byte("220 early banner\r\n")),
		"tunnel-reset-at-once":   Reset(0),
		"tunnel-reset-after-1k":  Reset(1 << 10),
		"tunnel-close-at-once":   Cut(0),
		"tunnel-close-after-1k":  Cut(1 << 10),
		"tunnel-half-close":      once((*Vendor).established, HalfClose),
		"tunnel-silent":          once((*Vendor).established, KeepOpen),
		"tunnel-stalled-reader":  once((*Vendor).established, Stall),
		"tunnel-second-response": text("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", KeepOpen),
	}
}

// refusals are the words that gateways have for no.
func refusals() map[string]Behaviour {
	return map[string]Behaviour{
		"400":              Loud(400, "BAD_TARGET"),
		"401":              Loud(401, "UNAUTHORIZED"),
		"402":              Loud(402, "TRAFFIC_EXHAUSTED"),
		"403":              Loud(403, "PORT_BLOCKED"),
		"404":              Loud(404, "NO_SUCH_ZONE"),
		"407":              Loud(407, "AUTH_FAILED"),
		"407-threads":      Loud(407, "THREADS_EXHAUSTED"),
		"407-no-length":    Refuse407NoLength(),
		"407-no-challenge": text("HTTP/1.1 407 {brand} NO_USER\r\nContent-Length: 0\r\n\r\n", KeepOpen),
		"407-close":        unframed(407, "AUTH_FAILED", Close),
		"412":              Loud(412, "TTL_TOO_LONG"),
		"429":              text("HTTP/1.1 429 {brand} Slow down\r\nRetry-After: 7\r\nX-{brand}-Limit: 100\r\nContent-Length: 0\r\n\r\n", KeepOpen),
		"452":              Loud(452, "NO_PEER"),
		"500":              Loud(500, "INTERNAL"),
		"502":              Loud(502, "NO_HOST_CONNECTION"),
		"502-no-length":    unframed(502, "NO_HOST_CONNECTION", Close),
		"503":              Loud(503, "NO_RAY"),
		"504":              Loud(504, "PEER_TIMEOUT"),
		"522":              Loud(522, "PEER_GONE"),
		"301-billing":      text("HTTP/1.1 301 {brand} Moved\r\nLocation: https://billing.{brand}.example/\r\nContent-Length: 0\r\n\r\n", KeepOpen),
		"error-in-200":     text("HTTP/1.1 200 OK\r\nX-{brand}-Err-Code: client_10000\r\nX-{brand}-Err-Msg: {brand} says no\r\nContent-Length: 14\r\n\r\n{brand} no", Close),
		"999":              text("HTTP/1.1 999 {brand}\r\nContent-Length: 0\r\n\r\n", KeepOpen),
	}
}

// endings leave without a whole reply.
func endings() map[string]Behaviour {
	return map[string]Behaviour{
		"silent":             Silent(),
		"stall":              Raw{Then: Stall},
		"close-before-reply": CloseBeforeReply(),
		"reset-before-reply": ResetBeforeReply(),
		"fin-before-reply":   Raw{Then: HalfClose},
		"close-mid-head":     CloseMidHead(),
		"reset-mid-head":     midHead(RST),
		"silent-mid-head":    midHead(KeepOpen),
		"continue-only":      text("HTTP/1.1 100 {brand}\r\n\r\n", KeepOpen),
	}
}

// heads are replies that no client should take.
func heads() map[string]Behaviour {
	return map[string]Behaviour{
		"connect-body-length":   ConnectWithBody(false),
		"connect-body-chunked":  ConnectWithBody(true),
		"connect-body-chunked0": text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", KeepOpen),
		"connect-101":           text("HTTP/1.1 101 {brand}\r\nUpgrade: {brand}\r\nConnection: Upgrade\r\n\r\n{brand}", KeepOpen),
		"head-huge":             HugeHead(64 << 10),
		"head-endless":          Endless(),
		"head-endless-1xx":      EndlessInformational(),
		"head-endless-line":     endless("HTTP/1.1 200 ", strings.Repeat("{brand}", 100)),
		"garbage":               text("{brand}\x00\x01\x02\r\n\r\n", KeepOpen),
		"no-head":               text("<html>{brand}</html>", Close),
		"tls-alert":             text("\x15\x03\x01\x00\x02\x02\x28", Close),
		"http2-preface":         text("\x00\x00\x12\x04\x00\x00\x00\x00\x00{brand}", KeepOpen),
		"lower-case-version":    text("http/1.1 200 {brand}\r\n\r\n", KeepOpen),
		"version-2":             text("HTTP/2.0 200 {brand}\r\n\r\n", KeepOpen),
		"status-two-digits":     text("HTTP/1.1 20 {brand}\r\n\r\n", KeepOpen),
		"status-signed":         text("HTTP/1.1 +20 {brand}\r\n\r\n", KeepOpen),
		"status-four-digits":    text("HTTP/1.1 2000 {brand}\r\n\r\n", KeepOpen),
		"length-negative":       text("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{brand}", KeepOpen),
		"length-two":            text("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 7\r\n\r\n{brand}", KeepOpen),
		"length-overflow":       text("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n{brand}", KeepOpen),
		"nul-in-head":           text("HTTP/1.1 200 OK\r\nX-{brand}: a\x00b\r\n\r\n", KeepOpen),
		"folded-line":           text("HTTP/1.1 200 OK\r\nX-{brand}: a\r\n Content-Length: 7\r\n\r\n{brand}", KeepOpen),
		"no-colon":              text("HTTP/1.1 200 OK\r\n{brand}\r\n\r\n", KeepOpen),
	}
}
