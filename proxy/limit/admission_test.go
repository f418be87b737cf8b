package limit

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// BenchmarkAdmission measures AcquireNow and Release, together one admission. Accounts
// are either in use all the time, or have no other connection, so that each admission
// begins and ends an account's stay in the limiter. The calls go through the accounts in
// a stride that no cache foresees; a name is written before each call, which is measured
// with it, because in the relay it has just been read from a request's head.
func BenchmarkAdmission(b *testing.B) {
	for _, rated := range []bool{false, true} {
		for _, held := range []bool{true, false} {
			for _, keys := range []int{1, 1_000, 100_000} {
				caps := Caps{MaxConns: 1 << 30}
				name := []string{"max", "alone", fmt.Sprint("keys=", keys)}
				if rated {
					caps.ConnRate = 1e9
					name[0] = "max and rate"
				}
				if held {
					name[1] = "in use"
				}
				bench := admission{caps: caps, held: held, keys: keys}
				b.Run(strings.Join(name, "/")+"/serial", bench.serial)
				b.Run(strings.Join(name, "/")+"/parallel", bench.parallel)
			}
		}
	}
}

// admission is one case of BenchmarkAdmission.
type admission struct {
	caps Caps
	held bool
	keys int
}

// nameOf writes the name of account i into buf.
func nameOf(buf []byte, i int) []byte {
	return strconv.AppendInt(append(buf[:0], "customer-"...), int64(i), 10)
}

func (a admission) limiter(b *testing.B) *Memory {
	m := NewMemory()
	if a.held {
		for i := range a.keys {
			if err := m.AcquireNow(&Lease{}, string(nameOf(nil, i)), a.caps); err != nil {
				b.Fatal(err)
			}
		}
	}
	return m
}

// stride is a prime, so that every account has its turn.
const stride = 7919

func (a admission) serial(b *testing.B) {
	m := a.limiter(b)
	b.ReportAllocs()
	var l Lease
	buf := make([]byte, 0, 32)
	for i := 0; b.Loop(); i += stride {
		if err := m.AcquireNow(&l, string(nameOf(buf, i%a.keys)), a.caps); err != nil {
			b.Fatal(err)
		}
		l.Release()
	}
}

func (a admission) parallel(b *testing.B) {
	m := a.limiter(b)
	var began atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var l Lease
		buf := make([]byte, 0, 32)
		for i := int(began.Add(1)) * 104_729; pb.Next(); i += stride {
			if err := m.AcquireNow(&l, string(nameOf(buf, i%a.keys)), a.caps); err != nil {
				b.Error(err)
				return
			}
			l.Release()
		}
	})
}
