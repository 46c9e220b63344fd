package conn

import (
	"sync"
	"sync/atomic"
	"time"
)

// Batch is what one reader works with at a time: a buffer, and the connections whose outboxes it
// filled. It is not safe for concurrent use.
type Batch struct {
	dirty []*Conn
	buf   []byte
	// Scratch is for the handler; between two calls of Data it keeps nothing.
	Scratch []byte
}

// NewBatch returns a batch without a read buffer, for goroutines that only deliver.
func NewBatch() *Batch { return &Batch{} }

// Flush writes every outbox that was filled through this batch. Caller holds no connection's Lock.
func (ba *Batch) Flush() {
	for i := 0; i < len(ba.dirty); i++ { // flushing may add more
		c := ba.dirty[i]
		ba.dirty[i] = nil
		c.flush(ba)
	}
	ba.dirty = ba.dirty[:0]
}

// Take moves the dirty connections of from into ba, to be flushed by another goroutine.
func (ba *Batch) Take(from *Batch) {
	ba.dirty = append(ba.dirty, from.dirty...)
	clear(from.dirty)
	from.dirty = from.dirty[:0]
}

// Len is how many connections wait to be flushed.
func (ba *Batch) Len() int { return len(ba.dirty) }

const (
	bufferSize = 16 << 10
	largeSize  = 256 << 10
	readSize   = 64 << 10
)

// Pools hold arrays as pointers: a slice in an interface would be an allocation of its own.
var (
	small   = sync.Pool{New: func() any { return new([bufferSize]byte) }}
	large   = sync.Pool{New: func() any { return new([largeSize]byte) }}
	batches = sync.Pool{New: func() any { return &Batch{buf: make([]byte, readSize)} }}
)

func getBuffer() []byte { return small.Get().(*[bufferSize]byte)[:headRoom] }

// Grow makes room for n more bytes in an outbox buffer, from the pool where that suffices.
func Grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	var bigger []byte
	if len(b)+n <= largeSize {
		bigger = large.Get().(*[largeSize]byte)[:len(b)]
	} else {
		bigger = make([]byte, len(b), 2*(len(b)+n))
	}
	copy(bigger, b)
	putBuffer(b)
	return bigger
}

// putBuffer returns a buffer to its pool; one that append has made is left to the collector.
func putBuffer(b []byte) {
	switch cap(b) {
	case bufferSize:
		small.Put((*[bufferSize]byte)(b[:bufferSize]))
	case largeSize:
		large.Put((*[largeSize]byte)(b[:largeSize]))
	}
}

func getBatch() *Batch { return batches.Get().(*Batch) }

// putBatch returns a flushed batch.
func putBatch(ba *Batch) { batches.Put(ba) }

// Keepalive needs no exact clock: ticks are counted by whoever sweeps.
var tick atomic.Int64

// TickLength is the length of one tick.
const TickLength = 250 * time.Millisecond

// Tick is the current tick.
func Tick() int64 { return tick.Load() }

// Advance is called by the sweeper once per TickLength.
func Advance() { tick.Add(1) }
