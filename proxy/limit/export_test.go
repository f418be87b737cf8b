package limit

import "time"

// NewMemoryAt returns a Memory that takes its time from now.
func NewMemoryAt(now func() time.Time) *Memory {
	return newMemory(func() time.Duration { return now().Sub(time.Unix(0, 0)) })
}
