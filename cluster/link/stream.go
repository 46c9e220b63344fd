package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skein-mqtt/skein/proto/clusterpb"
)

const (
	firstDelay = 20 * time.Millisecond
	maxDelay   = 2 * time.Second
	// helloPatience is how long a receiver may take to answer a new stream. It is more than a
	// receiver waits for its state machine to learn of an incarnation.
	helloPatience = admitPatience + time.Second
)

var (
	errGone    = errors.New("the peer's incarnation has ended")
	errRefused = errors.New("the peer does not know this node's incarnation as live")
	errAck     = errors.New("the peer acknowledged what was not sent")
)

// run connects, and connects again, until the link is closed.
func (k *link) run() {
	delay := firstDelay
	for k.ctx.Err() == nil {
		stood, err := k.stream()
		if errors.Is(err, errGone) {
			k.close()
			return
		}
		if stood {
			delay = firstDelay
		}
		k.l.cfg.Logger.Debug("link is down", "peer", k.to.Node, "incarnation", k.to.Incarnation, "retry", delay, "error", err)
		select {
		case <-k.ctx.Done():
		case <-time.After(delay):
		}
		delay = min(2*delay, maxDelay)
		k.expireLoose()
	}
}

// stream is one stream from its opening to its end. It tells whether the receiver took it.
func (k *link) stream() (stood bool, err error) {
	client, err := k.l.host.Dial(k.to.Node)
	if err != nil {
		return false, fmt.Errorf("dial %s: %w", k.to.Node, err)
	}
	ctx, cancel := context.WithCancel(k.ctx)
	defer cancel()
	patience := time.AfterFunc(helloPatience, cancel)
	defer patience.Stop()
	s, err := client.Link(ctx)
	if err != nil {
		return false, fmt.Errorf("open: %w", err)
	}
	hello, err := k.greet(s)
	if err != nil {
		return false, err
	}
	patience.Stop()
	if !k.opened(cancel, hello) {
		return false, errAck
	}
	listened := make(chan error, 1)
	go func() { // ends with the stream, which this function cancels and waits for
		err := k.listen(s)
		cancel()
		listened <- err
	}()
	err = k.write(ctx, s)
	cancel()
	err = errors.Join(err, <-listened)
	k.disconnected()
	return true, err
}

func (k *link) greet(s clusterpb.Peer_LinkClient) (*clusterpb.LinkAck, error) {
	err := s.Send(&clusterpb.LinkData{
		Node: k.self.Node, Incarnation: k.self.Incarnation, Target: k.to.Node, TargetIncarnation: k.to.Incarnation,
	})
	if err != nil {
		return nil, fmt.Errorf("greet: %w", err)
	}
	hello, err := s.Recv()
	if err != nil {
		return nil, fmt.Errorf("greet: %w", err)
	}
	return hello, verdict(hello)
}

// verdict is what an answer's code says, nil to go on.
func verdict(ack *clusterpb.LinkAck) error {
	switch ack.Code {
	case clusterpb.LinkAck_OK:
		return nil
	case clusterpb.LinkAck_GONE:
		return errGone
	default:
		return errRefused
	}
}

// listen takes acknowledgements until the stream ends.
func (k *link) listen(s clusterpb.Peer_LinkClient) error {
	for {
		ack, err := s.Recv()
		if err != nil {
			return err
		}
		if err := verdict(ack); err != nil {
			return err
		}
		if !k.acknowledge(ack) {
			return errAck
		}
	}
}

// write sends what is queued, as much at a time as there is, until the stream ends.
func (k *link) write(ctx context.Context, s clusterpb.Peer_LinkClient) error {
	var message clusterpb.LinkData
	for {
		b := k.take()
		if b == nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-k.wake:
			}
			continue
		}
		for rest := b; len(rest) > 0; {
			n := min(len(rest), pieceSize)
			message.Frames = rest[:n]
			if err := s.Send(&message); err != nil { // copies the bytes before it returns
				return err
			}
			rest = rest[n:]
		}
		k.written(b)
	}
}

// opened begins to use a stream. The receiver's greeting says how far it got with earlier ones.
func (k *link) opened(cut context.CancelFunc, hello *clusterpb.LinkAck) bool {
	k.mu.Lock()
	if k.closed || hello.Sequence > k.last {
		k.mu.Unlock()
		return false
	}
	k.connected, k.cut = true, cut
	// What earlier streams carried and the receiver never saw is lost: it closed them when it
	// greeted this one.
	if arrived := hello.Unsequenced + k.lost0 + uint64(k.pending0); arrived < k.sent0 {
		k.lose(k.sent0 - arrived)
	}
	k.rewind()
	k.mu.Unlock()
	k.acknowledge(hello)
	k.signal()
	k.signalRelay()
	k.l.cfg.Logger.Debug("link is up", "peer", k.to.Node, "incarnation", k.to.Incarnation)
	return true
}

// lose counts frames of QoS 0 that will not arrive.
func (k *link) lose(n uint64) {
	if n > 0 {
		k.lost0 += n
		k.l.cfg.Dropped(reasonLink, int(n))
	}
}

// rewind makes the oldest frame that is kept the next one on the stream.
func (k *link) rewind() {
	k.next = k.last + 1
	if len(k.kept) > 0 {
		k.next = k.kept[0].Sequence
	}
}

// disconnected ends the use of a stream: what it would have carried at QoS 0 is lost.
func (k *link) disconnected() {
	k.mu.Lock()
	if !k.closed {
		k.hangUp()
		k.dropPending()
	}
	relief := k.relieved()
	k.mu.Unlock()
	k.signalRelay()
	if relief {
		k.l.cfg.OnRelief(k.to.Node)
	}
}

func (k *link) hangUp() {
	if k.connected {
		k.connected, k.downSince = false, time.Now()
	}
	if k.cut != nil {
		k.cut()
		k.cut = nil
	}
}

// dropPending begins the next stream anew.
func (k *link) dropPending() {
	k.lose(uint64(k.pending0))
	k.pending, k.pending0, k.loose, k.writing = k.pending[:0], 0, 0, 0
	k.enc.Reset()
	k.rewind()
}

// expireLoose gives up the QoS 0 that waited for a stream which did not come.
func (k *link) expireLoose() {
	k.mu.Lock()
	if !k.closed && !k.connected && k.pending0 > 0 && time.Since(k.downSince) > k.l.cfg.StallAfter {
		k.dropPending()
	}
	relief := k.relieved()
	k.mu.Unlock()
	if relief {
		k.l.cfg.OnRelief(k.to.Node)
	}
}
