package proxy

import (
	"net/http"
	"slices"
	"strings"
)

// dropAdded takes out of a request's header what net/http has put into it: for an old
// Pragma: no-cache a Cache-Control that the customer did not send. order are the names of
// his field lines; nil = not known.
func dropAdded(header http.Header, order []string) {
	const added = "Cache-Control"
	if order == nil || header["Pragma"] == nil || header[added] == nil {
		return
	}
	if !slices.ContainsFunc(order, func(name string) bool { return strings.EqualFold(name, added) }) {
		delete(header, added)
	}
}
