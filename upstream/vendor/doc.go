// Package vendor knows how vendors' gateways differ: how a login carries a
// customer's wishes, which of them a vendor can serve, and what a gateway's
// refusal means. All of it is data, one preset a vendor, and pure functions over
// it: nothing here dials, waits or logs.
//
//	preset, err := vendor.Load("oxylabs")
//	logins, err := vendor.NewLogins(vendor.LoginConfig{Preset: preset, Login: "acme", Password: secret})
//	params, fault := vendor.ParseParams("country-us-session-a1-ttl-10m")
//	if fault == nil {
//		fault = logins.Fault(params)
//	}
//	username, password := logins.Make("alice", params) // customer-acme-cc-US-sessid-Zk3…-sesstime-10
//
// # Templates
//
// A template is text in which braces stand for values. The username and the password
// of a login have one each.
//
//	{country} {state} {city} {zip} {asn}   what the customer asked for, as this vendor spells it
//	{session}                              a keyed hash of the customer's account and session, in the
//	                                       vendor's charset and length; never what he wrote
//	{ttl}                                  the session's lifetime in the vendor's unit, with its suffix if he has one;
//	                                       seconds where nothing is known of the vendor
//	{ttl_seconds} {ttl_minutes} {ttl_hours}  the same as a plain number
//	{login} {password}                     the operator's own at the vendor
//	{?key:...}                             what follows the colon, only if the customer gave the key
//	{!key:...}                             only if he did not give it
//	{{ and }}                              the braces themselves; {{login}} and the like are refused
//
// The keys of conditions are country, state, city, zip, asn, session and ttl. Conditions
// may hold all of this, other conditions too, up to 8 deep. Inside of one a '}' always ends
// something: a literal '}' can stand outside of conditions only. A value that the customer
// did not give is empty. A template has at most 1,024 bytes; a username's holds no ':'
// (RFC 7617 §2), and neither has control characters.
//
//	customer-{login}{?country:-cc-{country}}{?session:-sessid-{session}{?ttl:-sesstime-{ttl_minutes}}}
//
// The templates also tell what a vendor can do. A parameter that a customer gives and
// that ends up in neither of the two is not dropped in silence: [Logins.Fault] refuses it.
// So {?city:{country}-{city}} alone makes country need city, and a template that names
// {ttl_minutes} takes whole minutes only.
//
// # Presets
//
// A preset is a file presets/NAME.yaml, whose form is [Spec].
package vendor
