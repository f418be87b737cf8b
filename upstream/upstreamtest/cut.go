package upstreamtest

// Cut resets every connection that is open now; those that come later are served as before.
func (v *Vendor) Cut() { v.st.cut() }

// Cut resets every connection that is open now; those that come later are served as before.
func (s *SOCKS) Cut() { s.st.cut() }

// Cut resets every connection that is open now; those that come later are served as before.
func (j *Judge) Cut() { j.st.cut() }

// Cut resets every connection that is open now; those that come later are served as before.
func (t *Target) Cut() { t.st.cut() }

func (s *station) cut() {
	s.mu.Lock()
	live := make([]*recorded, 0, len(s.live))
	for c := range s.live {
		live = append(live, c)
	}
	s.mu.Unlock()
	for _, c := range live {
		_ = c.Reset() // how it ended is in its record
	}
}
