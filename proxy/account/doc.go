// Package account holds the customers of a relay: who they are, how they prove
// it, and what they may do.
//
// Accounts come from a YAML file ([ParseFile]) and from a short list
// ([ParseList]); a [Store] serves both as one atomic snapshot that [Store.Reload]
// and [Store.Watch] replace, whole or not at all:
//
//	store, err := account.NewStore(account.StoreConfig{File: "accounts.yaml"})
//	credentials, err := account.ParseBasic([]byte(request.Header.Get("Proxy-Authorization")))
//	user := account.SplitUsername(credentials.Username)
//	customer, err := store.Authenticate(ctx, user.Name, credentials.Password)
//
// Or they come from a service of the operator's, one at a time: a [Hook] has the
// same methods, asks once for credentials that it does not know and remembers what it
// was told.
//
// # What a hook is asked
//
// In the style json, a POST with Content-Type application/json and the body
//
//	{"username": "alice", "password": "secret", "client": "203.0.113.9", "listener": ":8080"}
//
// client and listener are those of the customer who asked first: the answer is for the
// credentials, wherever they come from; allow_from in it is how to say where from. The
// answer is 200 with Content-Type application/json and one account of the file's shape
// ([ParseJSON]; a password in it is not looked at), or 403 for credentials that are not good.
//
// In the style headers, which existing panels speak, a GET with the query user, pass,
// client_addr, local_addr, service, sps and target added to the URL's own (the port of
// client_addr is always 0, target is empty). The answer is 204, with limits in its head:
//
//	userconns      connections            max_conns
//	userqps        connections/s          conn_rate
//	usertotalrate  bytes/s                bandwidth
//	userrate       bytes/s, for want of usertotalrate; for the panels it is that of one
//	               connection, here it is shared by all of the account's
//	pool           a name               pool
//	pools          names, with commas   pools
//	upstream, outgoing   must be empty: an account has no gateway of its own, but a pool
//
// Absent, empty and 0 are the relay's default. Others, as ipconns and iprate, are not
// looked at. 200, 400, 401, 403 and 407 refuse the credentials.
//
// # What a hook's answer does
//
// An account holds for the TTL. After that it is served on, for the time Stale at the
// most, while it is asked for again in the background: a customer whom the hook knows
// never waits for it. Accounts in use are asked for whenever their TTL ends, and what
// an answer changes acts on open connections ([Hook.Watch]). A refusal holds for the
// negative TTL.
//
// Any other answer, and none in time, is the hook's trouble and not the customer's: he
// is told to come again if he is not known, and served if he is. Then, too, once Stale
// is over, connections that are open stay so, with the caps that were told last. A 401
// or 404 in the style json is such an answer: the one speaks of the relay's own token,
// the other of a wrong URL.
//
// # What is refused here
//
// The package never tells an unknown name from a wrong password, by its answer or by
// its work; prints a password, in an error or anywhere else; takes half a file; waits
// without bound for a password hash or a hook. It never logs.
package account
