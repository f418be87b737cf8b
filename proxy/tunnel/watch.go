package tunnel

import "time"

// watcher looks out for the customer's leaving while the upstream is being opened.
type watcher struct {
	s    *side
	done chan struct{} // closed when the goroutine has ended; nil = no goroutine
	gone bool          // valid once done is closed
}

// watch starts looking; gone is called at most once, when the customer has left.
// Nothing is read. stop must be called before anybody reads from s.
func (s *side) watch(sentEarly bool, gone func()) *watcher {
	w := &watcher{s: s}
	if s.raw == nil {
		return w
	}
	w.done = make(chan struct{})
	go w.look(sentEarly, gone)
	return w
}

func (w *watcher) look(sentEarly bool, gone func()) {
	defer close(w.done)
	rc, err := w.s.raw.SyscallConn()
	if err != nil {
		return
	}
	secured := !w.s.plain
	// The callback runs again whenever the poller has news of the socket.
	_ = rc.Read(func(fd uintptr) bool {
		w.gone = hungUp(fd, sentEarly, secured)
		return w.gone
	})
	if w.gone {
		gone()
	}
}

// stop ends the look-out and reports whether the customer has left.
func (w *watcher) stop() bool {
	if w.done == nil {
		return false
	}
	_ = w.s.raw.SetReadDeadline(aLongTimeAgo)
	<-w.done
	_ = w.s.raw.SetReadDeadline(time.Time{})
	return w.gone
}
