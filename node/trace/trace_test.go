package trace

import (
	"fmt"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, tr *Tracer, r Rule) *Tap {
	t.Helper()
	p, err := tr.Open(r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRules(t *testing.T) {
	var tr Tracer
	if tr.Active() != nil || (*Tracer)(nil).Active() != nil {
		t.Fatal("somebody asks already")
	}
	byTopic, byClient := open(t, &tr, Rule{Filter: "a/+"}), open(t, &tr, Rule{Client: "sub"})
	own := Subject{Publisher: "pub", Topic: "a/b", Payload: []byte("x"), QoS: 1}
	other := Subject{Publisher: "pub", Topic: "b", Payload: []byte("x")}
	tr.Active().Step(&own, "received", "pub", Step{})
	tr.Active().Step(&own, Sent, "sub", Step{PacketID: 7})
	tr.Active().Step(&other, Sent, "sub", Step{})
	tr.Active().Acknowledged("sub", 7, "PUBREC", false)
	tr.Active().Acknowledged("sub", 7, "PUBCOMP", true)
	tr.Active().Acknowledged("sub", 7, "PUBCOMP", true) // nothing is due any more
	want := func(p *Tap, list ...string) {
		t.Helper()
		for _, w := range list {
			s := <-p.C
			if got := fmt.Sprintf("%s %s %s %d %s", s.Kind, s.Client, s.Topic, s.PacketID, s.Detail); got != w {
				t.Errorf("got %q, want %q", got, w)
			}
			if s.Topic == "a/b" && s.Message != fmt.Sprintf("%016x", own.ID()) || s.Time == 0 {
				t.Errorf("%+v", s)
			}
		}
		if n := len(p.C); n != 0 {
			t.Errorf("%d steps too many", n)
		}
	}
	want(byTopic, "received pub a/b 0 ", "sent sub a/b 7 ", "acknowledged sub a/b 7 PUBREC", "acknowledged sub a/b 7 PUBCOMP")
	want(byClient, "sent sub a/b 7 ", "sent sub b 0 ", "acknowledged sub a/b 7 PUBREC", "acknowledged sub a/b 7 PUBCOMP")
	byTopic.Close()
	byClient.Close()
	if tr.Active() != nil {
		t.Error("somebody still asks")
	}
}

// What is too much is left out and counted, and who does not read blocks nobody.
func TestRateIsBounded(t *testing.T) {
	var tr Tracer
	p := open(t, &tr, Rule{Rate: 10})
	defer p.Close()
	s := Subject{Topic: "t"}
	for range 3000 { // within two seconds, whatever the machine does
		tr.Active().Step(&s, "received", "", Step{})
	}
	n := len(p.C)
	if n == 0 || n >= 3000 {
		t.Errorf("%d steps", n)
	}
	p.mu.Lock()
	p.second = 0
	p.mu.Unlock()
	tr.Active().Step(&s, "received", "", Step{})
	var skipped uint64
	for range n + 1 {
		skipped += (<-p.C).Skipped
	}
	if skipped+uint64(n) != 3000 {
		t.Errorf("%d steps and %d skipped", n, skipped)
	}
}

// The same messages are in the sample on every node, and about as many as asked for.
func TestSample(t *testing.T) {
	var one, two Tracer
	a, b := open(t, &one, Rule{Sample: 0.25, Rate: 1 << 20}), open(t, &two, Rule{Sample: 0.25, Rate: 1 << 20})
	defer a.Close()
	defer b.Close()
	for i := range 2000 {
		s := Subject{Publisher: "p", Topic: "t", Payload: fmt.Append(nil, i)}
		one.Active().Step(&s, "received", "p", Step{})
		two.Active().Step(&s, "received", "p", Step{})
	}
	if len(a.C) != len(b.C) || len(a.C) < 350 || len(a.C) > 650 {
		t.Errorf("%d and %d of 2000", len(a.C), len(b.C))
	}
	for len(a.C) > 0 {
		if x, y := <-a.C, <-b.C; x.Message != y.Message {
			t.Fatalf("%s here, %s there", x.Message, y.Message)
		}
	}
}

func TestTooMany(t *testing.T) {
	var tr Tracer
	for range maxTaps {
		defer open(t, &tr, Rule{}).Close()
	}
	if _, err := tr.Open(Rule{}); err != ErrTooMany {
		t.Error(err)
	}
}

// Nobody asks: a message costs one load.
func BenchmarkNobody(b *testing.B) {
	var tr Tracer
	b.ReportAllocs()
	for range b.N {
		if tr.Active() != nil {
			b.Fatal("somebody asks")
		}
	}
}
