package tunnel

// insight is what a test sees of the inside of an open tunnel.
type insight struct {
	halves int
	deaf   bool // the upstream takes nothing any more
	unsent int  // to the customer
}

// inspect looks into the scene's tunnel, whichever engine carries it.
func (s *scene) inspect() (i insight) {
	s.engine.each(func(u *pump) bool {
		i = insight{int(u.halves.Load()), u.directions[upward].deaf(), u.client.unsent()}
		return false
	})
	s.engine.reactors.inspect(&i)
	return i
}
