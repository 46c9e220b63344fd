package chaos

import (
	"strings"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/test/harness"
)

// script is a model whose clock goes on by a second with each step.
type script struct {
	*Model
	t    *testing.T
	time time.Duration
	pub  *party
	sub  *party
	s    *session
	i    *interest
}

// newScript has a subscriber of t/# at QoS 2 whose SUBACK came.
func newScript(t *testing.T, persistent bool) *script {
	s := &script{Model: NewModel(nil), t: t, pub: &party{name: "p"}, sub: &party{name: "s"}}
	s.now = func() time.Duration {
		s.time += time.Second
		return s.time
	}
	s.s = s.Open(s.sub, persistent)
	s.i = s.Ask(s.s, "t/#", "", 2)
	s.Granted(s.i)
	return s
}

func (s *script) send(qos byte) *message { return s.Send(s.pub, 1, streamID{"p", "t/a", qos}, false) }

// taken is send and the acknowledgement.
func (s *script) taken(qos byte) *message {
	msg := s.send(qos)
	s.Mark(msg, acked, s.pub, 1, 1)
	return msg
}

func packet(msg *message) harness.Packet {
	return harness.Packet{Type: harness.PUBLISH, Topic: msg.topic, QoS: msg.qos, ID: 7, Payload: msg.payload(100)}
}

func (s *script) deliver(msg *message) { s.Deliver(s.s, 1, packet(msg)) }

// TestJudgement: each broken promise is found and named, and what is allowed is not.
func TestJudgement(t *testing.T) {
	for _, test := range []struct {
		name  string
		clean bool
		want  Class // empty: nothing is wrong
		do    func(s *script)
	}{
		{name: "all is well", do: func(s *script) {
			for qos := range byte(3) {
				for range 3 {
					s.deliver(s.taken(qos))
				}
			}
		}},
		{name: "not acknowledged, not delivered", do: func(s *script) { s.send(1); s.send(2) }},
		{name: "acknowledged, not delivered", want: Loss, do: func(s *script) { s.taken(1) }},
		{name: "refused", do: func(s *script) { s.Mark(s.taken(1), refused, s.pub, 1, 1) }},
		{name: "before SUBACK", do: func(s *script) {
			s.i.granted = 0
			s.taken(1)
			s.Granted(s.i)
		}},
		{name: "after UNSUBSCRIBE", do: func(s *script) {
			s.Leaving(s.i)
			s.taken(1)
			s.Left(s.i)
		}},
		{name: "delivered after UNSUBACK", want: Unwanted, do: func(s *script) {
			s.Leaving(s.i)
			s.Left(s.i)
			s.deliver(s.taken(1))
		}},
		{name: "QoS 1 twice", do: func(s *script) {
			msg := s.taken(1)
			s.deliver(msg)
			s.deliver(msg)
		}},
		{name: "QoS 2 twice", want: Once, do: func(s *script) {
			msg := s.taken(2)
			s.deliver(msg)
			s.deliver(msg)
		}},
		{name: "QoS 2 again in a later round", want: Once, do: func(s *script) {
			msg := s.taken(2)
			s.deliver(msg)
			s.CloseRound()
			s.deliver(msg)
		}},
		{name: "QoS 0 twice", want: Once, do: func(s *script) {
			msg := s.taken(0)
			s.deliver(msg)
			s.deliver(msg)
		}},
		{name: "overtaken", want: Order, do: func(s *script) {
			first, second := s.taken(1), s.taken(1)
			s.deliver(second)
			s.deliver(first)
		}},
		{name: "a suffix again", do: func(s *script) {
			first, second := s.taken(1), s.taken(1)
			for range 2 {
				s.deliver(first)
				s.deliver(second)
			}
		}},
		{name: "the wrong QoS", want: Integrity, do: func(s *script) {
			p := packet(s.taken(2))
			p.QoS = 1
			s.Deliver(s.s, 1, p)
		}},
		{name: "never sent", want: Integrity, do: func(s *script) {
			p := packet(s.send(0))
			p.Payload = strings.Replace(p.Payload, "|1|", "|9|", 1)
			s.Deliver(s.s, 1, p)
		}},
		{name: "an old connection is answered", want: OneOwner, do: func(s *script) {
			msg := s.send(1)
			s.Fence(msg)
			s.Mark(msg, acked, s.pub, 1, 1)
		}},
		{name: "an old connection's message is delivered", want: OneOwner, do: func(s *script) {
			msg := s.send(1)
			s.Fence(msg)
			s.deliver(msg)
		}},
		{name: "a packet id is used again too early", want: Once, do: func(s *script) {
			first, second := s.taken(2), s.taken(2)
			s.deliver(first)
			s.Repeat(s.s, held{first.streamID, first.seq, 1}, packet(second), 2)
			s.deliver(second)
		}},
		{name: "again without DUP", want: Protocol, do: func(s *script) {
			msg := s.taken(2)
			s.deliver(msg)
			s.Repeat(s.s, held{msg.streamID, msg.seq, 1}, packet(msg), 2)
		}},
		{name: "again with DUP", do: func(s *script) {
			msg := s.taken(2)
			s.deliver(msg)
			p := packet(msg)
			p.Dup = true
			s.Repeat(s.s, held{msg.streamID, msg.seq, 1}, p, 2)
		}},
		{name: "a clean session ends before the last", clean: true, do: func(s *script) {
			s.deliver(s.taken(1))
			s.taken(1)
			s.End(s.s)
		}},
		{name: "a clean session lacks one in the middle", clean: true, want: Loss, do: func(s *script) {
			s.deliver(s.taken(1))
			s.taken(1)
			s.deliver(s.taken(1))
			s.End(s.s)
		}},
		{name: "a clean session lacks the last", clean: true, want: Loss, do: func(s *script) { s.taken(1) }},
		{name: "a will is due and comes", do: func(s *script) { s.deliver(s.will(due)) }},
		{name: "a will is due and does not come", want: Wills, do: func(s *script) { s.will(due) }},
		{name: "a will comes twice", want: Once, do: func(s *script) {
			w := s.will(due)
			s.deliver(w)
			s.deliver(w)
		}},
		{name: "a will after a goodbye that may be lost", do: func(s *script) { s.deliver(s.will(said)) }},
		{name: "a will comes early", want: Wills, do: func(s *script) {
			w := s.will(due)
			s.NotBefore(w, time.Minute)
			s.deliver(w)
		}},
		{name: "a will of who came back", want: Wills, do: func(s *script) {
			w := s.will(said)
			s.Fence(w)
			s.deliver(w)
		}},
		{name: "two members of a group", want: Shared, do: func(s *script) {
			a, b := s.member("a"), s.member("b")
			msg := s.Send(s.pub, 1, streamID{"p", "g/x", 2}, false)
			s.Deliver(a, 1, packet(msg))
			s.Deliver(b, 1, packet(msg))
		}},
		{name: "one member of a group", do: func(s *script) {
			a, b := s.member("a"), s.member("b")
			for _, who := range []*session{a, b} {
				msg := s.Send(s.pub, 1, streamID{"p", "g/x", 2}, false)
				s.Mark(msg, received, s.pub, 1, 1)
				s.Deliver(who, 1, packet(msg))
			}
		}},
		{name: "no member of a group", want: Loss, do: func(s *script) {
			s.member("a")
			s.Mark(s.Send(s.pub, 1, streamID{"p", "g/x", 1}, false), acked, s.pub, 1, 1)
		}},
		{name: "a first time in a later round", do: func(s *script) {
			s.deliver(s.taken(2))
			s.Leaving(s.i)
			late := s.taken(2) // nobody waits for it
			s.CloseRound()
			s.deliver(late)
		}},
		{name: "an old retained value", want: Retain, do: func(s *script) {
			old := s.Send(s.pub, 1, streamID{"p", "r/a", 1}, true)
			s.Mark(old, acked, s.pub, 1, 1)
			s.Mark(s.Send(s.pub, 1, old.streamID, true), acked, s.pub, 1, 2)
			s.RetainedAs("reader", "r/a", old.payload(0))
		}},
		{name: "no retained value", want: Retain, do: func(s *script) {
			s.Mark(s.Send(s.pub, 1, streamID{"p", "r/a", 1}, true), acked, s.pub, 1, 1)
			s.RetainedAs("reader", "r/a", "")
		}},
		{name: "a retained value that was not acknowledged", do: func(s *script) {
			s.Mark(s.Send(s.pub, 1, streamID{"p", "r/a", 1}, true), acked, s.pub, 1, 1)
			s.RetainedAs("reader", "r/a", s.Send(s.pub, 1, streamID{"p", "r/a", 1}, true).payload(0))
		}},
		{name: "a message of QoS 0 that nobody counts", clean: true, want: Silence, do: func(s *script) {
			s.steady()
			s.send(0)
		}},
		{name: "one that is counted", clean: true, do: func(s *script) {
			s.steady()
			s.send(0)
			s.Counted(map[string]int{"link": 1})
		}},
		{name: "one that is counted for somebody else", clean: true, want: Silence, do: func(s *script) {
			s.steady()
			s.send(0)
			s.Counted(map[string]int{"slow_reader": 1})
			s.Accounts(map[string]map[string]uint64{"other": {"slow_reader": 1}, "s": {"expired": 1}})
		}},
		{name: "one whose publisher's node died", clean: true, do: func(s *script) {
			s.steady()
			s.send(0)
			s.Died("node1")
		}},
		{name: "one whose subscriber came again", clean: true, do: func(s *script) {
			s.steady()
			s.send(0)
			s.Parted(s.sub, 1)
			s.End(s.s)
		}},
		{name: "one that its node may not have read", clean: true, do: func(s *script) {
			s.steady()
			s.send(0)
			s.Parted(s.pub, 1)
		}},
		{name: "one that its node has read", clean: true, want: Silence, do: func(s *script) {
			s.steady()
			s.send(0)
			s.deliver(s.taken(1))
			s.Parted(s.pub, 1)
		}},
		{name: "one counted by each replica", want: Silence, do: func(s *script) {
			s.steady()
			s.deliver(s.taken(1))
			s.Counted(map[string]int{"queue_full": 3})
		}},
		{name: "expired messages that nobody counts", want: Silence, do: func(s *script) {
			s.Expiring(3, true)
			s.Counted(map[string]int{"expired": 2})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScript(t, !test.clean)
			test.do(s)
			s.CloseRound()
			broken, _ := s.Violations()
			switch {
			case test.want == "" && len(broken) > 0:
				t.Errorf("a false alarm: %s", broken[0])
			case test.want != "" && len(broken) == 0:
				t.Errorf("missed: %s", test.want)
			case test.want != "" && broken[0].Class != test.want:
				t.Errorf("got %s, want %s", broken[0], test.want)
			}
		})
	}
}

func (s *script) will(end kind) *message {
	w := s.Will(s.pub, 1, streamID{"p", "t/will", 2})
	s.Mark(w, armed, s.pub, 1, 0)
	s.Mark(w, end, s.pub, 1, 0)
	return w
}

// steady has both ends connected for long.
func (s *script) steady() {
	s.Place(s.pub, 1, "node1")
	s.Connected(s.Open(s.pub, false), 1)
	s.Place(s.sub, 1, "node2")
	s.Connected(s.s, 1)
	s.time += wholeAgo
	s.Whole()
}

// member is a member of a shared group.
func (s *script) member(name string) *session {
	who := s.Open(&party{name: name}, true)
	s.Granted(s.Ask(who, "g/x", "group", 2))
	return who
}

func TestHistoryTellsAll(t *testing.T) {
	s := newScript(t, true)
	s.Place(s.pub, 1, "node3")
	s.Node("SIGKILL node1")
	s.taken(1)
	s.Note(s.pub, 1, "lost: EOF")
	s.CloseRound()
	broken, _ := s.Violations()
	if len(broken) != 1 {
		t.Fatalf("%d violations", len(broken))
	}
	for _, want := range []string{"p #1 on node3: PUBLISH sent", "PUBACK came", "== SIGKILL node1", "lost: EOF"} {
		if !strings.Contains(broken[0].String(), want) {
			t.Errorf("the history lacks %q:\n%s", want, broken[0])
		}
	}
}

func TestMatchTopic(t *testing.T) {
	for _, test := range []struct {
		filter, topic string
		want          bool
	}{
		{"t/#", "t/a", true},
		{"t/#", "t", true},
		{"t/+", "t/a", true},
		{"t/a", "t/a", true},
		{"t/a", "t/b", false},
		{"t/+", "t/a/b", false},
		{"t/a/b", "t/a", false},
		{"+", "t/a", false},
	} {
		if got := matchTopic(strings.Split(test.filter, "/"), strings.Split(test.topic, "/")); got != test.want {
			t.Errorf("%s matches %s: %v", test.filter, test.topic, got)
		}
	}
}

func TestPayload(t *testing.T) {
	s := newScript(t, true)
	msg := s.send(2)
	id, seq, ok := parsePayload(msg.payload(50))
	if id != msg.streamID || seq != 1 || !ok || len(msg.payload(50)) != 50 {
		t.Errorf("got %v %d %v", id, seq, ok)
	}
	for _, bad := range []string{"", "a|b|c|d|", "a|b|1|2"} {
		if _, _, ok := parsePayload(bad); ok {
			t.Errorf("%q is taken for a payload", bad)
		}
	}
}
