package broker

// Identity is what the listener knows of a client before its CONNECT.
type Identity struct {
	// Username stands in place of CONNECT's when Verified.
	Username string
	// Verified: the client has proved who it is, with a certificate or a pre-shared key. The user name
	// and the password in its CONNECT count for nothing.
	Verified bool
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
