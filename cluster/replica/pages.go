package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
)

// The pages of a bbolt file, as far as it takes to see that they form trees. bbolt itself looks at them on a goroutine
// of its own when it opens a file, where damage ends the process or leaves it waiting for ever. Each page is read
// once at most, so this comes to an end whatever the pages say. What entries carry has checksums of its own.
const (
	pageHeader  = 16 // id, flags, count, overflow
	element     = 16 // of a leaf: flags, position, sizes of key and value; of a branch: position, size of key, page
	metaSize    = 64 // behind the header, its checksum last
	metaMagic   = 0xED0CDAED
	branchPage  = 0x01
	leafPage    = 0x02
	bucketEntry = 0x01
	maxDepth    = 64
)

var order = binary.NativeEndian // bbolt's

// pages are those of one file.
type pages struct {
	file *os.File
	size uint64 // of a page
	high uint64 // the first page that was never used
	seen map[uint64]bool
}

// verifyPages finds what would make bbolt panic. A file that is not there or empty is fine; one without a
// readable meta page is left for bbolt, which says so.
func verifyPages(path string) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	p := &pages{file: file, seen: make(map[uint64]bool)}
	root, ok, err := p.meta()
	if err != nil || !ok {
		return err
	}
	return p.tree(root, nil, nil, 0)
}

// meta reads the newer of the two meta pages that is whole: where the tree of buckets begins.
func (p *pages) meta() (root uint64, ok bool, err error) {
	info, err := p.file.Stat()
	if err != nil {
		return 0, false, err
	}
	var newest uint64
	look := func(at int64) {
		b := make([]byte, pageHeader+metaSize)
		if _, err := p.file.ReadAt(b, at); err != nil {
			return // the file is shorter
		}
		m := b[pageHeader:]
		sum := fnv.New64a()
		_, _ = sum.Write(m[:metaSize-8]) // a hash takes everything
		if order.Uint32(m) != metaMagic || order.Uint64(m[56:]) != sum.Sum64() {
			return
		}
		if tx := order.Uint64(m[48:]); !ok || tx > newest {
			ok, newest = true, tx
			p.size, root, p.high = uint64(order.Uint32(m[8:])), order.Uint64(m[16:]), order.Uint64(m[40:])
		}
	}
	look(0)
	second := int64(os.Getpagesize())
	if ok {
		second = int64(p.size)
	}
	look(second)
	if ok && (p.size < pageHeader+metaSize || uint64(info.Size())/p.size < p.high) {
		return 0, false, fmt.Errorf("it has %d bytes, fewer than its %d pages of %d", info.Size(), p.high, p.size)
	}
	return root, ok, nil
}

// read reads a page with what it overflows into.
func (p *pages) read(id uint64) ([]byte, error) {
	head := make([]byte, pageHeader)
	if id < 2 || id >= p.high {
		return nil, fmt.Errorf("page %d is none of the file's %d", id, p.high)
	}
	if _, err := p.file.ReadAt(head, int64(id*p.size)); err != nil {
		return nil, err
	}
	more := uint64(order.Uint32(head[12:]))
	if said := order.Uint64(head); said != id || id+more >= p.high {
		return nil, fmt.Errorf("page %d says that it is page %d, with %d more of %d", id, said, more, p.high)
	}
	for i := id; i <= id+more; i++ {
		if p.seen[i] {
			return nil, fmt.Errorf("page %d is in two places", i)
		}
		p.seen[i] = true
	}
	b := make([]byte, (1+more)*p.size)
	_, err := p.file.ReadAt(b, int64(id*p.size))
	return b, err
}

// tree looks at a page and all below it. Keys are from low (nil: anything) up to and without high (nil: anything).
func (p *pages) tree(id uint64, low, high []byte, depth int) error {
	b, err := p.read(id)
	if err != nil {
		return err
	}
	if depth > maxDepth {
		return fmt.Errorf("page %d is %d deep", id, depth)
	}
	flags := order.Uint16(b[8:])
	if flags != branchPage && flags != leafPage {
		return fmt.Errorf("page %d is neither a branch nor a leaf: its flags are %#x", id, flags)
	}
	list, err := entries(b, flags == branchPage)
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	if flags == branchPage && len(list) == 0 {
		return fmt.Errorf("page %d is a branch to nowhere", id)
	}
	last := low
	for i, e := range list {
		if c := bytes.Compare(e.key, last); last != nil && (c < 0 || c == 0 && i > 0) || high != nil && bytes.Compare(e.key, high) >= 0 {
			return fmt.Errorf("page %d: key %d is out of order", id, i)
		}
		last = e.key
		if e.page == 0 {
			continue
		}
		var from, to []byte // of another bucket: anything
		if flags == branchPage {
			from, to = e.key, high
			if i+1 < len(list) {
				to = list[i+1].key
			}
		}
		if err := p.tree(e.page, from, to, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// entry is one of a page's. page is where a branch or a bucket goes on; 0: nowhere.
type entry struct {
	key  []byte
	page uint64
}

// entries are those of a page, or of the page inside of a bucket that is small.
func entries(b []byte, branch bool) ([]entry, error) {
	count := int(order.Uint16(b[10:]))
	if pageHeader+count*element > len(b) {
		return nil, fmt.Errorf("%d entries have no room", count)
	}
	list := make([]entry, count)
	for i := range list {
		at := uint64(pageHeader + i*element)
		e := b[at:]
		position, size, value := order.Uint32(e[4:]), order.Uint32(e[8:]), uint64(order.Uint32(e[12:]))
		if branch {
			position, size, value = order.Uint32(e), order.Uint32(e[4:]), 0
		}
		begin := at + uint64(position)
		end := begin + uint64(size)
		if end+value > uint64(len(b)) {
			return nil, fmt.Errorf("entry %d has no room", i)
		}
		list[i].key = b[begin:end]
		switch {
		case branch:
			list[i].page = order.Uint64(e[8:])
		case order.Uint32(e)&bucketEntry != 0:
			var err error
			if list[i].page, err = bucket(b[end : end+value]); err != nil {
				return nil, fmt.Errorf("bucket %d: %w", i, err)
			}
		}
	}
	return list, nil
}

// bucket is the page where a bucket begins; 0: it is all here.
func bucket(b []byte) (page uint64, err error) {
	const header = 16 // page, sequence
	if len(b) < header {
		return 0, fmt.Errorf("it has %d bytes", len(b))
	}
	if page = order.Uint64(b); page != 0 {
		return page, nil
	}
	if b = b[header:]; len(b) < pageHeader || order.Uint16(b[8:]) != leafPage {
		return 0, errors.New("its page is no leaf")
	}
	_, err = entries(b, false)
	return 0, err
}
