package fsm

import (
	"testing"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// A will is published within a quarter of a second after its delay, once all nodes know how; before
// that within a second, as a replica of the older binary does.
func TestWillIsDue(t *testing.T) {
	for _, d := range []struct {
		features uint32
		due      int64
	}{{1, 1_003_000}, {LevelPrecise, 1_002_250}} {
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
		system := func(index uint64, now int64, s *fsmpb.System) (wills int) {
			t.Helper()
			if _, err := f.Apply(index, 1, EncodeSystem(nil, now, s)); err != nil {
				t.Fatal(err)
			}
			return f.Counts().Retained
		}
		system(1, 1_000_000, &fsmpb.System{Op: &fsmpb.System_NodeUp{NodeUp: &fsmpb.NodeUp{Node: "n1", Nonce: 1, PeerAddr: "p", Features: d.features}}})
		apply(2, 1_000_000, &fsmpb.Command{Op: &fsmpb.Command_Connect{Connect: &fsmpb.Connect{
			ClientId: "c", Persistent: true, Expiry: 100, Will: &fsmpb.Will{Topic: "w", Payload: []byte("w"), Retain: true, Delay: 2},
		}}})
		apply(3, 1_000_010, &fsmpb.Command{Op: &fsmpb.Command_Disconnect{Disconnect: &fsmpb.Disconnect{
			ClientId: "c", Epoch: uint64(EpochAt(2, 0)),
		}}})
		tick := &fsmpb.System{Op: &fsmpb.System_Tick{Tick: &fsmpb.Tick{}}}
		if n := system(4, d.due-1, tick); n != 0 {
			t.Errorf("level %d: the will is published too early", d.features)
		}
		if n := system(5, d.due, tick); n != 1 {
			t.Errorf("level %d: the will is not published when it is due", d.features)
		}
	}
}
