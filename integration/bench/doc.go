// Package bench measures the built maskrelay binary on loopback with generator and vendor in processes of their own:
//
//	make bench
//
// Relay, generator and vendor share the machine's cores, and on loopback the relay is charged the kernel's work for its peers. Read the CPU time
// per tunnel first; the rate depends on what else the machine does.
package bench
