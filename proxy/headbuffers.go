package proxy

import "sync"

// headSizes are those of the buffers of heads: of most, of those with many cookies, and of
// the longest with what is read behind its end. They grow by a step, not by a bit: what is
// left behind of a head that comes slowly is memory, too.
var headSizes = [...]int{1 << 10, 8 << 10, maxHead + 4<<10}

// headBuffers hold the buffers of heads that nobody uses, by size.
var headBuffers [len(headSizes)]sync.Pool

// takeHeadBuffer returns an empty buffer with room for n bytes.
func takeHeadBuffer(n int) *[]byte {
	for i, size := range headSizes {
		if n > size {
			continue
		}
		if b, ok := headBuffers[i].Get().(*[]byte); ok {
			return b
		}
		n = size
		break
	}
	b := make([]byte, 0, n)
	return &b
}

// giveHeadBuffer gives a buffer back, which nobody may use any more.
func giveHeadBuffer(b *[]byte) {
	for i, size := range headSizes {
		if cap(*b) == size {
			*b = (*b)[:0]
			headBuffers[i].Put(b)
			return
		}
	}
}
