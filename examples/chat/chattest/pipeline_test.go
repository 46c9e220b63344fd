package chattest

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

// TestPipeline kills the workers of the pipeline while a user talks: each message is in the transcript once,
// in order, and in the inbox.
func TestPipeline(t *testing.T) {
	const count = 60
	s := start(t, 1)
	workers := map[string]*exec.Cmd{"one": s.worker("one"), "two": s.worker("two")}
	alice, _ := s.login("alice", "x")
	alice.Subscribe(1, "chat/u/alice/in/#")

	got := make(map[int]string) // by seq
	take := func(patience time.Duration) bool {
		p, err := alice.Next(patience)
		if err != nil {
			return false
		}
		if p.Type == h.PUBLISH && p.QoS == 1 {
			alice.MustSend(h.Packet{Type: h.PUBACK, ID: p.ID})
		}
		if p.Topic == "chat/u/alice/in/msg" {
			var m struct {
				Seq  int
				Text string
			}
			if err := json.Unmarshal([]byte(p.Payload), &m); err != nil {
				t.Fatalf("%s: %v", p.Payload, err)
			}
			if was, ok := got[m.Seq]; ok && was != m.Text {
				t.Errorf("number %d is %q and %q", m.Seq, was, m.Text)
			}
			got[m.Seq] = m.Text
		}
		return true
	}
	publish := func(n int, text string) {
		alice.MustSend(h.Packet{
			Type: h.PUBLISH, Topic: "chat/u/alice/out/alice.x/msg", Payload: fmt.Sprintf(`{"n":%d,"text":%q,"at":%d}`, n, text, n),
			QoS: 1, ID: uint16(n),
		})
	}
	var want []string
	for n := 1; n <= count; n++ {
		text := fmt.Sprintf("message %d", n)
		if n == count/2 {
			text = "When are you open?"
		}
		want = append(want, text)
		publish(n, text)
		if n%10 == 0 {
			publish(n, text) // a client that has lost the PUBACK
		}
		if n%12 == 0 {
			name := []string{"one", "two"}[n/12%2]
			end(workers[name])
			workers[name] = s.worker(name)
		}
		for take(time.Millisecond) {
		}
	}
	for _, w := range workers { // and at the very end, with whatever is left to be sent
		end(w)
	}
	s.worker("one")
	s.worker("two")
	for deadline := time.Now().Add(40 * time.Second); len(got) < count+1 && time.Now().Before(deadline); {
		take(100 * time.Millisecond)
	}
	rows := strings.Split(s.query("SELECT seq, text FROM messages WHERE sender = 'alice' ORDER BY seq"), "\n")
	if len(rows) != count {
		t.Errorf("%d of %d messages in the transcript", len(rows), count)
	}
	for i, row := range rows {
		if _, text, _ := strings.Cut(row, "|"); i < count && text != want[i] {
			t.Errorf("message %d in the transcript is %s, not %q", i+1, row, want[i])
		}
	}
	if n := s.query("SELECT count(*), max(seq) FROM messages"); n != fmt.Sprintf("%d|%d", count+1, count+1) {
		t.Errorf("messages and the highest number: %s", n)
	}
	if len(got) != count+1 {
		t.Errorf("%d of %d messages came to the inbox", len(got), count+1)
	}
	if bot := s.query("SELECT text FROM messages WHERE sender = 'bot'"); !strings.Contains(bot, "8 to 20") {
		t.Errorf("the automatic answer is %q", bot)
	}
	s.Await("an empty outbox", func() bool { return s.query("SELECT count(*) FROM outbox") == "0" })
}

// TestBadInput: what nobody could make sense of stops no worker, and what is refused is said to be.
func TestBadInput(t *testing.T) {
	s := start(t, 1)
	s.worker("one")
	alice, _ := s.login("alice", "x")
	alice.Subscribe(1, "chat/u/alice/in/#")
	for i, body := range []string{
		``, `{`, `[]`, `"x"`, `{"n":0,"text":"x","at":1}`, `{"n":"1","text":"x","at":1}`, `{"n":1.5}`, `{"n":true}`, "\x00\xff\xfe", strings.Repeat("[", 100000),
		`{"n":1e400}`, `{"conv":1e400}`, `{"conv":99999999999999999999999}`, `{"conv":9007199254740991}`,
	} {
		for _, kind := range []string{"msg", "seen", "typing", "history", "nonsense", "msg/deeper"} {
			alice.MustSend(h.Packet{Type: h.PUBLISH, Topic: "chat/u/alice/out/alice.x/" + kind, Payload: body, QoS: 1, ID: uint16(i + 1)})
			alice.Await(h.PUBACK)
		}
	}
	for n, body := range []string{
		`{"n":1,"text":"","at":1}`, `{"n":2,"text":7,"at":1}`, fmt.Sprintf(`{"n":3,"text":%q,"at":1}`, strings.Repeat("x", 4001)), `{"n":4,"close":true,"at":1}`,
		`{"n":5,"text":"x","at":-1}`, `{"n":6,"text":"x"}`, `{"n":7,"text":"\ud800","at":1}`, `{"n":8,"text":"x","at":1e400}`,
	} {
		alice.MustSend(h.Packet{Type: h.PUBLISH, Topic: "chat/u/alice/out/alice.x/msg", Payload: body, QoS: 1, ID: uint16(100 + n)})
		p := alice.Await(h.PUBLISH)
		alice.MustSend(h.Packet{Type: h.PUBACK, ID: p.ID})
		if p.Topic != "chat/u/alice/in/notice" || !strings.Contains(p.Payload, fmt.Sprintf(`"n":%d`, n+1)) {
			t.Errorf("%.60s is answered by %s %s", body, p.Topic, p.Payload)
		}
	}
	alice.MustSend(h.Packet{Type: h.PUBLISH, Topic: "chat/u/alice/out/alice.x/msg", Payload: `{"n":9,"text":"at last","at":1}`, QoS: 1, ID: 200})
	for {
		p := alice.Await(h.PUBLISH)
		if p.Topic == "chat/u/alice/in/msg" {
			if !strings.Contains(p.Payload, `"seq":1,`) {
				t.Errorf("the first message that was taken is %s", p.Payload)
			}
			break
		}
	}
	// Requests for what there is none of, in a conversation that there is.
	for i, body := range []string{`{"conv":1,"after":1e400}`, `{"conv":1,"before":99999999999999999999999}`, `{"conv":1,"limit":-1}`, `{"conv":1,"limit":"all"}`, `{"conv":1,"after":null}`} {
		alice.MustSend(h.Packet{
			Type: h.PUBLISH, Topic: "chat/u/alice/out/alice.x/history", Payload: body, QoS: 1, ID: uint16(300 + i),
			Props: []h.Property{{ID: 0x08, Text: "chat/u/alice/in/reply/alice.x"}},
		})
	}
	alice.MustSend(h.Packet{
		Type: h.PUBLISH, Topic: "chat/u/alice/out/alice.x/history", Payload: `{"conv":1}`, QoS: 1, ID: 400,
		Props: []h.Property{{ID: 0x08, Text: "chat/u/alice/in/reply/alice.x"}},
	})
	for {
		if p := alice.Await(h.PUBLISH); p.Topic == "chat/u/alice/in/reply/alice.x" {
			if !strings.Contains(p.Payload, `"at last"`) {
				t.Errorf("the answer is %s", p.Payload)
			}
			break
		}
	}
	if n := strings.Count(s.log("one"), "connected, session"); n != 1 {
		t.Errorf("the worker has connected %d times", n)
	}
}
