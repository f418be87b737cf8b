package audit

import "maskrelay/upstream/upstreamtest"

// judgedFields are fields by which proxy judges know that there is a proxy, or whom it
// serves. A careless customer sends all of them; none may arrive.
var judgedFields = upstreamtest.JudgedFields()
