package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"

	h "github.com/skein-mqtt/skein/test/harness"
)

// One scenario (all QoS, retained, wills, shared, expiry, request and response, a session that goes on)
// with each client, on one node and across two, over TCP and WebSocket.

var partsOf = map[string][]string{
	"3.1.1": {"ok qos", "ok retained", "ok will", "ok shared", "ok session"},
	"5.0":   {"ok qos", "ok retained", "ok will", "ok shared", "ok expiry", "ok request and response", "ok session"},
}

// scenarios runs a client's scenario in all ways. transports are its names for TCP and WebSocket.
func scenarios(t *testing.T, c *h.Cluster, transports [2]string, command func(version, transport string) []string) {
	for i, version := range []string{"3.1.1", "5.0"} {
		for k, transport := range transports {
			for j, there := range []*h.Node{c.Node(1), c.Node(3)} {
				if heavy(1, 0) == 1 && (i != j || j != k) {
					continue // one of each
				}
				address := func(n *h.Node) string {
					if k == 0 {
						return port(n.MQTT)
					}
					return port(n.WS)
				}
				args := append(command(version, transport), address(c.Node(1)), address(there))
				x := launch(t, "", args[0], args[1:]...)
				var said []string
				for line, ok := x.line(); ok; line, ok = x.line() {
					said = append(said, line)
				}
				if !slices.Equal(said, partsOf[version]) {
					t.Errorf("%s over %s, %s and %s: %q", version, transport, c.Node(1).ID, there.ID, said)
				}
			}
		}
	}
}

func testScenarioPython(t *testing.T, c *h.Cluster) {
	interpreter := python(t)
	scenarios(t, c, [2]string{"tcp", "websockets"}, func(version, transport string) []string {
		return []string{interpreter, "testdata/scenario.py", version, transport}
	})
}

// nodejs is the command of an interpreter that has mqtt.js.
func nodejs(t *testing.T) []string {
	t.Helper()
	node := []string{"env", "NODE_PATH=" + os.Getenv("NODE_PATH") + ":/usr/share/nodejs", "node"} // where Debian's packages are
	if exec.Command(node[0], append(node[1:], "-e", "require('mqtt')")...).Run() != nil {
		t.Skip("needs Node.js with mqtt.js (Debian: node-mqtt)")
	}
	return node
}

func testScenarioMQTTjs(t *testing.T, c *h.Cluster) {
	node := nodejs(t)
	scenarios(t, c, [2]string{"mqtt", "ws"}, func(version, transport string) []string {
		return append(slices.Clone(node), "testdata/scenario.js", map[string]string{"3.1.1": "4", "5.0": "5"}[version], transport)
	})
}

// The tools of Mosquitto: a request and its response across nodes, and a session that goes on.
func testMosquittoRequest(t *testing.T, c *h.Cluster) {
	needMosquitto(t)
	if _, err := exec.LookPath("mosquitto_rr"); err != nil {
		t.Skipf("needs mosquitto_rr: %v", err)
	}
	for i, there := range []*h.Node{c.Node(1), c.Node(2)} {
		topic := fmt.Sprint("rr/", i)
		service := clean(t, c.Node(1), topic, h.V5)
		service.Subscribe(1, topic)
		x := launch(t, "", "mosquitto_rr", "-h", "127.0.0.1", "-p", port(there.MQTT), "-V", "mqttv5", "-q", "1",
			"-t", topic, "-e", topic+"/answer", "-m", "question", "-W", "30")
		p := service.Await(h.PUBLISH)
		if err := service.Handle(p); err != nil {
			t.Fatal(err)
		}
		answer := h.Packet{Type: h.PUBLISH, QoS: 1, ID: 1, Payload: "answer"}
		for _, q := range p.Props {
			switch q.ID {
			case 0x08:
				answer.Topic = q.Text
			case 0x09:
				answer.Props = append(answer.Props, q)
			}
		}
		service.MustSend(answer)
		same(t, "mosquitto_rr", x.rest(""), []string{"answer"})
		service.Disconnect()
	}
}
