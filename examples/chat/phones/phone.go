package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/autopaho/queue/memory"
	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"
)

// device is what phones and assistants' devices have in common: one MQTT client whose session and unsent
// messages outlive its connections, and a network that can be taken away.
type device struct {
	user, id string // id is the client id
	staff    bool
	options  *options
	ledger   *ledger
	receive  func(message) // a message of a conversation, the first time that it comes

	config  autopaho.ClientConfig
	manager *autopaho.ConnectionManager
	cancel  context.CancelFunc // of manager
	in, out atomic.Int64       // bytes

	mu      sync.Mutex
	conn    net.Conn
	barred  bool // no network
	sent    int  // n of the last message
	last    map[int]map[int]bool
	present bool // what the others should see

	subscribed chan struct{} // closed when the session has its subscription
	once       sync.Once
}

// message is what the pipeline puts into an inbox.
type message struct {
	Conv int    `json:"conv"`
	Seq  int    `json:"seq"`
	From string `json:"from"`
	N    int    `json:"n"`
	Text string `json:"text"`
	At   int64  `json:"at"`
}

var errNoNetwork = errors.New("no network")

func newDevice(o *options, l *ledger, user string, staff bool) *device {
	d := &device{user: user, id: user + ".sim", staff: staff, options: o, ledger: l, last: make(map[int]map[int]bool), subscribed: make(chan struct{})}
	d.config = autopaho.ClientConfig{
		ServerUrls: []*url.URL{{Scheme: "mqtt", Host: o.broker}}, KeepAlive: uint16(o.keepalive / time.Second),
		SessionExpiryInterval: 86400, ConnectTimeout: 20 * time.Second, Queue: memory.New(),
		ReconnectBackoff: func(n int) time.Duration {
			return between(200*time.Millisecond, time.Duration(min(n+1, 10))*500*time.Millisecond)
		},
		AttemptConnection: d.dial,
		ConnectUsername:   user, ConnectPassword: []byte(user),
		OnConnectionUp: func(m *autopaho.ConnectionManager, ack *paho.Connack) {
			go d.up(m, ack.SessionPresent) // ends with the connection, or after its time-out
		},
		WillMessage:    &paho.WillMessage{Topic: d.presenceTopic(), Payload: []byte(`{"state":"offline"}`), QoS: 1, Retain: true},
		WillProperties: &paho.WillProperties{WillDelayInterval: ptr(uint32(o.willDelay / time.Second))},
		ClientConfig: paho.ClientConfig{
			ClientID: d.id, Session: state.NewInMemory(), PacketTimeout: 20 * time.Second,
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
				d.received(r.Packet)
				return true, nil
			}},
		},
	}
	return d
}

// rename gives it another client id, before it is opened.
func (d *device) rename(suffix string) {
	d.id = d.user + suffix
	d.config.ClientID = d.id
	d.config.WillMessage.Topic = d.presenceTopic()
}

func ptr[T any](v T) *T { return &v }

func between(a, b time.Duration) time.Duration { return a + rand.N(max(b-a, 1)) }

func (d *device) presenceTopic() string {
	if d.staff {
		return "chat/staff/" + d.user + "/1"
	}
	return fmt.Sprintf("chat/presence/%s/%s", d.user, d.id)
}

func (d *device) outbox(kind string) string {
	return fmt.Sprintf("chat/u/%s/out/%s/%s", d.user, d.id, kind)
}

// dial connects unless the network is away, and counts bytes.
func (d *device) dial(ctx context.Context, _ autopaho.ClientConfig, u *url.URL) (net.Conn, error) {
	d.mu.Lock()
	barred := d.barred
	d.mu.Unlock()
	if barred {
		return nil, errNoNetwork
	}
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	d.ledger.connects.Add(1)
	d.mu.Lock()
	d.conn = c
	d.mu.Unlock()
	return packets.NewThreadSafeConn(&counted{Conn: c, in: &d.in, out: &d.out}), nil
}

type counted struct {
	net.Conn
	in, out *atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.in.Add(int64(n))
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.out.Add(int64(n))
	return n, err
}

// open starts the client: it connects, and does so again whenever the connection breaks.
func (d *device) open(ctx context.Context) error {
	ctx, d.cancel = context.WithCancel(ctx)
	m, err := autopaho.NewConnection(ctx, d.config)
	d.manager = m
	return err
}

// up is what follows each CONNACK.
func (d *device) up(m *autopaho.ConnectionManager, sessionPresent bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	known := false
	select {
	case <-d.subscribed:
		known = sessionPresent
	default:
	}
	if !known {
		// An error means that the connection is gone again: the next one does the same.
		if _, err := m.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "chat/u/" + d.user + "/in/#", QoS: 2}}}); err != nil {
			return
		}
		d.once.Do(func() { close(d.subscribed) })
	}
	d.mu.Lock()
	present := d.present
	d.mu.Unlock()
	if present {
		_, _ = m.Publish(ctx, &paho.Publish{Topic: d.presenceTopic(), Payload: []byte(`{"state":"online"}`), QoS: 1, Retain: true})
	}
}

// setPresent says what others should see from now on.
func (d *device) setPresent(present bool) {
	d.mu.Lock()
	d.present = present
	d.mu.Unlock()
	d.ledger.expectPresence(d.user, present)
}

// cut breaks the connection as a change of networks does; the device comes back by itself.
func (d *device) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		_ = d.conn.Close()
	}
}

// bar takes the network away, or gives it back.
func (d *device) bar(barred bool) {
	d.mu.Lock()
	d.barred = barred
	d.mu.Unlock()
	if barred {
		d.cut()
	}
}

// sleep says goodbye and ends the client; its session stays with the broker, and open goes on with it.
func (d *device) sleep() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, _ = d.manager.Publish(ctx, &paho.Publish{Topic: d.presenceTopic(), Payload: []byte(`{"state":"offline"}`), QoS: 1, Retain: true})
	_ = d.manager.Disconnect(ctx) // without a connection the will says the same
	d.cancel()
	<-d.manager.Done()
}

// say sends a message, at the QoS that was asked for. It leaves when there is a connection.
func (d *device) say(ctx context.Context, conv int, text string) error {
	d.mu.Lock()
	d.sent++
	n := d.sent
	d.mu.Unlock()
	m := map[string]any{"n": n, "text": text, "at": time.Now().UnixMilli()}
	if conv > 0 {
		m["conv"] = conv
	}
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	d.ledger.sent(d.user, n)
	return d.manager.PublishViaQueue(ctx, &autopaho.QueuePublish{Publish: &paho.Publish{Topic: d.outbox("msg"), Payload: body, QoS: d.options.qos}})
}

// receipt says how far a conversation has come here: QoS 0, so only while there is a connection.
func (d *device) receipt(conv, seq int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, _ = d.manager.Publish(ctx, &paho.Publish{Topic: d.outbox("seen"), Payload: fmt.Appendf(nil, `{"conv":%d,"d":%d,"r":%d}`, conv, seq, seq)})
}

func (d *device) received(p *paho.Publish) {
	if !strings.HasSuffix(p.Topic, "/in/msg") {
		return
	}
	var m message
	if err := json.Unmarshal(p.Payload, &m); err != nil {
		d.ledger.fault("%s: %q: %v", d.id, p.Payload, err)
		return
	}
	d.mu.Lock()
	seen := d.last[m.Conv]
	if seen == nil {
		seen = make(map[int]bool)
		d.last[m.Conv] = seen
	}
	repeat := seen[m.Seq]
	seen[m.Seq] = true
	d.mu.Unlock()
	if repeat {
		d.ledger.repeats.Add(1)
		return
	}
	d.ledger.arrived(d.user, m)
	if d.receive != nil && m.From != d.user {
		d.receive(m)
	}
}
