package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// world is what the clients know of the run.
type world struct {
	model  *Model
	faulty atomic.Bool // faults and traffic; else calm
	nodes  atomic.Pointer[[]target]
	front  []target // the balancer that clients reach the nodes through; none: they reach them by themselves
}

// target is a node as a client sees it.
type target struct{ id, mqtt string }

func (w *world) busy() bool        { return w.faulty.Load() }
func (w *world) targets() []target { return *w.nodes.Load() }

// doors are where clients connect to.
func (w *world) doors() []target {
	if w.front != nil {
		return w.front
	}
	return w.targets()
}

// run is one run of the checker.
type run struct {
	options  *Options
	model    *Model
	world    *world
	cluster  *cluster
	clients  []*client
	oneshots *oneshots
	schedule *schedule
}

// stream numbers of the seed: each part draws from its own, so that one does not disturb another.
const (
	seedPlan uint64 = iota + 1
	seedFaults
	seedOneshots
	seedClients
)

// Run attacks a cluster for as long as the options say and returns what it found. An error is a run
// that could not be made.
func Run(ctx context.Context, o *Options) (*Model, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	clocks, err := o.clockFaults()
	if err != nil {
		return nil, err
	}
	var out sync.Mutex
	say := func(s string) {
		out.Lock()
		defer out.Unlock()
		fmt.Fprintln(o.Out, strings.TrimRight(s, "\n"))
	}
	m := NewModel(func(s string) {
		if o.Verbose || strings.HasPrefix(s, "VIOLATION") {
			say(s)
		}
	})
	r := &run{options: o, model: m, world: &world{model: m}, cluster: newCluster(o, m), schedule: newSchedule(o, clocks)}
	defer r.cluster.down()
	if err := r.cluster.up(ctx); err != nil {
		return m, err
	}
	if o.Balancer {
		b, err := newBalancer(ctx, o.Dir, r.cluster.nodes)
		if err != nil {
			return m, err
		}
		defer b.close()
		r.world.front = []target{{balanced, b.address}}
	}
	r.model.Whole()
	r.publishTargets()
	for i, p := range planTraffic(rand.New(rand.NewPCG(o.Seed, seedPlan)), o.Rate) {
		r.clients = append(r.clients, newClient(r.world, p, rand.New(rand.NewPCG(o.Seed, seedClients+uint64(i)))))
	}
	r.oneshots = &oneshots{w: r.world, rng: rand.New(rand.NewPCG(o.Seed, seedOneshots)), who: &party{name: "once"}}
	var group sync.WaitGroup
	inner, cancel := context.WithCancel(ctx)
	for _, c := range r.clients {
		group.Go(func() { c.run(inner) })
	}
	group.Go(func() { r.oneshots.run(inner) })
	defer group.Wait()
	defer cancel()
	return m, r.rounds(ctx, say)
}

// publishTargets tells the clients which nodes there are.
func (r *run) publishTargets() {
	var list []target
	for _, n := range r.cluster.nodes {
		list = append(list, target{n.id, n.clientAddress()})
	}
	r.world.nodes.Store(&list)
}

// rounds alternates faults with calm and validation until the time is over or something is broken.
func (r *run) rounds(ctx context.Context, say func(string)) error {
	if err := r.settle(ctx, time.Minute); err != nil {
		return err
	}
	r.oneshots.sentinel(r.world.targets(), true)
	for n, end := 1, time.Now().Add(r.options.Length); ; n++ {
		r.model.Node("round %d: faults", n)
		until := time.Now().Add(min(r.options.Round, time.Until(end)))
		done := r.attack(ctx, until)
		r.model.Node("round %d: calm", n)
		if err := r.validate(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		kept, more := r.model.Violations()
		say(fmt.Sprintf("%s  round %d: %s; %d violations; memory %s, disk %s", clock(r.model.now()), n,
			strings.Join(done, " "), len(kept)+more, r.each(func(n *node) string { return fmt.Sprint(n.memory() >> 20) }),
			r.each(func(n *node) string { return fmt.Sprintf("%d MiB", n.used()>>20) })))
		if len(kept) > 0 || !time.Now().Add(3*time.Second).Before(end) {
			return nil
		}
	}
}

func (r *run) each(fn func(*node) string) string {
	var list []string
	for _, n := range r.cluster.nodes {
		list = append(list, fn(n))
	}
	return strings.Join(list, "/")
}

// healTime is how long a healed cluster may take until it is whole, and clients until they are
// through with what was on the way. It is meant for starved machines.
const healTime = 90 * time.Second

// attack does faults until the time is over and returns which.
func (r *run) attack(ctx context.Context, until time.Time) (done []string) {
	r.world.faulty.Store(true)
	r.model.Publishing(true)
	defer r.model.Publishing(false)
	defer r.world.faulty.Store(false)
	for first := true; first || time.Now().Before(until); first = false {
		f, rng := r.schedule.next()
		wait(ctx, between(rng, 0.5, 3))
		if ctx.Err() != nil {
			return done
		}
		r.model.Fault(f.name)
		r.model.Node("fault %s", f.name)
		done = append(done, f.name)
		err := f.do(ctx, r.cluster, rng)
		if err == nil {
			err = r.cluster.heal(ctx, healTime)
		}
		if err != nil && ctx.Err() == nil {
			r.model.Violate(Liveness, nil, "%s: %v", f.name, err)
			return done
		}
		r.model.Node("whole again")
		r.model.Whole()
		r.publishTargets()
	}
	wait(ctx, time.Until(until))
	return done
}

// validate waits until everything that is on the way has come, looks at what nobody was told by
// itself, and closes the round.
func (r *run) validate(ctx context.Context) error {
	if err := r.cluster.heal(ctx, healTime); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		r.model.Violate(Liveness, nil, "%v", err)
		return nil
	}
	healed := time.Now()
	r.model.Whole()
	if err := r.settle(ctx, healTime); err != nil {
		return err
	}
	r.model.Fault(calm)
	for deadline := time.Now().Add(healTime); r.model.Outstanding() > 0 && time.Now().Before(deadline) && ctx.Err() == nil; {
		wait(ctx, 100*time.Millisecond)
	}
	if why := r.cluster.ailing(ctx); why != "" && r.model.Outstanding() > 0 && ctx.Err() == nil {
		r.model.Violate(Liveness, nil, "left in peace, the cluster does not stay whole (on a starved machine it need not): %s", why)
		return nil
	}
	for i, n := range r.world.targets() {
		r.world.readRetained(n, i)
	}
	wait(ctx, time.Until(healed.Add(6*time.Second))) // what comes twice has time to
	r.oneshots.expired(r.world.targets(), healed)
	r.oneshots.expiredMessages(r.world.targets(), healed)
	r.oneshots.sentinel(r.world.targets(), false)
	if ctx.Err() != nil {
		return nil
	}
	r.replicas(ctx)
	r.owners(ctx)
	r.accounts(ctx)
	for _, n := range r.cluster.nodes {
		if err := n.tally(ctx, 5*time.Second); err != nil && ctx.Err() == nil {
			r.model.Violate(Liveness, nil, "%v", err)
		}
	}
	r.model.CloseRound()
	return nil
}

// settle waits until every client is connected, subscribed, and through with its exchanges.
func (r *run) settle(ctx context.Context, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		var waiting []string
		for _, c := range r.clients {
			if why := c.settled.Load(); why != nil && !c.plan.will {
				waiting = append(waiting, c.plan.id+": "+*why)
			}
		}
		if len(waiting) == 0 || ctx.Err() != nil {
			return nil
		}
		if time.Now().After(deadline) {
			r.model.Violate(Liveness, nil, "%d clients are not through %v after the cluster was whole:\n    %s",
				len(waiting), patience, strings.Join(waiting, "\n    "))
			return nil
		}
		wait(ctx, 50*time.Millisecond)
	}
}

// replicas wants all nodes to have the same state at the same index.
func (r *run) replicas(ctx context.Context) {
	digests := make(map[uint64]map[string]string) // applied → node → digest
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline) && ctx.Err() == nil; wait(ctx, 100*time.Millisecond) {
		for _, n := range r.cluster.nodes {
			applied, digest, err := n.hash(ctx)
			if err != nil || applied == 0 {
				continue
			}
			if digests[applied] == nil {
				digests[applied] = make(map[string]string)
			}
			digests[applied][n.id] = digest
		}
		for applied, by := range digests {
			if len(by) < len(r.cluster.nodes) {
				continue
			}
			var all []string
			for _, d := range by {
				all = append(all, d)
			}
			slices.Sort(all)
			if len(slices.Compact(all)) > 1 {
				r.model.Violate(Replicas, nil, "at index %d the states differ: %v", applied, by)
			}
			return
		}
	}
	if ctx.Err() == nil {
		r.model.Violate(Liveness, nil, "the nodes never were at the same index: %v", digests)
	}
}
