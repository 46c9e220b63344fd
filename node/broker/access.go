package broker

import (
	"slices"

	"github.com/skein-mqtt/skein/proto/mqtt"
)

// Identity is what the listener knows of a client before its CONNECT.
type Identity struct {
	// Username stands in place of CONNECT's when Verified.
	Username string
	// Verified: the client has proved who it is, with a certificate or a pre-shared key. The user name
	// and the password in its CONNECT count for nothing.
	Verified bool
	// Policy is its listener's; nil: none.
	Policy *Policy
}

// Policy is what a listener asks of its clients beyond what all listeners do.
type Policy struct {
	Versions []mqtt.Version // that they may speak; empty: all
	// Anonymous tells whether those without a user name are let in; nil: Access says so.
	Anonymous *bool
}

// judge tells whether a CONNECT that is in order may come in here.
func (id *Identity) judge(p *mqtt.Connect) mqtt.ReasonCode {
	switch policy := id.Policy; {
	case policy == nil:
	case len(policy.Versions) > 0 && !slices.Contains(policy.Versions, p.Version):
		return mqtt.UnsupportedProtocolVersion
	case policy.Anonymous != nil && !*policy.Anonymous && !p.HasUsername && !id.Verified:
		return mqtt.NotAuthorized
	}
	return mqtt.Success
}

// mayReceive tells whether the client may have a message of a topic. Its CONNECT has been read.
func (c *client) mayReceive(topic string) bool {
	a := c.b.cfg.Access
	return a == nil || a.MayReceive(c.info.username, c.info.id, topic)
}

func (c *client) mayPublish(topic string) bool {
	a := c.b.cfg.Access
	return a == nil || a.MayPublish(c.info.username, c.info.id, topic)
}

// AccessChanged forgets the verdicts that are remembered with the routes: from now on the new rules
// hold, for clients that are connected, too.
func (b *Broker) AccessChanged() { b.local.generation.Add(1) }
