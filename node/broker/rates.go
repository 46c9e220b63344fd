package broker

import (
	"net"
	"net/netip"
	"sync"

	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// RatePolicy is what becomes of a client that publishes faster than it may.
type RatePolicy uint8

// The policies.
const (
	RatePause      RatePolicy = iota // it is not read until it may go on
	RateDisconnect                   // DISCONNECT 0x96
)

// bucket holds what may be spent at once: at most what a second brings. It may be overdrawn by what came
// in one piece, which the next seconds pay back.
type bucket struct {
	left float64
	at   int64 // tick up to which it is filled
}

func (b *bucket) spend(n, perSecond float64) bool {
	now := conn.Tick()
	b.left = min(perSecond, b.left+perSecond*float64(now-b.at)/ticksPerSecond)
	b.at = now
	b.left -= n
	return b.left >= 0
}

const ticksPerSecond = float64(1e9) / float64(conn.TickLength)

func full(perSecond int) bucket { return bucket{left: float64(perSecond), at: conn.Tick()} }

// pace is how fast a client publishes. Its connection's lock guards it.
type pace struct{ messages, bytes bucket }

// newPace is nil when nothing is limited.
func (c *Config) newPace() *pace {
	if c.MaxMessageRate <= 0 && c.MaxByteRate <= 0 {
		return nil
	}
	return &pace{full(c.MaxMessageRate), full(c.MaxByteRate)}
}

// over spends of both, and tells which limit that is over, if it is.
func (p *pace) over(c *Config, messages, bytes int) (Limit, bool) {
	tooMany := c.MaxMessageRate > 0 && !p.messages.spend(float64(messages), float64(c.MaxMessageRate))
	tooMuch := c.MaxByteRate > 0 && !p.bytes.spend(float64(bytes), float64(c.MaxByteRate))
	if tooMany {
		return LimitMessageRate, true
	}
	return LimitByteRate, tooMuch
}

// spent notes a packet that was taken, and slows its client down, or ends it, when that is too much.
// Caller holds the lock.
func (c *client) spent(t mqtt.Type, size int, ba *conn.Batch) error {
	if c.pace == nil || c.phase != phaseOnline {
		return nil
	}
	messages := 0
	if t == mqtt.PUBLISH {
		messages = 1
	}
	limit, over := c.pace.over(&c.b.cfg, messages, size)
	if !over {
		return nil
	}
	c.b.reached(limit)
	if c.b.cfg.RatePolicy == RateDisconnect {
		return c.fail(&mqtt.Error{Code: mqtt.MessageRateTooHigh, Msg: "more than " + LimitNames[limit]}, ba)
	}
	c.slowed.Store(true)
	c.held.Store(true)
	c.conn.Pause()
	return nil
}

// hasten reads on from a client that may go on. Called by the sweep.
func (c *client) hasten() {
	c.conn.Lock()
	defer c.conn.Unlock()
	if _, over := c.pace.over(&c.b.cfg, 0, 0); !over {
		c.slowed.Store(false)
		c.readOn()
	}
}

// readOn reads from the socket again, unless something else is against it. Caller holds the lock.
func (c *client) readOn() {
	if c.intake.full || c.choked || c.slowed.Load() {
		return
	}
	c.held.Store(false)
	c.conn.Resume()
}

// addresses counts connections by address; those of one IPv6 network (/64) are one.
type addresses map[netip.Prefix]int

// networkOf is invalid for what has no IP address.
func networkOf(a net.Addr) netip.Prefix {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Prefix{}
	}
	ip := p.Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	n, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return n
}

func (a addresses) enter(n netip.Prefix) { a[n]++ }

func (a addresses) leave(n netip.Prefix) {
	if a[n]--; a[n] <= 0 {
		delete(a, n)
	}
}

// gate bounds how many CONNECTs are taken a second.
type gate struct {
	mu sync.Mutex
	bucket
}

// connectRate tells whether one more CONNECT may be taken now.
func (b *Broker) connectRate() bool {
	rate := b.cfg.MaxConnectRate
	if rate <= 0 {
		return true
	}
	b.gate.mu.Lock()
	defer b.gate.mu.Unlock()
	if b.gate.spend(1, float64(rate)) {
		return true
	}
	b.gate.left++ // who is refused costs nothing
	return false
}

// retainedFull tells whether the cluster has as many retained messages as it may, so that this one would
// be too much: one that takes the place of another counts for what it is larger.
func (b *Broker) retainedFull(p *publish) bool {
	maxMessages, maxBytes := b.cfg.MaxRetainedMessages, b.cfg.MaxRetainedBytes
	if !p.retain || len(p.payload) == 0 || maxMessages <= 0 && maxBytes == 0 {
		return false
	}
	messages, bytes := b.state.RetainedUse()
	had, old := b.state.RetainedSize(p.topic)
	if !had {
		messages++
	}
	bytes += uint64(max(0, len(p.topic)+len(p.payload)+len(p.props)-int(old)))
	switch {
	case maxMessages > 0 && messages > maxMessages && !had:
		b.reached(LimitRetainedMessages)
		return true
	case maxBytes > 0 && bytes > maxBytes:
		b.reached(LimitRetainedBytes)
		return true
	}
	return false
}
