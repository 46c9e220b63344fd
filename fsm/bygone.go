package fsm

// bygone remembers the last epochs of client ids that have no record any more: what a link still
// carries of a connection that was taken over must not follow what the newer one published, even
// when that one has ended, too. It is this node's own: no entry of the log is judged by it.
type bygone struct {
	epochs map[string]Epoch
	ring   []bygoneID
	next   int
}

type bygoneID struct {
	id    string
	epoch Epoch
}

// maxBygone is more than end in the seconds that a frame may be on its way.
const maxBygone = 1 << 15

func (b *bygone) add(id string, epoch Epoch) {
	if b.epochs == nil {
		b.epochs = make(map[string]Epoch)
	}
	if len(b.ring) < maxBygone {
		b.ring = append(b.ring, bygoneID{})
		b.next = len(b.ring) - 1
	} else {
		b.next = (b.next + 1) % maxBygone
	}
	old := &b.ring[b.next]
	if b.epochs[old.id] == old.epoch {
		delete(b.epochs, old.id)
	}
	*old = bygoneID{id, epoch}
	b.epochs[id] = epoch
}
