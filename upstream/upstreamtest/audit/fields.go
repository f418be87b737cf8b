package audit

// judgedFields are fields by which proxy judges know that there is a proxy, or whom it
// serves. A careless customer sends all of them; none may arrive.
var judgedFields = []string{
	"Via", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server",
	"X-Forwarded-By", "X-Forwarded", "Forwarded-For", "Forwarded-For-Ip", "X-Original-Forwarded-For", "X-Forward-For",
	"X-Real-Ip", "X-Client-Ip", "Client-Ip", "X-ClientIP", "ClientIP", "True-Client-Ip", "X-Cluster-Client-Ip", "X-Remote-Ip",
	"X-Remote-Addr", "Remote-Addr", "X-Originating-Ip", "X-Original-Ip", "X-Source-Ip", "X-Coming-From", "Coming-From",
	"X-Host", "X-User", "X-Authenticated-User", "X-Msisdn", "X-Up-Subno", "RlnClientIpAddr", "Pc-Remote-Addr", "Sp-Host",
	"Cf-Connecting-Ip", "Cf-Ipcountry", "Cf-Ray", "Cdn-Loop", "Fastly-Client-Ip", "X-Appengine-User-Ip", "X-Azure-ClientIp",
	"Fly-Client-Ip", "Do-Connecting-Ip", "Incap-Client-Ip", "Ali-Cdn-Real-Ip", "Wl-Proxy-Client-Ip", "X-Amzn-Trace-Id",
	"X-Request-Id", "Traceparent", "X-B3-Traceid", "Proxy-Client-Ip", "Xproxy-Connection", "X-Proxy-Id", "X-Proxy-Connection",
	"X-Proxyuser-Ip", "Mt-Proxy-Id", "X-Tinyproxy", "X-Bluecoat-Via", "X-Iwproxy-Nesting", "X-Squid-Error", "X-Cache",
	"X-Cache-Lookup", "X-Via", "X-Wap-Profile", "X-Nokia-Ipaddress", "X-Xff-0", "Xroxy-Connection", "Accproxyws", "X-Loop-Control",
	"Max-Forwards", "Surrogate-Capability", "Cache-Info", "Proxy", "X-Brd-Ip", "X-Luminati-Ip", "X-Oxylabs-Geo-Location",
}
