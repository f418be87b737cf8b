// Package admin is the operator's HTTP server: health, readiness, metrics,
// profiles, and the two commands reload and drain.
//
//	reg := admin.NewRegistry(version, commit)
//	srv, err := admin.New(admin.Config{Listen: "127.0.0.1:9090", Gatherer: reg, Ready: relay.Reasons})
//	err = srv.Serve(ctx)
//
// It decides nothing: it renders what the functions in its [Config] tell it.
//
// Who may see what: /healthz, /readyz, /metrics and the index are for everyone
// who can reach the listener. Profiles and commands are guarded: with a token
// they want it as a bearer token from everyone; without one they answer
// loopback peers alone, by the connection's own address and never by a header,
// and refuse requests that a browser sends on behalf of a foreign page.
//
// Health and readiness need no token, no Host header and no free slot: at most
// [MaxConns] connections are open, the idlest gives way to a new one, and
// the dear endpoints have few slots of their own.
package admin
