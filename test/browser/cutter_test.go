package browser

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"
)

func reload() chromedp.Action[chromedp.Void] { return chromedp.Reload() }

// cutter is a proxy that cuts its n-th connection at the n-th read, for the first most connections. Every
// second one loses what was read last.
type cutter struct {
	listener net.Listener
	target   string
	most     int64
	accepted atomic.Int64
	cut      atomic.Int64
	done     sync.WaitGroup
}

func newCutter(t *testing.T, target string, most int64) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: l, target: target, most: most}
	ctx := t.Context() // ends before the clean-up, which waits
	c.done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			stop := make(chan struct{})
			c.done.Go(func() {
				select {
				case <-ctx.Done():
				case <-stop:
				}
				_ = conn.Close()
			})
			c.done.Go(func() { defer close(stop); c.serve(conn) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); c.done.Wait() })
	return c
}

// Addr is where it listens.
func (c *cutter) Addr() string { return c.listener.Addr().String() }

// Cuts is how many connections it has cut.
func (c *cutter) Cuts() int64 { return c.cut.Load() }

func (c *cutter) serve(client net.Conn) {
	number := c.accepted.Add(1)
	server, err := net.Dial("tcp", c.target)
	if err != nil {
		return
	}
	var reads atomic.Int64
	closeBoth := func() { _ = client.Close(); _ = server.Close() }
	pass := func(to, from net.Conn) {
		defer closeBoth()
		buffer := make([]byte, 4096)
		for {
			n, err := from.Read(buffer)
			if err != nil {
				return
			}
			last := number <= c.most && reads.Add(1) >= number
			if !last || number%2 == 0 {
				if _, err := to.Write(buffer[:n]); err != nil {
					return
				}
			}
			if last {
				c.cut.Add(1)
				return
			}
		}
	}
	var both sync.WaitGroup
	both.Go(func() { pass(server, client) })
	both.Go(func() { pass(client, server) })
	both.Wait()
}
