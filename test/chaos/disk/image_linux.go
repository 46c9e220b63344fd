package disk

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
)

const (
	pageSize = 4096
	sector   = 512
)

// image is what a file held when it was last synced, where that has changed since.
type image struct {
	file  *os.File
	size  int64
	pages map[int64][]byte // by number; as long as the file reached into them
}

// image is the file's, which begins with what it holds now. Called with mu held.
func (d *Disk) image(fd int) (*image, error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if i := d.unsynced[st.Ino]; i != nil {
		return i, nil
	}
	file, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	i := &image{file: file, size: st.Size, pages: make(map[int64][]byte)}
	d.unsynced[st.Ino] = i
	return i, nil
}

// save keeps what is about to be changed between two offsets.
func (i *image) save(from, to int64) error {
	for p := from / pageSize; p*pageSize < min(to, i.size); p++ {
		if _, ok := i.pages[p]; ok {
			continue
		}
		b := make([]byte, min(pageSize, i.size-p*pageSize))
		if _, err := i.file.ReadAt(b, p*pageSize); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		i.pages[p] = b
	}
	return nil
}

// restore brings back what the file held, or leaves what came since, sector by sector as rng decides. It
// tells how many bytes were forgotten.
func (i *image) restore(rng *rand.Rand) (forgotten uint64, err error) {
	info, err := i.file.Stat()
	if err != nil {
		return 0, err
	}
	now, size := info.Size(), i.size
	if now != size && rng.IntN(2) == 0 {
		size = now
	}
	if now < i.size { // before the sectors, some of which lie behind its end
		if err := i.file.Truncate(i.size); err != nil {
			return 0, err
		}
	}
	for _, p := range slices.Sorted(maps.Keys(i.pages)) {
		n, err := i.put(rng, i.pages[p], p*pageSize)
		if err != nil {
			return forgotten, err
		}
		forgotten += n
	}
	for at := i.size; at < now; at += pageSize { // new ones are there, or nothing is
		if rng.IntN(2) == 0 {
			continue
		}
		n := min(pageSize, now-at)
		if _, err := i.file.WriteAt(make([]byte, n), at); err != nil {
			return forgotten, err
		}
		forgotten += uint64(n)
	}
	return forgotten, i.file.Truncate(size)
}

// put writes a page's old sectors: all, none or some of them.
func (i *image) put(rng *rand.Rand, old []byte, at int64) (forgotten uint64, err error) {
	all, some := rng.IntN(2) == 0, rng.IntN(8) == 0
	for from := 0; from < len(old); from += sector {
		if some && rng.IntN(2) == 0 || !some && !all {
			continue
		}
		b := old[from:min(from+sector, len(old))]
		if _, err := i.file.WriteAt(b, at+int64(from)); err != nil {
			return forgotten, err
		}
		forgotten += uint64(len(b))
	}
	return forgotten, nil
}

// sorted are the files that are not synced, in an order that is the same in each run.
func (d *Disk) sorted() iter.Seq2[uint64, *image] {
	list := slices.Sorted(maps.Keys(d.unsynced))
	return func(yield func(uint64, *image) bool) {
		for _, ino := range list {
			if !yield(ino, d.unsynced[ino]) {
				return
			}
		}
	}
}
