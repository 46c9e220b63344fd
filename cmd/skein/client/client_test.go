package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/proto/mqtt"
	"github.com/skein-mqtt/skein/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// Both ends go on with the next address when the node that has them is killed: every message comes
// once, in order.
func TestGoesOnElsewhere(t *testing.T) {
	c := harness.Start(t, 3)
	var addrs []string
	for _, n := range c.Nodes {
		addrs = append(addrs, n.MQTT)
	}
	for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		name := fmt.Sprintf("moving/%d", v)
		base := Config{Addrs: addrs, Version: v, Expiry: 600, KeepAlive: 30, Patience: 30 * time.Second, Log: t.Logf}
		if v != mqtt.V5 {
			base.Expiry = 0
		}
		const count = 600
		var got []string
		sub := Subscribe{
			Config: base, Filters: []mqtt.Subscription{{Filter: name, QoS: 2}}, Count: count, Wait: time.Minute,
			Deliver: func(p *mqtt.Publish) error {
				got = append(got, string(p.Payload))
				return nil
			},
		}
		sub.ID = name + " sub"
		first := sub
		first.Only = true
		if err := first.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- sub.Run(t.Context()) }()
		sent := 0
		pub := Publish{Config: base, Next: func() (mqtt.Publish, error) {
			if sent == count {
				return mqtt.Publish{}, io.EOF
			}
			if sent == count/3 {
				c.Nodes[0].Kill() // both began with the first address
			}
			sent++
			return mqtt.Publish{Topic: []byte(name), Payload: fmt.Append(nil, sent), QoS: 2}, nil
		}}
		pub.ID = name + " pub"
		if err := pub.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Fatalf("%v, %d messages", err, len(got))
		}
		for i, p := range got {
			if p != fmt.Sprint(i+1) {
				t.Fatalf("version %s: message %d is %s", v, i+1, p)
			}
		}
		c.Heal()
	}
}

func TestRefusals(t *testing.T) {
	c := harness.Start(t, 1, "--set", "mqtt.deny_subscribe=secret/#", "--set", "mqtt.max_qos=1")
	base := Config{Addrs: []string{c.Node(1).MQTT}, Version: mqtt.V5, Clean: true, Patience: time.Second}
	sub := Subscribe{Config: base, Filters: []mqtt.Subscription{{Filter: "secret/x"}}, Deliver: func(*mqtt.Publish) error { return nil }}
	if err := sub.Run(t.Context()); err == nil {
		t.Error("a refused subscription is no error")
	}
	wait := Subscribe{
		Config: base, Filters: []mqtt.Subscription{{Filter: "a"}}, Count: 1, Wait: 50 * time.Millisecond,
		Deliver: func(*mqtt.Publish) error { return nil },
	}
	if err := wait.Run(t.Context()); !errors.Is(err, ErrWait) {
		t.Errorf("waited: %v", err)
	}
	one := func() func() (mqtt.Publish, error) {
		over := false
		return func() (mqtt.Publish, error) {
			if over {
				return mqtt.Publish{}, io.EOF
			}
			over = true
			return mqtt.Publish{Topic: []byte("$SYS/mine"), QoS: 1}, nil
		}
	}
	pub := Publish{Config: base, Next: one()}
	if err := pub.Run(t.Context()); !errors.Is(err, errMessage) {
		t.Errorf("a refused message: %v", err)
	}
	nobody := Publish{Config: base, Next: one()}
	nobody.Addrs, nobody.Patience = []string{"127.0.0.1:1"}, 0
	if err := nobody.Run(t.Context()); err == nil {
		t.Error("nobody listens, and that is no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := pub.Run(ctx); err == nil {
		t.Error("an interrupted publish is no error")
	}
}
