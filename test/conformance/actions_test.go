package conformance

import (
	"strconv"
	"strings"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

// line does what one line of a transcript says.
func (s *script) line(line string) {
	s.t.Helper()
	if line == "" || line[0] == '#' || line[0] == '[' || strings.HasPrefix(line, "3.1.1 [") || strings.HasPrefix(line, "habit [") {
		return
	}
	w, err := parse(line)
	if err != nil {
		s.t.Fatalf("%s: %v", s.at, err)
	}
	defer func() {
		if r := recover(); r != nil {
			s.t.Fatalf("%s: %s: %v", s.at, line, r)
		}
	}()
	switch w.verb {
	case "counted": // shows how much counters have grown in this case
		if !alone(s.file) {
			s.t.Fatalf("%s: others count, too: only files named alone… can show counters", s.at)
		}
		for _, a := range w.args {
			s.counted = append(s.counted, a.text)
		}
		return
	case "fence":
		s.barrier()
		return
	case "wait":
		time.Sleep(duration(w.args[0].text)) // for what must not happen before
		return
	}
	who := w.args[0].text
	w.args = w.args[1:]
	switch w.verb {
	case "open":
		s.open(who, version(&w), w.number("node", 0))
	case "connect":
		s.connect(who, w)
	case "drop":
		c := s.connection(who)
		s.barrier() // what is on its way to it arrives
		for c.next(0) {
		}
		c.left = true
		c.client.Close()
	case "bad", "badraw", "first", "firstraw":
		s.bad(who, w)
	case "await": // waits for the next packet, or the end
		s.must(line, s.connection(who).await(func(h.Packet) bool { return true }))
	case "closed": // waits for it
		c := s.connection(who)
		s.must(line, c.await(func(h.Packet) bool { return false }))
	default:
		s.act(s.connection(who), line, w)
	}
}

func (s *script) must(line string, err error) {
	s.t.Helper()
	if err != nil {
		s.pull()
		s.t.Fatalf("%s: %s: %v; what came:\n%s", s.at, line, err, s.show())
	}
}

func version(w *words) byte {
	switch {
	case w.flag("v3.1"):
		return h.V31
	case w.flag("v3"):
		return h.V311
	}
	w.flag("v5")
	return h.V5
}

// connect opens a connection and sends CONNECT: with Clean Start unless "resume" says otherwise. A
// client id stands for another one that only this file uses.
func (s *script) connect(name string, w words) {
	s.t.Helper()
	c := s.open(name, version(&w), w.number("node", 0))
	c.all = w.flag("all")
	p := h.Packet{
		Type: h.CONNECT, ClientID: name, Clean: !w.flag("resume"), KeepAlive: uint16(w.number("keepalive", 0)),
		Props: w.props(""),
	}
	if id, ok := w.value("id"); ok {
		p.ClientID = id
	}
	p.ClientID = s.file + "-" + p.ClientID
	if w.flag("noid") {
		p.ClientID = ""
	}
	p.Username, _ = w.value("username")
	p.Password, _ = w.value("password")
	if topic, ok := w.value("will"); ok {
		p.Will = &h.Will{Topic: topic, QoS: byte(w.number("will-qos", 0)), Retain: w.flag("will-retain"), Props: w.props("will-")}
		p.Will.Payload, _ = w.value("will-payload")
		if p.Will.Retain {
			s.retained[topic] = true
		}
	}
	if !p.Clean || c.version == h.V5 && w.number("expiry", 0) > 0 {
		s.sessions[p.ClientID] = true
	}
	wait := !w.flag("nowait")
	s.done(w)
	s.send(c, p)
	if wait {
		s.must("connect "+name, c.await(func(p h.Packet) bool { return p.Type == h.CONNACK }))
	}
}

// done finds words that nobody has understood.
func (s *script) done(w words) {
	s.t.Helper()
	if len(w.args) > 0 {
		s.t.Fatalf("%s: %s: what is %q?", s.at, w.verb, w.args[0].text)
	}
}

// send sends a packet. An error says that the node has closed meanwhile, which shows.
func (s *script) send(c *connection, p h.Packet) { _ = c.client.Send(p) }

// act does what a client does on an open connection.
func (s *script) act(c *connection, line string, w words) {
	s.t.Helper()
	wait := !w.flag("nowait")
	p := h.Packet{ID: uint16(w.number("id", 1)), Code: byte(w.number("code", 0)), Props: w.props("")}
	answer := byte(0)
	switch w.verb {
	case "publish":
		s.publish(c, line, w, wait)
		return
	case "subscribe":
		p.Type, p.Filters, answer = h.SUBSCRIBE, filters(&w), h.SUBACK
	case "unsubscribe":
		p.Type, p.Filters, answer = h.UNSUBSCRIBE, filters(&w), h.UNSUBACK
	case "puback":
		p.Type = h.PUBACK
	case "pubrec":
		p.Type = h.PUBREC
	case "pubrel":
		p.Type, answer = h.PUBREL, h.PUBCOMP
	case "pubcomp":
		p.Type = h.PUBCOMP
	case "ping":
		p.Type, answer = h.PINGREQ, h.PINGRESP
		c.pings = append(c.pings, false)
	case "auth":
		p.Type = h.AUTH
	case "disconnect":
		p.Type = h.DISCONNECT
	case "raw", "packet", "part":
		s.raw(c, w)
		return
	default:
		s.t.Fatalf("%s: what is %q?", s.at, w.verb)
	}
	s.done(w)
	if w.verb == "disconnect" {
		s.barrier() // what is on its way to it arrives
	}
	s.send(c, p)
	switch {
	case w.verb == "disconnect":
		s.must(line, c.await(func(h.Packet) bool { return false }))
		s.fence.pass(s.t) // all nodes have heard of it
	case answer != 0 && wait:
		s.must(line, c.await(func(q h.Packet) bool { return q.Type == answer && (q.ID == p.ID || q.Type == h.PINGRESP) }))
	}
}

// filters are all arguments, FILTER or FILTER@QOS; the options count for all.
func filters(w *words) (list []h.Filter) {
	options := byte(0)
	if w.flag("no-local") {
		options |= 4
	}
	if w.flag("as-published") {
		options |= 8
	}
	options |= byte(w.number("handling", 0)) << 4
	for _, a := range w.args {
		f := h.Filter{Name: a.text, Options: options | byte(w.number("qos", 0))}
		if at := strings.LastIndexByte(a.text, '@'); at >= 0 && !a.quoted {
			qos, err := strconv.Atoi(a.text[at+1:])
			if err != nil {
				panic(err)
			}
			f = h.Filter{Name: a.text[:at], Options: options | byte(qos)}
		}
		list = append(list, f)
	}
	w.args = nil
	return list
}

// publish sends one message, or count=N with consecutive ids and numbered payloads, and waits for
// the acknowledgement of each.
func (s *script) publish(c *connection, line string, w words, wait bool) {
	s.t.Helper()
	p := h.Packet{
		Type: h.PUBLISH, QoS: byte(w.number("qos", 0)), ID: uint16(w.number("id", 1)), Dup: w.flag("dup"),
		Retain: w.flag("retain"), Props: w.props(""), Topic: w.args[0].text,
	}
	w.args = w.args[1:]
	if len(w.args) > 0 && w.args[0].quoted {
		p.Payload, w.args = w.args[0].text, w.args[1:]
	}
	if size := w.number("size", 0); size > 0 {
		p.Payload = strings.Repeat("x", int(size))
	}
	s.done(w)
	if p.Retain && p.Payload != "" {
		s.retained[p.Topic] = true
	}
	payload, count := p.Payload, w.number("count", 0)
	for i := range max(count, 1) {
		if count > 0 {
			p.Payload = payload + strconv.Itoa(int(i+1))
		}
		s.send(c, p)
		if p.QoS > 0 && wait {
			answer := h.PUBACK
			if p.QoS == 2 {
				answer = h.PUBREC
			}
			s.must(line, c.await(func(q h.Packet) bool { return q.Type == answer && q.ID == p.ID }))
		}
		p.ID++
	}
}

// raw sends bytes as they are; packet puts the remaining length behind the first one; part is raw
// that does not end a packet.
func (s *script) raw(c *connection, w words) {
	s.t.Helper()
	b, err := rawBytes(w.args)
	if err != nil {
		panic(err)
	}
	if w.verb == "packet" {
		b = withLength(b)
	}
	if b[0] == h.CONNECT<<4 && w.verb != "part" {
		defer func() { _ = c.await(func(p h.Packet) bool { return p.Type == h.CONNACK }) }()
	}
	c.partial = w.verb == "part"
	_ = c.client.SendBytes(b)
}

// bad sends, on a connection of its own, what no client may send, and waits for the node to close it.
// bad comes after a CONNECT that was accepted, first instead of it; each has the remaining length put
// in, unlike badraw and firstraw.
func (s *script) bad(name string, w words) {
	s.t.Helper()
	c := s.open(name, version(&w), w.number("node", 0))
	if strings.HasPrefix(w.verb, "bad") {
		s.send(c, h.Packet{Type: h.CONNECT, ClientID: s.file + "-" + name, Clean: true})
		s.must("bad "+name, c.await(func(p h.Packet) bool { return p.Type == h.CONNACK }))
		if !c.online {
			s.t.Fatalf("%s: %s is refused", s.at, name)
		}
		c.events = nil
	}
	b, err := rawBytes(w.args)
	if err != nil {
		panic(err)
	}
	if !strings.HasSuffix(w.verb, "raw") {
		b = withLength(b)
	}
	_ = c.client.SendBytes(b)
	if err := c.await(func(h.Packet) bool { return false }); err != nil {
		c.events = append(c.events, event{text: "stays open"})
	}
}

// withLength puts the remaining length behind the first byte.
func withLength(b []byte) []byte {
	return append(append([]byte{b[0]}, variable(len(b)-1)...), b[1:]...)
}
