package fsm

import (
	"strings"

	"github.com/tidwall/btree"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// interestRow says how many connected clean subscribers an incarnation has for a filter or group.
type interestRow struct {
	inc    uint64
	filter string
	group  string
	count  uint32
	owner  *incarnation
}

type interests struct {
	rows *btree.BTreeG[interestRow]
}

func newInterests() interests {
	return interests{btree.NewBTreeGOptions(func(a, b interestRow) bool {
		if a.inc != b.inc {
			return a.inc < b.inc
		}
		if a.filter != b.filter {
			return a.filter < b.filter
		}
		return a.group < b.group
	}, btree.Options{NoLocks: true})}
}

// first is the first row of an incarnation.
func (t *interests) first(inc uint64) (row interestRow, ok bool) {
	t.rows.Ascend(interestRow{inc: inc}, func(r interestRow) bool {
		row, ok = r, r.inc == inc
		return false
	})
	return row, ok
}

func (f *FSM) setInterest(cmd *fsmpb.Interest, r *Result) {
	if cmd.Filter == "" || cmd.Count > 1<<30 {
		r.Code = Invalid
		return
	}
	f.awaited.Add(1)
	row := interestRow{inc: f.origin.number, filter: cmd.Filter, group: cmd.Group, count: cmd.Count, owner: f.origin}
	old, existed := f.interest.rows.Get(row)
	switch {
	case cmd.Count == 0 && !existed:
		return
	case cmd.Count == 0:
		f.dropInterest(old)
		return
	case existed:
		row.filter, row.group = old.filter, old.group
	default:
		row.filter, row.group = strings.Clone(row.filter), strings.Clone(row.group)
	}
	f.interest.rows.Set(row)
	f.interested(row, int(row.count)-int(old.count))
}

// dropInterest removes a row as it stands in the table.
func (f *FSM) dropInterest(row interestRow) {
	f.interest.rows.Delete(row)
	f.interested(row, -int(row.count))
}

// interested adds n to what the index knows of a row.
func (f *FSM) interested(row interestRow, n int) {
	fl := f.topics.obtain(row.filter)
	nodes := &fl.nodes
	var g *group
	if row.group != "" {
		g = f.obtainGroup(fl, row.group)
		nodes = &g.nodes
	}
	if count(nodes, row.owner, n, 0) {
		f.rerouted()
	}
	if g != nil {
		f.discardGroup(g)
	}
	f.topics.discard(fl)
}
