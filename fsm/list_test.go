package fsm

import (
	"fmt"
	"slices"
	"testing"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// Lists are longer than what is read at a time: nothing is left out, nothing comes twice, and the log goes on between.
func TestListsInTurns(t *testing.T) {
	tc := newTestCluster(t, "n1")
	tc.up("n1")
	tc.quiet = true
	const count = 3*turn + 7
	var ids, topics []string
	for i := range count {
		ids, topics = append(ids, fmt.Sprintf("c%04d", i)), append(topics, fmt.Sprintf("t/%04d", i))
		tc.batch("n1", connect(ids[i], 60), connect(fmt.Sprintf("clean%04d", i), 0))
		tc.batch("n1", subscribe(ids[i], Epoch(tc.epoch(ids[i])), "a"), subscribe(ids[i], Epoch(tc.epoch(ids[i])), "b"),
			&fsmpb.Command{Op: &fsmpb.Command_Publish{Publish: &fsmpb.Publish{Topic: topics[i], Payload: []byte("x"), Qos: 1, Retain: true}}})
	}
	f := tc.replicas["n1"]
	for _, after := range []string{"", "c0001", "c0256x", ids[count-1], "d"} {
		var got []string
		f.Sessions(after, func(i SessionInfo) bool {
			if len(got) == 0 {
				tc.batch("n1", connect("a-new-one", 60)) // the log waits for no reader
			}
			got = append(got, i.ClientID)
			return true
		})
		tc.batch("n1", &fsmpb.Command{Op: &fsmpb.Command_DeleteSession{DeleteSession: &fsmpb.DeleteSession{ClientId: "a-new-one"}}})
		if want := behind(ids, after, true); !slices.Equal(got, want) {
			t.Errorf("from %q: %d sessions, want %d", after, len(got), len(want))
		}
		subscribed := make(map[string]int)
		f.Subscriptions(after, func(id string, _ Subscription) bool {
			subscribed[id]++
			return true
		})
		for _, id := range ids {
			if want := 2; subscribed[id] != want && id >= after {
				t.Errorf("from %q: %s has %d subscriptions", after, id, subscribed[id])
			}
		}
	}
	for _, after := range []string{"", "t/0001", "t/0255", "t/0256x", topics[count-1], "z"} {
		for _, filter := range []string{"#", "t/+", "+/0700", topics[3]} {
			var want, got []string
			f.Retained(filter, func(m *Message) bool {
				want = append(want, m.Topic)
				return true
			})
			f.ListRetained(filter, after, func(m *Message) bool {
				got = append(got, m.Topic)
				return true
			})
			if want = behind(want, after, false); !slices.Equal(got, want) {
				t.Errorf("%s after %q: %d messages, want %d", filter, after, len(got), len(want))
			}
		}
	}
	n := 0
	f.CleanClients("", func(SessionInfo) bool { n++; return n < turn+1 })
	f.ListRetained("#", "", func(*Message) bool { n++; return n < 2*(turn+1) })
	if n != 2*(turn+1) {
		t.Errorf("%d items of lists that were ended", n)
	}
}

func behind(list []string, after string, itself bool) (out []string) {
	for _, s := range list {
		if s > after || s == after && itself {
			out = append(out, s)
		}
	}
	return out
}
