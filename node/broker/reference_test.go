package broker_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/skein-mqtt/skein/proto/mqtt"
	"github.com/skein-mqtt/skein/proto/topic"
	"github.com/skein-mqtt/skein/test/sim"
)

// This file compares a cluster with the shortest broker that one can write: random sequences of valid
// packets from clients that acknowledge at once, on any node, and what each of them gets.

// deed is one step of a sequence. What it doesn't need it ignores.
type deed struct {
	what, who, node      int
	name                 int // of a topic or a filter
	qos                  byte
	flag, other, persist bool // retain, clean start and so on
	handling, id         byte
}

const (
	deedConnect = iota
	deedSubscribe
	deedUnsubscribe
	deedPublish
	deedDisconnect
	deedCut
	deeds
)

var (
	refTopics  = []string{"a", "a/b", "a/b/c", "$d/a", "/", "w"}
	refFilters = []string{"#", "a", "a/+", "a/#", "+/b", "+", "/+", "$d/#", "w", "+/+/c", "$d/+"}
)

func drawDeeds(t *rapid.T) []deed {
	one := rapid.Custom(func(t *rapid.T) deed {
		n := func(max int, label string) int { return rapid.IntRange(0, max).Draw(t, label) }
		d := deed{
			what: []int{0, 0, 1, 1, 1, 2, 3, 3, 3, 3, 3, 4, 5}[n(12, "what")], who: n(3, "who"), node: n(2, "node"), name: n(20, "name"), qos: byte(n(2, "qos")),
			flag: n(2, "flag") == 0, other: n(2, "other") == 0, persist: n(1, "persistent") == 0, handling: byte(n(2, "handling")), id: byte(n(3, "id")),
		}
		return d
	})
	return rapid.SliceOfN(one, 1, 40).Draw(t, "deeds")
}

// refMessage is a message as one client gets it.
type refMessage struct {
	topic, payload string
	qos            byte
	retain         bool
	ids            []uint32
}

func (m refMessage) String() string {
	var marks []string
	if m.retain {
		marks = append(marks, "retain")
	}
	if len(m.ids) > 0 {
		marks = append(marks, fmt.Sprint("ids=", m.ids))
	}
	return message(m.topic, m.qos, m.payload, marks...)
}

// refSession is a client as the short broker knows it.
type refSession struct {
	online, persistent bool
	ends               bool // with its connection
	version            mqtt.Version
	will               *mqtt.Will
	subs               map[string]mqtt.Subscription
	ids                map[string]uint32
	queue              []refMessage
	want               []string // since the last look
}

// reference is the short broker.
type reference struct {
	sessions [4]refSession
	retained map[string]refMessage
	owner    map[string]int // who published what is retained
}

func (r *reference) give(s *refSession, m refMessage) {
	if s.version != mqtt.V5 {
		m.ids = nil
	}
	switch {
	case s.online:
		s.want = append(s.want, m.String())
	case m.qos > 0:
		s.queue = append(s.queue, m)
	}
}

func (r *reference) publish(who int, m refMessage) {
	flag := m.retain
	if flag {
		if m.payload == "" {
			delete(r.retained, m.topic)
		} else {
			r.retained[m.topic], r.owner[m.topic] = m, who
		}
	}
	for i := range r.sessions {
		s := &r.sessions[i]
		matched, granted := false, byte(0)
		m.retain, m.ids = false, nil
		for f, sub := range s.subs {
			if !topic.Match(f, m.topic) || sub.NoLocal && i == who {
				continue
			}
			matched, granted = true, max(granted, sub.QoS)
			m.retain = m.retain || flag && sub.RetainAsPublished
			if id := s.ids[f]; id != 0 {
				m.ids = append(m.ids, id)
			}
		}
		if matched {
			out := m
			out.qos = min(m.qos, granted)
			slices.Sort(out.ids)
			r.give(s, out)
		}
	}
}

// lose ends a connection; clean: without its will.
func (r *reference) lose(who int, clean bool) {
	s := &r.sessions[who]
	will := s.will
	s.online, s.will = false, nil
	if s.ends {
		*s = refSession{}
	}
	if !clean {
		r.testament(who, will)
	}
}

// connect lets the client in. The will of an older connection is published once the newer is there.
func (r *reference) connect(who int, p *mqtt.Connect, persistent bool) (present bool) {
	s := &r.sessions[who]
	older, queue := s.will, s.queue
	present = s.persistent && !p.Clean
	if !present {
		*s, queue = refSession{persistent: persistent}, nil
	}
	s.online, s.version, s.will, s.ends, s.queue = true, p.Version, p.Will, !persistent, nil
	for _, m := range queue {
		r.give(s, m)
	}
	r.testament(who, older)
	return present
}

func (r *reference) testament(who int, will *mqtt.Will) {
	if will != nil {
		r.publish(who, refMessage{topic: will.Topic, payload: string(will.Payload), qos: will.QoS, retain: will.Retain})
	}
}

func (r *reference) subscribe(who int, f mqtt.Subscription, id uint32) {
	s := &r.sessions[who]
	if s.subs == nil {
		s.subs, s.ids = make(map[string]mqtt.Subscription), make(map[string]uint32)
	}
	_, had := s.subs[f.Filter]
	s.subs[f.Filter], s.ids[f.Filter] = f, id
	if f.RetainHandling == 2 || f.RetainHandling == 1 && had {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(r.retained)) {
		if topic.Match(f.Filter, name) && (!f.NoLocal || r.owner[name] != who) {
			m := r.retained[name]
			m.qos, m.ids = min(m.qos, f.QoS), nil
			if id != 0 {
				m.ids = []uint32{id}
			}
			r.give(s, m)
		}
	}
}

// trial runs a sequence against both.
type trial struct {
	w       *world
	r       reference
	clients [4]*client
	count   int
	history []string
	had     map[string]bool // what each client has got
}

// flow lets everything come to rest, with each client acknowledging what it gets.
func (t *trial) flow() {
	for moved := true; moved; {
		t.w.Run()
		moved = false
		for _, c := range t.clients {
			if c == nil {
				continue
			}
			packets, _ := c.Receive()
			for _, p := range packets {
				moved = true
				t.history = append(t.history, fmt.Sprintf("    %s <- %s", c.name, sim.Describe(p)))
				switch p := p.(type) {
				case *mqtt.Publish:
					again := p.Dup
					p.Dup = false
					m := sim.Describe(p)
					if key := fmt.Sprint(c.name, " ", string(p.Topic), " ", string(p.Payload)); !again || p.QoS != 1 || !t.had[key] { // else a cursor was not committed yet
						c.got, t.had[key] = append(c.got, m), true
					}
					if p.QoS > 0 {
						c.Send(&mqtt.Ack{Type: mqtt.PUBACK + mqtt.Type(p.QoS-1), PacketID: p.PacketID})
					}
				case *mqtt.Ack:
					switch p.Type {
					case mqtt.PUBREL:
						c.Send(&mqtt.Ack{Type: mqtt.PUBCOMP, PacketID: p.PacketID})
					case mqtt.PUBREC:
						c.Send(&mqtt.Ack{Type: mqtt.PUBREL, PacketID: p.PacketID})
					}
				default:
					c.said = append(c.said, sim.Describe(p))
				}
			}
		}
	}
}

// do does one deed. It returns what is wrong.
func (t *trial) do(d deed) string {
	s, c := &t.r.sessions[d.who], t.clients[d.who]
	name := fmt.Sprint("c", d.who)
	if d.what != deedConnect && !s.online {
		return ""
	}
	answer := ""
	switch d.what {
	case deedConnect:
		p := &mqtt.Connect{Version: mqtt.V5, ClientID: name, Clean: d.flag}
		persistent := d.persist
		if d.id == 3 {
			p.Version, persistent = mqtt.V311, !d.flag
		} else if d.persist {
			p.HasSessionExpiry, p.SessionExpiry = true, 3600
		}
		if d.other {
			p.Will = &mqtt.Will{Topic: refTopics[d.name%len(refTopics)], Payload: []byte("will of " + name), QoS: d.qos, Retain: d.handling == 2}
		}
		answer = "CONNACK 00"
		if t.r.connect(d.who, p, persistent) {
			answer += " present"
		}
		t.history = append(t.history, fmt.Sprintf("%s: connect %s clean=%v persistent=%v will=%v node=%d", name, p.Version, d.flag, persistent, p.Will != nil, d.node))
		older := c
		c = &client{Conn: t.w.Dial(t.w.Nodes()[d.node]), w: t.w, name: name}
		c.Version = p.Version
		c.Send(p)
		t.clients[d.who] = c
		if older != nil {
			t.flow()
			packets, _ := older.Receive()
			for _, p := range packets {
				if p, ok := p.(*mqtt.Publish); ok {
					return fmt.Sprintf("the older connection of %s got %s", name, sim.Describe(p))
				}
			}
		}
	case deedSubscribe:
		f := mqtt.Subscription{Filter: refFilters[d.name%len(refFilters)], QoS: d.qos}
		id := uint32(0)
		if s.version == mqtt.V5 {
			f.NoLocal, f.RetainAsPublished, f.RetainHandling, id = d.flag, d.other, d.handling, uint32(d.id)
		}
		t.history = append(t.history, fmt.Sprintf("%s: subscribe %+v id=%d", name, f, id))
		t.r.subscribe(d.who, f, id)
		p := &mqtt.Subscribe{PacketID: c.next(), SubscriptionID: id, Filters: []mqtt.Subscription{f}}
		answer = fmt.Sprintf("SUBACK %d %02x", p.PacketID, d.qos)
		c.Send(p)
	case deedUnsubscribe:
		f := refFilters[d.name%len(refFilters)]
		t.history = append(t.history, fmt.Sprintf("%s: unsubscribe %s", name, f))
		p := &mqtt.Unsubscribe{PacketID: c.next(), Filters: []string{f}}
		answer = fmt.Sprintf("UNSUBACK %d ", p.PacketID)
		if s.version == mqtt.V5 {
			code := "11"
			if _, has := s.subs[f]; has {
				code = "00"
			}
			answer += code
		}
		delete(s.subs, f)
		c.Send(p)
	case deedPublish:
		t.count++
		m := refMessage{topic: refTopics[d.name%len(refTopics)], payload: fmt.Sprint(t.count), qos: d.qos, retain: d.flag}
		if d.flag && d.other {
			m.payload = ""
		}
		t.history = append(t.history, fmt.Sprintf("%s: publish %s", name, m))
		t.r.publish(d.who, m)
		p := c.publication(m.qos, m.topic, m.payload)
		p.Retain = m.retain
		c.Send(p)
	case deedDisconnect:
		p := &mqtt.Disconnect{}
		if d.flag && s.version == mqtt.V5 {
			p.Code = mqtt.DisconnectWithWillMessage
		}
		t.history = append(t.history, fmt.Sprintf("%s: disconnect %v", name, p.Code))
		t.r.lose(d.who, p.Code == 0)
		c.Send(p)
	case deedCut:
		t.history = append(t.history, name+": cut")
		t.r.lose(d.who, false)
		c.Cut()
	}
	t.flow()
	if answer != "" && !slices.Contains(c.said, answer) {
		return fmt.Sprintf("%s got %q, want %q", name, c.said, answer)
	}
	for i, c := range t.clients {
		s := &t.r.sessions[i]
		var got []string
		if c != nil {
			got, c.got, c.said = c.got, nil, nil
		}
		slices.Sort(got)
		slices.Sort(s.want)
		if !slices.Equal(got, s.want) {
			return fmt.Sprintf("c%d got  %q\n  want %q", i, got, s.want)
		}
		s.want = nil
	}
	return ""
}

// sequence runs drawn deeds on a cluster.
func sequence(t *testing.T, rt *rapid.T) {
	list := drawDeeds(rt)
	nodes := rapid.IntRange(1, 3).Draw(rt, "nodes")
	wrong := ""
	cluster(t, nodes, nil, func(w *world) {
		x := &trial{w: w, had: make(map[string]bool), r: reference{retained: make(map[string]refMessage), owner: make(map[string]int)}}
		for _, d := range list {
			d.node %= nodes
			if wrong = x.do(d); wrong != "" {
				wrong += "\n" + strings.Join(x.history, "\n")
				return
			}
		}
	})
	if wrong != "" {
		rt.Fatal(wrong)
	}
}

func TestSequences(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) { sequence(t, rt) })
}

// FuzzSequences is TestSequences, led by what the broker's code does.
func FuzzSequences(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		rapid.MakeFuzz(func(rt *rapid.T) { sequence(t, rt) })(t, b)
	})
}
