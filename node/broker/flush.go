package broker

import (
	"context"
	"sync"

	"github.com/skein-mqtt/skein/node/conn"
)

// flusher writes the outboxes that were filled on goroutines that must not spend their time on
// system calls: the one that applies the log, a link's, the lease's.
type flusher struct {
	mu   sync.Mutex
	ba   *conn.Batch
	wake chan struct{}
}

func (f *flusher) init() { f.ba, f.wake = conn.NewBatch(), make(chan struct{}, 1) }

// take moves what is to be flushed from ba. The flusher holds no lock while it writes.
func (f *flusher) take(ba *conn.Batch) {
	if ba.Len() == 0 {
		return
	}
	f.mu.Lock()
	f.ba.Take(ba)
	f.mu.Unlock()
	f.wakeUp()
}

func (f *flusher) wakeUp() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *flusher) run(ctx context.Context) {
	spare := conn.NewBatch()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
		}
		f.mu.Lock()
		ba := f.ba
		f.ba = spare
		f.mu.Unlock()
		ba.Flush()
		spare = ba
	}
}

var batches = sync.Pool{New: func() any { return conn.NewBatch() }}

func getBatch() *conn.Batch   { return batches.Get().(*conn.Batch) }
func putBatch(ba *conn.Batch) { batches.Put(ba) }
