package broker

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/node/session"
	"github.com/skein-mqtt/skein/proto/fsmpb"
	"github.com/skein-mqtt/skein/proto/mqtt"
	"github.com/skein-mqtt/skein/proto/topic"
)

// open handles the CONNECT of a fresh connection: checked here, then proposed. Nothing more is read
// until it is in the log.
func (c *client) open(first byte, body []byte, ba *conn.Batch) error {
	p := &mqtt.Connect{}
	err := p.Decode(first, body)
	c.version = p.Version
	if err != nil {
		return c.refuse(codeOf(err), ba)
	}
	if code := c.b.check(p); code != mqtt.Success {
		return c.refuse(code, ba)
	}
	if code := c.identity.judge(p); code != mqtt.Success {
		return c.refuse(code, ba)
	}
	if code := c.mountWill(p); code != mqtt.Success {
		return c.refuse(code, ba)
	}
	if id := c.identity; id.Verified {
		p.Username, p.HasUsername, p.Password = id.Username, true, nil
	}
	if !c.b.connectRate() {
		c.b.reached(LimitConnectRate)
		return c.refuse(mqtt.ConnectionRateExceeded, ba)
	}
	c.connect = p
	c.info = info{id: p.ClientID, username: p.Username, keepalive: p.KeepAlive, window: int(c.b.cfg.MaxInflight)}
	switch {
	case c.b.cfg.UsernameAsClientID && p.Username == "":
		return c.refuse(mqtt.NotAuthorized, ba)
	case c.b.cfg.UsernameAsClientID:
		c.info.id = p.Username
	case p.ClientID == "":
		c.info.id = assignedID()
	}
	if limit := c.b.cfg.MaxKeepalive; limit > 0 && (p.KeepAlive == 0 || p.KeepAlive > limit) {
		c.b.reached(LimitKeepalive)
		if p.Version != mqtt.V5 { // it can't be told another one [MQTT-3.1.2-21]
			return c.refuse(mqtt.ClientIdentifierNotValid, ba)
		}
		c.info.keepalive = limit
	}
	if p.HasReceiveMaximum {
		c.info.window = min(c.info.window, int(p.ReceiveMaximum))
	}
	if !c.fits(len(c.connack().Append(nil, p.Version))) {
		c.version = 0 // nothing can be said to it
		return c.refuse(mqtt.PacketTooLarge, ba)
	}
	if c.b.beyond.Load() {
		return c.refuse(mqtt.ServerUnavailable, ba)
	}
	if p.Version == mqtt.V5 && p.SessionExpiry > c.b.cfg.SessionExpiryMax {
		c.b.reached(LimitSessionExpiry)
	}
	if c.b.cordon.Load() {
		return c.refuse(mqtt.UseAnotherServer, ba)
	}
	if p.AuthMethod != "" {
		if !c.b.serving.Load() {
			return c.refuse(mqtt.ServerUnavailable, ba)
		}
		return c.exchange(ba)
	}
	c.propose()
	return nil
}

// propose stops reading: the CONNECT is to be judged and proposed. Caller holds the lock.
func (c *client) propose() {
	c.phase = phaseProposed
	c.conn.Pause()
	c.deadline.Store(conn.Tick() + ticks(connectPatience))
}

// fits tells whether the client takes a packet of that size [MQTT-3.1.2-24].
func (c *client) fits(size int) bool {
	limit := c.connect.MaxPacketSize
	return limit == 0 || uint64(size) <= uint64(limit)
}

const (
	// connectPatience is how long a CONNECT may take to be committed.
	connectPatience = 10 * time.Second
	// servicePatience is how long one waits for the node to be in service.
	servicePatience = 3 * time.Second
)

// check finds what this node does not allow.
func (b *Broker) check(p *mqtt.Connect) mqtt.ReasonCode {
	w := p.Will
	switch {
	case w == nil:
	case b.badTopic(b.cfg.topicLimits().ValidateName(w.Topic)) != nil || reserved(w.Topic):
		return mqtt.TopicNameInvalid
	case w.QoS > b.cfg.MaxQoS:
		b.reached(LimitQoS)
		return mqtt.QoSNotSupported // [MQTT-3.2.2-12]
	case w.Retain && !b.cfg.RetainAvailable:
		b.reached(LimitRetain)
		return mqtt.RetainNotSupported // [MQTT-3.2.2-13]
	}
	return mqtt.Success
}

// reserved tells whether a topic is the node's own to publish to.
func reserved(name string) bool { return strings.HasPrefix(name, "$") && topic.Match("$SYS/#", name) }

// assignedID is an identifier that no other client has [MQTT-3.1.3-7].
func assignedID() string {
	var b [12]byte
	rand.Read(b[:])
	return "auto-" + hex.EncodeToString(b[:])
}

// refuse answers a CONNECT with an error and ends the connection. Versions before 5.0 have no return
// code for what is malformed or not supported: their clients are closed without a CONNACK
// [3.1.1: MQTT-3.1.4-1, MQTT-3.2.2-6]. Caller holds the lock.
func (c *client) refuse(code mqtt.ReasonCode, ba *conn.Batch) error {
	c.phase = phaseOver
	c.b.stats.refused.Add(1)
	c.tellRefused(code)
	if c.version == mqtt.V5 || c.version != 0 && code.HasV3Connack() {
		ack := &mqtt.Connack{Code: code}
		if code == mqtt.UseAnotherServer && c.version == mqtt.V5 {
			ack.ServerReference = c.b.cfg.ServerReference
			if !c.fits(len(ack.Append(nil, c.version))) {
				ack.ServerReference = ""
			}
		}
		c.say(ba, func(dst []byte) []byte { return ack.Append(dst, c.version) })
	}
	c.finish(ba)
	return conn.ErrClosed
}

// proposeConnect puts the CONNECT into the log, or keeps it until the node is in service. Called
// without the lock, after open.
func (c *client) proposeConnect() {
	b := c.b
	if c.waitForService() {
		return
	}
	c.conn.Lock()
	defer c.conn.Unlock()
	if c.phase != phaseProposed {
		return
	}
	p := c.connect
	cmd := &fsmpb.Connect{
		ClientId: c.info.id, CleanStart: p.Clean, Protocol: uint32(p.Version), Username: c.info.username,
		Address: c.conn.RemoteAddr().String(), Keepalive: uint32(c.info.keepalive), Listener: c.listener,
		Limits: &fsmpb.Limits{
			MaxQueue: b.cfg.MaxQueuedMessages, MaxQueueBytes: b.cfg.MaxQueuedBytes, Span: b.cfg.span(),
			QueueQos0: b.cfg.QueueQoS0, DropOldest: b.cfg.QueuePolicy == session.DropOldest && b.state.FeatureLevel() >= fsm.LevelPrecise,
		},
	}
	if now := b.cluster.Now(); now > 0 {
		cmd.NotAfter = uint64(now + connectPatience.Milliseconds())
	}
	cmd.Expiry = b.expiry(p)
	cmd.Persistent = cmd.Expiry > 0
	if w := p.Will; w != nil {
		cmd.Will = &fsmpb.Will{
			Topic: w.Topic, Payload: w.Payload, Props: w.Props, Qos: uint32(w.QoS), Retain: w.Retain,
			HasExpiry: w.HasExpiry, Expiry: w.Expiry, Delay: w.Delay,
		}
	}
	b.cluster.Propose(&fsmpb.Command{Op: &fsmpb.Command_Connect{Connect: cmd}}, func(r fsm.Result, err error) {
		if err == nil { // else the incarnation has ended, and this connection with it
			c.connected(r)
		}
	})
}

// waitForService keeps a CONNECT until the node is in service; false: it is.
func (c *client) waitForService() bool {
	b := c.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.serving.Load() {
		return false
	}
	if c.at != gone {
		b.waiting = append(b.waiting, c)
	}
	c.deadline.Store(conn.Tick() + ticks(servicePatience))
	return true
}

// expiry is the session expiry that a CONNECT gets, seconds; 0: a clean session.
func (b *Broker) expiry(p *mqtt.Connect) uint32 {
	switch {
	case p.Version == mqtt.V5:
		return min(p.SessionExpiry, b.cfg.SessionExpiryMax)
	case p.Clean:
		return 0
	}
	return b.cfg.SessionExpiryMax
}

// connected hears that the CONNECT is in the log. On the applying goroutine: what follows in the log
// for this session must find it.
func (c *client) connected(r fsm.Result) {
	b := c.b
	c.conn.Lock()
	defer c.conn.Unlock()
	if r.Code == fsm.OK {
		c.epoch = r.Epoch
	}
	switch {
	case r.Code != fsm.OK:
		if c.phase != phaseOver {
			_ = c.refuse(mqtt.ServerUnavailable, b.applying)
		}
		return
	case c.phase == phaseOver: // it left before, unanswered: as if it had said goodbye
		c.clean = true
		c.proposeDisconnect()
		return
	}
	if code := c.standing(); code != mqtt.Success { // its user was deleted while the CONNECT was on its way
		_ = c.refuse(code, b.applying)
		c.clean = true
		c.proposeDisconnect()
		return
	}
	b.mu.Lock()
	b.clients[c.info.id] = c // an older one has heard of its end from the same entry
	b.mu.Unlock()
	cfg := session.Config{
		Version: c.version, Persistent: r.Session != nil, Window: c.info.window, Span: b.cfg.span(),
		MaxPacket: c.connect.MaxPacketSize, AliasOut: c.connect.TopicAliasMaximum, AliasIn: b.cfg.TopicAliasMaximum,
		ReceiveMax: int(b.cfg.ReceiveMaximum), MaxQueued: int(b.cfg.MaxQueuedMessages), MaxBytes: int(b.cfg.MaxQueuedBytes),
		Full: b.cfg.QueuePolicy, Mount: c.mount,
	}
	if c.rights != nil || c.mount != "" {
		cfg.Allowed = c.mayReceive
	}
	if b.cfg.Tracer != nil {
		cfg.Sent, cfg.Lost = c.traceSent, c.traceLost
	}
	c.intake.present = r.Present
	if r.Session == nil {
		c.sess = session.New(cfg)
	} else {
		var releases []byte
		c.sess, releases = session.Resume(cfg, r.Session, nil)
		c.intake.releases = releases
		for _, s := range r.Session.Subscriptions {
			c.addSub(s)
		}
	}
	c.phase = phaseGated
	if b.leased() {
		c.admit(b.applying)
	}
}

// connack is the CONNACK of a CONNECT that is accepted.
func (c *client) connack() *mqtt.Connack {
	b, p := c.b, c.connect
	ack := &mqtt.Connack{SessionPresent: c.intake.present}
	if c.version == mqtt.V5 {
		if p.ClientID == "" {
			ack.AssignedClientID = c.info.id
		}
		if e := c.enhanced; e != nil { // [MQTT-4.12.0-5]
			ack.AuthMethod, ack.AuthData = p.AuthMethod, e.last
		}
		if c.info.keepalive != p.KeepAlive {
			ack.HasServerKeepAlive, ack.ServerKeepAlive = true, c.info.keepalive
		}
		if e := b.expiry(p); e != p.SessionExpiry {
			ack.HasSessionExpiry, ack.SessionExpiry = true, e
		}
		ack.ReceiveMaximum = b.cfg.ReceiveMaximum
		ack.MaxPacketSize = uint32(b.cfg.MaxPacketSize)
		ack.TopicAliasMaximum = b.cfg.TopicAliasMaximum
		ack.HasMaximumQoS, ack.MaximumQoS = b.cfg.MaxQoS < 2, b.cfg.MaxQoS
		ack.NoRetain, ack.NoWildcards, ack.NoShared = !b.cfg.RetainAvailable, !b.cfg.WildcardAvailable, !b.cfg.SharedAvailable
	}
	return ack
}

// admit sends the CONNACK and lets the client speak. Caller holds the lock; there is a lease.
func (c *client) admit(ba *conn.Batch) {
	ack := c.connack()
	c.phase = phaseOnline
	c.pace = c.b.cfg.newPace()
	c.deadline.Store(0)
	if k := c.info.keepalive; k > 0 { // [MQTT-3.1.2-22]
		c.patience.Store(ticks(time.Duration(k) * 1500 * time.Millisecond))
	}
	c.say(ba, func(dst []byte) []byte {
		return append(ack.Append(dst, c.version), c.intake.releases...)
	})
	c.intake.releases = nil
	c.b.stats.connects.Add(1)
	c.tellConnected(ack.SessionPresent)
	c.push(ba)
	c.conn.Resume()
}

// codeOf is the reason code of an error of the codec or the session.
func codeOf(err error) mqtt.ReasonCode {
	if e, ok := err.(*mqtt.Error); ok {
		return e.Code
	}
	return mqtt.MalformedPacket
}
