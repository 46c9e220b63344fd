package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
)

// report is what a run ends with.
type report struct {
	Users      int      `json:"users"`
	Assistants int      `json:"assistants"`
	Seconds    float64  `json:"seconds"`
	Messages   int      `json:"messages"`
	Lost       int      `json:"lost"`
	Doubled    int      `json:"doubled"`
	Disordered int      `json:"disordered"`
	Gaps       int      `json:"gaps"`
	Repeats    int64    `json:"repeats_on_the_wire"` // QoS 1 deliveries that came again, and were seen to be repeats
	Connects   int64    `json:"connects"`
	Cuts       int64    `json:"cuts"`      // in the middle of an exchange
	Vanished   int64    `json:"vanished"`  // without a goodbye, for longer than the will's delay
	Slept      int64    `json:"slept"`     // in the background
	Misplaced  int      `json:"misplaced"` // people who were shown wrongly at some time, for too long
	Echo50     float64  `json:"echo_p50_ms"`
	Echo99     float64  `json:"echo_p99_ms"`
	Heard50    float64  `json:"heard_p50_ms"`
	Heard99    float64  `json:"heard_p99_ms"`
	BytesUser  float64  `json:"bytes_per_message_and_user"` // of the phones, all traffic divided by the messages that they sent and heard
	Faults     []string `json:"faults,omitempty"`
}

type events struct{ cuts, vanished, slept atomic.Int64 }

// crowd runs users and assistants, waits until everything has been heard, and reports. The error says what
// broke a promise.
func crowd(ctx context.Context, o *options) error {
	l, began := newLedger(), time.Now()
	all, cancel := context.WithCancel(context.Background()) // the clients end after the talk
	defer cancel()
	var people []*device
	var ev events
	var done sync.WaitGroup
	talk, stopTalking := context.WithTimeout(ctx, o.duration)
	defer stopTalking()

	if err := watchPresence(all, o, l); err != nil {
		return err
	}
	for i := range o.assistants {
		d := newDevice(o, l, assistantName(i), true)
		d.present = true
		d.receive = reply(talk, d)
		if err := d.open(all); err != nil {
			return err
		}
		if err := d.ready(ctx); err != nil {
			return err
		}
		people = append(people, d)
	}
	for i := range o.users {
		d := newDevice(o, l, userName(i), false)
		d.receive = func(m message) { d.receipt(m.Conv, m.Seq) }
		people = append(people, d)
		done.Go(func() {
			pause(talk, between(0, min(o.duration/4, 30*time.Second)))
			if err := user(talk, all, d, &ev); err != nil {
				l.fault("%s: %v", d.user, err)
			}
		})
	}
	misplaced := make(map[string]bool)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	note := func() {
		for _, who := range l.misplaced(o.willDelay + o.tolerance) {
			misplaced[who] = true
		}
	}
	for talking := true; talking; {
		select {
		case <-tick.C:
			note()
			if s := int(time.Since(began).Seconds()); s%15 == 0 {
				fmt.Fprintf(os.Stderr, "%4d s: %d messages are under way, %d connections so far\n", s, l.open(), l.connects.Load())
			}
		case <-talk.Done():
			talking = false
		}
	}
	done.Wait() // everybody is back
	for deadline := time.Now().Add(o.settle); l.open() > 0 && time.Now().Before(deadline) && ctx.Err() == nil; {
		<-tick.C
	}
	for deadline := time.Now().Add(o.willDelay + o.tolerance); len(l.misplaced(0)) > 0 && time.Now().Before(deadline); {
		<-tick.C
	}
	for _, who := range l.misplaced(0) {
		misplaced[who] = true
	}
	r := l.report(o, people, &ev, len(misplaced), time.Since(began))
	cancel()
	return r.print(o)
}

// ready waits for the connection, and for the first subscription: what comes before that goes to nobody.
func (d *device) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := d.manager.AwaitConnection(ctx); err != nil {
		return fmt.Errorf("%s at %s: %w", d.user, d.options.broker, err)
	}
	select {
	case <-d.subscribed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s at %s: no SUBACK in time", d.user, d.options.broker)
	}
}

// pause waits; false: the talk is over.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func exponential(mean time.Duration) time.Duration {
	return min(time.Duration(rand.ExpFloat64()*float64(mean)), 4*mean)
}

// user lives until the talk is over; then it is connected, so that everything can reach it.
func user(talk, all context.Context, d *device, ev *events) error {
	d.setPresent(true)
	if err := d.open(all); err != nil {
		return err
	}
	if err := d.ready(all); err != nil {
		return err
	}
	for talk.Err() == nil {
		for range 1 + rand.IntN(3) {
			if err := d.say(all, 0, words[rand.IntN(len(words))]); err != nil {
				return err
			}
			if rand.IntN(4) == 0 { // from one network to another while the message is on its way
				time.Sleep(between(0, 20*time.Millisecond))
				ev.cuts.Add(1)
				d.cut()
			}
			if !pause(talk, between(500*time.Millisecond, 4*time.Second)) {
				return nil
			}
		}
		if !pause(talk, exponential(d.options.silence)) {
			return nil
		}
		switch rand.IntN(4) {
		case 0: // the app goes into the background and says so
			ev.slept.Add(1)
			d.setPresent(false)
			d.sleep()
			pause(talk, exponential(d.options.background))
			d.setPresent(true)
			if err := d.open(all); err != nil {
				return err
			}
		case 1: // a tunnel, or an app that the phone has ended
			ev.vanished.Add(1)
			d.bar(true)
			d.setPresent(false)
			pause(talk, d.options.willDelay+exponential(d.options.background))
			d.setPresent(true)
			d.bar(false)
		}
	}
	return nil
}

// reply answers half of what users say, after a while, and says that it was read. The answers of one
// assistant leave one after the other.
func reply(ctx context.Context, d *device) func(message) {
	work := make(chan message, 10_000)
	go func() { // ends with the talk
		for {
			select {
			case <-ctx.Done():
				return
			case m := <-work:
				d.receipt(m.Conv, m.Seq)
				if rand.IntN(2) == 0 {
					if err := d.say(context.Background(), m.Conv, words[rand.IntN(len(words))]); err != nil {
						d.ledger.fault("%s: %v", d.user, err)
					}
				}
			}
		}
	}()
	return func(m message) {
		if m.From == "bot" {
			return
		}
		select {
		case work <- m:
		default: // too busy to answer
		}
	}
}

// watchPresence looks at everybody's presence with an assistant's rights.
func watchPresence(ctx context.Context, o *options, l *ledger) error {
	d := newDevice(o, l, assistantName(0), true)
	d.rename(".watch")
	d.config.WillMessage, d.config.WillProperties = nil, nil
	d.config.OnConnectionUp = func(m *autopaho.ConnectionManager, _ *paho.Connack) {
		go func() {
			if _, err := m.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "chat/presence/+/+", QoS: 1}}}); err == nil {
				d.once.Do(func() { close(d.subscribed) })
			}
		}()
	}
	d.config.OnPublishReceived = []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
		if parts := strings.Split(r.Packet.Topic, "/"); len(parts) == 4 {
			l.observePresence(parts[2], strings.Contains(string(r.Packet.Payload), `"online"`))
		}
		return true, nil
	}}
	if err := d.open(ctx); err != nil {
		return err
	}
	return d.ready(ctx)
}

func (l *ledger) report(o *options, people []*device, ev *events, misplaced int, took time.Duration) *report {
	r := &report{
		Users: o.users, Assistants: o.assistants, Seconds: took.Seconds(), Repeats: l.repeats.Load(), Connects: l.connects.Load(),
		Cuts: ev.cuts.Load(), Vanished: ev.vanished.Load(), Slept: ev.slept.Load(), Misplaced: misplaced,
	}
	r.Lost, r.Doubled, r.Disordered, r.Gaps = l.audit()
	l.mu.Lock()
	defer l.mu.Unlock()
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	r.Messages, r.Faults = len(l.out), l.faults
	r.Echo50, r.Echo99 = ms(percentile(l.echoes, .5)), ms(percentile(l.echoes, .99))
	r.Heard50, r.Heard99 = ms(percentile(l.hearings, .5)), ms(percentile(l.hearings, .99))
	var bytes, messages int64
	for _, d := range people {
		if !d.staff {
			bytes += d.in.Load() + d.out.Load()
		}
	}
	for place, bySeq := range l.bySeq {
		if strings.HasPrefix(place, "user") {
			messages += int64(len(bySeq))
		}
	}
	if messages > 0 {
		r.BytesUser = float64(bytes) / float64(messages)
	}
	return r
}

func (r *report) print(o *options) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	fmt.Println(string(text))
	if o.report != "" {
		if err := os.WriteFile(o.report, text, 0o600); err != nil {
			return err
		}
	}
	if r.Messages == 0 {
		return errors.New("nobody said anything")
	}
	if r.Lost+r.Doubled+r.Disordered+r.Gaps+r.Misplaced+len(r.Faults) > 0 {
		return errors.New("a promise was broken: see lost, doubled, disordered, gaps, misplaced, faults")
	}
	return nil
}

var words = []string{
	"Hello, is somebody there?", "The parcel has not come yet.", "It was to be here on Tuesday.", "Thank you!",
	"Could you look up order 48213 for me, please?", "Yes.", "No, the blue one.", "What are your opening hours?",
	"I have written to you before about this and nobody has answered me, which I find a little strange.", "Good, I'll wait.",
}
