package upstream

import "net/netip"

// The hashes that choose gateways are the same in every process and on every machine, so
// that all relays of a fleet send a customer's session to the same gateway. They need no
// secret: who finds keys that collide has his own exchanges on one gateway, which a
// session gives him anyway.

// FNV-1a, 64 bits.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// hashKey hashes an account and one of its sessions.
func hashKey(account, session string) uint64 {
	h := hashString(fnvOffset, account)
	h *= fnvPrime // as if a zero byte stood between, which neither has
	return mix(hashString(h, session))
}

func hashString(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return h
}

// hashAddr hashes a client's address; IPv4 written as IPv6 is IPv4.
func hashAddr(a netip.Addr) uint64 {
	h := uint64(fnvOffset)
	for _, b := range a.Unmap().As16() {
		h = (h ^ uint64(b)) * fnvPrime
	}
	return mix(h)
}

// mix is MurmurHash3's finalizer: every bit of x changes about half of the result's.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
