package conn

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"
)

// loop serves many sockets on one goroutine: it waits for any of them with epoll (level triggered),
// reads into one buffer, and flushes what came of it. Everything that epoll knows is changed by the
// loop alone; others wake it. It runs while it has sockets.
type loop struct {
	ba      *Batch
	ready   int // bytes read since the last flush
	sockets []*polled
	free    []int32 // slots of sockets that are not used
	count   int
	events  [128]syscall.EpollEvent

	epoll, bell int // descriptors; bell is an eventfd
	wait        func(fd uintptr) bool
	waiter      syscall.RawConn
	found       int // by wait

	mu      sync.Mutex
	woken   []*polled
	awake   bool // the loop will look at woken before it waits
	running bool
}

// bellSlot is where events of the bell are said to be from.
const bellSlot = -1

// flushEvery is how many bytes are read before what came of them is flushed.
const flushEvery = 2 * readSize

// The loops belong to the process, as the runtime's own poller does. One core is left to what else
// a node does: goroutines wait for a processor while loops are busy.
var loops struct {
	once sync.Once
	err  error
	list []*loop
	mu   sync.Mutex
	next int
}

// nextLoop spreads connections over the loops.
func nextLoop() (*loop, error) {
	l := &loops
	l.once.Do(func() {
		for range max(1, runtime.GOMAXPROCS(0)-1) {
			lp, err := newLoop()
			if err != nil {
				l.err = err
				return
			}
			l.list = append(l.list, lp)
		}
	})
	if l.err != nil {
		return nil, l.err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	return l.list[l.next%len(l.list)], nil
}

func newLoop() (*loop, error) {
	l := &loop{ba: &Batch{}}
	var err error
	if l.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	bell, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		syscall.Close(l.epoll)
		return nil, fmt.Errorf("eventfd2: %w", errno)
	}
	l.bell = int(bell)
	err = syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, l.bell, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: bellSlot})
	if err == nil {
		err = syscall.SetNonblock(l.epoll, true)
	}
	if err == nil {
		// The runtime's poller waits for our epoll: waiting in epoll_wait itself would hold a thread,
		// and give back a processor, each time. The file is never closed.
		l.waiter, err = os.NewFile(uintptr(l.epoll), "epoll").SyscallConn()
	}
	if err != nil {
		syscall.Close(l.bell)
		syscall.Close(l.epoll)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	l.wait = func(fd uintptr) bool {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_WAIT, fd, uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), 0, 0, 0)
		l.found = 0
		if errno == 0 {
			l.found = int(n)
		}
		return l.found > 0
	}
	return l, nil
}

// wake has the loop look at a socket's state. It never blocks.
func (l *loop) wake(p *polled) {
	l.mu.Lock()
	if p.woken {
		l.mu.Unlock()
		return
	}
	p.woken = true
	l.woken = append(l.woken, p)
	start, ring := !l.running, l.running && !l.awake
	l.running, l.awake = true, true
	l.mu.Unlock()
	switch {
	case start:
		go l.run()
	case ring:
		one := [8]byte{1}
		_, _ = syscall.Write(l.bell, one[:])
	}
}

// called takes the sockets that have been woken. Without any, the loop is about to wait, or, if it
// has no sockets, to end: then goOn is false.
func (l *loop) called(list []*polled) (woken []*polled, goOn bool) {
	clear(list)
	l.mu.Lock()
	defer l.mu.Unlock()
	woken, l.woken = l.woken, list[:0]
	for _, p := range woken {
		p.woken = false
	}
	if l.awake = len(woken) > 0; !l.awake {
		l.running = l.count > 0
	}
	return woken, l.running
}

func (l *loop) run() {
	buffer := getBatch() // held while the loop runs
	l.ba.buf = buffer.buf
	var woken []*polled
	for goOn := true; ; {
		if woken, goOn = l.called(woken); !goOn {
			break
		}
		for _, p := range woken {
			p.look(l.ba)
		}
		l.flush()
		if len(woken) > 0 {
			continue // flushing may have woken more
		}
		if l.waiter.Read(l.wait) != nil {
			continue // the process ends
		}
		for _, ev := range l.events[:l.found] {
			if ev.Fd == bellSlot {
				l.silence()
				continue
			}
			if p := l.sockets[ev.Fd]; p != nil { // an earlier event of this round may have ended it
				p.handle(ev.Events, l.ba)
			}
			if l.ready >= flushEvery {
				l.flush()
			}
		}
		l.flush()
	}
	putBatch(buffer)
}

func (l *loop) silence() {
	var count [8]byte
	_, _ = syscall.Read(l.bell, count[:])
}

func (l *loop) flush() {
	l.ba.Flush()
	l.ready = 0
}

// enter gives a socket a slot.
func (l *loop) enter(p *polled) {
	if n := len(l.free); n > 0 {
		p.slot, l.free = l.free[n-1], l.free[:n-1]
		l.sockets[p.slot] = p
	} else {
		p.slot = int32(len(l.sockets))
		l.sockets = append(l.sockets, p)
	}
	l.count++
}

func (l *loop) leave(p *polled) {
	l.sockets[p.slot] = nil
	l.free = append(l.free, p.slot)
	l.count--
	if l.count == 0 { // a burst of connections may have made them large
		l.sockets, l.free = nil, nil
	}
}
