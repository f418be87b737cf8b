// Package upstreamtest holds the two ends that a relay stands between, on
// loopback and under the caller's control: a vendor gateway ([StartVendor])
// and targets ([StartJudge], [StartEcho] and their like).
//
//	judge, err := upstreamtest.StartJudge(upstreamtest.JudgeConfig{TLS: true})
//	vendor, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{
//		Username: "customer-x", Password: "secret",
//	})
//	// point the relay at vendor.URL(), a customer at judge.URL()
//	leaks := scan(customer.Bytes(), vendor.Marks())
//
// The vendor is loud on purpose: its name stands in every header, reason
// phrase, realm and body that it makes, so that a byte of it in a customer's
// hands cannot be missed. What it does to a connection is a [Behaviour];
// [Relay] is an honest gateway, [Behaviours] lists the hostile ones by name.
// [StartSOCKS] is a vendor that speaks SOCKS5, which has no words to be loud with.
//
// Everything is recorded as it came off the wire, before any parser has seen
// it (inside TLS: the decrypted bytes), and every record is bounded: a server
// keeps [DefaultRecordLimit] bytes, the oldest ones, and counts what it had to
// leave out in Dropped. Everything that a Start function starts is closed and
// waited for by Close, which also ends every wait that has no shorter bound.
//
// The package is for demonstrations, audits and tests. It has no place in front
// of real customers: it trusts what it is told to dial.
package upstreamtest
