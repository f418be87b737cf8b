//go:build !linux || !(amd64 || arm64)

package tunnel

import (
	"errors"
	"net"
)

// Seat is a visitor's place in the engine. Here there are none.
type Seat struct{}

// Evict does nothing.
func (Seat) Evict() {}

// reactors need Linux, and its 64-bit system calls; elsewhere pumps carry everything.
type reactors struct{}

func startReactors(*Engine) *reactors { return &reactors{} }

func (*reactors) any() bool                           { return false }
func (*reactors) submit(*Engine, Job) bool            { return false }
func (*reactors) cut(Ending, func(Exchange) bool) int { return 0 }
func (*reactors) stop()                               {}
func (*reactors) stopServing()                        {}
func (*reactors) visitors() int                       { return 0 }
func (*reactors) serve(_ *Engine, l *net.TCPListener, _ Reception) error {
	return errors.Join(errors.ErrUnsupported, l.Close())
}
