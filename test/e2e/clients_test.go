package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

// TestRealClients runs the clients that people use on one cluster, healed between its parts.
func TestRealClients(t *testing.T) {
	if testing.Short() {
		t.Skip("not in a short run")
	}
	beside(t)
	c := h.Start(t, 3, flags...)
	parts(t, c, []part{
		{"mosquitto", testMosquitto},
		{"mosquitto retained and will", testMosquittoRetained},
		{"mosquitto request", testMosquittoRequest},
		{"scenario of paho python", testScenarioPython},
		{"scenario of mqtt.js", testScenarioMQTTjs},
		{"scenario of paho go 3.1.1", testScenarioPahoGo3},
		{"scenario of paho go 5.0", testScenarioPahoGo5},
		{"paho go 3.1.1", testPahoGo3},
		{"paho go 5.0", testPahoGo5},
		{"paho python", testPahoPython},
	})
}

func port(address string) string {
	_, p, _ := net.SplitHostPort(address)
	return p
}

// tool is a command with a deadline, whose lines the test reads as they come.
type tool struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	lines chan string
}

// launch starts a command that prints its lines at once.
func launch(t *testing.T, stdin, name string, args ...string) *tool {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs := new(strings.Builder)
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	x := &tool{t: t, name: name + " " + strings.Join(args, " "), cmd: cmd, lines: make(chan string, 10000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(x.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			x.lines <- s.Text()
		}
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if t.Failed() && errs.Len() > 0 {
			t.Logf("%s: %s", x.name, errs)
		}
	})
	return x
}

// until returns the lines up to the first that holds a text.
func (x *tool) until(text string) (before []string) {
	x.t.Helper()
	for {
		line, ok := x.line()
		if !ok {
			x.t.Fatalf("%s ended without %q: %q", x.name, text, before)
		}
		if strings.Contains(line, text) {
			return before
		}
		before = append(before, line)
	}
}

func (x *tool) line() (string, bool) {
	x.t.Helper()
	select {
	case line, ok := <-x.lines:
		return line, ok
	case <-time.After(2 * h.Patience):
		x.t.Fatalf("%s says nothing", x.name)
		return "", false
	}
}

// rest are the lines that are left when the command has ended, which it must do well; those with a
// prefix, without it.
func (x *tool) rest(prefix string) []string {
	x.t.Helper()
	var all []string
	for {
		line, ok := x.line()
		if !ok {
			break
		}
		if line, ok = strings.CutPrefix(line, prefix); ok {
			all = append(all, line)
		}
	}
	if code := x.cmd.ProcessState; code == nil || !code.Success() {
		x.t.Errorf("%s: %v", x.name, code)
	}
	return all
}

// mosquitto is a subscriber that has its SUBACK. It ends after count messages.
func mosquittoSub(t *testing.T, n *h.Node, count int, args ...string) *tool {
	t.Helper()
	args = append([]string{
		"-oL", "mosquitto_sub", "-d", "-h", "127.0.0.1", "-p", port(n.MQTT), "-C", fmt.Sprint(count), "-W", "30", "-F", "got %q %p",
	}, args...)
	x := launch(t, "", "stdbuf", args...) // its own output would wait in a buffer
	x.until("Subscribed (mid")
	return x
}

func needMosquitto(t *testing.T) {
	t.Helper()
	for _, name := range []string{"mosquitto_sub", "mosquitto_pub", "stdbuf"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("needs %s: %v", name, err)
		}
	}
}

// Every version and QoS, clean and persistent, from one node to another.
func testMosquitto(t *testing.T, c *h.Cluster) {
	needMosquitto(t)
	const count = 50
	list := payloads(count)
	for i, v := range []string{"mqttv31", "mqttv311", "mqttv5"} {
		for qos := range 3 {
			for k, kept := range [][]string{nil, {"-c"}} {
				if k != heavy((i+qos)%2, k) {
					continue // by turns
				}
				id := fmt.Sprintf("mosq-%s-%d-%d", v, qos, len(kept))
				if v == "mqttv5" && kept != nil {
					kept = append(kept, "-x", "3600")
				}
				common := append([]string{"-V", v, "-q", fmt.Sprint(qos), "-t", id}, kept...)
				sub := mosquittoSub(t, c.Node(1), count, append(common, "-i", id)...)
				pub := launch(t, strings.Join(list, "\n")+"\n", "mosquitto_pub", append(common,
					"-h", "127.0.0.1", "-p", port(c.Node(3).MQTT), "-l", "-i", id+"-p")...)
				pub.rest("")
				same(t, id, sub.rest(fmt.Sprintf("got %d ", qos)), list)
			}
		}
	}
}

func testMosquittoRetained(t *testing.T, c *h.Cluster) {
	needMosquitto(t)
	at := func(i int) []string { return []string{"-h", "127.0.0.1", "-p", port(c.Node(i).MQTT)} }
	for _, v := range []string{"mqttv311", "mqttv5"} {
		topic := "mosq-retained/" + v
		launch(t, "", "mosquitto_pub", append(at(1), "-V", v, "-q", "1", "-r", "-t", topic, "-m", "kept")...).rest("")
		got := launch(t, "", "mosquitto_sub", append(at(2), "-V", v, "-t", topic, "-C", "1", "-W", "20", "-F", "%r %p")...).rest("")
		same(t, topic, got, []string{"1 kept"})

		watch := clean(t, c.Node(3), "mosq-watch-"+v, h.V5)
		watch.Subscribe(1, "mosq-will/#")
		for _, end := range []string{"killed", "ends well"} {
			will := "mosq-will/" + v + "/" + end
			sub := mosquittoSub(t, c.Node(1), 1, "-V", v, "-t", topic+"/nothing", "-i", "mosq-"+v,
				"--will-topic", will, "--will-payload", end, "--will-qos", "1")
			if end == "killed" {
				_ = sub.cmd.Process.Kill()
				watch.Receive(1)
			} else {
				launch(t, "", "mosquitto_pub", append(at(2), "-t", topic+"/nothing", "-m", "end")...).rest("")
				sub.rest("got ")
			}
		}
		watch.Quiet(quiet)
		same(t, "wills of "+v, watch.Got, []string{"killed"})
		watch.Disconnect()
	}
}

// python finds an interpreter that has Paho.
func python(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, "-c", "import paho.mqtt.client").Run() == nil {
			return name
		}
	}
	t.Skip("needs Python with paho-mqtt (Debian: python3-paho-mqtt)")
	return ""
}

// The subscriber's node is killed in the middle; the session goes on on another one.
func testPahoPython(t *testing.T, c *h.Cluster) {
	interpreter := python(t)
	count := heavy(100, 500)
	list := payloads(count)
	for i, v := range []string{"3.1.1", "5.0"} {
		transport := []string{"tcp", "websockets"}[i]
		victim := c.Follower()
		other := c.Follower(victim)
		next := c.Leader()
		address := func(n *h.Node) string {
			if transport == "tcp" {
				return port(n.MQTT)
			}
			return port(n.WS)
		}
		x := launch(t, "", interpreter, "testdata/paho_client.py", v, transport, fmt.Sprint(count), address(victim), address(other), address(next))
		x.until("half")
		victim.Kill()
		x.until("present")
		got := x.rest("got ")
		for qos := 1; qos <= 2; qos++ {
			var of []string
			for _, g := range got {
				if p, ok := strings.CutPrefix(g, fmt.Sprint(qos, " ")); ok {
					of = append(of, p)
				}
			}
			if qos == 1 {
				of = firsts(of)
			}
			same(t, fmt.Sprintf("%s over %s at QoS %d", v, transport, qos), of, list)
		}
		c.Heal()
	}
}
