package masking

// The lists are constants of names and prefixes between blanks; nameSet folds case and punctuation, so each stands here once.

// hopByHop are the fields of one connection (RFC 9110 §7.6.1), with the old ones that clients still send. All of Proxy-* speaks
// to or of a proxy; a bare Proxy field becomes HTTP_PROXY in a CGI program.
const hopByHop = `Connection Keep-Alive TE Trailer Transfer-Encoding Upgrade HTTP2-Settings Close Proxy Proxy-*`

// vendorFields name a vendor: its control channel in requests, its traces in responses.
const vendorFields = `X-Brd-* X-BrightData-* X-Bright-Data-* X-Luminati* Luminati-* X-Hola* X-Lpm-* X-Debug-Bw-* X-Crawlera-* Zyte-* X-Zyte-*
	X-Oxylabs-* X-Smartproxy-* X-SU-* X-Subuser X-Decodo-* X-IPRoyal-* X-Soax-* X-NetNut-* X-Webshare-* X-PacketStream-* X-Geonode-*
	X-DataImpulse-* X-Evomi-* X-Massive-* X-JoinMassive-* X-Nimble-* X-Nimbleway-* X-Infatica-* X-ProxyEmpire-* X-Froxy-*
	X-ProxySeller-* X-Rayobyte-* X-NodeMaven-* X-Thordata-* X-Databay-* X-Novada-* X-RapidProxy-* X-IPFoxy-* X-IPBurger-*
	X-LumiProxy-* X-Kookeey-* X-CatProxies-* X-Proxidize-* X-LiveProxies-* X-Live-Proxies-* X-Proxies-* X-Proxmint-*
	X-MarsProxies-* X-Pingnetwork-* X-AnyIP-* X-Illusory-* X-WebScrapingAPI-*`

// proxyProducts are fields that filters, caches and accelerators put into either direction.
const proxyProducts = `Via X-Proxy* XProxy* XRoxy* X-Squid-* X-Tinyproxy MT-Proxy-ID X-BlueCoat-Via X-IWSaaS-Via X-MWG-Via
	EdgeWave-Proxy X-IMForwards X-Loop-Control X-WRProxy-ID X-NAI-ID X-Cache X-Cache-Lookup Cache-Status`

// disclosure is how intermediaries pass on who asked, misspellings included.
const disclosure = `Forwarded Forwarded-* X-Forwarded X-Forwarded-* X-Original-Forwarded-For X-Forward-For X-Forwarder-For
	X-Forwared-For X-Fordwarded-For X-Fwd-IP-Addr Z-Forwarded-For S-Forwarded-For X-D-Forwarder X-XFF-0`

// clientAddress are the many names of a client's address or identity.
const clientAddress = `X-Real-IP X-Real-Port XXX-Real-IP X-Client-IP Client-IP X-ClientIP ClientIP True-Client-IP X-True-Client-IP
	X-Cluster-Client-IP X-Remote-IP X-Remote-Addr Remote-Addr Remote-Host Remote-Host-WP X-Originating-IP X-Original-IP
	X-Original-Remote-Addr X-Original-Host X-Original-URL X-Source-IP Source-IP X-From-IP X-Ip X-Coming-From Coming-From PC-Remote-Addr ClientAddress
	Client-Address X-Host X-Orig-Client X-Network-Info X-User X-Authenticated-User X-MSISDN X-UIDH X-Up-Calling-Line-ID X-Up-Subno
	RLNClientIPAddr SP-Host SP-Client CUDA-CLIIP X-Qihoo-IP X-Cisco-BBSM-ClientIP X-AZC-Remote-Addr X-Sina-ProxyUser`

// clientSuffixes end the names that platforms invent for the same thing over and over (X-Vercel-Forwarded-For, DO-Connecting-IPv6).
const clientSuffixes = `-forwarded-for -client-ip -clientip -client-connection-ip -connecting-ip -connecting-ipv4 -connecting-ipv6 -real-ip -remote-addr`

// platform is what content networks, clouds and load balancers add, tracing ids among it. The rest of CF-* stays: CF-Access-* are
// a customer's own credentials, as X-Amz-* are.
const platform = `CF-Connecting-* CF-Pseudo-IPv4 CF-IP* CF-Ray CF-Visitor CF-Worker CF-EW-Via CF-Warp-Tag-ID CDN-Loop CDN-Src-IP CDN-Real-IP
	CloudFront-* Fastly-Client-* Fastly-FF Fastly-SSL X-0-Client-IP X-AppEngine-* X-Azure-SocketIP X-Azure-ClientIP X-Azure-FDID X-Azure-Ref
	Fly-Client-IP Fly-Forwarded-* Fly-Region DO-Connecting-IP Incap-Client-IP Ali-CDN-Real-IP X-Envoy-* WL-Proxy-* X-ARR-Log-Id X-ARR-SSL
	X-ARR-ClientCert X-Amzn-Trace-Id X-Cloud-Trace-Context X-Request-Id Traceparent Tracestate X-B3-* B3 Uber-Trace-Id`

// judged are further names that proxy judges look for; no application of note uses one.
const judged = `X-Accept-Encoding X-CID-Hash X-Content-Opt X-Fikker X-Mato-Param X-Nokia-* X-Roaming X-TeamSite-PreRemap X-Turbopage X-Varnish
	X-Via X-Wap-Profile XCNOOL* ACCPROXYWS X-HTX-Agent XOnnection X-Locking X-IWProxy-Nesting X-Serial-Number Cache-Info
	Max-Forwards Surrogate-Capability`

// answered are further fields that a gateway adds to an answer.
const answered = `X-Error-Description`

// trailing may not stand in a trailer section (RFC 9110 §6.5.1): framing, routing, request modifiers, authentication, content format.
const trailing = `Content-Length Host Content-Encoding Content-Type Content-Range Trailer Expect Range If-* Max-Forwards Cache-Control
	Authorization WWW-Authenticate Authentication-Info Cookie Set-Cookie Location`

// everyday are names that most messages carry. Their verdicts are kept ready, so that a usual header set costs one look-up a field.
const everyday = `Accept Accept-Charset Accept-Encoding Accept-Language Accept-Ranges Access-Control-Allow-Credentials
	Access-Control-Allow-Headers Access-Control-Allow-Methods Access-Control-Allow-Origin Access-Control-Expose-Headers
	Access-Control-Max-Age Access-Control-Request-Headers Access-Control-Request-Method Age Allow Alt-Svc Authorization Cache-Control Cf-Cache-Status
	Cf-Ray Content-Disposition Content-Encoding Content-Language Content-Length Content-Location Content-Range Content-Security-Policy
	Content-Type Cookie Cross-Origin-Opener-Policy Cross-Origin-Resource-Policy Date Dnt Etag Expect Expires Host If-Match
	If-Modified-Since If-None-Match If-Range If-Unmodified-Since Last-Modified Link Location Nel Origin Permissions-Policy Pragma
	Priority Range Referer Referrer-Policy Report-To Retry-After Save-Data Sec-Ch-Ua Sec-Ch-Ua-Mobile Sec-Ch-Ua-Platform
	Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site Sec-Fetch-User Sec-Gpc Sec-Websocket-Accept Sec-Websocket-Extensions
	Sec-Websocket-Key Sec-Websocket-Protocol Sec-Websocket-Version Server Server-Timing Set-Cookie Strict-Transport-Security
	Timing-Allow-Origin Upgrade-Insecure-Requests User-Agent Vary Www-Authenticate X-Amz-Cf-Id X-Amz-Date X-Api-Key
	X-Cache-Hits X-Content-Type-Options X-Csrf-Token X-Dns-Prefetch-Control X-Frame-Options X-Powered-By X-Request-Id X-Requested-With
	X-Served-By X-Timer X-Ua-Compatible X-Xss-Protection Connection Keep-Alive Proxy-Authorization Proxy-Connection Te Trailer
	Transfer-Encoding Upgrade Via X-Cache X-Forwarded-For`

// builtinMarks are vendor brands and domains distinctive enough not to stand in innocent text. Brands that are words of their own
// appear as domains only.
const builtinMarks = `superproxy.io brightdata brdtest.com lumtest.com luminati x-hola oxylabs smartproxy decodo iproyal soax.com netnut.io
	netnut.net ntnt.io webshare.io packetstream geonode.io geonode.com dataimpulse evomi.com joinmassive nimbleway infatica proxyempire froxy.com proxy-seller
	proxyseller rayobyte nodemaven thordata databay.com novada.com rapidproxy ipfoxy ipburger.com lumiproxy kookeey catproxies
	proxidize liveproxies proxies.sx proxmint marsproxies pingnetwork.io anyip.io proxies.fo illusory.io webscrapingapi crawlera
	zyte.com proxys.io`

// innocentWords hold a built-in mark and mean something else.
const innocentWords = `illuminati`

// errorPages are words of proxy programs' own error pages, one to a line.
const errorPages = `Squid Software Foundation
squid-internal-static
(squid/
<!-- ERR_
<body id=ERR_
Your cache administrator is
Generated by tinyproxy
tinyproxy.github.io
Tinyproxy was unable
www.privoxy.org/
Generated by Privoxy
by Polipo on
<title>mitmproxy
Host Not Found or connection failed`
