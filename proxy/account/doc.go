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
// What it refuses to do: tell an unknown name from a wrong password, by its
// answer or by its work; print a password, in an error or anywhere else; take
// half a file; wait without bound for a password hash. It never logs.
package account
