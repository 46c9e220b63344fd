package fsm

import (
	"cmp"
	"errors"
	"io"
	"slices"
)

// Restore replaces the state with a snapshot's. The old state goes first, so that memory need not
// hold both; readers wait until the new one is there. After an error the state is empty and the
// node must stop.
func (f *FSM) Restore(r io.Reader) error {
	d, err := newDecoder(r)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.rerouted()
	defer f.tableReplaced()
	f.reset()
	clear(f.effects)
	f.effects = f.effects[:0]
	f.restore(d)
	if d.version > 1 {
		f.restoreAccess(d)
	}
	d.end()
	if d.err != nil {
		f.reset()
		return d.err
	}
	return nil
}

func (f *FSM) restore(d *decoder) {
	f.applied, f.now, f.lastID, f.timers.serial = d.uint(), d.int(), d.uint(), d.uint()
	for n := d.uint(); n > 0 && d.err == nil; n-- {
		f.members.list = append(f.members.list, d.member())
	}
	for n := d.uint(); n > 0 && d.err == nil; n-- {
		inc := d.incarnation()
		f.members.incs[inc.number] = inc
		if !inc.live {
			f.members.end(inc)
		}
	}
	f.restoreClients(d)
	for d.bool() {
		filter, group, turn := d.str(), d.str(), d.uint()
		// A group that only has clean members comes with the interest below.
		f.obtainGroup(f.topics.obtain(filter), group).turn = turn
	}
	for d.bool() {
		row := interestRow{inc: d.uint(), filter: d.shared(), group: d.shared(), count: uint32(d.uint())}
		if row.owner = f.members.incarnation(row.inc); row.owner == nil {
			d.fail(errors.New("interest of an unknown incarnation"))
			return
		}
		f.interest.rows.Set(row)
		f.interested(row, int(row.count))
	}
	for d.bool() {
		a := assignment{inc: d.uint(), id: d.uint(), message: d.message(), filter: d.shared(), group: d.shared(), claimed: d.bool()}
		f.assigned.rows.Set(a)
	}
	for d.bool() {
		f.parked.rows.Set(parkedWill{inc: d.uint(), epoch: Epoch(d.uint()), client: d.str(), will: d.will()})
	}
	for d.bool() {
		row := retainedRow{message: d.message(), expires: d.key()}
		if row.message == nil {
			return
		}
		row.topic = row.message.Topic
		f.retained.put(row)
		if row.expires.set() {
			f.timers.queue.Set(timer{row.expires, timerRetained, nil, row.topic})
		}
	}
}

func (f *FSM) restoreClients(d *decoder) {
	type owned struct {
		client *client
		inc    *incarnation
	}
	var attached []owned
	for d.bool() {
		id := d.str()
		row := clientRow{epoch: Epoch(d.uint())}
		owner := d.uint()
		row.protocol, row.keepalive = uint32(d.uint()), uint32(d.uint())
		row.username, row.address, row.listener = d.shared(), d.shared(), d.shared()
		row.connected, row.offline, row.will, row.willAt = d.int(), d.int(), d.will(), d.key()
		persistent := d.bool()
		c := f.addClient(id, persistent)
		c.clientRow = row
		if persistent {
			c.sess = d.session()
			f.counts.queued += len(c.sess.queue)
			for n := d.uint(); n > 0 && d.err == nil; n-- {
				f.put(c, d.subscription())
			}
			if k := c.sess.expireAt; k.set() {
				f.timers.queue.Set(timer{k, timerSession, c, ""})
			}
		}
		if row.willAt.set() {
			f.timers.queue.Set(timer{row.willAt, timerWill, c, ""})
		}
		if owner == 0 {
			continue
		}
		inc := f.members.incarnation(owner)
		if inc == nil {
			d.fail(errors.New("client of an unknown incarnation"))
			return
		}
		attached = append(attached, owned{c, inc})
	}
	// An incarnation's list is in order of epochs.
	slices.SortFunc(attached, func(a, b owned) int { return cmp.Compare(a.client.epoch, b.client.epoch) })
	for _, o := range attached {
		f.attach(o.client, o.inc)
	}
}
