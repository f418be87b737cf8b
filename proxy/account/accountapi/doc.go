// Package accountapi is what stands behind the admin server's endpoints of accounts: it
// shows those that a relay serves, and changes those that are in Redis.
//
//	api := accountapi.New(accountapi.Config{Accounts: store, Store: redisAccounts})
//	server, err := admin.New(admin.Config{Accounts: api, …})
//
// Accounts of the file, the environment or a hook can be read only. What is written is
// judged as the file is, and passwords are hashed before they are stored and never shown.
// Whoever reads after a write reads what was written, on every relay; lists are what the
// asked relay serves, which may be a second old.
package accountapi
