package e2e

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"

	h "github.com/skein-mqtt/skein/test/harness"
)

// pahoMessage is a message in either direction.
type pahoMessage struct {
	topic, payload string
	qos            byte
	retain         bool
	expiry         uint32 // 5.0, like what follows
	response       string
	correlation    string
}

// pahoClient is one of the Paho clients for Go.
type pahoClient interface {
	subscribe(filter string, qos byte) error
	publish(m pahoMessage) error
	leave()
}

// pahoOptions are what a client of the scenario connects with.
type pahoOptions struct {
	id   string
	url  *url.URL
	kept bool
	will *pahoMessage
	got  func(m pahoMessage)
	dial func() (net.Conn, error) // for one that is to be cut
}

// pahoScenario is the scenario; connect returns the client, and Session Present.
type pahoScenario struct {
	t       *testing.T
	base    string
	five    bool
	connect func(o pahoOptions) (pahoClient, bool)
	mu      sync.Mutex
	got     map[string][]pahoMessage // by client
}

func (s *pahoScenario) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v", s.base, err)
	}
}

// open connects a client that keeps what it gets.
func (s *pahoScenario) open(u *url.URL, id string, kept bool, will *pahoMessage) (pahoClient, bool) {
	return s.connect(pahoOptions{id: s.base + id, url: u, kept: kept, will: will, got: func(m pahoMessage) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.got[id] = append(s.got[id], m)
	}})
}

func (s *pahoScenario) payloads(id, topic string) (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.got[id] {
		if m.topic == s.base+topic {
			out = append(out, m.payload)
		}
	}
	return out
}

func (s *pahoScenario) await(id, topic string, want ...string) {
	s.t.Helper()
	h.Await(s.t, s.base+topic, func() bool { return len(s.payloads(id, topic)) >= len(want) })
	same(s.t, s.base+topic, s.payloads(id, topic), want)
}

// run plays it. plain is where the other node takes TCP.
func (s *pahoScenario) run(here, there *url.URL, plain string) {
	t := s.t
	pub, _ := s.open(there, "pub", false, nil)
	send := func(m pahoMessage) {
		t.Helper()
		m.topic = s.base + m.topic
		s.must(pub.publish(m))
	}
	sub, present := s.open(here, "sub", true, nil)
	if present {
		t.Errorf("%s: a new session is present", s.base)
	}
	list := payloads(20)
	for qos := range byte(3) {
		topic := fmt.Sprint("/qos", qos)
		s.must(sub.subscribe(s.base+topic, qos))
		for _, p := range list {
			send(pahoMessage{topic: topic, payload: p, qos: qos})
		}
		s.await("sub", topic, list...)
	}

	send(pahoMessage{topic: "/kept", payload: "kept", qos: 1, retain: true})
	s.must(sub.subscribe(s.base+"/kept", 1))
	s.await("sub", "/kept", "kept")
	send(pahoMessage{topic: "/kept", qos: 1, retain: true})

	s.must(sub.subscribe(s.base+"/will", 1))
	var wire net.Conn
	s.connect(pahoOptions{
		id: s.base + "dying", url: there, will: &pahoMessage{topic: s.base + "/will", payload: "gone", qos: 1},
		got: func(pahoMessage) {}, dial: func() (c net.Conn, err error) {
			if wire != nil {
				return nil, net.ErrClosed // it is not to come again
			}
			wire, err = net.Dial("tcp", plain)
			return wire, err
		},
	})
	s.must(wire.Close())
	s.await("sub", "/will", "gone")
	leaving, _ := s.open(there, "leaving", false, &pahoMessage{topic: s.base + "/will", payload: "wrong", qos: 1})
	leaving.leave()

	m1, _ := s.open(here, "m1", false, nil)
	m2, _ := s.open(there, "m2", false, nil)
	for _, m := range []pahoClient{m1, m2} {
		s.must(m.subscribe("$share/g/"+s.base+"/shared", 1))
	}
	for _, p := range list {
		send(pahoMessage{topic: "/shared", payload: p, qos: 1})
	}
	both := func() []string { return slices.Concat(s.payloads("m1", "/shared"), s.payloads("m2", "/shared")) }
	h.Await(t, "shared", func() bool { return len(both()) >= len(list) })
	if all := both(); !slices.Equal(slices.Sorted(slices.Values(all)), list) || len(s.payloads("m1", "/shared")) == 0 || len(s.payloads("m2", "/shared")) == 0 {
		t.Errorf("%s: the members got %q and %q", s.base, s.payloads("m1", "/shared"), s.payloads("m2", "/shared"))
	}
	m1.leave()
	m2.leave()

	if s.five {
		s.must(sub.subscribe(s.base+"/expiry", 1))
		send(pahoMessage{topic: "/expiry", payload: "in time", qos: 1, expiry: 60})
		s.await("sub", "/expiry", "in time")
		s.request(here, pub)
	}

	sub.leave()
	for _, p := range list {
		send(pahoMessage{topic: "/qos2", payload: p, qos: 2})
	}
	if s.five {
		send(pahoMessage{topic: "/expiry", payload: "too late", qos: 1, expiry: 1})
		time.Sleep(2500 * time.Millisecond) // the log's clock moves on
	}
	again, present := s.open(there, "sub", true, nil)
	if !present {
		t.Errorf("%s: the session is gone", s.base)
	}
	s.await("sub", "/qos2", append(list, list...)...)
	if s.five {
		s.await("sub", "/expiry", "in time")
	}
	s.await("sub", "/will", "gone")
	again.leave()
	pub.leave()
}

// request asks a service for something.
func (s *pahoScenario) request(here *url.URL, pub pahoClient) {
	asked := make(chan pahoMessage, 1)
	service, _ := s.connect(pahoOptions{id: s.base + "service", url: here, got: func(m pahoMessage) { asked <- m }})
	s.must(service.subscribe(s.base+"/request", 1))
	s.must(pub.subscribe(s.base+"/response", 1))
	s.must(pub.publish(pahoMessage{
		topic: s.base + "/request", payload: "hello", qos: 1, response: s.base + "/response", correlation: "42",
	}))
	select {
	case m := <-asked:
		s.must(service.publish(pahoMessage{topic: m.response, payload: strings.ToUpper(m.payload), qos: 1, correlation: m.correlation}))
	case <-time.After(h.Patience):
		s.t.Fatalf("%s: nobody asks", s.base)
	}
	s.await("pub", "/response", "HELLO")
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.got["pub"][0]; m.correlation != "42" {
		s.t.Errorf("%s: the response has the correlation %q", s.base, m.correlation)
	}
	service.leave()
}

// pahoScenarios runs the scenario on one node and across two, over TCP and WebSocket.
func pahoScenarios(t *testing.T, c *h.Cluster, name string, connect func(o pahoOptions) (pahoClient, bool)) {
	for k, scheme := range []string{"tcp", "ws"} {
		for j, there := range []*h.Node{c.Node(1), c.Node(3)} {
			if j != heavy(k, j) {
				continue // by turns
			}
			s := &pahoScenario{
				t: t, base: fmt.Sprintf("%s%s%d", name, scheme, j), five: name == "paho5-", connect: connect, got: make(map[string][]pahoMessage),
			}
			s.run(urls(scheme, c.Node(1))[0], urls(scheme, there)[0], there.MQTT)
		}
	}
}

type pahoGo3 struct{ paho3.Client }

func settled(token paho3.Token) error {
	if !token.WaitTimeout(2 * h.Patience) {
		return context.DeadlineExceeded
	}
	return token.Error()
}

func (c pahoGo3) subscribe(filter string, qos byte) error {
	return settled(c.Subscribe(filter, qos, nil))
}

func (c pahoGo3) publish(m pahoMessage) error {
	return settled(c.Publish(m.topic, m.qos, m.retain, m.payload))
}

func (c pahoGo3) leave() { c.Disconnect(100) }

func testScenarioPahoGo3(t *testing.T, c *h.Cluster) {
	pahoScenarios(t, c, "paho3-", func(o pahoOptions) (pahoClient, bool) {
		t.Helper()
		p := paho3.NewClientOptions().SetClientID(o.id).SetCleanSession(!o.kept).SetAutoReconnect(false).SetConnectTimeout(h.Patience).
			SetDefaultPublishHandler(func(_ paho3.Client, m paho3.Message) {
				o.got(pahoMessage{topic: m.Topic(), payload: string(m.Payload()), qos: m.Qos()})
			})
		p.Servers = []*url.URL{o.url}
		if o.dial != nil {
			p.Servers = []*url.URL{{Scheme: "tcp", Host: o.url.Host}} // where one connects to makes no difference
			p.SetCustomOpenConnectionFn(func(*url.URL, paho3.ClientOptions) (net.Conn, error) { return o.dial() })
		}
		if w := o.will; w != nil {
			p.SetWill(w.topic, w.payload, w.qos, false)
		}
		client := paho3.NewClient(p)
		token := client.Connect()
		waitToken(t, "connect "+o.id, token)
		return pahoGo3{client}, token.(*paho3.ConnectToken).SessionPresent()
	})
}

type pahoGo5 struct {
	*autopaho.ConnectionManager
	ctx  context.Context
	stop context.CancelFunc
}

func (c pahoGo5) subscribe(filter string, qos byte) error {
	_, err := c.Subscribe(c.ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: qos}}})
	return err
}

func (c pahoGo5) publish(m pahoMessage) error {
	p := &paho.Publish{Topic: m.topic, QoS: m.qos, Retain: m.retain, Payload: []byte(m.payload), Properties: &paho.PublishProperties{ResponseTopic: m.response}}
	if m.expiry > 0 {
		p.Properties.MessageExpiry = &m.expiry
	}
	if m.correlation != "" {
		p.Properties.CorrelationData = []byte(m.correlation)
	}
	_, err := c.Publish(c.ctx, p)
	return err
}

func (c pahoGo5) leave() {
	_ = c.Disconnect(c.ctx)
	c.stop()
}

func testScenarioPahoGo5(t *testing.T, c *h.Cluster) {
	pahoScenarios(t, c, "paho5-", func(o pahoOptions) (pahoClient, bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		t.Cleanup(cancel)
		present := make(chan bool, 1)
		p := autopaho.ClientConfig{
			ServerUrls: []*url.URL{o.url}, KeepAlive: 30, ConnectTimeout: h.Patience, CleanStartOnInitialConnection: !o.kept,
			ReconnectBackoff: func(attempt int) time.Duration { return time.Duration(min(attempt, 1)) * time.Hour },
			OnConnectionUp:   func(_ *autopaho.ConnectionManager, ack *paho.Connack) { present <- ack.SessionPresent },
			ClientConfig: paho.ClientConfig{ClientID: o.id, PacketTimeout: h.Patience, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
				func(r paho.PublishReceived) (bool, error) {
					m := pahoMessage{topic: r.Packet.Topic, payload: string(r.Packet.Payload), qos: r.Packet.QoS}
					if q := r.Packet.Properties; q != nil {
						m.response, m.correlation = q.ResponseTopic, string(q.CorrelationData)
					}
					o.got(m)
					return true, nil
				},
			}},
		}
		if o.kept {
			p.SessionExpiryInterval = 600
		}
		if w := o.will; w != nil {
			p.WillMessage = &paho.WillMessage{Topic: w.topic, Payload: []byte(w.payload), QoS: w.qos}
		}
		if o.dial != nil {
			p.ServerUrls = []*url.URL{{Scheme: "mqtt", Host: o.url.Host}}
			p.AttemptConnection = func(context.Context, autopaho.ClientConfig, *url.URL) (net.Conn, error) { return o.dial() }
		}
		cm, err := autopaho.NewConnection(ctx, p)
		if err == nil {
			err = cm.AwaitConnection(ctx)
		}
		if err != nil {
			t.Fatalf("%s: %v", o.id, err)
		}
		return pahoGo5{cm, ctx, cancel}, <-present
	})
}
