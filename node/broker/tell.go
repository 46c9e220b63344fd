package broker

import (
	"fmt"
	"strings"

	"github.com/skein-mqtt/skein/node/event"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// tell reports what became of this node.
func (b *Broker) tell(e event.Event) {
	e.Kind = event.Node
	b.cfg.Events.Add(e)
}

func (b *Broker) tellClient(id string, kind event.Kind, message string) {
	b.cfg.Events.Add(event.Event{Kind: kind, Client: id, Message: message})
}

// tellConnected is called once CONNACK is said.
func (c *client) tellConnected(present bool) {
	if c.b.cfg.Events == nil {
		return
	}
	session := "a clean session"
	switch {
	case present:
		session = "its stored session"
	case !c.sess.Clean():
		session = "a new persistent session"
	}
	c.b.tellClient(c.info.id, event.Connected, fmt.Sprintf("with %s from %s, user %q, by %s", session, c.conn.RemoteAddr(), c.info.username, c.listener))
}

// tellRefused is called for each CONNECT that is refused, of which there may be many.
func (c *client) tellRefused(code mqtt.ReasonCode) {
	c.b.cfg.Events.Often(event.Refused, c.info.id, code.String())
}

// tellDisconnected is called when the connection has ended. Caller holds the lock.
func (c *client) tellDisconnected(err error) {
	if c.sess == nil || c.b.cfg.Events == nil { // it was never admitted
		return
	}
	e := event.Event{Kind: event.Disconnected, Client: c.info.id, Message: c.why}
	if c.why == "" {
		e.Warning, e.Message = true, "the connection broke"
		if err != nil {
			e.Message += ": " + err.Error()
		}
	}
	c.b.cfg.Events.Add(e)
}

// tellSubscribed tells of each filter what it was granted.
func (c *client) tellSubscribed(p *mqtt.Subscribe, codes []byte) {
	if c.b.cfg.Events == nil {
		return
	}
	var granted, refused []string
	for i := range p.Filters {
		if code := mqtt.ReasonCode(codes[i]); code.Failed() {
			refused = append(refused, fmt.Sprintf("%s%s (%s)", p.Filters[i].Filter, c.below(), code))
		} else {
			granted = append(granted, fmt.Sprintf("%s%s at QoS %d", p.Filters[i].Filter, c.below(), codes[i]))
		}
	}
	if len(granted) > 0 {
		c.b.tellClient(c.info.id, event.Subscribed, "to "+briefly(granted))
	}
	if len(refused) > 0 {
		c.b.cfg.Events.Add(event.Event{Kind: event.Subscribed, Warning: true, Client: c.info.id, Message: "refused: " + briefly(refused)})
	}
}

// below says where a client's filters count, if that is not everywhere.
func (c *client) below() string {
	if c.mount == "" {
		return ""
	}
	return " below " + c.mount
}

// briefly names a few of many.
func briefly(list []string) string {
	const few = 8
	if more := len(list) - few; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:few], ", "), more)
	}
	return strings.Join(list, ", ")
}
