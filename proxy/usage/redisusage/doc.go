// Package redisusage is the ledger of a fleet: what all relays' accounts moved, in Redis.
//
// Of each account it keeps two hashes, in one slot of a cluster. "usage" holds the sums of all
// time and of the running month, day and hour, the last number that each relay booked, and the
// crossings of quotas that were told; "usage-past" holds the hours, days and months that are
// over. One Lua script books one entry, whole or not at all, and an entry told again adds
// nothing. A set, "usage-accounts", lists the names for reports.
//
// An entry is booked under the relay's clock, unless that is more than five minutes off Redis's
// own, which is then taken instead. Figures are decimal integers up to 2^63-1, added exactly.
//
// What is here lives as long as Redis keeps it: for bytes that are sold, Redis needs its append-only
// file and maxmemory-policy noeviction.
package redisusage
