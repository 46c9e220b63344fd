package sim

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/skein-mqtt/skein/proto/mqtt"
	"github.com/skein-mqtt/skein/proto/topic"
)

// note is one published message and what became of it. Times are steps.
type note struct {
	n         int // the publisher's count
	publisher *player
	number    int // the publisher's connection when it was first sent
	topic     string
	qos       byte
	retain    bool
	sent      int
	acked     int            // never: it was not
	got       map[string]int // by life
}

func (m *note) String() string { return fmt.Sprintf("%s#%d", m.publisher.id, m.n) }

func (m *note) packet() *mqtt.Publish {
	return &mqtt.Publish{QoS: m.qos, Topic: []byte(m.topic), Payload: []byte(m.String()), Retain: m.retain}
}

// endedSubscription is one that its client gave up.
type endedSubscription struct {
	subscription
	life       string
	persistent bool
	at         int
}

func (h *history) newNote(p *player, name string, qos byte, retain bool) *note {
	p.count++
	m := &note{
		n: p.count, publisher: p, number: p.number, topic: name, qos: qos, retain: retain, sent: h.step, acked: never,
		got: make(map[string]int),
	}
	h.notes = append(h.notes, m)
	h.byName[m.String()] = m
	return m
}

// ordered is what has an order: messages of one publisher on one topic at one QoS, to one life. A clean
// publisher's sessions are publishers of their own.
type ordered struct {
	life, publisher, topic string
	qos                    byte
}

// delivered notes a message that has reached a client, but for repeats that it recognizes.
func (h *history) delivered(p *player, pk *mqtt.Publish) {
	m := h.byName[string(pk.Payload)]
	if m == nil || m.topic != string(pk.Topic) {
		if !strings.HasPrefix(string(pk.Topic), "will/") {
			h.fail("%s got %s, which nobody published", p, Describe(pk))
			return
		}
		if p == h.players[0] {
			h.wills[string(pk.Payload)]++
		}
		return
	}
	if pk.Retain {
		return // not a live message
	}
	life := p.life()
	m.got[life]++
	if m.got[life] > 1 {
		return
	}
	k := ordered{life, m.publisher.id, m.topic, m.qos}
	if m.qos == 0 { // to one connection: a session that goes and comes back may meet what was late
		k.life += "/" + strconv.Itoa(p.number)
	}
	if !m.publisher.persistent || m.qos == 0 {
		k.publisher += "/" + strconv.Itoa(m.number)
	}
	switch {
	case strings.HasPrefix(m.topic, "s/"): // a group's message may change hands
		return
	case !p.subscribed(m): // the first time may have come before the subscription
		return
	}
	if last := h.last[k]; last > m.n { // P5
		h.fail("%s got %s after #%d: out of order", life, m, last)
	}
	h.last[k] = max(h.last[k], m.n)
}

// subscribed tells whether the client had SUBACK for what m matches before it was sent.
func (p *player) subscribed(m *note) bool {
	for _, s := range p.subs {
		if s.since < m.sent && topic.Match(s.filter, m.topic) {
			return true
		}
	}
	return false
}

// check holds the end of a history against the promises.
func (h *history) check() {
	for _, p := range h.players {
		if len(p.out) > 0 {
			h.fail("%s still waits for an answer to %s, id=%d", p, p.out[0].m, p.out[0].id)
		}
		for _, id := range sortedKeys(p.asked) {
			h.fail("%s still waits for an answer to SUBSCRIBE or UNSUBSCRIBE %d of %q", p, id, p.asked[id].filter)
		}
		for _, f := range sortedKeys(p.subs) {
			h.owed(p.subs[f], p.life(), never)
		}
	}
	for _, e := range h.ended {
		if e.persistent {
			h.owed(&e.subscription, e.life, e.at)
		}
	}
	for _, m := range h.notes {
		for _, life := range sortedKeys(m.got) {
			if m.qos == 2 && m.got[life] > 1 && h.allTwo(life, m) { // P2
				h.fail("%s got %s %d times", life, m, m.got[life])
			}
		}
	}
	h.checkWills()
	want := h.w.State().Hash()
	for _, n := range h.w.Nodes() {
		if n.FSM.Hash() != want {
			h.fail("the state of %s differs", n.ID)
		}
	}
}

// owed checks P1 and P4: what was sent after SUBACK and acknowledged, before UNSUBSCRIBE, has come.
func (h *history) owed(s *subscription, life string, until int) {
	if s.qos == 0 || s.since == never {
		return
	}
	group, filter, _, _ := topic.ParseShare(s.filter)
	for _, m := range h.notes {
		if m.qos == 0 || m.acked >= until || m.sent <= s.since || m.acked == never || !topic.Match(filter, m.topic) {
			continue
		}
		if group != "" && m.qos == 2 && h.forgetful() {
			continue
		}
		if group == "" && m.got[life] == 0 || group != "" && m.total() == 0 {
			h.fail("%s did not get %s on %s q%d, acknowledged in step %d; SUBACK for %s in step %d", life, m, m.topic, m.qos, m.acked, s.filter, s.since)
		}
	}
}

// forgetful tells whether a group may have a clean member at QoS 2: what was sent to one whose session
// ends goes to nobody else [MQTT-4.8.2-5].
func (h *history) forgetful() bool {
	return slices.ContainsFunc(h.players, func(p *player) bool { return !p.persistent && h.qosOf[p.id] == 2 })
}

// total is how often it has come, to whomever.
func (m *note) total() (n int) {
	for _, k := range m.got {
		n += k
	}
	return n
}

// allTwo tells whether all that the client of a life may have subscribed to is at QoS 2.
func (h *history) allTwo(life string, m *note) bool {
	id, _, _ := strings.Cut(life, "/")
	return h.qosOf[id] == 2
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
