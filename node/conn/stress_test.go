package conn

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// relay is a handler that gives each packet (two bytes length, two bytes target, the rest) to the
// target's connection, as a broker does.
type relay struct {
	c     *Conn
	room  *room
	count atomic.Int64
	done  chan error
}

type room struct {
	mu      sync.RWMutex
	members [64]*relay
}

func (r *relay) Data(b []byte, ba *Batch) (int, error) {
	used := 0
	for len(b)-used >= 4 {
		n := int(binary.BigEndian.Uint16(b[used:]))
		if len(b)-used < n {
			break
		}
		p := b[used : used+n]
		used += n
		r.room.mu.RLock()
		to := r.room.members[binary.BigEndian.Uint16(p[2:])%64]
		r.room.mu.RUnlock()
		if to == nil {
			continue
		}
		to.c.Lock()
		if to.c.OutLen() < 1<<20 {
			to.c.SetOut(append(Grow(to.c.Out(), n), p...), ba)
			to.count.Add(1)
		}
		to.c.Unlock()
	}
	return used, nil
}

func (r *relay) Drained(*Batch)   {}
func (r *relay) Closed(err error) { r.done <- err }

func relayPacket(size, target int) []byte {
	p := make([]byte, size)
	binary.BigEndian.PutUint16(p, uint16(size))
	binary.BigEndian.PutUint16(p[2:], uint16(target))
	return p
}

// TestStress: clients that come, send to each other, read slowly or not, and go in every way, while
// some are ended, aborted and paused from outside. Every connection ends, every frame is whole.
func TestStress(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rm := &room{}
	var served, clients sync.WaitGroup
	served.Go(func() {
		for i := 0; ; i++ {
			s, err := ln.Accept()
			if err != nil {
				return
			}
			r := &relay{c: New(s, ""), room: rm, done: make(chan error, 1)}
			slot := i % 64
			rm.mu.Lock()
			rm.members[slot] = r
			rm.mu.Unlock()
			served.Add(1)
			r.c.Serve(r, func() {
				defer served.Done()
				<-r.done
				rm.mu.Lock()
				if rm.members[slot] == r {
					rm.members[slot] = nil
				}
				rm.mu.Unlock()
			})
		}
	})
	stop := time.Now().Add(1500 * time.Millisecond)
	for id := range 48 {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(id)))
			for time.Now().Before(stop) {
				if err := stressClient(ln.Addr().String(), rng, stop); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	clients.Go(func() { // from outside
		rng := rand.New(rand.NewPCG(2, 2))
		for time.Now().Before(stop) {
			rm.mu.RLock()
			r := rm.members[rng.IntN(64)]
			rm.mu.RUnlock()
			if r == nil {
				continue
			}
			switch rng.IntN(20) {
			case 0:
				end(r.c)
			case 1:
				r.c.Abort()
			default:
				r.c.Lock()
				r.c.Pause()
				r.c.Unlock()
				time.Sleep(time.Duration(rng.IntN(500)) * time.Microsecond)
				r.c.Lock()
				r.c.Resume()
				r.c.Unlock()
			}
		}
	})
	clients.Wait()
	ln.Close()
	served.Wait()
}

// stressClient is one connection's life.
func stressClient(addr string, rng *rand.Rand, stop time.Time) error {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	_ = nc.SetDeadline(stop.Add(patience))
	how := rng.IntN(4)
	var wg sync.WaitGroup
	defer wg.Wait()
	var bad error
	wg.Go(func() {
		if how == 3 { // never reads
			return
		}
		head := make([]byte, 4)
		for {
			if _, err := io.ReadFull(nc, head); err != nil {
				return
			}
			n := int(binary.BigEndian.Uint16(head))
			if n < 4 || n > 3000 {
				bad = fmt.Errorf("packet of %d bytes", n)
				return
			}
			if _, err := io.CopyN(io.Discard, nc, int64(n-4)); err != nil {
				return
			}
		}
	})
	for range rng.IntN(200) {
		if _, err := nc.Write(relayPacket(4+rng.IntN(2000), rng.IntN(64))); err != nil {
			break
		}
		if rng.IntN(20) == 0 {
			time.Sleep(time.Duration(rng.IntN(1000)) * time.Microsecond)
		}
	}
	switch how {
	case 0:
		_ = nc.(*net.TCPConn).SetLinger(0) // a reset
	case 1:
		_ = nc.(*net.TCPConn).CloseWrite()
		wg.Wait()
	}
	nc.Close()
	wg.Wait()
	return bad
}
