package proxy

import (
	"bytes"
	"slices"

	"maskrelay/masking"
)

// maxAnswerHead bounds what is held back of a head that net/http writes, in bytes: a longer
// one leaves in its order. It is more than the transport takes of an answer's.
const maxAnswerHead = 128 << 10

// answerOrder puts the head that net/http writes into the order and spelling of the target's:
// net/http sorts the fields, and who sees that knows what he talks to.
type answerOrder struct {
	names []string // of the target's field lines
	head  []byte   // has come, and is not complete
}

// writeOrdered is Write while a head is awaited. One goroutine writes it, but net/http may be
// about to say 100 for a body that is being read. It does not once the head has begun: what
// looks like an interim head then is of a field's value.
func (c *frontConn) writeOrdered(a *answerOrder, b []byte) (int, error) {
	if len(a.head) == 0 && bytes.HasPrefix(b, []byte("HTTP/1.1 1")) {
		return c.stream.Write(b)
	}
	whole := b
	if len(a.head) > 0 {
		a.head = append(a.head, b...)
		whole = a.head
	}
	end := bytes.Index(whole, []byte("\r\n\r\n"))
	if end < 0 && len(whole) <= maxAnswerHead {
		if len(a.head) == 0 {
			a.head = bytes.Clone(b)
		}
		return len(b), nil
	}
	c.ordered.Store(nil)
	if end < 0 {
		end = len("\r\n") - len("\r\n\r\n") // no head: all of it leaves as it is
	}
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	out := append(appendInOrder(buf[:0], whole[:end+len("\r\n")], a.names), whole[end+len("\r\n"):]...)
	if _, err := c.writeHandled(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// sameName are the lines of one field of a head that are not written yet.
type sameName struct {
	name  []byte
	lines []byte // with their ends
}

// appendInOrder appends a head without its empty line: each of the names takes the next line
// of its field, as the name is spelled; lines that are left come last, as they are. The names
// are a hint; the lines are all that is said.
func appendInOrder(b, head []byte, names []string) []byte {
	first := bytes.IndexByte(head, '\n') + 1
	b = append(b, head[:first]...)
	var room [32]sameName
	fields := sameNames(room[:0], head[first:])
	if len(fields) > fewFields {
		slices.SortStableFunc(fields, func(x, y sameName) int { return bytes.Compare(x.name, y.name) })
	}
	for _, name := range names {
		f := findField(fields, name)
		if f == nil || len(f.lines) == 0 {
			continue
		}
		end := bytes.IndexByte(f.lines, '\n') + 1
		b = append(append(b, name...), f.lines[len(name):end]...)
		f.lines = f.lines[end:]
	}
	for _, f := range fields {
		b = append(b, f.lines...)
	}
	return b
}

// fewFields are looked through faster than they are sorted.
const fewFields = 24

// findField is the field of this name, nil if there is none. Many fields are sorted.
func findField(fields []sameName, name string) *sameName {
	if len(fields) > fewFields {
		i, ok := slices.BinarySearchFunc(fields, name, func(f sameName, name string) int { return -masking.CompareCanonical(name, f.name) })
		if ok {
			return &fields[i]
		}
		return nil
	}
	for i := range fields {
		if f := &fields[i]; len(f.name) == len(name) && masking.CompareCanonical(name, f.name) == 0 {
			return f
		}
	}
	return nil
}

// sameNames appends the fields among lines; each stands in one place, as net/http writes them.
func sameNames(fields []sameName, lines []byte) []sameName {
	for len(lines) > 0 {
		end := bytes.IndexByte(lines, '\n') + 1
		name := lines[:max(bytes.IndexByte(lines[:end], ':'), 0)]
		if n := len(fields); n > 0 && bytes.Equal(fields[n-1].name, name) {
			at := len(fields[n-1].lines)
			fields[n-1].lines = fields[n-1].lines[:at+end]
		} else {
			fields = append(fields, sameName{name, lines[:end]})
		}
		lines = lines[end:]
	}
	return fields
}
