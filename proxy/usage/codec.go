package usage

import (
	"encoding/binary"
	"errors"
)

// recordFormat begins every value in the file, so that a later version can tell.
const recordFormat = 1

var errDamaged = errors.New("its record is damaged")

// appendSums writes the three figures.
func appendSums(b []byte, s Sums) []byte {
	b = binary.AppendUvarint(b, uint64(s.Sent))
	b = binary.AppendUvarint(b, uint64(s.Received))
	return binary.AppendUvarint(b, uint64(s.Connections))
}

func appendBucket(b []byte, k bucket) []byte {
	return appendSums(binary.AppendUvarint(b, uint64(k.index)), k.Sums)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// encode writes the record.
func (r *record) encode() []byte {
	b := append(make([]byte, 0, 256), recordFormat)
	b = appendSums(b, r.all)
	for _, k := range r.now {
		b = appendBucket(b, k)
	}
	b = binary.AppendUvarint(b, uint64(len(r.nodes)))
	for _, n := range r.nodes {
		b = appendString(b, n.node)
		b = binary.AppendUvarint(b, uint64(n.seq))
		b = binary.AppendUvarint(b, uint64(n.at))
	}
	b = binary.AppendUvarint(b, uint64(len(r.told)))
	for _, t := range r.told {
		b = appendString(b, t.window)
		b = binary.AppendUvarint(b, uint64(t.quota))
		b = binary.AppendUvarint(b, uint64(t.percent))
		b = appendString(b, t.node)
		b = binary.AppendUvarint(b, uint64(t.seq))
	}
	return b
}

// decodeRecord reads what encode wrote.
func decodeRecord(value []byte) (*record, error) {
	d := decoder{rest: value}
	d.format()
	r := &record{all: d.sums()}
	for g := range r.now {
		r.now[g] = d.bucket()
	}
	for n := d.count(maxNodes); n > 0; n-- {
		r.nodes = append(r.nodes, booked{node: d.text(), seq: d.number(), at: d.number()})
	}
	for n := d.count(maxTold); n > 0; n-- {
		r.told = append(r.told, told{window: d.text(), quota: d.number(), percent: d.number(), node: d.text(), seq: d.number()})
	}
	return r, d.end()
}

func (s series) encode() []byte {
	b := append(make([]byte, 0, 16*len(s)+8), recordFormat)
	b = binary.AppendUvarint(b, uint64(len(s)))
	for _, k := range s {
		b = appendBucket(b, k)
	}
	return b
}

// decodeSeries reads what encode wrote.
func decodeSeries(value []byte) (series, error) {
	d := decoder{rest: value}
	d.format()
	n := d.count(int(Days.Kept()))
	s := make(series, 0, n+1)
	for ; n > 0; n-- {
		k := d.bucket()
		if len(s) > 0 && k.index <= s[len(s)-1].index {
			d.bad = true
		}
		s = append(s, k)
	}
	return s, d.end()
}

// decoder reads figures one after the other; the first that cannot be makes all bad.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) number() int64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || int64(v) < 0 {
		d.bad = true
		return 0
	}
	d.rest = d.rest[n:]
	return int64(v)
}

func (d *decoder) sums() Sums {
	return Sums{Sent: d.number(), Received: d.number(), Connections: d.number()}
}

func (d *decoder) bucket() bucket { return bucket{index: d.number(), Sums: d.sums()} }

func (d *decoder) text() string {
	n := d.count(MaxName)
	if n > len(d.rest) {
		d.bad = true
		return ""
	}
	s := string(d.rest[:n])
	d.rest = d.rest[n:]
	return s
}

// count reads how many follow, which is limit at most.
func (d *decoder) count(limit int) int {
	n := d.number()
	if d.bad || n > int64(limit) {
		d.bad = true
		return 0
	}
	return int(n)
}

func (d *decoder) format() {
	if len(d.rest) == 0 || d.rest[0] != recordFormat {
		d.bad = true
		return
	}
	d.rest = d.rest[1:]
}

func (d *decoder) end() error {
	if d.bad || len(d.rest) != 0 {
		return errDamaged
	}
	return nil
}
