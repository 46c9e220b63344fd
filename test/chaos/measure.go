package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// figures are what one kind of event cost, one number for each time it happened.
type figures struct {
	connack, delivery []time.Duration // from the event to a client's, of the node that it happened to
	cluster           []time.Duration // longest time without any acknowledgement
	others            []time.Duration // the same for one publisher: of another node, to persistent sessions alone
	clean             []time.Duration // the same for one that publishes to a clean session of the node
	lost, twice       int
}

// measurement is a cluster with probes: two publishers and a subscriber for each node, persistent ones, and for each
// node a clean subscriber that somebody else publishes to.
type measurement struct {
	run    *run
	probes []*probe
	places []string // addresses that the clients know
}

// the parts of a probe's name.
const (
	probePublisher  = "pub-"
	probeSubscriber = "sub-"
	probeForClean   = "to-clean-"
	probeClean      = "clean-"
)

// Measure kills and drains nodes of a cluster with default settings, each kind so many times, and tells what clients
// see of it: with clients that know all addresses, or, as Options.Balancer says, the balancer alone.
func Measure(ctx context.Context, o *Options, times int) error {
	o.plain = true
	if err := o.Validate(); err != nil {
		return err
	}
	var report []string
	m := NewModel(func(s string) {
		if o.Verbose || strings.HasPrefix(s, "VIOLATION") {
			fmt.Fprintln(o.Out, s)
		}
	})
	r := &run{options: o, model: m, world: &world{model: m}, cluster: newCluster(o, m)}
	defer r.cluster.down()
	if err := r.cluster.up(ctx); err != nil {
		return err
	}
	w := &measurement{run: r}
	for _, n := range r.cluster.nodes {
		w.places = append(w.places, n.mqtt)
	}
	if o.Balancer {
		b, err := newBalancer(ctx, o.Dir, r.cluster.nodes)
		if err != nil {
			return err
		}
		defer b.close()
		w.places = []string{b.address}
	}
	inner, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	for _, n := range r.cluster.nodes {
		w.add(probePublisher+n.id, false, "own/"+n.id, "")
		w.add(probeSubscriber+n.id, false, "", "own/#")
		w.add(probeForClean+n.id, false, "clean/"+n.id, "")
		w.add(probeClean+n.id, true, "", "clean/"+n.id)
	}
	for _, p := range w.probes {
		group.Go(func() { p.run(inner) })
	}
	for _, p := range w.probes {
		if p.filter != "" {
			select {
			case <-p.ready:
			case <-time.After(healTime):
				return fmt.Errorf("%s got no SUBACK", p.id)
			}
		}
	}
	for _, event := range []struct {
		name  string
		times int
		do    func(context.Context) (string, time.Time, error)
	}{
		{"follower killed", times, w.killFollower},
		{"leader killed", times, w.killLeader},
		{"follower drained", max(1, times/2), w.drainFollower},
		{"leader drained", max(1, times/2), w.drainLeader},
		{"rolling restart", max(1, times/5), w.rolling},
	} {
		var f figures
		for range event.times {
			if err := w.once(ctx, &f, event.do); err != nil {
				return fmt.Errorf("%s: %w", event.name, err)
			}
		}
		line := f.row(event.name)
		fmt.Fprintln(o.Out, line)
		report = append(report, line)
	}
	fmt.Fprintf(o.Out, "\n%s%s\n", tableHead, strings.Join(report, "\n"))
	broken, _ := m.Violations()
	if len(broken) > 0 {
		return errors.New("a node did not do as it was told")
	}
	return nil
}

const tableHead = `| event | times | CONNACK elsewhere | next delivery | no PUBACK at all | a publisher of another node | of these, to clean sessions of the node | lost | twice |
|---|---|---|---|---|---|---|---|---|
`

// row is median / worst of each.
func (f *figures) row(name string) string {
	cell := func(list []time.Duration) string {
		if len(list) == 0 {
			return "–"
		}
		slices.Sort(list)
		return fmt.Sprintf("%d / %d ms", list[len(list)/2].Milliseconds(), list[len(list)-1].Milliseconds())
	}
	return fmt.Sprintf("| %s | %d | %s | %s | %s | %s | %s | %d | %d |", name, len(f.cluster), cell(f.connack), cell(f.delivery),
		cell(f.cluster), cell(f.others), cell(f.clean), f.lost, f.twice)
}

func (w *measurement) add(id string, clean bool, publish, filter string) {
	w.probes = append(w.probes, newProbe(id, clean, publish, filter, w.places))
}

// once puts every probe where it belongs, lets one event happen, and adds what came of it.
func (w *measurement) once(ctx context.Context, f *figures, do func(context.Context) (node string, at time.Time, err error)) error {
	if err := w.run.cluster.heal(ctx, healTime); err != nil {
		return err
	}
	if err := w.homes(ctx); err != nil {
		return err
	}
	if err := w.run.cluster.whole(ctx, healTime); err != nil {
		return err
	}
	for _, p := range w.probes {
		p.mu.Lock()
		p.acks, p.joined, p.arrived = nil, nil, nil
		p.mu.Unlock()
	}
	wait(ctx, time.Second)
	from := make(map[string]int) // by publisher: the first number that is looked for
	for _, p := range w.probes {
		p.mu.Lock()
		if n := len(p.acks); n > 0 {
			from[p.id] = p.acks[n-1].n + 1
		}
		p.mu.Unlock()
	}
	homes := make(map[string]string)
	for _, p := range w.probes {
		homes[p.id] = p.where()
	}
	node, at, err := do(ctx)
	if err != nil {
		return err
	}
	wait(ctx, 4*time.Second)
	if err := w.run.cluster.heal(ctx, healTime); err != nil {
		return err
	}
	wait(ctx, 3*time.Second)
	w.judge(f, node, at, homes, from)
	return ctx.Err()
}

// homes moves the probes to the nodes that their names say: a publisher of messages for a node's clean session to the
// node after it. Behind a balancer they stay where it puts them.
func (w *measurement) homes(ctx context.Context) error {
	nodes := w.run.cluster.nodes
	if !w.run.options.Balancer {
		for _, p := range w.probes {
			for i, n := range nodes {
				if !strings.HasSuffix(p.id, n.id) {
					continue
				}
				if strings.HasPrefix(p.id, probeForClean) {
					n = nodes[(i+1)%len(nodes)]
				}
				p.home(n.mqtt)
			}
		}
	}
	for deadline := time.Now().Add(healTime); ; wait(ctx, 50*time.Millisecond) {
		away := ""
		for _, p := range w.probes {
			p.mu.Lock()
			if p.at != p.places[0] {
				away = p.id
			}
			p.mu.Unlock()
		}
		if away == "" || ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not connected %v after the cluster was whole", away, healTime)
		}
	}
}

// longest is the longest time between two of these moments from an instant on; the instant counts as one.
func longest(at time.Time, list []time.Time) (gap time.Duration) {
	slices.SortFunc(list, time.Time.Compare)
	last := at
	for _, t := range list {
		if t.After(at) {
			gap = max(gap, t.Sub(last))
			last = t
		}
	}
	return gap
}

// judge adds one event at a node to the figures; node is empty when it happened to all of them.
func (w *measurement) judge(f *figures, node string, at time.Time, homes map[string]string, from map[string]int) {
	var all []time.Time
	settled := time.Now().Add(-2 * time.Second) // what was acknowledged later may be on its way
	address := ""
	for _, n := range w.run.cluster.nodes {
		if n.id == node {
			address = n.mqtt
		}
	}
	acked := make(map[string][]moment)
	for _, p := range w.probes {
		p.mu.Lock()
		acks, joined, arrived := slices.Clone(p.acks), slices.Clone(p.joined), slices.Clone(p.arrived)
		p.mu.Unlock()
		var own []time.Time
		for _, m := range acks {
			own = append(own, m.at)
		}
		all = append(all, own...)
		acked[p.id] = acks
		moved := slices.IndexFunc(joined, func(t time.Time) bool { return t.After(at) })
		if moved >= 0 && node != "" {
			f.connack = append(f.connack, joined[moved].Sub(at))
			if i := slices.IndexFunc(arrived, func(m moment) bool { return m.at.After(joined[moved]) }); i >= 0 && !p.clean {
				f.delivery = append(f.delivery, arrived[i].at.Sub(at))
			}
		}
		switch {
		case p.publish == "" || node != "" && homes[p.id] == address:
		case node == "" && strings.HasPrefix(p.id, probePublisher):
			f.others = append(f.others, longest(at, own))
		case address == "":
		case strings.HasPrefix(p.id, probePublisher):
			f.others = append(f.others, longest(at, own))
		case strings.HasSuffix(p.id, node):
			f.clean = append(f.clean, longest(at, own))
		}
	}
	f.cluster = append(f.cluster, longest(at, all))
	for _, p := range w.probes {
		if p.clean || p.filter == "" {
			continue
		}
		p.mu.Lock()
		times := make(map[string]int)
		for _, m := range p.arrived {
			times[fmt.Sprint(m.from, " ", m.n)]++
		}
		p.mu.Unlock()
		for who, list := range acked {
			for _, m := range list {
				if !strings.HasPrefix(who, probePublisher) || m.n < from[who] || from[who] == 0 || m.at.After(settled) {
					continue
				}
				switch n := times[fmt.Sprint(who, " ", m.n)]; {
				case n == 0:
					f.lost++
				case n > 1:
					f.twice++
				}
			}
		}
	}
}

func (w *measurement) killFollower(ctx context.Context) (string, time.Time, error) {
	n, err := w.other(ctx)
	if err != nil {
		return "", time.Time{}, err
	}
	at := time.Now()
	return n.id, at, w.run.cluster.kill(n)
}

// other is a node that does not lead, another one each time.
func (w *measurement) other(ctx context.Context) (*node, error) {
	leader, err := w.run.cluster.leader(ctx)
	if err != nil {
		return nil, err
	}
	nodes := w.run.cluster.nodes
	return nodes[(slices.Index(nodes, leader)+1)%len(nodes)], nil
}

func (w *measurement) killLeader(ctx context.Context) (string, time.Time, error) {
	n, err := w.run.cluster.leader(ctx)
	if err != nil {
		return "", time.Time{}, err
	}
	at := time.Now()
	return n.id, at, w.run.cluster.kill(n)
}

func (w *measurement) drainFollower(ctx context.Context) (string, time.Time, error) {
	n, err := w.other(ctx)
	if err != nil {
		return "", time.Time{}, err
	}
	at := time.Now()
	return n.id, at, w.run.cluster.stop(n)
}

func (w *measurement) drainLeader(ctx context.Context) (string, time.Time, error) {
	n, err := w.run.cluster.leader(ctx)
	if err != nil {
		return "", time.Time{}, err
	}
	at := time.Now()
	return n.id, at, w.run.cluster.stop(n)
}

func (w *measurement) rolling(ctx context.Context) (string, time.Time, error) {
	at := time.Now()
	return "", at, roll(ctx, w.run.cluster, nil)
}
