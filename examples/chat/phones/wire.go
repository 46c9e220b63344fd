package main

import (
	"context"
	"fmt"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// wire measures one phone, of the user behind those of a crowd, at the running chat, each thing by itself: bytes of MQTT in both directions.
func wire(ctx context.Context, o *options) error {
	const times = 20
	l := newLedger()
	heard := make(chan message, 100)
	phone, desk := newDevice(o, l, userName(o.users), false), newDevice(o, l, assistantName(0), true)
	desk.rename(".wire") // a crowd may use this assistant afterwards
	desk.present = true
	heardAtDesk := make(chan message, 100)
	phone.receive = func(m message) { heard <- m }
	desk.receive = func(m message) { heardAtDesk <- m }
	for _, d := range []*device{desk, phone} {
		if err := d.open(ctx); err != nil {
			return err
		}
		if err := d.ready(ctx); err != nil {
			return err
		}
		defer d.sleep()
	}
	get := func(from chan message) (message, error) {
		select {
		case m := <-from:
			return m, nil
		case <-time.After(20 * time.Second):
			return message{}, fmt.Errorf("nothing came within 20 s: is the pipeline there, and %s an assistant of it?", desk.user)
		}
	}
	quiet := func() int64 { // until nothing is on its way any more
		for last := int64(-1); ; time.Sleep(300 * time.Millisecond) {
			now := phone.in.Load() + phone.out.Load()
			if now == last {
				return now
			}
			last = now
		}
	}
	// measure runs do several times and gives the bytes of one.
	measure := func(do func() error) (int, error) {
		before := quiet()
		for range times {
			if err := do(); err != nil {
				return 0, err
			}
		}
		return int((quiet() - before) / times), nil
	}

	if err := phone.say(ctx, 0, "Hello, is somebody there?"); err != nil {
		return err
	}
	first, err := get(heardAtDesk)
	if err != nil {
		return err
	}
	send, err := measure(func() error {
		if err := phone.say(ctx, 0, xmppText); err != nil {
			return err
		}
		_, err := get(heardAtDesk)
		return err
	})
	if err != nil {
		return err
	}
	receive, err := measure(func() error {
		if err := desk.say(ctx, first.Conv, xmppText); err != nil {
			return err
		}
		m, err := get(heard)
		if err == nil {
			phone.receipt(m.Conv, m.Seq)
		}
		return err
	})
	if err != nil {
		return err
	}
	typing, err := measure(func() error {
		_, err := phone.manager.Publish(ctx, &paho.Publish{Topic: phone.outbox("typing"), Payload: fmt.Appendf(nil, `{"conv":%d}`, first.Conv)})
		return err
	})
	if err != nil {
		return err
	}
	resume, err := measure(func() error {
		n := l.connects.Load()
		phone.cut()
		for l.connects.Load() == n && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(200 * time.Millisecond)
		return phone.ready(ctx)
	})
	if err != nil {
		return err
	}
	const ping = 4 // PINGREQ and PINGRESP
	hour := func(each int, every time.Duration) int { return each * int(time.Hour/every) }
	fmt.Printf("| bytes, both directions | MQTT (QoS %d) | XMPP |\n|---|---|---|\n", o.qos)
	fmt.Printf("| a message of %d characters is sent, and confirmed | %d | %d |\n", len(xmppText), send, xmppBytes("send"))
	fmt.Printf("| one is received, confirmed, delivered and read | %d | %d |\n", receive, xmppBytes("receive"))
	fmt.Printf("| one says that one types | %d | %d |\n", typing, xmppBytes("typing"))
	fmt.Printf("| a connection is resumed | %d | %d |\n", resume, xmppBytes("resume"))
	fmt.Printf("| an idle hour, keep-alive of 5 minutes | %d | %d |\n", hour(ping, 5*time.Minute), hour(xmppBytes("ping"), 5*time.Minute))
	fmt.Printf("| an idle hour, keep-alive of 15 minutes | %d | %d |\n", hour(ping, 15*time.Minute), hour(xmppBytes("ping"), 15*time.Minute))
	return nil
}
