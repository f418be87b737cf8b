package usage

import "time"

// OpenFileAt is OpenFile with a clock.
func OpenFileAt(path string, now func() time.Time) (Ledger, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	f.now = now
	return f, nil
}

// NewMemoryAt is NewMemory with a clock.
func NewMemoryAt(now func() time.Time) Ledger {
	m := NewMemory()
	m.now = now
	return m
}

// NewSmallMeter is NewMeter with a smaller bound.
func NewSmallMeter(names int) *Meter {
	m := NewMeter()
	m.max = names
	return m
}

// Look opens pages and looks at the quotas, as Run does.
func (b *Books) Look() {
	b.open()
	b.lookAtQuotas()
}
