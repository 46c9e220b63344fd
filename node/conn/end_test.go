package conn

import (
	"errors"
	"sync"
	"testing"
	"time"
)

// TestDataError: the reader ends, what was said before goes out, and the client sees the end.
func TestDataError(t *testing.T) {
	var c *Conn
	h := &hooks{}
	h.data = func(b []byte, ba *Batch) (int, error) {
		send(c, ba, []byte("refused"))
		return len(b), errHandler
	}
	client := startAs(t, &c, h)
	mustWrite(t, client, random(1000))
	mustRead(t, client, []byte("refused"))
	mustEOF(t, client)
	client.Close()
	if err := h.wait(t); !errors.Is(err, errHandler) {
		t.Fatalf("Closed got %v", err)
	}
}

// TestEndDelivers: what is in the outbox at End reaches a client that goes on sending, which a
// socket closed at once would have reset.
func TestEndDelivers(t *testing.T) {
	h := &hooks{}
	c, client := start(t, h)
	last := random(100 << 10)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for b := random(1 << 10); ; {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := client.Write(b); err != nil {
				return
			}
		}
	})
	ba := NewBatch()
	send(c, ba, last)
	c.Lock()
	c.End()
	c.Mark(ba)
	if !c.Ended() {
		t.Error("not ended")
	}
	c.Unlock()
	ba.Flush()
	mustRead(t, client, last)
	mustEOF(t, client)
	close(stop)
	wg.Wait()
	client.Close()
	if err := h.wait(t); !errors.Is(err, ErrClosed) {
		t.Fatalf("Closed got %v", err)
	}
	send(c, ba, last) // comes too late, and goes nowhere
	ba.Flush()
	c.Lock()
	defer c.Unlock()
	if c.out != nil {
		t.Error("a dead connection keeps an outbox")
	}
}

// TestEndSilent: a client that neither reads nor closes does not keep an ended connection.
func TestEndSilent(t *testing.T) {
	t.Parallel()
	h := &hooks{}
	c, client := start(t, h)
	defer client.Close()
	ba := NewBatch()
	fill(t, c, ba)
	began := time.Now()
	end(c)
	if err := h.wait(t); !errors.Is(err, ErrClosed) {
		t.Fatalf("Closed got %v", err)
	}
	if d := time.Since(began); d < lingering/2 {
		t.Errorf("it took %v", d)
	}
}

func TestAbort(t *testing.T) {
	t.Parallel()
	t.Run("idle", func(t *testing.T) {
		h := &hooks{}
		c, client := start(t, h)
		c.Abort()
		c.Abort()
		mustEOF(t, client)
		client.Close()
		if err := h.wait(t); !errors.Is(err, ErrClosed) {
			t.Fatalf("Closed got %v", err)
		}
	})
	t.Run("full", func(t *testing.T) {
		h := &hooks{}
		c, _ := start(t, h)
		fill(t, c, NewBatch())
		c.Abort()
		if err := h.wait(t); !errors.Is(err, ErrClosed) {
			t.Fatalf("Closed got %v", err)
		}
	})
	t.Run("paused", func(t *testing.T) {
		h := &hooks{}
		c, client := start(t, h)
		c.Lock()
		c.Pause()
		c.Unlock()
		mustWrite(t, client, []byte("x"))
		c.Abort()
		mustEOF(t, client)
		client.Close()
		if err := h.wait(t); !errors.Is(err, ErrClosed) {
			t.Fatalf("Closed got %v", err)
		}
	})
	t.Run("before Serve", func(t *testing.T) {
		s, client := accept(t)
		c := New(s, "")
		c.Abort()
		h := &hooks{data: func([]byte, *Batch) (int, error) { t.Error("Data is called"); return 0, nil }}
		mustWrite(t, client, []byte("x"))
		client.Close()
		serve(t, c, h)
		if err := h.wait(t); !errors.Is(err, ErrClosed) {
			t.Fatalf("Closed got %v", err)
		}
	})
}
