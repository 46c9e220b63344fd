package membership

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// maxPast bounds the addresses that are remembered to look for lost nodes.
const maxPast = 64

// events hears from memberlist, with its lock held.
type events struct{ m *Membership }

// NotifyJoin implements memberlist.EventDelegate.
func (e events) NotifyJoin(n *memberlist.Node) { e.note(n, "node found") }

// NotifyUpdate implements memberlist.EventDelegate.
func (e events) NotifyUpdate(n *memberlist.Node) { e.note(n, "") }

// NotifyLeave implements memberlist.EventDelegate.
func (e events) NotifyLeave(n *memberlist.Node) {
	m := e.m
	m.mu.Lock()
	node, ok := m.nodes[n.Name]
	delete(m.nodes, n.Name)
	m.mu.Unlock()
	if ok {
		m.cfg.Logger.Info("node is gone from gossip", "node", node.ID, "address", node.Gossip)
		m.notify()
	}
}

func (e events) note(n *memberlist.Node, what string) {
	m := e.m
	if n.Name == m.cfg.Self.ID+"/"+m.cfg.Self.Store {
		return
	}
	node, err := decode(n.Meta)
	if err != nil {
		m.cfg.Logger.Warn("a node's notes can't be read", "name", n.Name, "error", err)
		return
	}
	node.Gossip = net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
	m.mu.Lock()
	m.nodes[n.Name] = node
	if !slices.Contains(m.past, node.Gossip) {
		m.past = append(m.past, node.Gossip)
		if len(m.past) > maxPast {
			m.past = m.past[1:]
		}
	}
	m.mu.Unlock()
	if what != "" {
		m.cfg.Logger.Info(what, "node", node.ID, "address", node.Gossip)
	}
	m.notify()
}

func (m *Membership) notify() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// notes hands this node's notes to memberlist.
type notes struct{ m *Membership }

// NodeMeta implements memberlist.Delegate.
func (d notes) NodeMeta(limit int) []byte {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if len(d.m.notes) > limit { // encode has checked against a constant of the same value
		return nil
	}
	return d.m.notes
}

// NotifyMsg implements memberlist.Delegate.
func (notes) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (notes) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (notes) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (notes) MergeRemoteState([]byte, bool) {}

// logWriter turns memberlist's log lines into records of ours. What it calls an error is mostly a
// node that can't be reached, which the log of the cluster reports better, or a stranger: he shall not fill the log.
type logWriter struct {
	logger *slog.Logger
	last   *atomic.Int64 // when an error was last worth more than a remark, ms since 1970
}

// errorInterval is how often an error is worth more than a remark.
const errorInterval = 10 * time.Second

// Write implements io.Writer.
func (w logWriter) Write(p []byte) (int, error) {
	line := strings.TrimSpace(string(p))
	level := slog.LevelDebug
	if rest, ok := strings.CutPrefix(line, "[ERR] "); ok {
		line = rest
		if last, now := w.last.Load(), time.Now().UnixMilli(); now-last >= errorInterval.Milliseconds() && w.last.CompareAndSwap(last, now) {
			level = slog.LevelInfo
		}
	} else if i := strings.Index(line, "] "); strings.HasPrefix(line, "[") && i > 0 {
		line = line[i+2:]
	}
	line = strings.TrimPrefix(line, "memberlist: ")
	w.logger.Log(context.Background(), level, "gossip: "+line)
	return len(p), nil
}
