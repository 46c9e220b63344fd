package fsm

import (
	"testing"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// A will is published within a quarter of a second after its delay or with the end of its session, in the same
// step, once all nodes know how; before that within a second, as a replica of the older binary does.
func TestWillIsDue(t *testing.T) {
	for _, d := range []struct {
		features, delay, expiry uint32
		due                     int64
		sessions                int // that are left then
	}{
		{1, 2, 100, 1_003_000, 1},
		{1, 100, 2, 1_003_000, 0},
		{LevelPrecise, 2, 100, 1_002_250, 1},
		{LevelPrecise, 100, 2, 1_002_250, 0},
		{LevelPrecise, 2, 2, 1_002_250, 0},
	} {
		f := New("n1")
		apply := func(index uint64, now int64, cmds ...*fsmpb.Command) {
			t.Helper()
			b, err := (&fsmpb.Batch{Origin: "n1", Incarnation: 1, First: index - 1, Commands: cmds}).MarshalVT()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Apply(index, 1, EncodeBatch(nil, now, b)); err != nil {
				t.Fatal(err)
			}
		}
		system := func(index uint64, now int64, s *fsmpb.System) (wills, sessions int) {
			t.Helper()
			if _, err := f.Apply(index, 1, EncodeSystem(nil, now, s)); err != nil {
				t.Fatal(err)
			}
			n := f.Counts()
			return n.Retained, n.Sessions
		}
		system(1, 1_000_000, &fsmpb.System{Op: &fsmpb.System_NodeUp{NodeUp: &fsmpb.NodeUp{Node: "n1", Nonce: 1, PeerAddr: "p", Features: d.features}}})
		apply(2, 1_000_000, &fsmpb.Command{Op: &fsmpb.Command_Connect{Connect: &fsmpb.Connect{
			ClientId: "c", Persistent: true, Expiry: d.expiry, Will: &fsmpb.Will{Topic: "w", Payload: []byte("w"), Retain: true, Delay: d.delay},
		}}})
		apply(3, 1_000_010, &fsmpb.Command{Op: &fsmpb.Command_Disconnect{Disconnect: &fsmpb.Disconnect{
			ClientId: "c", Epoch: uint64(EpochAt(2, 0)),
		}}})
		tick := &fsmpb.System{Op: &fsmpb.System_Tick{Tick: &fsmpb.Tick{}}}
		if wills, sessions := system(4, d.due-1, tick); wills != 0 || sessions != 1 {
			t.Errorf("%+v: %d wills and %d sessions before", d, wills, sessions)
		}
		if wills, sessions := system(5, d.due, tick); wills != 1 || sessions != d.sessions {
			t.Errorf("%+v: %d wills and %d sessions", d, wills, sessions)
		}
	}
}
