package masking

// hit marks a transition into a state where a word ends.
const hit = 1 << 31

// automaton finds many words at once in one pass (Aho and Corasick, 1975) over a dense table: one load per byte, whatever the
// number of words. It is immutable and safe for concurrent use; a state is an index that its caller keeps.
type automaton struct {
	class   [256]uint8 // byte → column; bytes in no word share column 0
	columns uint32
	next    []uint32 // state+column → state, with hit
	ends    []int32  // row → index of the longest word that ends there, or -1
}

// newAutomaton builds one over words, of which empty ones are ignored. With foldCase ASCII letters match either case. A word for
// which silent reports true never hits and hides the shorter words at its end; silent may be nil.
func newAutomaton(words []string, foldCase bool, silent func(i int) bool) *automaton {
	a := &automaton{}
	a.classify(words, foldCase)
	a.newRow()
	for i, w := range words {
		a.insert(int32(i), w)
	}
	a.connect()
	for i, end := range a.ends {
		if end >= 0 && silent != nil && silent(int(end)) {
			a.ends[i] = -1
		}
	}
	for i, row := range a.next { // rows become offsets, so that a step needs no multiplication
		a.next[i] = row * a.columns
		if a.ends[row] >= 0 {
			a.next[i] |= hit
		}
	}
	return a
}

// classify gives each byte that occurs in a word a column. Without upper case there are at most 231 of them if case is folded.
func (a *automaton) classify(words []string, foldCase bool) {
	var used [256]bool
	for _, w := range words {
		for i := range len(w) {
			used[foldByte(w[i], foldCase)] = true
		}
	}
	a.columns = 1
	for c := range used {
		if used[c] {
			a.class[c] = uint8(a.columns)
			a.columns++
		}
	}
	if foldCase {
		for c := byte('A'); c <= 'Z'; c++ {
			a.class[c] = a.class[c|0x20]
		}
	}
}

func foldByte(c byte, foldCase bool) byte {
	if foldCase && 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

func (a *automaton) newRow() uint32 {
	a.next = append(a.next, make([]uint32, a.columns)...)
	a.ends = append(a.ends, -1)
	return uint32(len(a.ends) - 1)
}

// insert adds a word to the trie; of equal words the first stays.
func (a *automaton) insert(index int32, word string) {
	if word == "" {
		return
	}
	row := uint32(0)
	for i := range len(word) {
		at := row*a.columns + uint32(a.class[word[i]])
		if a.next[at] == 0 {
			child := a.newRow()
			a.next[at] = child
		}
		row = a.next[at]
	}
	if a.ends[row] < 0 {
		a.ends[row] = index
	}
}

// connect fills the missing transitions, breadth first: where the trie ends, go on from the longest proper suffix that is in it.
func (a *automaton) connect() {
	fail := make([]uint32, len(a.ends))
	queue := []uint32{0}
	for len(queue) > 0 {
		row := queue[0]
		queue = queue[1:]
		for c := range a.columns {
			at, instead := row*a.columns+c, uint32(0)
			if row != 0 {
				instead = a.next[fail[row]*a.columns+c]
			}
			child := a.next[at]
			if child == 0 {
				a.next[at] = instead
				continue
			}
			fail[child] = instead
			if a.ends[child] < 0 {
				a.ends[child] = a.ends[instead]
			}
			queue = append(queue, child)
		}
	}
}

// step returns the state after c and the word that ends with it, or -1. The first state is 0.
func (a *automaton) step(state uint32, c byte) (next uint32, word int32) {
	state = a.next[state+uint32(a.class[c])]
	if state&hit == 0 {
		return state, -1
	}
	state &^= hit
	return state, a.ends[state/a.columns]
}

// find returns the first word to end in s and the offset behind it; word is -1 if there is none.
func find[T string | []byte](a *automaton, s T) (word int32, end int) {
	next, state := a.next, uint32(0)
	for i := range len(s) {
		state = next[state+uint32(a.class[s[i]])]
		if state&hit != 0 {
			return a.ends[(state&^hit)/a.columns], i + 1
		}
	}
	return -1, 0
}
