package capacity

import "testing"

func TestFilesKept(t *testing.T) {
	h := Host{OpenFilesSoft: 20_000}
	before := h.FilePairs()
	h.OpenFilesKept = 100
	if n := h.FilePairs(); n != before-50 {
		t.Errorf("%d pairs beside 100 descriptors that are kept, %d without", n, before)
	}
	h.OpenFilesKept = 1 << 40
	if n := h.FilePairs(); n != 1 {
		t.Errorf("%d pairs where nothing is left", n)
	}
}
