package chaos

import (
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// line is a connection through a relay, from node a to an echo that is node b.
func line(t *testing.T) (*network, net.Conn) {
	t.Helper()
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	n := newNetwork()
	r, err := newRelay(n, "b", echo.Addr().String(), false, func(_, _ net.Addr) string { return "a" })
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", r.address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		r.close()
		_ = echo.Close()
		<-done
	})
	return n, c
}

// echoes sends a byte and tells whether it comes back in time.
func echoes(t *testing.T, c net.Conn, patience time.Duration) bool {
	t.Helper()
	if _, err := c.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	return hears(t, c, patience)
}

func hears(t *testing.T, c net.Conn, patience time.Duration) bool {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(make([]byte, 1))
	return err == nil
}

const (
	long  = 10 * time.Second
	short = 50 * time.Millisecond
)

func TestRelayHoldsBackWhatIsCut(t *testing.T) {
	for name, way := range map[string]direction{"there": {"a", "b"}, "back": {"b", "a"}} {
		t.Run(name, func(t *testing.T) {
			n, c := line(t)
			if !echoes(t, c, long) {
				t.Fatal("nothing comes back")
			}
			n.Set(rule{cut: true}, way)
			if echoes(t, c, short) {
				t.Error("it comes back although the way is cut")
			}
			n.Heal()
			if !hears(t, c, long) {
				t.Error("what was held back does not come after healing")
			}
		})
	}
}

func TestRelayDelays(t *testing.T) {
	n, c := line(t)
	n.Set(rule{delay: 60 * time.Millisecond}, both("a", "b")...)
	began := time.Now()
	if !echoes(t, c, long) {
		t.Fatal("nothing comes back")
	}
	if d := time.Since(began); d < 120*time.Millisecond {
		t.Errorf("it is back after %v", d)
	}
}

func TestRelayResets(t *testing.T) {
	n, c := line(t)
	if !echoes(t, c, long) {
		t.Fatal("nothing comes back")
	}
	n.Reset()
	if hears(t, c, long) {
		t.Error("the connection stands")
	}
}

func TestSocketOwner(t *testing.T) {
	if !relayed {
		t.Skip("it needs Linux")
	}
	_, c := line(t)
	near, far := c.RemoteAddr().(*net.TCPAddr), c.LocalAddr().(*net.TCPAddr)
	if got := socketOwner(near, far, []int{os.Getpid()}); got != os.Getpid() {
		t.Errorf("%s belongs to %d", far, got)
	}
	if got := socketOwner(near, far, nil); got != 0 {
		t.Errorf("%s belongs to %d, who was not asked about", far, got)
	}
	far.Port++
	if got := socketOwner(near, far, []int{os.Getpid()}); got != 0 {
		t.Errorf("%s belongs to %d, and is no connection", far, got)
	}
}

func BenchmarkSocketOwner(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	pids := []int{os.Getpid()}
	for b.Loop() {
		socketOwner(c.RemoteAddr().(*net.TCPAddr), c.LocalAddr().(*net.TCPAddr), pids)
	}
}
