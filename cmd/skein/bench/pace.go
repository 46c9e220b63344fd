package bench

import (
	"context"
	"time"

	"github.com/skein-mqtt/skein/node/conn"
)

// pace says when each message of a run at a fixed rate is due, whether or not the broker keeps up: a
// late one counts from then, so that a stall shows in all the messages that it delayed.
type pace struct {
	begin int64
	rate  float64 // messages a second
	n     int     // publishers, who take turns
}

// at is when a publisher's message is due.
func (p *pace) at(publisher uint32, number uint64) int64 {
	return p.begin + int64((float64(number)*float64(p.n)+float64(publisher))/p.rate*1e9)
}

// due is how many of a publisher's messages are due by now.
func (p *pace) due(publisher uint32, now int64) uint64 {
	k := float64(now-p.begin)/1e9*p.rate - float64(publisher)
	if k < 0 {
		return 0
	}
	return uint64(k/float64(p.n)) + 1
}

// paceStep is how long the pacer sleeps at most. What is due within it leaves together.
const paceStep = time.Millisecond

// run sends what is due until ctx ends.
func (p *pace) run(ctx context.Context, publishers []*publisher) {
	ba := conn.NewBatch()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		at := now()
		next := at + int64(paceStep)
		for _, b := range publishers {
			due := p.due(b.number, at)
			if due > b.due.Load() {
				b.due.Store(due)
				b.pump(at, ba)
			}
			if p.n > 1000 {
				continue // looking for the next one costs more than it saves
			}
			next = min(next, p.at(b.number, due))
		}
		ba.Flush()
		timer.Reset(time.Duration(next - now()))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
	}
}
