package fsm

import (
	"slices"
	"strings"

	"github.com/tidwall/btree"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// will is a client's last will. It is immutable.
type will struct {
	topic     string
	payload   []byte
	props     []byte
	qos       byte
	retain    bool
	hasExpiry bool
	expiry    uint32
	delay     uint32
}

func newWill(w *fsmpb.Will) *will {
	if w == nil {
		return nil
	}
	return &will{
		topic: strings.Clone(w.Topic), payload: slices.Clone(w.Payload), props: slices.Clone(w.Props),
		qos: byte(w.Qos), retain: w.Retain, hasExpiry: w.HasExpiry, expiry: w.Expiry, delay: w.Delay,
	}
}

// pendingWill is published when the command that caused it is through: a publish never begins
// inside of another change.
type pendingWill struct {
	client string
	epoch  Epoch
	will   *will
}

func (f *FSM) willPending(client string, epoch Epoch, w *will) {
	if w != nil {
		f.wills = append(f.wills, pendingWill{client, epoch, w})
	}
}

// willNow takes the client's will and publishes it.
func (f *FSM) willNow(c *client) {
	f.timers.cancel(&c.willAt)
	f.willPending(c.id, c.epoch, c.will)
	c.will = nil
}

func (f *FSM) publishWills() {
	for i := 0; i < len(f.wills); i++ {
		p := f.wills[i]
		w := p.will
		f.publish(&publication{
			publisher: p.client, epoch: p.epoch, topic: w.topic, payload: w.payload, props: w.props,
			qos: w.qos, retain: w.retain, hasExpiry: w.hasExpiry, expiry: w.expiry, owned: true,
		})
	}
	clear(f.wills)
	f.wills = f.wills[:0]
}

// parkedWill is the will of a connection that was taken over: whether it is published is for its
// owner to say (Disconnect of the old epoch), or for the end of its owner.
type parkedWill struct {
	inc    uint64 // the owner
	epoch  Epoch
	client string
	will   *will
}

type parkedWills struct {
	rows *btree.BTreeG[parkedWill]
}

func newParkedWills() parkedWills {
	return parkedWills{btree.NewBTreeGOptions(func(a, b parkedWill) bool {
		if a.inc != b.inc {
			return a.inc < b.inc
		}
		return a.epoch < b.epoch
	}, btree.Options{NoLocks: true})}
}

func (t *parkedWills) first(inc uint64) (p parkedWill, ok bool) {
	t.rows.Ascend(parkedWill{inc: inc}, func(row parkedWill) bool {
		p, ok = row, row.inc == inc
		return false
	})
	return p, ok
}

func (t *parkedWills) remove(p parkedWill) { t.rows.Delete(p) }

// park keeps the will of a connected client that is being superseded.
func (f *FSM) park(c *client) {
	if c.will != nil {
		f.parked.rows.Set(parkedWill{c.owner.number, c.epoch, c.id, c.will})
		c.will = nil
	}
}

// unpark settles the will of a superseded connection of the batch's origin.
func (f *FSM) unpark(id string, epoch Epoch, clean bool) bool {
	p, ok := f.parked.rows.Get(parkedWill{inc: f.origin.number, epoch: epoch})
	if !ok || p.client != id {
		return false
	}
	f.parked.remove(p)
	if !clean {
		f.willPending(p.client, p.epoch, p.will)
	}
	return true
}
