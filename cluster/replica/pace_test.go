package replica

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// TestPace: without questions a heartbeat each gap; a question lets one go at once, to each server, and that is not
// followed by another before it would have been anyway.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer()
		p.gap = 100 * time.Millisecond
		begin := time.Now()
		passed := func() time.Duration { return time.Since(begin) }
		p.wait("b") // the first one is not held
		if passed() != 0 {
			t.Errorf("the first: %v", passed())
		}
		p.wait("c")
		p.wait("b")
		if passed() != 100*time.Millisecond {
			t.Errorf("the second: %v", passed())
		}
		gone := make(chan time.Duration)
		for _, id := range []raft.ServerID{"b", "c"} {
			go func() {
				p.wait(id)
				gone <- passed()
				p.wait(id)
				gone <- passed()
			}()
		}
		<-gone // c was a whole gap old
		time.Sleep(30 * time.Millisecond)
		answered := p.question()
		if at := <-gone; at != 131*time.Millisecond {
			t.Errorf("with a question: %v", at)
		}
		if at := <-gone; at != 131*time.Millisecond {
			t.Errorf("with a question, to c: %v", at)
		}
		answered()
		if at := <-gone; at != 231*time.Millisecond {
			t.Errorf("after the answer: %v", at)
		}
	})
}

// TestPaceAsksAgain: a question that the heartbeat came too early for is not left waiting.
func TestPaceAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer()
		p.gap = time.Hour
		p.wait("b")
		answered := p.question()
		p.wait("b")
		begin := time.Now()
		p.wait("b")
		if d := time.Since(begin); d != askedAgain {
			t.Errorf("asked again after %v", d)
		}
		answered()
		done := make(chan struct{})
		go func() {
			p.wait("b")
			close(done)
		}()
		synctest.Wait()
		p.close() // nothing is held while raft shuts down
		<-done
	})
}
