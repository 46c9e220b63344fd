package run

import (
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

// state lets the admin service read the replicated state.
type state struct{ fsm *fsm.FSM }

func (s state) Sessions(after string, fn func(*adminpb.Session) bool) {
	s.fsm.Sessions(after, func(i fsm.SessionInfo) bool {
		if i.ClientID == after {
			return true
		}
		return fn(session(&i))
	})
}

func session(i *fsm.SessionInfo) *adminpb.Session {
	return &adminpb.Session{
		Id: i.ClientID, Node: i.Owner.Node, Connected: i.Connected, Expiry: i.Expiry, Expires: i.ExpiresAt,
		Subscriptions: uint32(i.Subscriptions), Queued: uint64(i.Queue), QueuedBytes: i.QueueBytes,
		Last: i.Last, Cursor: i.Cursor, HasWill: i.HasWill, Epoch: uint64(i.Epoch),
		Username: i.Username, Address: i.Address, Protocol: i.Protocol, QueueQos0: i.Limits.QueueQoS0,
	}
}

// Session implements admin.State.
func (s state) Session(id string) (*adminpb.Session, bool) {
	i, ok := s.fsm.Session(id)
	if !ok || i.Clean {
		return nil, false
	}
	return session(&i), true
}

// Clients merges two ordered lists, the persistent sessions with a connection and the clean
// clients. The state machine is read in turns of a page, so that no read lock is held while
// another one is asked for.
func (s state) Clients(after string, fn func(*adminpb.Client) bool) {
	type list func(string, func(fsm.SessionInfo) bool)
	const turn = 500
	read := func(l list, after string) (page []fsm.SessionInfo) {
		l(after, func(i fsm.SessionInfo) bool {
			if i.ClientID != after && i.Connected {
				page = append(page, i)
			}
			return len(page) < turn
		})
		return page
	}
	sources := [2]list{s.fsm.Sessions, s.fsm.CleanClients}
	var pages [2][]fsm.SessionInfo
	last := [2]string{after, after}
	for {
		for k := range pages {
			if len(pages[k]) == 0 && sources[k] != nil {
				if pages[k] = read(sources[k], last[k]); len(pages[k]) == 0 {
					sources[k] = nil
				}
			}
		}
		k := 0
		switch {
		case len(pages[0]) == 0 && len(pages[1]) == 0:
			return
		case len(pages[0]) == 0, len(pages[1]) > 0 && pages[1][0].ClientID < pages[0][0].ClientID:
			k = 1
		}
		i := pages[k][0]
		pages[k], last[k] = pages[k][1:], i.ClientID
		if !fn(&adminpb.Client{
			Id: i.ClientID, Node: i.Owner.Node, Address: i.Address, Username: i.Username, Protocol: i.Protocol,
			Persistent: !i.Clean, Keepalive: i.Keepalive, Connected: i.ConnectedAt, Listener: i.Listener,
			Subscriptions: uint32(i.Subscriptions), Epoch: uint64(i.Epoch),
		}) {
			return
		}
	}
}

func (s state) Subscriptions(from string, fn func(*adminpb.Subscription) bool) {
	s.fsm.Subscriptions(from, func(clientID string, sub fsm.Subscription) bool {
		return fn(subscription(clientID, sub, true))
	})
}

func subscription(clientID string, sub fsm.Subscription, persistent bool) *adminpb.Subscription {
	return &adminpb.Subscription{
		Client: clientID, Filter: sub.Filter, Group: sub.Group, Qos: uint32(sub.QoS), NoLocal: sub.NoLocal,
		RetainAsPublished: sub.RetainAsPublished, RetainHandling: uint32(sub.RetainHandling), Id: sub.ID,
		Persistent: persistent,
	}
}

func (s state) Retained(filter, after string, fn func(*adminpb.Retained) bool) {
	if filter == "" {
		filter = "#"
	}
	s.fsm.ListRetained(filter, after, func(m *fsm.Message) bool {
		return fn(&adminpb.Retained{
			Topic: m.Topic, Qos: uint32(m.QoS), Payload: m.Payload, Stored: m.Stored, Expires: m.Expires, Publisher: m.Publisher,
		})
	})
}

// Hash tries until no entry was applied in between: the digest belongs to the index.
func (s state) Hash() (applied uint64, digest []byte) {
	for range 20 {
		before := s.fsm.Applied()
		h := s.fsm.Hash()
		if s.fsm.Applied() == before {
			return before, h[:]
		}
	}
	return 0, nil
}
