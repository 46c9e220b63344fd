package replica

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// dialer notes for whom it is to dial.
type dialer struct {
	tcp
	mu   sync.Mutex
	seen []raft.ServerID
	only raft.ServerID
}

func (d *dialer) DialServer(id raft.ServerID, address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	d.mu.Lock()
	d.seen = append(d.seen, id)
	d.mu.Unlock()
	if id != d.only {
		return nil, errors.New("another server has that address")
	}
	return d.tcp.Dial(address, timeout)
}

// TestConnectionsAreOfOneServer: what is meant for a server that was removed does not reach the one that has its address now,
// not even over a connection that was made for that one.
func TestConnectionsAreOfOneServer(t *testing.T) {
	var ends [2]*Transport
	var from *dialer
	for i := range ends {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			from = &dialer{tcp: tcp{l}, only: "n/new"}
			ends[i] = NewTransport(from, nil)
		} else {
			ends[i] = NewTransport(tcp{l}, nil)
		}
	}
	stop := make(chan struct{})
	var server sync.WaitGroup
	server.Go(func() {
		for {
			select {
			case rpc := <-ends[1].Consumer():
				rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
			case <-stop:
				return
			}
		}
	})
	send := func(id raft.ServerID) error {
		return ends[0].AppendEntries(id, ends[1].LocalAddr(), &raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1, PrevLogTerm: 1}, new(raft.AppendEntriesResponse))
	}
	if err := send("n/new"); err != nil {
		t.Fatal(err)
	}
	if err := send("n/old"); err == nil {
		t.Error("the new server was sent what the old one lacks")
	}
	if err := send("n/new"); err != nil || len(from.seen) != 2 {
		t.Errorf("%v; dialled for %q: a connection is used again", err, from.seen)
	}
	if err := errors.Join(ends[0].Close(), ends[1].Close()); err != nil {
		t.Error(err)
	}
	close(stop)
	server.Wait()
}
