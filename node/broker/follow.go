package broker

import (
	"fmt"
	"strings"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/trace"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// What an operator who traces messages is told. Nobody traces, as a rule: then each of these is one load.

// traced are those who trace now, nil: nobody.
func (b *Broker) traced() *trace.Taps { return b.cfg.Tracer.Active() }

func (m *message) subject() trace.Subject {
	return trace.Subject{Publisher: m.publisher, Topic: m.topic, Payload: m.payload, Props: m.props, QoS: m.qos}
}

func subjectOf(m *fsm.Message) trace.Subject {
	return trace.Subject{Publisher: m.Publisher, Topic: m.Topic, Payload: m.Payload, Props: m.Props, QoS: m.QoS}
}

func (c *client) subject(p *publish) trace.Subject {
	return trace.Subject{Publisher: c.info.id, Topic: p.topic, Payload: p.payload, Props: p.props, QoS: p.qos}
}

func sentAt(qos byte) string { return fmt.Sprintf("at QoS %d", qos) }

// lose counts a message that this client will not get.
func (c *client) lose(m *message, r fsm.Reason) {
	c.drop(r, 1)
	if t := c.b.traced(); t != nil {
		s := m.subject()
		t.Step(&s, "dropped", c.info.id, trace.Step{Index: m.index, Detail: r.String()})
	}
}

func (c *client) traceReceived(p *publish, allowed bool) {
	t := c.b.traced()
	if t == nil {
		return
	}
	s := c.subject(p)
	if !t.Follows(&s, c.info.id) {
		return
	}
	detail := fmt.Sprintf("QoS %d, %d bytes", p.qos, len(p.payload))
	if p.retain {
		detail += ", to be retained"
	}
	t.Step(&s, "received", c.info.id, trace.Step{PacketID: p.id, Detail: detail})
	switch {
	case allowed && c.b.cfg.Access == nil:
		t.Step(&s, "authorised", c.info.id, trace.Step{Detail: "no access rules are set"})
	case allowed && c.info.username == "":
		t.Step(&s, "authorised", c.info.id, trace.Step{Detail: "without a user name it may publish to it"})
	case allowed:
		t.Step(&s, "authorised", c.info.id, trace.Step{Detail: fmt.Sprintf("user %q may publish to it", c.info.username)})
	default:
		t.Step(&s, "dropped", c.info.id, trace.Step{Detail: fsm.ReasonNotAllowed.String() + ": it may not publish to this topic"})
	}
}

func (c *client) traceRoad(p *publish, r road, why string) {
	if t := c.b.traced(); t != nil {
		s := c.subject(p)
		t.Step(&s, "road", c.info.id, trace.Step{Detail: RoadNames[r] + ": " + why})
	}
}

func (c *client) traceBlocked(p *publish, why block) {
	if t := c.b.traced(); t != nil {
		s := c.subject(p)
		detail := "the node has no lease"
		switch why {
		case blockOrder:
			detail = "it must not overtake one on the other road"
		case blockMemory:
			detail = "the node's memory is tight"
		}
		t.Step(&s, "held", c.info.id, trace.Step{Detail: detail})
	}
}

// traceLegs tells where a publish on the link road goes from here.
func (c *client) traceLegs(p *publish, plan *plan, ahead bool) {
	t := c.b.traced()
	if t == nil {
		return
	}
	s := c.subject(p)
	if ahead {
		t.Step(&s, "held", c.info.id, trace.Step{Detail: "for this node's own subscribers, until an earlier one has come by the log"})
	}
	for i := range plan.remote {
		l := &plan.remote[i]
		detail := "to " + l.to.Node
		if len(l.picks) > 0 {
			detail += ", for a member of group " + l.picks[0].Group
		}
		t.Step(&s, "link", c.info.id, trace.Step{Detail: detail})
	}
}

func (b *Broker) traceArrived(from string, m *message, f *clusterpb.Frame) {
	t := b.traced()
	if t == nil || !f.Plain && len(f.Shared) == 0 { // a fence is nobody's message
		return
	}
	s := m.subject()
	detail := "by link from " + from
	if f.After != 0 {
		detail += ", behind what its publisher put into the log"
	}
	t.Step(&s, "arrived", m.publisher, trace.Step{Detail: detail})
}

// traceWaits tells that a message can't be written at once.
func (c *client) traceWaits(m *message) {
	if t := c.b.traced(); t != nil {
		s := m.subject()
		if !t.Follows(&s, c.info.id) {
			return
		}
		detail := fmt.Sprintf("%d in flight, %d wait before it", c.sess.Inflight(), c.sess.Queued())
		if c.starved {
			detail = "the node has no lease"
		}
		t.Step(&s, "queued", c.info.id, trace.Step{Index: m.index, Detail: detail})
	}
}

// traceQueued tells of an entry that the log has given to a session.
func (c *client) traceQueued(e *fsm.Effect) {
	if t := c.b.traced(); t != nil {
		s := subjectOf(e.Entry.Message)
		if !t.Follows(&s, c.info.id) {
			return
		}
		t.Step(&s, "queued", c.info.id, trace.Step{
			Index: e.Index, Detail: fmt.Sprintf("number %d of its session, %d in flight, %d wait before it", e.Entry.Seq, c.sess.Inflight(), c.sess.Queued()),
		})
	}
}

// indexOf is the index of the entry in the log that brought a message; 0: none did.
func indexOf(e *fsm.Entry) uint64 { return fsm.Epoch(e.Message.ID).Index() }

// traceSent and traceLost are what the session reports.
func (c *client) traceSent(e *fsm.Entry, id uint16) {
	if t := c.b.traced(); t != nil {
		s := subjectOf(e.Message)
		t.Step(&s, trace.Sent, c.info.id, trace.Step{PacketID: id, Index: indexOf(e), Detail: sentAt(e.QoS)})
	}
}

func (c *client) traceLost(e *fsm.Entry, r fsm.Reason) {
	if t := c.b.traced(); t != nil {
		s := subjectOf(e.Message)
		t.Step(&s, "dropped", c.info.id, trace.Step{Index: indexOf(e), Detail: r.String()})
	}
}

// following is a publish that somebody traces until it is committed, or taken by every link.
type following struct {
	c       *client
	subject trace.Subject
	began   time.Time
}

// traceCommit begins one, nil if nobody traces it. It copies what the reader's buffer holds.
func (c *client) traceCommit(p *publish) *following {
	t := c.b.traced()
	if t == nil {
		return nil
	}
	if s := c.subject(p); !t.Follows(&s, c.info.id) {
		return nil
	}
	k := p.keep()
	return &following{c: c, subject: c.subject(k), began: time.Now()}
}

// awayShown bounds the sessions that one step names.
const awayShown = 20

// committed tells what the log did with it.
func (f *following) committed(r fsm.Result) {
	if f == nil {
		return
	}
	t := f.c.b.traced()
	if t == nil {
		return
	}
	step := trace.Step{Index: r.Index, Took: int64(time.Since(f.began)), Detail: "the publisher's acknowledgement is due"}
	switch r.Code {
	case fsm.NoMatch:
		step.Detail = "nobody subscribes to it"
	case fsm.Duplicate:
		step.Detail = "a repeat: the log had it before"
	case fsm.Stale:
		t.Step(&f.subject, "dropped", f.c.info.id, trace.Step{Index: r.Index, Detail: "stale: the publisher had been taken over"})
		return
	case fsm.Invalid:
		step.Detail = "the log refused it"
	}
	t.Step(&f.subject, "committed", f.c.info.id, step)
	if r.Code != fsm.OK {
		return
	}
	kept, lost := f.c.b.state.Away(f.subject.Topic, f.subject.QoS, r.Index, awayShown+1)
	if len(kept) > 0 {
		t.Step(&f.subject, "stored", f.c.info.id, trace.Step{Index: r.Index, Detail: "for sessions that are not connected: " + few(kept)})
	}
	if len(lost) > 0 {
		t.Step(&f.subject, "dropped", f.c.info.id, trace.Step{
			Index: r.Index, Detail: fsm.ReasonQueueFull.String() + ", for sessions that are not connected: " + few(lost),
		})
	}
}

func few(ids []string) string {
	text := strings.Join(ids[:min(len(ids), awayShown)], ", ")
	if len(ids) > awayShown {
		text += " and more"
	}
	return text
}

// taken tells that every node that it went to has it.
func (f *following) taken() {
	if f == nil {
		return
	}
	f.c.b.traced().Step(&f.subject, "taken", f.c.info.id, trace.Step{
		Took: int64(time.Since(f.began)), Detail: "by every node it went to; the publisher's acknowledgement is due",
	})
}
