package fsm

import (
	"bytes"
	"fmt"
	"sort"
	"strings"

	"pgregory.net/rapid"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// testCluster applies one log on several replicas and checks after each entry that they agree.
// Every few entries one of them is replaced by what its snapshot restores to.
type testCluster struct {
	t        rapid.TB
	nodes    []string
	replicas map[string]*FSM
	index    uint64
	term     uint64
	clock    int64
	inc      map[string]uint64 // incarnation as the node believes
	next     map[string]uint64 // sequence
	epochs   map[string][]Epoch
	nonce    uint64
	effects  map[string][]Effect // of the last entry
	restores int
	quiet    bool // does not compare after each entry
}

func newTestCluster(t rapid.TB, nodes ...string) *testCluster {
	tc := &testCluster{
		t: t, nodes: nodes, replicas: make(map[string]*FSM), term: 1, clock: 1_000_000,
		inc: make(map[string]uint64), next: make(map[string]uint64), epochs: make(map[string][]Epoch),
	}
	for _, n := range nodes {
		tc.replicas[n] = New(n)
	}
	return tc
}

// entry applies one entry everywhere.
func (tc *testCluster) entry(entry []byte) {
	tc.t.Helper()
	tc.index++
	tc.effects = make(map[string][]Effect)
	for _, n := range tc.nodes {
		buf := bytes.Clone(entry)
		effects, err := tc.replicas[n].Apply(tc.index, tc.term, buf)
		if err != nil {
			tc.t.Fatalf("entry %d on %s: %v", tc.index, n, err)
		}
		for i := range buf { // the entry's memory is not ours
			buf[i] = 0xA5
		}
		tc.effects[n] = append([]Effect(nil), effects...)
	}
	tc.agree()
}

func (tc *testCluster) agree() {
	tc.t.Helper()
	if tc.quiet {
		return
	}
	if tc.index%3 == 0 { // the last one stays what it is
		victim := tc.nodes[int(tc.index/3)%max(len(tc.nodes)-1, 1)]
		tc.replicas[victim] = restored(tc.t, tc.replicas[victim])
		tc.restores++
	}
	want := tc.replicas[tc.nodes[0]].Hash()
	for _, n := range tc.nodes {
		if got := tc.replicas[n].Hash(); got != want {
			tc.t.Fatalf("after entry %d %s differs from %s", tc.index, n, tc.nodes[0])
		}
		checkState(tc.t, tc.replicas[n])
	}
}

// restored is a replica that came from f's snapshot.
func restored(t rapid.TB, f *FSM) *FSM {
	t.Helper()
	s := f.Snapshot()
	defer s.Release()
	var b bytes.Buffer
	if n, err := s.WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatalf("write: %d of %d, %v", n, b.Len(), err)
	}
	other := New(f.node)
	if err := other.Restore(bytes.NewReader(b.Bytes())); err != nil {
		t.Fatalf("restore: %v", err)
	}
	if f.Hash() != other.Hash() {
		t.Fatalf("restore is not equal")
	}
	return other
}

func (tc *testCluster) system(s *fsmpb.System) {
	tc.t.Helper()
	tc.entry(EncodeSystem(nil, tc.clock, s))
}

func (tc *testCluster) up(node string) {
	tc.t.Helper()
	tc.nonce++
	tc.system(&fsmpb.System{Op: &fsmpb.System_NodeUp{NodeUp: &fsmpb.NodeUp{Node: node, Nonce: tc.nonce, PeerAddr: node + ":1"}}})
	tc.inc[node], tc.next[node] = tc.index, 1
}

func (tc *testCluster) down(node string) {
	tc.t.Helper()
	tc.system(&fsmpb.System{Op: &fsmpb.System_NodeDown{NodeDown: &fsmpb.NodeDown{
		Node: node, Incarnation: tc.inc[node], Term: tc.term, Reason: "silent",
	}}})
}

func (tc *testCluster) reap(node string, inc uint64, limit uint32) {
	tc.t.Helper()
	tc.system(&fsmpb.System{Op: &fsmpb.System_Reap{Reap: &fsmpb.Reap{Node: node, Incarnation: inc, Limit: limit}}})
}

func (tc *testCluster) tick() {
	tc.t.Helper()
	tc.system(&fsmpb.System{Op: &fsmpb.System_Tick{Tick: &fsmpb.Tick{}}})
}

// encode makes the next batch of a node.
func (tc *testCluster) encode(node string, first uint64, cmds ...*fsmpb.Command) []byte {
	b := &fsmpb.Batch{Origin: node, Incarnation: tc.inc[node], First: first, Commands: cmds}
	raw, err := b.MarshalVT()
	if err != nil {
		tc.t.Fatal(err)
	}
	return EncodeBatch(nil, tc.clock, raw)
}

// batch applies commands of a node and returns their results.
func (tc *testCluster) batch(node string, cmds ...*fsmpb.Command) []Result {
	tc.t.Helper()
	entry := tc.encode(node, tc.next[node], cmds...)
	tc.entry(entry)
	var out []Result
	for _, e := range tc.effects[node] {
		if e.Kind == EffectResult {
			out = append(out, *e.Result)
		}
	}
	if len(out) > 0 {
		tc.next[node] += uint64(len(cmds))
	}
	for i, r := range out {
		if c, ok := cmds[i].Op.(*fsmpb.Command_Connect); ok && r.Code == OK {
			tc.epochs[c.Connect.ClientId] = append(tc.epochs[c.Connect.ClientId], r.Epoch)
		}
	}
	return out
}

// epoch is the client's newest one.
func (tc *testCluster) epoch(client string) uint64 {
	e := tc.epochs[client]
	if len(e) == 0 {
		return 0
	}
	return uint64(e[len(e)-1])
}

func (tc *testCluster) name(client string, e Epoch) string {
	for i, have := range tc.epochs[client] {
		if have == e {
			return fmt.Sprintf("%s@%d", client, i+1)
		}
	}
	return fmt.Sprintf("%s@?%d", client, e)
}

// checkState checks what must hold of any state, derived parts above all.
func checkState(t rapid.TB, f *FSM) {
	t.Helper()
	bad := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("index %d on %s: %s", f.applied, f.node, fmt.Sprintf(format, args...))
	}
	var want counts
	timers := 0
	owned := make(map[*incarnation]int)
	for _, c := range f.clients.byID {
		if c.owner != nil {
			owned[c.owner]++
			if f.members.incs[c.owner.number] != c.owner {
				bad("%s has a forgotten owner", c.id)
			}
		}
		if c.willAt.set() {
			timers++
		}
		if c.owner != nil && c.willAt.set() {
			bad("%s is online with a will timer", c.id)
		}
		s := c.sess
		if s == nil {
			if c.owner == nil {
				bad("clean client %s without an owner", c.id)
			}
			continue
		}
		want.sessions++
		want.subscriptions += len(c.subs)
		want.queued += len(s.queue)
		if s.expireAt.set() {
			timers++
			if c.owner != nil {
				bad("%s is online with an expiry timer", c.id)
			}
		}
		if s.cursor > s.last || s.mark > s.last {
			bad("%s: cursor %d mark %d last %d", c.id, s.cursor, s.mark, s.last)
		}
		prev, size := s.cursor, uint64(0)
		for _, e := range s.queue {
			if e.Seq <= prev || e.Seq > s.last {
				bad("%s: queue is out of order at %d", c.id, e.Seq)
			}
			prev = e.Seq
			size += e.Message.size()
			if at := e.Message.Expires; at != 0 && !s.settled(e.Seq) && (s.expires == 0 || s.expires > at) {
				bad("%s: expiry bound %d, entry %d", c.id, s.expires, e.Message.Expires)
			}
		}
		if size != s.bytes {
			bad("%s: %d bytes, counted %d", c.id, size, s.bytes)
		}
		for _, set := range [][]Range{s.done, s.received} {
			prev := s.cursor
			for i, r := range set {
				if r.Lo > r.Hi || r.Lo <= prev || r.Hi > s.last || i > 0 && r.Lo == prev+1 {
					bad("%s: ranges %v, cursor %d last %d", c.id, set, s.cursor, s.last)
				}
				prev = r.Hi
			}
		}
		if len(subtract(s.received, s.done)) != len(s.received) {
			bad("%s: %v is done and received", c.id, s.done)
		}
		if s.counted {
			n := 0
			for _, e := range s.queue {
				if !s.settled(e.Seq) {
					n++
				}
			}
			if n != s.waiting {
				bad("%s: %d waiting, counted %d", c.id, n, s.waiting)
			}
		}
		for i, sub := range c.subs {
			if sub.at != i || sub.client != c {
				bad("%s: subscription %d is misplaced", c.id, i)
			}
			if f.topics.get(sub.filter.name) != sub.filter {
				bad("%s: %s is not in the tree", c.id, sub.filter.name)
			}
		}
	}
	if want != f.counts {
		bad("counts %+v, want %+v", f.counts, want)
	}
	f.retained.rows.Scan(func(r retainedRow) bool {
		if r.expires.set() {
			timers++
		}
		return true
	})
	f.table.bans.Scan(func(b banRow) bool {
		if b.expires.set() {
			timers++
		}
		return true
	})
	if timers != f.timers.queue.Len() {
		bad("%d timers, want %d", f.timers.queue.Len(), timers)
	}
	for _, inc := range f.members.incs {
		n, last := 0, Epoch(0)
		for c := inc.head; c != nil; c = c.next {
			if c.owner != inc || c.epoch <= last {
				bad("list of %s", inc.node)
			}
			last = c.epoch
			n++
		}
		if n != owned[inc] || n != inc.sessions+inc.cleans {
			bad("%s owns %d, listed %d, counted %d", inc.node, owned[inc], n, inc.sessions+inc.cleans)
		}
	}
	checkIndex(f, bad)
}

// checkIndex compares the index of filters with one made anew.
func checkIndex(f *FSM, bad func(string, ...any)) {
	type place struct {
		inc           *incarnation
		filter, group string
	}
	want := make(map[place][2]int)
	members := 0
	for _, c := range f.clients.byID {
		for _, s := range c.subs {
			if c.owner != nil {
				k := s.key()
				p := place{c.owner, k.filter, k.group}
				v := want[p]
				want[p] = [2]int{v[0], v[1] + 1}
			}
		}
	}
	f.interest.rows.Scan(func(r interestRow) bool {
		p := place{r.owner, r.filter, r.group}
		v := want[p]
		want[p] = [2]int{v[0] + int(r.count), v[1]}
		return true
	})
	found := 0
	var walk func(l *level)
	nodes := func(fl, g string, list []presence) {
		for _, p := range list {
			found++
			if want[place{p.inc, fl, g}] != [2]int{p.clean, p.online} {
				bad("presence of %s in %s/%s", p.inc.node, fl, g)
			}
		}
		if !sort.SliceIsSorted(list, func(i, j int) bool { return list[i].inc.before(list[j].inc) }) {
			bad("presence is out of order")
		}
	}
	walk = func(l *level) {
		if fl := l.filter; fl != nil {
			nodes(fl.name, "", fl.nodes)
			members += len(fl.subs)
			var stats grants
			for i, s := range fl.subs {
				if s.place != i {
					bad("place of %s", s.client.id)
				}
				stats.qos[s.qos]++
				if s.client.sess.limits.QueueQoS0 {
					stats.queue0++
				}
			}
			if stats != fl.stats {
				bad("grants of %s: %v, want %v", fl.name, fl.stats, stats)
			}
			for _, g := range fl.groups {
				nodes(fl.name, g.name, g.nodes)
				members += len(g.members)
				if !sort.SliceIsSorted(g.members, func(i, j int) bool { return g.members[i].client.id < g.members[j].client.id }) {
					bad("members of %s are out of order", g.name)
				}
				if len(g.members) == 0 && len(g.nodes) == 0 {
					bad("empty group %s", g.name)
				}
			}
			if len(fl.subs) == 0 && len(fl.nodes) == 0 && len(fl.groups) == 0 {
				bad("empty filter %s", fl.name)
			}
		}
		if l.only != nil {
			walk(l.only)
		}
		for _, c := range l.children {
			if c.empty() {
				bad("empty level")
			}
			walk(c)
		}
	}
	walk(&f.topics.root)
	if found != len(want) {
		bad("%d presences, want %d", found, len(want))
	}
	if members != f.counts.subscriptions {
		bad("%d subscriptions in the tree, want %d", members, f.counts.subscriptions)
	}
}

// describe prints an effect.
func (tc *testCluster) describe(e Effect) string {
	var b strings.Builder
	entry := func() {
		m := e.Entry.Message
		fmt.Fprintf(&b, " %s %q", m.Topic, m.Payload)
		if e.Entry.Seq != 0 {
			fmt.Fprintf(&b, " seq=%d", e.Entry.Seq)
		}
		fmt.Fprintf(&b, " qos=%d", e.Entry.QoS)
		if e.Entry.Retain {
			b.WriteString(" retain")
		}
		if len(e.Entry.IDs) > 0 {
			fmt.Fprintf(&b, " ids=%v", e.Entry.IDs)
		}
		if e.Entry.Group != "" {
			fmt.Fprintf(&b, " group=%s", e.Entry.Group)
		}
	}
	picks := func() {
		for _, p := range e.Picks {
			fmt.Fprintf(&b, " pick=%s:%s", p.Group, p.Filter)
			if p.ID == 0 {
				b.WriteString(":unowed")
			}
		}
	}
	switch e.Kind {
	case EffectResult:
		fmt.Fprintf(&b, "result %s", codeName(e.Result.Code))
		if e.Result.Epoch != 0 && e.Result.Present {
			b.WriteString(" present")
		}
		if len(e.Result.Existed) > 0 {
			fmt.Fprintf(&b, " existed=%v", e.Result.Existed)
		}
		if v := e.Result.Session; v != nil {
			fmt.Fprintf(&b, " cursor=%d last=%d mark=%d", v.Cursor, v.Last, v.Mark)
		}
	case EffectSuperseded:
		fmt.Fprintf(&b, "superseded %s", tc.name(e.Client, e.Epoch))
	case EffectEnded:
		fmt.Fprintf(&b, "ended %s", tc.name(e.Client, e.Epoch))
	case EffectEnqueued:
		fmt.Fprintf(&b, "enqueued %s", e.Client)
		entry()
	case EffectDeliver0:
		fmt.Fprintf(&b, "deliver0 %s", e.Client)
		entry()
	case EffectPublished:
		fmt.Fprintf(&b, "published %s %q qos=%d", e.Message.Topic, e.Message.Payload, e.Message.QoS)
		picks()
	case EffectPicked:
		fmt.Fprintf(&b, "picked %s %q", e.Message.Topic, e.Message.Payload)
		picks()
	case EffectDropped:
		fmt.Fprintf(&b, "dropped %q %s n=%d", e.Client, e.Reason, e.N)
	case EffectPassed:
		fmt.Fprintf(&b, "passed %s %d", e.Node.Node, e.Sequence)
	case EffectNodeUp:
		fmt.Fprintf(&b, "node up %s", e.Node.Node)
	case EffectNodeDown:
		fmt.Fprintf(&b, "node down %s", e.Node.Node)
	case EffectRelay:
		fmt.Fprintf(&b, "relay from %s seq=%d %q", e.Node.Node, e.Sequence, e.Frame)
	case EffectGap:
		fmt.Fprintf(&b, "gap resend from %d", e.Sequence)
	case EffectRefused:
		b.WriteString("refused")
	}
	return b.String()
}

func codeName(c Code) string {
	return [...]string{"ok", "stale", "too late", "duplicate", "not found", "no match", "invalid"}[c]
}
