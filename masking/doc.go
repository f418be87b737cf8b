// Package masking decides what may pass between a customer and a vendor's gateway, and in which words.
//
// Four things live here:
//
//   - [Policy] edits header sets in place. A request loses what tells where it came from, a response loses what tells which
//     gateway carried it. [Policy.GatewayMade] and [Policy.ErrorMarks] tell a gateway's own error from a target's answer.
//   - [Reply] is one fixed message to a customer, the same bytes through net/http and on a raw connection. No dynamic text can enter it.
//   - [Marks] is a set of strings that must not reach somebody; [Policy.Marks] are those that must not reach a customer.
//   - [Scanner] looks for marks in a stream and reports each as a [Leak].
//
// A plain-HTTP exchange uses them in this order:
//
//	policy.Request(req.Header)                        // then forward
//	if policy.GatewayMade(resp.StatusCode, resp.Header) { // before Response: it reads what Response removes
//		reply.Serve(w, req, false)
//		return
//	}
//	policy.Response(resp.Header)
//
// What the package refuses to do: it never adds a field (a websocket's Connection and Upgrade aside), never rewrites a value, never
// looks into bodies on its own, and knows no connection, no clock and no log. Via is left out on purpose although RFC 9110 §7.6.3
// asks for it; whoever forwards needs another guard against loops.
package masking
