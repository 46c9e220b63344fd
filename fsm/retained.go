package fsm

import (
	"strings"

	"github.com/tidwall/btree"
)

// retainedRow is a topic's retained message.
type retainedRow struct {
	topic   string
	message *Message
	expires timerKey
}

// retainedTable is ordered by topic, so that a read with wildcards can leap over what can't match.
type retainedTable struct {
	rows  *btree.BTreeG[retainedRow]
	bytes uint64
}

func newRetainedTable() retainedTable {
	return retainedTable{rows: btree.NewBTreeGOptions(func(a, b retainedRow) bool {
		return a.topic < b.topic
	}, btree.Options{NoLocks: true})}
}

func (t *retainedTable) put(row retainedRow) {
	old, had := t.rows.Set(row)
	if had {
		t.bytes -= old.message.size()
	}
	t.bytes += row.message.size()
}

func (t *retainedTable) remove(topic string) (retainedRow, bool) {
	old, had := t.rows.Delete(retainedRow{topic: topic})
	if had {
		t.bytes -= old.message.size()
	}
	return old, had
}

// retain sets or clears a topic's retained message [MQTT-3.3.1-5] [MQTT-3.3.1-6].
func (f *FSM) retain(p *publication) {
	if len(p.payload) == 0 {
		if old, had := f.retained.remove(p.topic); had {
			f.timers.cancel(&old.expires)
		}
		return
	}
	if old, had := f.retained.rows.Get(retainedRow{topic: p.topic}); had {
		f.timers.cancel(&old.expires)
	}
	m := f.message(p)
	row := retainedRow{topic: m.Topic, message: m}
	if m.Expires != 0 {
		row.expires = f.timers.schedule(roundUp(m.Expires), timerRetained, nil, m.Topic)
	}
	f.retained.put(row)
}

// retainedRead is a new subscription that is to get the retained messages.
type retainedRead struct{ sub *subscription }

// finishReads delivers retained messages to subscriptions made by the command before, in topic
// order. It comes after the command's result, so that the subscription is active by then.
func (f *FSM) finishReads() {
	for _, r := range f.reads {
		s := r.sub
		f.retained.scan(s.filter.name, "", func(m *Message) bool {
			if m.expired(f.now) || s.noLocal && m.Publisher == s.client.id {
				return true
			}
			f.give(s.client, Entry{Message: m, QoS: min(m.QoS, s.qos), Retain: true, IDs: s.ids})
			return true
		})
	}
	clear(f.reads)
	f.reads = f.reads[:0]
}

// Retained calls fn for the retained messages that match a filter, in topic order, until it says
// false. fn must not call back. The result is the index that the read stands at.
func (f *FSM) Retained(filter string, fn func(*Message) bool) (index uint64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	f.retained.scan(filter, "", func(m *Message) bool { return m.expired(f.now) || fn(m) })
	return f.applied
}

// ListRetained calls fn for the retained messages that match a filter and whose topics are behind a given one, in topic
// order, until it says false. It is read in turns, between which the log goes on.
func (f *FSM) ListRetained(filter, after string, fn func(*Message) bool) {
	page := make([]*Message, 0, turn)
	for {
		page = page[:0]
		f.mu.RLock()
		f.retained.scan(filter, after, func(m *Message) bool {
			if m.Topic > after && !m.expired(f.now) {
				page = append(page, m)
			}
			return len(page) < turn
		})
		f.mu.RUnlock()
		for _, m := range page {
			if !fn(m) {
				return
			}
			after = m.Topic
		}
		if len(page) < turn {
			return
		}
	}
}

// RetainedUse is how many retained messages there are, and how large they are together.
func (f *FSM) RetainedUse() (messages int, bytes uint64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.retained.rows.Len(), f.retained.bytes
}

// RetainedSize is how large the retained message of a topic is, as it counts in RetainedUse.
func (f *FSM) RetainedSize(topic string) (had bool, bytes uint64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	row, had := f.retained.rows.Get(retainedRow{topic: topic})
	if had {
		bytes = row.message.size()
	}
	return had, bytes
}

// scan visits the messages whose topics match, in topic order. Its cost grows with the matches
// and with the distinct values at the levels of a +, not with the table. It begins at a topic.
func (t *retainedTable) scan(filter, begin string, fn func(*Message) bool) {
	if !strings.ContainsAny(filter, "+#") {
		if row, ok := t.rows.Get(retainedRow{topic: filter}); ok {
			fn(row.message)
		}
		return
	}
	levels := strings.Split(filter, "/")
	from := max(literalPrefix(levels), begin)
	for again := true; again; {
		again = false
		t.rows.Ascend(retainedRow{topic: from}, func(row retainedRow) bool {
			ok, next, more := leap(levels, row.topic)
			switch {
			case ok:
				return fn(row.message)
			case next != "":
				from, again = next, true
				return false
			}
			return more
		})
	}
}

// literalPrefix is where the matches of a filter begin.
func literalPrefix(levels []string) string {
	for i, l := range levels {
		if l == "+" || l == "#" {
			return strings.Join(levels[:i], "/")
		}
	}
	return strings.Join(levels, "/")
}

// leap tells whether a filter matches a name. If it does not, next is a name that no match between
// the two precedes, or empty; then more tells whether any match may follow at all.
func leap(levels []string, name string) (ok bool, next string, more bool) {
	plus := -1 // where the level of the last + ends in name
	at := 0
	for i, l := range levels {
		if (l == "#" || l == "+") && i == 0 && name[0] == '$' { // [MQTT-4.7.2-1]
			return false, "%", true // the byte after $
		}
		if l == "#" {
			return true, "", true
		}
		end := at + strings.IndexByte(name[at:], '/')
		if end < at {
			end = len(name)
		}
		switch {
		case l == "+":
			plus = end
		case l != name[at:end]:
			want := name[:at] + l
			if want < name && i+1 < len(levels) {
				want += "/"
			}
			if want > name {
				return false, want, true
			}
			return skip(name, plus)
		}
		if end == len(name) { // no level is left
			if i+1 == len(levels) || i+2 == len(levels) && levels[i+1] == "#" {
				return true, "", true
			}
			return false, "", true
		}
		at = end + 1
	}
	return skip(name, plus)
}

// skip leaps over all names that have the same value at the level of the last +.
func skip(name string, plus int) (ok bool, next string, more bool) {
	if plus < 0 {
		return false, "", false
	}
	return false, name[:plus] + "0", true // the byte after /
}
