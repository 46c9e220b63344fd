package e2e

import (
	"context"
	"fmt"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"

	h "github.com/skein-mqtt/skein/test/harness"
)

// The clients in this file find another node by themselves.

// inbox is what arrived, by QoS.
type inbox struct {
	mu  sync.Mutex
	got [3][]string
}

func (b *inbox) add(qos byte, payload []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got[qos] = append(b.got[qos], string(payload))
}

func (b *inbox) at(qos byte) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.got[qos]...)
}

func urls(scheme string, nodes ...*h.Node) (list []*url.URL) {
	for _, n := range nodes {
		u := &url.URL{Scheme: scheme, Host: n.MQTT}
		if scheme == "ws" {
			u.Host = n.WS
		}
		list = append(list, u)
	}
	return list
}

// roles chooses a node to be killed under the subscriber, and the publisher's.
func roles(c *h.Cluster) (victim, other *h.Node) {
	victim = c.Follower()
	return victim, c.Follower(victim)
}

func waitToken(t *testing.T, what string, token paho3.Token) {
	t.Helper()
	if !token.WaitTimeout(2 * h.Patience) {
		t.Fatalf("%s takes too long", what)
	}
	if err := token.Error(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func testPahoGo3(t *testing.T, c *h.Cluster) {
	for _, scheme := range []string{"tcp", "ws"} {
		victim, other := roles(c)
		up := make(chan struct{}, 10)
		options := func(name string, nodes ...*h.Node) *paho3.ClientOptions {
			o := paho3.NewClientOptions().SetClientID("paho3-" + name + "-" + scheme).SetCleanSession(false).
				SetMaxReconnectInterval(100 * time.Millisecond).SetConnectTimeout(5 * time.Second)
			o.Servers = urls(scheme, nodes...)
			return o
		}
		var in inbox
		sub := paho3.NewClient(options("sub", victim, other).SetOnConnectHandler(func(paho3.Client) { up <- struct{}{} }).
			SetDefaultPublishHandler(func(_ paho3.Client, m paho3.Message) { in.add(m.Qos(), m.Payload()) }))
		waitToken(t, "connect", sub.Connect())
		<-up
		topic := "paho3/" + scheme
		waitToken(t, "subscribe", sub.SubscribeMultiple(map[string]byte{topic + "/0": 0, topic + "/1": 1, topic + "/2": 2}, nil))
		pub := paho3.NewClient(options("pub", other))
		waitToken(t, "connect", pub.Connect())
		list := payloads(heavy(40, 100))
		publish := func(qos byte, list []string) {
			var tokens []paho3.Token
			for _, p := range list {
				tokens = append(tokens, pub.Publish(fmt.Sprintf("%s/%d", topic, qos), qos, false, p))
			}
			for _, token := range tokens {
				waitToken(t, "publish", token)
			}
		}
		publish(0, list)
		h.Await(t, "QoS 0", func() bool { return len(in.at(0)) == len(list) })
		for qos := byte(1); qos <= 2; qos++ {
			publish(qos, list[:len(list)/2])
		}
		victim.Kill()
		for qos := byte(1); qos <= 2; qos++ {
			publish(qos, list[len(list)/2:])
		}
		select {
		case <-up:
		case <-time.After(2 * h.Patience):
			t.Fatal("the subscriber does not come back")
		}
		for qos := byte(1); qos <= 2; qos++ {
			h.Await(t, fmt.Sprint("all at QoS ", qos), func() bool { return len(firsts(in.at(qos))) == len(list) })
			// This client hands a QoS 2 message on again that comes with DUP, so only the order can be told.
			same(t, fmt.Sprintf("%s at QoS %d", scheme, qos), firsts(in.at(qos)), list)
		}
		sub.Disconnect(100)
		pub.Disconnect(100)
		c.Heal()
	}
}

func testPahoGo5(t *testing.T, c *h.Cluster) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, scheme := range []string{"mqtt", "ws"} {
		victim, other := roles(c)
		var in inbox
		present := make(chan bool, 10)
		options := func(name string, nodes ...*h.Node) autopaho.ClientConfig {
			return autopaho.ClientConfig{
				ServerUrls: urls(scheme, nodes...), KeepAlive: 30, SessionExpiryInterval: 3600, ConnectTimeout: 5 * time.Second,
				ReconnectBackoff: func(int) time.Duration { return 50 * time.Millisecond },
				ClientConfig:     paho.ClientConfig{ClientID: "paho5-" + name + "-" + scheme, PacketTimeout: h.Patience},
			}
		}
		connect := func(o autopaho.ClientConfig) *autopaho.ConnectionManager {
			t.Helper()
			cm, err := autopaho.NewConnection(ctx, o)
			if err == nil {
				err = cm.AwaitConnection(ctx)
			}
			if err != nil {
				t.Fatal(err)
			}
			return cm
		}
		o := options("sub", victim, other)
		o.OnConnectionUp = func(_ *autopaho.ConnectionManager, ack *paho.Connack) { present <- ack.SessionPresent }
		o.OnPublishReceived = []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			in.add(p.Packet.QoS, p.Packet.Payload)
			return true, nil
		}}
		sub := connect(o)
		topic := "paho5/" + scheme
		if <-present {
			t.Error("a new session is present")
		}
		if _, err := sub.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{
			{Topic: topic + "/0", QoS: 0}, {Topic: topic + "/1", QoS: 1}, {Topic: topic + "/2", QoS: 2},
		}}); err != nil {
			t.Fatal(err)
		}
		pub := connect(options("pub", other))
		list := payloads(heavy(40, 100))
		publish := func(qos byte, list []string) {
			t.Helper()
			for _, p := range list {
				if _, err := pub.Publish(ctx, &paho.Publish{Topic: fmt.Sprintf("%s/%d", topic, qos), QoS: qos, Payload: []byte(p)}); err != nil {
					t.Fatalf("publish: %v", err)
				}
			}
		}
		publish(0, list)
		h.Await(t, "QoS 0", func() bool { return len(in.at(0)) == len(list) })
		for qos := byte(1); qos <= 2; qos++ {
			publish(qos, list[:len(list)/2])
		}
		victim.Kill()
		for qos := byte(1); qos <= 2; qos++ {
			publish(qos, list[len(list)/2:])
		}
		select {
		case ok := <-present:
			if !ok {
				t.Error("the session is gone")
			}
		case <-time.After(2 * h.Patience):
			t.Fatal("the subscriber does not come back")
		}
		for qos := byte(1); qos <= 2; qos++ {
			h.Await(t, fmt.Sprint("all at QoS ", qos), func() bool { return len(firsts(in.at(qos))) == len(list) })
			got := in.at(qos)
			if qos == 1 {
				got = firsts(got)
			}
			same(t, fmt.Sprintf("%s at QoS %d", scheme, qos), got, list)
		}
		for _, cm := range []*autopaho.ConnectionManager{sub, pub} {
			if err := cm.Disconnect(ctx); err != nil {
				t.Error(err)
			}
		}
		c.Heal()
	}
}
