// Package fleet is what the relays of a fleet share through Redis (or Valkey): the
// connection and its health, the relays that are alive, and the messages between them.
// What is counted there lies in packages of its own, which use a [Client] of this one.
//
// A relay works without Redis as well as it can: whoever uses a Client asks [Client.Up]
// first, bounds every call, and has an answer of his own when there is none. A call that
// fails for lack of an answer takes the Client down at once, so that one customer waits
// [CallTimeout] and the next one does not; only [Client.Run], which asks once a second,
// brings it back. Whoever keeps something in Redis registers with [Client.OnReturn] and
// writes it again then.
//
// It does not keep a copy of anything, does not retry calls, and does not speak to
// Sentinels.
package fleet
