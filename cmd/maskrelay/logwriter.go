package main

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	logBuffer  = 4 << 20              // bytes that wait to be written, at most
	logGather  = 2 * time.Millisecond // a line waits for others to be written with
	logFlush   = 2 * time.Second      // what Close waits
	logKeepCap = 256 << 10            // of a buffer that is used again in any case
)

// logWriter stands between the loggers and where the log goes, which may be slow or stand still: a full pipe must not hold up
// a tunnel. Write never waits for it. One goroutine writes what has gathered, whole lines in order, many with one
// call. When logBuffer is full, lines are dropped whole and counted, and the log says so where they are missing. Safe for concurrent use.
type logWriter struct {
	out     io.Writer
	warning func(dropped uint64) []byte // the line that tells of dropped ones; nil or empty = none

	mu      sync.Mutex // guards what follows
	pending []byte     // gathered, not yet being written
	writing int        // bytes that are being written
	missing uint64     // lines dropped since the last batch was taken
	closed  bool

	dropped atomic.Uint64 // lines, ever
	wake    chan struct{} // holds one token while pending has something that run has not seen
	closing chan struct{} // closed by Close
	done    chan struct{} // closed when run has returned
}

// newLogWriter returns a writer to out, and starts its goroutine. Close must be called.
func newLogWriter(out io.Writer, warning func(dropped uint64) []byte) *logWriter {
	w := &logWriter{
		out: out, warning: warning,
		wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
	}
	go w.run()
	return w
}

// Write takes one line, or several, with their line ends. They are kept or dropped whole. It never fails: there is nobody to tell.
func (w *logWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	if w.closed || len(w.pending)+w.writing+len(line) > logBuffer {
		w.missing++
		w.mu.Unlock()
		w.dropped.Add(1)
		return len(line), nil
	}
	first := len(w.pending) == 0
	w.pending = append(w.pending, line...)
	w.mu.Unlock()
	if first {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	return len(line), nil
}

// Dropped returns the number of lines that were lost: for want of room, to a failed write, or after Close.
func (w *logWriter) Dropped() uint64 { return w.dropped.Load() }

// Close writes what there is and ends the writer. It gives up after logFlush if the other side does not take it; then the
// goroutine ends when it does. What is written from now on is dropped. It may be called again.
func (w *logWriter) Close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.closing)
	}
	w.mu.Unlock()
	patience := time.NewTimer(logFlush)
	defer patience.Stop()
	select {
	case <-w.done:
	case <-patience.C:
	}
}

// run writes batches until Close, and then the last one.
func (w *logWriter) run() {
	defer close(w.done)
	gather := time.NewTimer(logGather)
	defer gather.Stop()
	b := batch{writer: w}
	for {
		select {
		case <-w.wake:
			gather.Reset(logGather)
			select {
			case <-gather.C:
			case <-w.closing:
			}
			b.write()
		case <-w.closing:
			b.write()
			return
		}
	}
}

// batch is the goroutine's side of a logWriter.
type batch struct {
	writer *logWriter
	buffer []byte // to be swapped for the pending one
	torn   bool   // the last write ended within a line
}

// write takes what has gathered and writes it.
func (b *batch) write() {
	w := b.writer
	w.mu.Lock()
	lines := w.pending
	missing := w.missing
	w.pending, w.writing, w.missing = b.buffer[:0], len(lines), 0
	w.mu.Unlock()

	whole := len(lines)
	if missing > 0 && w.warning != nil {
		lines = append(lines, w.warning(missing)...) // just where they would stand
	}
	b.put(lines, whole)

	w.mu.Lock()
	w.writing = 0
	w.mu.Unlock()
	b.buffer = nil
	if cap(lines) <= logKeepCap || len(lines) > cap(lines)/4 { // a large one stays while it is needed
		b.buffer = lines
	}
}

// put writes lines, of which those before whole came from loggers. Of a failed write the rest is lost, and the next one begins on a line of its own.
func (b *batch) put(lines []byte, whole int) {
	if len(lines) == 0 {
		return
	}
	if b.torn {
		if _, err := b.writer.out.Write([]byte{'\n'}); err != nil {
			b.lose(lines[:whole])
			return
		}
		b.torn = false
	}
	n, err := b.writer.out.Write(lines)
	if err == nil {
		return
	}
	n = min(max(n, 0), len(lines))
	b.torn = n > 0 && lines[n-1] != '\n'
	b.lose(lines[min(n, whole):whole])
}

// lose counts lines that could not be written, the one that was begun included.
func (b *batch) lose(lines []byte) {
	b.writer.dropped.Add(uint64(bytes.Count(lines, []byte{'\n'})))
}
