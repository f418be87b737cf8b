// Package redislimit holds one customer's limits over all relays of a fleet, with Redis (or Valkey) between them.
//
//	limiter := redislimit.New(redislimit.Config{Client: client, Down: redislimit.LocalShare})
//	go limiter.Run(ctx) // before client.Run begins; wait for it to return
//	lease, err := limiter.Acquire(ctx, account.Name, limit.Caps{MaxConns: 2000, ConnRate: 200})
//
// A relay does not ask Redis for each connection. It leases a block of a key's slots for [Config.TTL], counts its own
// connections against it in memory, and asks for more before it runs out; blocks grow while connections come fast and
// shrink to a single slot near the cap. All of a key lies in one hash, a field for each relay, changed by one script
// on Redis's clock. A lease is renewed in batches, and what lies idle is given back. Tokens of a rate come in blocks
// too, from one bucket for the fleet, and go back when they are not used within a second (or, while the bucket is half
// full and nobody could want them, by the next renewal). Refusals are believed for 50 to 100 ms. A key without caps never
// asks for anything; its connections are registered within about a second, for [Limiter.InUseEverywhere].
//
// Nobody waits longer than [maskrelay/proxy/fleet.CallTimeout] for Redis, all together. When it does not answer,
// [Config.Down] decides at once, and for further connections without a wait.
//
// # Bounds of caps
//
// While Redis answers, the relays together never hold more than MaxConns connections, and admit no more than burst +
// rate x time. These are all the exceptions:
//
//   - A lowered cap lets open connections live. Where the relays have more than the cap for this or any other reason, each
//     learns of it within one renewal, and ending connections make no room for new ones until the cap holds again.
//   - A relay that Redis does not answer keeps the connections it carries. It admits new ones up to what it had
//     leased, until the lease has run out by its own clock, which is before it runs out in Redis. Under [LocalShare]
//     it also admits up to ceil(MaxConns / relays) of its own, so that relays that are all cut off exceed the cap by
//     no more than what they held before above that share, and by rounding (less than one connection a relay); while some are
//     cut off and others are not, by at most the shares of those that are. An answer that comes later than the
//     timeout is none. Under [Closed] there is no excess at all; [Open] has no bound.
//   - Tokens that lie at the relays, about a third of the burst at most, are not in the bucket while it fills: used together with a full
//     bucket they come on top of one burst.
//   - So many keys that ask for the first time at once that their answers take longer than the timeout (some thousands within
//     50 ms) are decided on by the policy.
//   - The rate under [LocalShare] is rate / relays, burst likewise; after the return the fleet's bucket does not know what was
//     spent meanwhile, so that at most one burst comes on top for an outage.
//   - A Redis that comes back empty, or after leases began to run out (half a TTL), is told by every relay, at once when it returns,
//     what that relay carries, and the policy decides for [settleTime] more so that the others can do the same. A relay that finds the loss later does so within
//     one renewal; until then the others may admit as many connections as it carries. The bucket of the rate is full again.
//   - A failover to a replica, or a clock of Redis that jumps ahead, may lose leases as an emptied Redis does, and is repaired
//     in the same way.
//
// A relay that ends without a goodbye leaves its slots until its TTL is over. Redis must not evict keys (noeviction),
// and need not keep anything on disk.
//
// # Bandwidth
//
// [Shares] divides a customer's bandwidth among the relays that carry his bytes, each direction by itself: max-min fair
// by what each could use, asked for about once a second. Shares in use add up to the bandwidth, with these exceptions:
//
//   - A relay that begins with a key has an equal part of the bandwidth at once, and the others make room for it when
//     they ask next: within a second, or two if they use little.
//   - A relay that gets no answer keeps its share for 3 seconds, as long as the others reckon with it, and then has an
//     equal part; so relays that are all cut off share the bandwidth equally, and those that are cut off while others
//     are not exceed it by their equal parts.
//   - What a dead relay had is free 3.5 seconds after it asked last.
package redislimit
