package chattest

import (
	"net"
	"os/exec"
	"strings"
	"testing"
)

// TestTutorial runs the classic tutorial's programs: the subscriber on one node, the publisher on another.
func TestTutorial(t *testing.T) {
	s := start(t, 2)
	_, first, _ := net.SplitHostPort(s.Node(1).MQTT)
	_, second, _ := net.SplitHostPort(s.Node(2).MQTT)
	s.process("subscriber", python(t), "../tutorial/subscriber.py", "127.0.0.1", first)
	s.Await("the subscription", func() bool {
		out, err := s.Node(1).Skein("get", "subscriptions", "--no-headers")
		return err == nil && strings.Contains(out, "sports/cricket/india")
	})
	for _, text := range []string{"India won the toss", "42 for 1"} {
		if out, err := exec.Command(python(t), "../tutorial/publisher.py", "127.0.0.1", second, text).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		s.Await(text, func() bool { return strings.Contains(s.log("subscriber"), "sports/cricket/india "+text+"\n") })
	}
	if want := "connected with result code 0\nsports/cricket/india India won the toss\nsports/cricket/india 42 for 1\n"; s.log("subscriber") != want {
		t.Errorf("the subscriber printed %q", s.log("subscriber"))
	}
}
