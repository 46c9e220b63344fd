package topic

// bucket keeps values by key in the order in which the keys were added. A few are found by looking
// through them; with many there is an index, and what is removed leaves a gap until gaps are half
// of it: a hundred thousand subscribers of one filter can come and go without a scan for each.
type bucket[K comparable, V any] struct {
	slots []slot[K, V]
	gaps  int
	index map[K]int // nil while there are few
}

type slot[K comparable, V any] struct {
	key  K
	v    V
	live bool
}

// indexFrom is the number of slots from which on there is an index.
const indexFrom = 24

func (b *bucket[K, V]) len() int { return len(b.slots) - b.gaps }

func (b *bucket[K, V]) find(key K) (int, bool) {
	if b.index != nil {
		i, ok := b.index[key]
		return i, ok
	}
	for i := range b.slots {
		if b.slots[i].live && b.slots[i].key == key {
			return i, true
		}
	}
	return 0, false
}

func (b *bucket[K, V]) get(key K) (v V, ok bool) {
	if i, ok := b.find(key); ok {
		return b.slots[i].v, true
	}
	return v, false
}

func (b *bucket[K, V]) put(key K, v V) (old V, replaced bool) {
	if i, ok := b.find(key); ok {
		old, b.slots[i].v = b.slots[i].v, v
		return old, true
	}
	b.slots = append(b.slots, slot[K, V]{key, v, true})
	switch {
	case b.index != nil:
		b.index[key] = len(b.slots) - 1
	case len(b.slots) >= indexFrom:
		b.compact()
	}
	return old, false
}

func (b *bucket[K, V]) remove(key K) (old V, removed bool) {
	i, ok := b.find(key)
	if !ok {
		return old, false
	}
	old = b.slots[i].v
	b.slots[i] = slot[K, V]{}
	b.gaps++
	if b.index != nil {
		delete(b.index, key)
	}
	if b.gaps*2 >= len(b.slots) || b.index == nil {
		b.compact()
	}
	return old, true
}

// compact closes the gaps, gives back memory and decides anew whether an index pays.
func (b *bucket[K, V]) compact() {
	live := b.len()
	if live == 0 {
		*b = bucket[K, V]{}
		return
	}
	to := b.slots[:0]
	if cap(b.slots) > 4*live {
		to = make([]slot[K, V], 0, live)
	}
	for _, s := range b.slots {
		if s.live {
			to = append(to, s)
		}
	}
	clear(b.slots[min(live, len(b.slots)):])
	b.slots, b.gaps, b.index = to, 0, nil
	if live < indexFrom {
		return
	}
	b.index = make(map[K]int, live)
	for i := range b.slots {
		b.index[b.slots[i].key] = i
	}
}

func (b *bucket[K, V]) each(fn func(K, V) bool) bool {
	for i := range b.slots {
		if s := &b.slots[i]; s.live && !fn(s.key, s.v) {
			return false
		}
	}
	return true
}
