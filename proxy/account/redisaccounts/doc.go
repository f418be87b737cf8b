// Package redisaccounts keeps accounts in Redis, so that all relays of a fleet serve
// the same ones and an operator changes them in one place.
//
//	store := redisaccounts.New(client)
//	version, err := store.Put(ctx, "alice", data, redisaccounts.MustNotExist)
//	accounts, err := account.NewStore(account.StoreConfig{Source: redisaccounts.Source(store, client)})
//
// A record is what [maskrelay/proxy/account.Account.StoredJSON] returns: the accounts
// file's shape with the password as a bcrypt hash. Every write gives its record a
// version that no write ever had before, by which a writer knows that nobody was
// faster and a relay fetches what changed since it last looked, and nothing else.
//
// In Redis these are four keys of one slot, so that each call sees one state:
//
//	maskrelay:account-data:{accounts}      hash: name to record
//	maskrelay:account-versions:{accounts}  sorted set: name to version, also of deleted names
//	maskrelay:account-gone:{accounts}      sorted set: deleted name to when, in milliseconds
//	maskrelay:account-meta:{accounts}      hash: version, first and floor
//
// What it refuses to do: store a password in plain text, wait without a deadline,
// repeat a write that may have been overtaken. It never logs.
package redisaccounts
