package account

import (
	"context"
	"net/netip"
)

// clientKey and listenerKey are the context keys of who asks.
type (
	clientKey   struct{}
	listenerKey struct{}
)

// WithClient returns a context for [Store.Authenticate] and [Hook.Authenticate] that
// says whose turn it is: of all questions under way, a quarter of the queue at the most
// is one client's. An IPv6 client is its /64. Without it there is no such bound. A hook
// is told the address.
func WithClient(ctx context.Context, client netip.Addr) context.Context {
	client = client.Unmap().WithZone("")
	if !client.IsValid() {
		return ctx
	}
	return context.WithValue(ctx, clientKey{}, client)
}

// WithListener returns a context for [Hook.Authenticate] that says which listener the
// customer came to, which the hook is told.
func WithListener(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, listenerKey{}, name)
}

// clientOf returns the client's address, invalid if none was said.
func clientOf(ctx context.Context) netip.Addr {
	client, _ := ctx.Value(clientKey{}).(netip.Addr)
	return client
}

// listenerOf returns the listener's name, empty if none was said.
func listenerOf(ctx context.Context) string {
	name, _ := ctx.Value(listenerKey{}).(string)
	return name
}

// networkOf returns the network that stands for a client: an IPv6 customer has a whole
// /64 of addresses. The invalid address's is invalid.
func networkOf(client netip.Addr) netip.Prefix {
	bits := client.BitLen()
	if client.Is6() {
		bits = 64
	}
	network, err := client.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return network
}
