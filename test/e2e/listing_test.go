package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/skein-mqtt/skein/proto/adminpb"
	h "github.com/skein-mqtt/skein/test/harness"
)

// lister reads a node's list of sessions again and again, as a watch or a page does.
type lister struct {
	stop  context.CancelFunc
	group sync.WaitGroup

	pages, lists, largest int
	err                   error
}

func startListing(t *testing.T, n *h.Node, selector string, every time.Duration) *lister {
	t.Helper()
	conn, err := grpc.NewClient(n.Admin, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	l := &lister{stop: stop}
	l.group.Go(func() {
		defer func() { _ = conn.Close() }()
		turn := time.NewTicker(every)
		defer turn.Stop()
		for ctx.Err() == nil && l.err == nil {
			l.err = l.list(ctx, adminpb.NewAdminClient(conn), selector)
			select {
			case <-turn.C:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			l.err = nil
		}
	})
	return l
}

// list reads one list, page by page. Ids come in order, each once.
func (l *lister) list(ctx context.Context, c adminpb.AdminClient, selector string) error {
	last, count := "", 0
	for token := ""; ; l.pages++ {
		res, err := c.ListSessions(ctx, &adminpb.ListSessionsRequest{Page: &adminpb.Page{Token: token, Selector: selector}})
		if err != nil {
			return err
		}
		for _, s := range res.Sessions {
			if s.Id <= last {
				return fmt.Errorf("%s is listed after %s", s.Id, last)
			}
			last = s.Id
		}
		count += len(res.Sessions)
		if token = res.NextToken; token == "" {
			l.lists++
			l.largest = max(l.largest, count)
			return nil
		}
	}
}

func (l *lister) end() {
	l.stop()
	l.group.Wait()
}

// latencies publishes one message after the other and returns how long each took to be acknowledged, shortest first.
func latencies(t *testing.T, s *h.Session, count int) []time.Duration {
	t.Helper()
	list := make([]time.Duration, count)
	for i := range list {
		begin := time.Now()
		if err := s.Publish("listed", "x", 1); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		list[i] = time.Since(begin)
	}
	slices.Sort(list)
	return list
}

// Very many sessions are listed, page by page and with a selector that few satisfy, while messages are published by
// the log on the same node. The times are printed, and judged by who reads them.
func TestListWhilePublishing(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	beside(t)
	c := h.Start(t, 3, flags...)
	count, messages := heavy(2000, 100_000), heavy(100, 2000)
	abreast(t, "session", count, 100, func(i int) error {
		client, err := admitted(c.Nodes[i%3], h.V5, h.Packet{
			ClientID: fmt.Sprintf("listed-%06d", i), KeepAlive: 60, Props: []h.Property{{ID: h.SessionExpiry, Num: 3600}},
		})
		if err == nil {
			client.Disconnect()
		}
		return err
	})
	if t.Failed() {
		return
	}
	one := c.Node(1)
	sub := stored(t, c.Node(2), "reader", h.V5) // one that acknowledges, so that the log is the road
	sub.Subscribe(1, "listed")
	done := make(chan error, 1)
	pub := clean(t, one, "writer", h.V5)
	total := 0
	go func() { // ends when the last message has come, or none does for long
		done <- sub.Pump(func() bool { return len(sub.Got) > 0 && sub.Got[len(sub.Got)-1] == "over" })
	}()
	tell := func(what string, list []time.Duration) {
		at := func(q float64) time.Duration { return list[int(q*float64(len(list)-1))].Round(10 * time.Microsecond) }
		t.Logf("%-40s p50 %v, p99 %v, longest %v of %d", what, at(0.5), at(0.99), at(1), len(list))
	}
	latencies(t, pub, messages/10)
	for range heavy(1, 2) {
		tell("nobody lists", latencies(t, pub, messages))
		for _, x := range []struct {
			what, selector string
			every          time.Duration
		}{
			{"a list each second", "", time.Second},
			{"with a selector, each second", "queued>1000000", time.Second},
			{"one list after the other", "", time.Nanosecond},
		} {
			l := startListing(t, one, x.selector, x.every)
			list := latencies(t, pub, messages)
			l.end()
			if l.err != nil {
				t.Error(l.err)
			}
			if want := count + 1; l.largest != want && x.selector == "" && l.lists > 0 {
				t.Errorf("%d sessions are listed, want %d", l.largest, want)
			}
			tell(fmt.Sprintf("%s: %d lists", x.what, l.lists), list)
			total += l.lists
		}
	}
	if total == 0 {
		t.Error("no list was read to its end")
	}
	publishAll(t, pub, "listed", 1, []string{"over"})
	if err := <-done; err != nil {
		t.Error(err)
	}
}
