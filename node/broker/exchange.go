package broker

import (
	"time"

	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// Exchange is an enhanced authentication under way (section 4.12). It must not block.
type Exchange interface {
	// Step takes what the client said, nil for nothing. Until it is done, reply goes back in an AUTH
	// packet; then, with Success, in CONNACK or in the last AUTH.
	Step(data []byte) (reply []byte, done bool, d Decision)
}

// enhanced is the enhanced authentication of a client that asked for one.
type enhanced struct {
	exchange Exchange  // under way; nil: none is
	decision *Decision // on the CONNECT
	last     []byte    // the server's last word, for CONNACK
}

// newExchange begins one with the method that CONNECT names, nil if that is not known.
func (c *client) newExchange() Exchange {
	if a := c.b.cfg.Access; a != nil {
		if e, ok := a.Exchange(c.login(), c.connect.AuthMethod); ok {
			return e
		}
	}
	return nil
}

// exchange begins the enhanced authentication that CONNECT asks for. Caller holds the lock.
func (c *client) exchange(ba *conn.Batch) error {
	e := c.newExchange()
	if e == nil { // [MQTT-4.12.0-1]
		return c.refuse(mqtt.BadAuthenticationMethod, ba)
	}
	c.enhanced = &enhanced{exchange: e}
	c.phase = phaseExchange
	return c.exchangeStep(c.connect.AuthData, ba)
}

// exchangeStep goes on before CONNACK. Caller holds the lock.
func (c *client) exchangeStep(data []byte, ba *conn.Batch) error {
	e := c.enhanced
	reply, done, d := e.exchange.Step(data)
	if !done {
		c.sayAuth(mqtt.ContinueAuthentication, reply, ba) // [MQTT-4.12.0-2]
		return nil
	}
	e.exchange = nil
	if d.Code != mqtt.Success {
		c.logRefusal(d.Code)
		return c.refuse(d.Code, ba) // [MQTT-4.12.0-4]
	}
	e.decision, e.last = &d, reply
	if !c.fits(len(c.connack().Append(nil, c.version))) {
		c.version = 0 // nothing can be said to it
		return c.refuse(mqtt.PacketTooLarge, ba)
	}
	c.propose()
	return nil
}

// exchangePacket handles what a client says in the middle of its authentication. Caller holds the lock.
func (c *client) exchangePacket(first byte, body []byte, ba *conn.Batch) error {
	switch mqtt.TypeOf(first) {
	case mqtt.AUTH:
		p, err := c.auth(first, body)
		if err == nil && p.Code != mqtt.ContinueAuthentication { // [MQTT-4.12.0-3]
			err = &mqtt.Error{Code: mqtt.ProtocolError, Msg: "AUTH does not go on with the authentication"}
		}
		if err != nil {
			return c.refuse(codeOf(err), ba)
		}
		return c.exchangeStep(given(p.Data), ba)
	case mqtt.DISCONNECT:
		c.phase = phaseOver
		c.finish(ba)
		return conn.ErrClosed
	}
	return c.refuse(mqtt.ProtocolError, ba)
}

// given is never nil: an AUTH that answers has said something.
func given(data []byte) []byte {
	if data == nil {
		return []byte{}
	}
	return data
}

// auth reads an AUTH of the method that CONNECT has named.
func (c *client) auth(first byte, body []byte) (p mqtt.Auth, err error) {
	if err = p.Decode(c.version, first, body); err == nil {
		err = p.FromClient()
	}
	switch {
	case err != nil:
	case c.connect.AuthMethod == "": // [MQTT-4.12.0-7]
		err = &mqtt.Error{Code: mqtt.ProtocolError, Msg: "AUTH without enhanced authentication"}
	case p.Method != c.connect.AuthMethod: // [MQTT-4.12.0-5]
		err = &mqtt.Error{Code: mqtt.ProtocolError, Msg: "AUTH with another method than CONNECT's"}
	}
	return p, err
}

// reauthenticate handles AUTH of a client that is online. What it publishes meanwhile is taken; when it
// fails the connection ends [MQTT-4.12.1-2]. Caller holds the lock.
func (c *client) reauthenticate(first byte, body []byte, ba *conn.Batch) error {
	p, err := c.auth(first, body)
	if err != nil {
		return err
	}
	e := c.enhanced
	switch under := e.exchange != nil; {
	case p.Code == mqtt.ReAuthenticate && !under:
		if e.exchange = c.newExchange(); e.exchange == nil {
			return &mqtt.Error{Code: mqtt.BadAuthenticationMethod, Msg: "the method is not known any more"}
		}
	case p.Code == mqtt.ReAuthenticate || !under:
		return &mqtt.Error{Code: mqtt.ProtocolError, Msg: "AUTH out of turn"}
	}
	data := p.Data
	if p.Code == mqtt.ContinueAuthentication {
		data = given(data)
	}
	reply, done, d := e.exchange.Step(data)
	if !done {
		c.sayAuth(mqtt.ContinueAuthentication, reply, ba)
		return nil
	}
	e.exchange = nil
	if d.Code == mqtt.Success && d.Rights.Username() != c.info.username {
		d.Code = mqtt.NotAuthorized // a session stays its user's
	}
	if d.Code != mqtt.Success {
		c.logRefusal(d.Code)
		return &mqtt.Error{Code: mqtt.NotAuthorized, Msg: "re-authentication failed"}
	}
	c.expireAt(d.Rights.Expires())
	c.sayAuth(mqtt.Success, reply, ba)
	return nil
}

// expireAt has the connection end then; the zero time: not at all.
func (c *client) expireAt(at time.Time) {
	tick := int64(0)
	if !at.IsZero() {
		tick = conn.Tick() + max(1, ticks(time.Until(at)))
	}
	c.until.Store(tick)
}

func (c *client) sayAuth(code mqtt.ReasonCode, data []byte, ba *conn.Batch) {
	p := &mqtt.Auth{Code: code, Method: c.connect.AuthMethod, Data: data}
	c.say(ba, func(dst []byte) []byte { return p.Append(dst, c.version) })
}
