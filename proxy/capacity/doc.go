// Package capacity says how many tunnels this host can carry and what stops it first.
//
//	host, err := capacity.ReadHost(os.DirFS("/"), capacity.OpenFiles)
//	n, boundBy := host.MaxConns(capacity.Shape{Gateways: len(gateways)})
//
// and, while the relay runs, how near the end of its memory it is ([Pressure]).
//
// It only reads kernel files and does arithmetic: nothing is changed on the host, and nothing runs by itself. A file that a container hides is no error; the limit that it would
// have shown is left out, with the reason in [Limit.Detail].
//
// All arithmetic is in tunnels: one customer connection and one gateway connection.
package capacity
