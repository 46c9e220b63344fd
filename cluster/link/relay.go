package link

import (
	"time"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// relayWindow bounds the bytes of relayed frames that are on their way through the log: the log has
// other work, and a frame that finds the link open again should take it.
const relayWindow = 1 << 20

// relayState of a link whose receiver is alive but can't be reached.
type relayState struct {
	on    bool
	next  uint64 // the first sequence that was not proposed
	out   int    // bytes that are proposed and not applied
	count int    // and commands
	wake  chan struct{}
}

func (k *link) signalRelay() {
	select {
	case k.relay.wake <- struct{}{}:
	default:
	}
}

// watch looks after a link with frames to be acknowledged. Called with mu held.
func (k *link) watch() {
	if !k.armed && !k.relay.on && len(k.kept) > 0 {
		k.arm(k.l.cfg.StallAfter)
	}
}

func (k *link) arm(d time.Duration) {
	k.armed = true
	if k.stall == nil {
		k.stall = time.AfterFunc(d, k.checkStall)
		return
	}
	k.stall.Reset(d)
}

// checkStall finds out whether the receiver has been silent for too long: then what it has not
// acknowledged goes through the log. A receiver that is there but can't take frames yet says so.
func (k *link) checkStall() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.armed = false
	if k.closed || k.relay.on || len(k.kept) == 0 {
		return
	}
	silent := min(time.Since(k.heard), time.Since(k.began)-k.kept[0].at)
	if silent < k.l.cfg.StallAfter {
		k.arm(k.l.cfg.StallAfter - silent)
		return
	}
	if !k.l.spawn(k.relayRun) {
		return
	}
	k.l.cfg.Logger.Warn("peer can't be reached: its frames go through the log", "peer", k.to.Node, "incarnation", k.to.Incarnation, "frames", len(k.kept))
	k.relay.on, k.relay.next = true, k.kept[0].Sequence
	k.hangUp()
}

// relayRun proposes frames in order for as long as the receiver can't be reached, and opens the link
// to them again when it can and the last one that was proposed is applied. In between frames wait.
func (k *link) relayRun() {
	for {
		commands, over := k.relayNext()
		if over {
			return
		}
		for _, c := range commands {
			size, sequence := len(c.Frame), c.LinkSeq
			k.l.host.Relay(c, func(err error) { k.relayed(sequence, size, err) })
		}
		if len(commands) > 0 {
			continue
		}
		select {
		case <-k.relay.wake:
		case <-k.ctx.Done():
			return
		}
	}
}

// relayNext is what to propose now. over: the link is open again or closed for good.
func (k *link) relayNext() (commands []*fsmpb.Relay, over bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, true
	}
	if k.connected {
		if k.relay.count > 0 {
			return nil, false
		}
		k.relay.on = false
		k.heard = time.Now()
		k.rewind()
		k.signal()
		k.watch()
		return nil, true
	}
	for i := range k.kept {
		r := &k.kept[i]
		if r.Sequence < k.relay.next {
			continue
		}
		if k.relay.out >= relayWindow {
			break
		}
		c := &fsmpb.Relay{
			Target: k.to.Node, TargetIncarnation: k.to.Incarnation, LinkSeq: r.Sequence,
			Frame: r.AppendRelay(nil, k.left(r)),
		}
		k.relay.next = r.Sequence + 1
		k.relay.out += len(c.Frame)
		k.relay.count++
		commands = append(commands, c)
	}
	return commands, false
}

// relayed hears that the log has carried a frame to the receiver's queue.
func (k *link) relayed(sequence uint64, size int, err error) {
	k.mu.Lock()
	k.relay.out -= size
	k.relay.count--
	if err != nil { // this node's incarnation has ended: Reset comes
		k.mu.Unlock()
	} else {
		k.release(sequence)
	}
	k.signalRelay()
}
