// Package admin is the operator's HTTP server: health, readiness, metrics,
// profiles, accounts and what they use, and the two commands reload and drain.
//
//	reg := admin.NewRegistry(version, commit)
//	srv, err := admin.New(admin.Config{Listen: "127.0.0.1:9090", Gatherer: reg, Ready: relay.Reasons})
//	err = srv.Serve(ctx)
//
// It decides nothing: it renders what the functions in its [Config] tell it.
//
// Accounts, where there is an [AccountAPI], as JSON of the accounts file's shape, without
// passwords and with what they do:
//
//	GET    /api/v1/accounts?limit=&cursor=&prefix=   {"accounts":[…],"next":""}
//	POST   /api/v1/accounts                          creates: 201, Location, ETag; 409 if it exists
//	GET    /api/v1/accounts/{name}                   ETag is its version
//	PUT    /api/v1/accounts/{name}                   creates or replaces; without a password, it stays
//	PATCH  /api/v1/accounts/{name}                   a merge patch, RFC 7396
//	DELETE /api/v1/accounts/{name}                   204
//	DELETE /api/v1/accounts/{name}/connections       {"closed":N}
//	GET    /api/v1/usage?account=&since=&format=     {"usage":[…]}, or CSV
//
// Writers may send If-Match with a version, or If-None-Match: *, and get 412 if another was
// faster. What is wrong with an account is a 422 that names all of it; where accounts cannot
// be changed, 405 or 409 say why; 503 means that Redis or the ledger did not answer, after
// which a write may have happened or not.
//
// Who may see what: /healthz, /readyz, /metrics and the index are for everyone
// who can reach the listener. All others are guarded: with a token they want it
// as a bearer token from everyone; without one they answer loopback peers alone,
// by the connection's own address and never by a header.
//
// What is guarded refuses with 403 what a browser sends on behalf of a foreign page, with a
// token or without: an Origin that is not the Host, or a Sec-Fetch-Site of another site.
// Without a token, and where the server listens on loopback, it also refuses a Host that is
// neither loopback's nor the configured one, which is how DNS rebinding shows. A server that
// listens elsewhere with a token has names that it cannot know, and takes any Host.
//
// Wrong tokens are compared in constant time and get 401; after [maxGuesses] in a minute an
// address, or an IPv6 /64, gets 429 for the rest of it, whatever it sends. That never happens
// to loopback, so that nobody can lock out who is on the host or comes through a tunnel.
//
// Health and readiness need no token, no Host header and no free slot: at most
// [MaxConns] connections are open, the idlest gives way to a new one, and
// the dear endpoints have few slots of their own.
package admin
