package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

// abuser tells a process of this test's whom to attack, and how: ADDRESS HALF-OPEN WRONG-PASSWORDS-A-SECOND.
const abuser = "TEST_SKEIN_ABUSER"

// TestAbuser is no test: TestAbuse runs it as a process of its own, until it is killed.
func TestAbuser(t *testing.T) {
	what := strings.Fields(os.Getenv(abuser))
	if len(what) != 3 {
		t.Skip("for TestAbuse")
	}
	half, err := strconv.Atoi(what[1])
	if err != nil {
		t.Fatal(err)
	}
	rate, err := strconv.Atoi(what[2])
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range half {
		group.Go(func() { halfOpen(what[0], i) })
	}
	group.Go(func() { guess(what[0], rate) })
	group.Wait()
}

// halfOpen holds a connection with nothing, or a part of a CONNECT, on it, and opens another one when it is closed.
func halfOpen(address string, number int) {
	connect := h.Packet{Type: h.CONNECT, ClientID: "half", Clean: true, Username: "ann", Password: "pw"}.Encode(h.V5)
	r := rand.New(rand.NewPCG(1, uint64(number)))
	for {
		nc, err := net.Dial("tcp", address)
		if err != nil {
			time.Sleep(time.Second) // its address may have run out of ports
			continue
		}
		_, _ = nc.Write(connect[:r.IntN(len(connect)-1)])
		_, _ = nc.Read(make([]byte, 1))
		_ = nc.Close()
	}
}

// guess logs in with wrong passwords, so many times a second.
func guess(address string, rate int) {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	slots := make(chan struct{}, 4*rate)
	for n := 0; ; n++ {
		<-tick.C
		slots <- struct{}{}
		go func() { // ends with the process
			defer func() { <-slots }()
			nc, err := net.Dial("tcp", address)
			if err != nil {
				return
			}
			defer nc.Close()
			_ = nc.SetDeadline(time.Now().Add(h.Patience))
			_, _ = nc.Write(login([]byte{4, 5}[n%2], "ann", fmt.Sprint("guess", n)))
			_, _ = nc.Read(make([]byte, 64))
		}()
	}
}

// trips sends messages from client to client for a while, one after the other from each of several pairs at a pace, and
// returns how long they took.
func trips(t *testing.T, n *h.Node, name string, d time.Duration) []time.Duration {
	t.Helper()
	const pairs, pause = 10, 20 * time.Millisecond
	all := make([][]time.Duration, pairs)
	var group sync.WaitGroup
	for i := range pairs {
		sub, pub := clean(t, n, fmt.Sprint(name, "-s", i), h.V5), clean(t, n, fmt.Sprint(name, "-p", i), h.V311)
		topic := fmt.Sprint(name, "/", i)
		sub.Subscribe(1, topic)
		group.Go(func() {
			defer sub.Close()
			defer pub.Close()
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
				began := time.Now()
				if err := pub.Send(h.Packet{Type: h.PUBLISH, Topic: topic, Payload: "x", QoS: 1, ID: 1}); err != nil {
					t.Errorf("%s: publish: %v", topic, err)
					return
				}
				p, err := sub.Next(h.Patience)
				took := time.Since(began)
				if err == nil {
					err = sub.Send(h.Packet{Type: h.PUBACK, ID: p.ID})
				}
				if err == nil {
					_, err = pub.Next(h.Patience)
				}
				if err != nil {
					t.Errorf("%s: %v", topic, err)
					return
				}
				all[i] = append(all[i], took)
			}
		})
	}
	group.Wait()
	return slices.Sorted(slices.Values(slices.Concat(all...)))
}

// TestAbuse: half-open connections and wrong passwords on one listener; clients of another lose nothing by it. It prints how
// long their messages take with and without, which a busy machine makes longer: nothing is asserted of that.
func TestAbuse(t *testing.T) {
	if testing.Short() {
		t.Skip("not in a short run")
	}
	beside(t)
	half, rate, d := heavy(200, 5000), heavy(100, 1000), time.Duration(heavy(1, 20))*time.Second
	for _, failures := range []int{100, 0} {
		t.Run(fmt.Sprintf("max_failures=%d", failures), func(t *testing.T) {
			users := filepath.Join(t.TempDir(), "users")
			if err := os.WriteFile(users, []byte(passwords), 0o600); err != nil {
				t.Fatal(err)
			}
			open := fmt.Sprintf("127.0.0.1:%d", h.FreePort(t))
			n := h.Start(t, 1, append(flags[:len(flags):len(flags)], "--set", "auth.password_file="+users,
				"--set", fmt.Sprintf("auth.max_failures=%d", failures), "--listen", "tcp://"+open+"?allow_anonymous=true")...).Node(1)
			good := h.At(t, open, n.HTTP)
			trips(t, good, "warm", d/4)
			quiet := trips(t, good, "quiet", d)

			cmd := exec.Command("nice", "-n", "10", os.Args[0], "-test.run=^TestAbuser$", "-test.timeout=10m")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d", abuser, n.MQTT, half, rate))
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}()
			refused := func() float64 { return n.Metric("skein_connections_refused_total") }
			h.Await(t, "the attack", func() bool { return n.Metric("skein_connections") > float64(half)*0.9 && refused() > float64(rate)/2 })
			before, began := refused(), time.Now()
			attacked := trips(t, good, "attacked", d)
			perSecond := (refused() - before) / time.Since(began).Seconds()
			t.Logf("%.0f connections, %.0f refused a second, %.0f times banned", n.Metric("skein_connections"), perSecond, n.Metric("skein_auth_banned_total"))
			for _, l := range []struct {
				name string
				list []time.Duration
			}{{"quiet", quiet}, {"attacked", attacked}} {
				if len(l.list) == 0 {
					t.Fatalf("%s: no message arrived", l.name)
				}
				at := func(q float64) time.Duration {
					return l.list[int(q*float64(len(l.list)-1))].Round(10 * time.Microsecond)
				}
				t.Logf("%-8s %5d messages: p50 %s, p99 %s, p99.9 %s, longest %s", l.name, len(l.list), at(0.5), at(0.99), at(0.999), at(1))
			}
		})
	}
}
