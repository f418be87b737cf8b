// Package webhook delivers events to an HTTP endpoint of the operator's, signed, and tries again
// until it takes them.
//
//	sender, err := webhook.New(webhook.Config{URL: url, Secret: secret})
//	go sender.Run(ctx)
//	sender.Send(event, event.ID())
//
// Each delivery is a POST of the event's JSON object with an "id" in it, which is the same in
// each try. Its header X-Maskrelay-Signature is "t=<unix time>,v1=<hex>", where hex is the
// HMAC-SHA256, keyed with the secret, of the time, a dot and the body. Whoever checks it should
// also refuse a time that is more than a few minutes old.
//
// An answer of 2xx takes the event, and 410 refuses it for good. With any other, and with none
// within five seconds, it is tried again after one second, then after twice as long each time up
// to five minutes, for a day. Redirects are not followed. Events wait in memory only, 1024 at
// most, and in no order.
//
// The URL may hold credentials: errors name its host and nothing else of it.
package webhook
