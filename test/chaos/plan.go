package chaos

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/skein-mqtt/skein/test/harness"
)

// clientPlan is what a client is and does.
type clientPlan struct {
	id         string
	version    byte
	persistent bool
	subs       []subscription
	streams    []streamPlan
	every      time.Duration // between two messages, and between two looks at the clock
	window     int           // Receive Maximum; 0: not said
	burst      int           // now and then so many messages at once
	big        bool          // messages of up to 8 KiB
	cuts       bool          // cuts itself off
	slow       bool          // stops reading now and then
	fight      bool          // opens a second connection while the first stands
	churn      bool          // unsubscribes and subscribes again
	will       bool
}

type subscription struct {
	filter string
	group  string
	qos    byte
}

func (s subscription) name() string {
	if s.group != "" {
		return "$share/" + s.group + "/" + s.filter
	}
	return s.filter
}

type streamPlan struct {
	topic  string
	qos    byte
	retain bool
}

func streams(retain bool, topic string, qos ...byte) (out []streamPlan) {
	for _, q := range qos {
		out = append(out, streamPlan{topic, q, retain})
	}
	return out
}

func join(lists ...[]streamPlan) (out []streamPlan) {
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

// planTraffic decides who takes part. Topics: t/# are what persistent sessions wait for (with clean
// ones beside them), l/# what clean ones alone do, r/# are retained, g/# for shared groups, w/# wills.
func planTraffic(rng *rand.Rand, rate float64) []clientPlan {
	publisher := func(id string, persistent bool, list []streamPlan) clientPlan {
		return clientPlan{id: id, persistent: persistent, streams: list, cuts: true, burst: maxWindow}
	}
	subscriber := func(id string, persistent bool, filter string, qos byte) clientPlan {
		return clientPlan{id: id, persistent: persistent, subs: []subscription{{filter: filter, qos: qos}}, cuts: true}
	}
	member := func(id string, persistent bool, group string) clientPlan {
		return clientPlan{id: id, persistent: persistent, subs: []subscription{{filter: "g/x", group: group, qos: 2}}, cuts: true}
	}
	var all []clientPlan
	add := func(p clientPlan, change ...func(*clientPlan)) {
		for _, f := range change {
			f(&p)
		}
		all = append(all, p)
	}
	steady := func(p *clientPlan) { p.cuts = false }
	slow := func(p *clientPlan) { p.slow = true }
	fight := func(p *clientPlan) { p.fight, p.cuts = true, false }
	big := func(p *clientPlan) { p.big = true }

	add(publisher("pp1", true, join(streams(false, "t/a", 0, 1, 2), streams(false, "t/b", 1, 2))))
	add(publisher("pp2", true, streams(false, "t/a", 1, 2)), big)
	add(publisher("pp3", true, join(streams(false, "l/x", 1, 2), streams(false, "t/b", 1, 2))))
	add(publisher("pp4", true, streams(false, "t/c", 1, 2)), fight)
	add(publisher("pp5", true, join(streams(false, "l/x", 1, 2), streams(false, "t/c", 2))), fight)
	add(publisher("pp6", true, join(streams(false, "t/b", 1, 2), streams(false, "l/y", 0, 1, 2))), steady)
	add(publisher("pc1", false, join(streams(false, "t/a", 0, 1, 2), streams(false, "l/x", 0, 1, 2))))
	add(publisher("pc2", false, streams(false, "l/y", 0, 1, 2)), big)
	add(publisher("pc3", false, join(streams(false, "l/x", 1, 2), streams(false, "t/b", 1, 2))), steady)
	add(publisher("pr1", true, join(streams(true, "r/a", 1), streams(true, "r/b", 2))))
	add(publisher("pr2", false, join(streams(true, "r/c", 1), streams(true, "r/d", 2))))
	add(publisher("pg1", true, streams(false, "g/x", 1, 2)))
	add(publisher("pg2", false, streams(false, "g/x", 1, 2)))

	add(subscriber("sp1", true, "t/#", 2))
	add(subscriber("sp2", true, "t/a", 1))
	add(subscriber("sp3", true, "t/+", 2), slow)
	add(subscriber("sp4", true, "t/b", 2), fight)
	add(subscriber("sp5", true, "t/a", 2), func(p *clientPlan) { p.churn = true })
	add(subscriber("sp6", true, "r/#", 2))
	add(subscriber("sp7", true, "w/#", 2))
	add(subscriber("sp8", true, "t/c", 1), fight)
	add(subscriber("sp9", true, "t/#", 2), steady)
	add(subscriber("sc1", false, "t/#", 2))
	add(subscriber("sc2", false, "t/a", 1), steady)
	add(subscriber("sc3", false, "l/x", 2), steady)
	add(subscriber("sc4", false, "l/#", 1))
	add(subscriber("sc5", false, "l/#", 2), slow, steady)
	add(subscriber("sc6", false, "l/y", 2), fight)
	add(subscriber("sc7", false, "w/#", 1), steady)
	for i := range 3 {
		add(member(fmt.Sprintf("gp%d", i+1), true, "stored"))
	}
	for i := range 3 {
		add(member(fmt.Sprintf("gc%d", i+1), false, "fresh"))
	}
	add(clientPlan{id: "wp1", persistent: true, will: true})
	add(clientPlan{id: "wc1", will: true})
	add(clientPlan{id: "wc2", will: true, streams: streams(false, "t/a", 1)})

	for i := range all {
		p := &all[i]
		p.version = harness.V5
		if rng.IntN(2) == 0 {
			p.version = harness.V311
		}
		p.every = time.Duration(float64(130*time.Millisecond) / rate)
		if len(p.streams) == 0 {
			p.every = 250 * time.Millisecond
			if p.version == harness.V5 && rng.IntN(3) == 0 {
				p.window = 1 + rng.IntN(20)
			}
		}
	}
	return all
}
