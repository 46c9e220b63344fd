package bench_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/skein-mqtt/skein/cmd/skein/bench"
	"github.com/skein-mqtt/skein/proto/mqtt"
	"github.com/skein-mqtt/skein/test/harness"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small is a run that takes a moment.
func small(mode bench.Mode, addr string) bench.Config {
	cfg := bench.Default()
	cfg.Mode, cfg.PubAddrs, cfg.SubAddrs = mode, []string{addr}, []string{addr}
	cfg.Pairs, cfg.Fan, cfg.Clients, cfg.At, cfg.Window = 3, 5, 20, 4, 10
	cfg.Count, cfg.Progress = 500, 0
	return cfg
}

func TestNode(t *testing.T) {
	node := harness.Start(t, 1).Nodes[0]
	addr := node.MQTT
	versions := []mqtt.Version{mqtt.V31, mqtt.V311, mqtt.V5}
	for i, mode := range []bench.Mode{bench.Pairs, bench.FanIn, bench.FanOut, bench.Shared} {
		for qos := range byte(3) {
			cfg := small(mode, addr)
			cfg.QoS, cfg.Version = qos, versions[(i+int(qos))%3]
			cfg.Persistent = qos > 0 && mode == bench.Pairs
			cfg.PersistentPublishers = cfg.Persistent
			res, err := bench.Run(t.Context(), cfg)
			if err != nil {
				t.Fatalf("%s, QoS %d: %v", mode, qos, err)
			}
			want := uint64(500)
			if mode == bench.FanOut {
				want *= 5
			}
			if res.Sent != 500 || res.Received != want || res.Delivered != want || res.Latency.Count != want || res.Lost+res.Repeated+res.Reordered+res.Refused+res.Unacked > 0 {
				t.Errorf("%s, QoS %d: %+v", mode, qos, res)
			}
		}
	}
	t.Run("wildcard", func(t *testing.T) { wildcard(t, addr) })
	t.Run("stored", func(t *testing.T) { stored(t, node) })
	t.Run("rate", func(t *testing.T) { rate(t, addr) })
	t.Run("crowd", func(t *testing.T) { crowd(t, addr) })
	t.Run("ends", func(t *testing.T) { ends(t, addr) })
}

func wildcard(t *testing.T, addr string) {
	cfg := small(bench.Wildcard, addr)
	cfg.Filters = 250 // more than one SUBSCRIBE takes
	res, err := bench.Run(t.Context(), cfg)
	if err != nil || res.Received != 500 || res.Lost+res.Repeated+res.Reordered > 0 {
		t.Errorf("%+v %v", res, err)
	}
}

// stored is about what a broker keeps: it is all handed out, and nothing of it stays behind.
func stored(t *testing.T, node *harness.Node) {
	for _, mode := range []bench.Mode{bench.Retained, bench.Replay} {
		cfg := small(mode, node.MQTT)
		cfg.ForMode(func(flag string) bool { return flag == "count" || flag == "pairs" })
		res, err := bench.Run(t.Context(), cfg)
		if err != nil || res.Delivered != 500 || res.Latency.Count != 500 || res.Lost+res.Repeated+res.Reordered > 0 || res.PerSecond <= 0 {
			t.Errorf("%s: %+v %v", mode, res, err)
		}
	}
	harness.Await(t, "nothing stays behind", func() bool {
		return node.Metric("skein_cluster_retained_messages") == 0 && node.Metric("skein_cluster_sessions") == 0
	})
	cfg := small(bench.Retained, node.MQTT)
	cfg.Count = 0
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "count") {
		t.Errorf("%v", err)
	}
}

func rate(t *testing.T, addr string) {
	cfg := small(bench.Pairs, addr)
	cfg.Count, cfg.Rate = 200, 1000
	res, err := bench.Run(t.Context(), cfg)
	if err != nil || res.Sent != 200 || res.Lost > 0 {
		t.Fatalf("%+v %v", res, err)
	}
	if res.Seconds < 0.19 { // 199 intervals of 1 ms
		t.Errorf("200 messages at 1,000/s took %.3f s", res.Seconds)
	}
}

func crowd(t *testing.T, addr string) {
	for _, mode := range []bench.Mode{bench.Connects, bench.Idle} {
		cfg := small(mode, addr)
		cfg.Duration, cfg.Warmup, cfg.Persistent = 10*time.Millisecond, 0, true
		cfg.PIDs = []int{os.Getpid()}
		res, err := bench.Run(t.Context(), cfg)
		if err != nil || res.Connections != 20 || res.Failed > 0 || res.Latency.Count != 20 || len(res.Processes) != 1 || res.Processes[0].RSS == 0 {
			t.Errorf("%s: %+v %v", mode, res, err)
		}
	}
}

// ends is about a run that is interrupted: it reports what it has.
func ends(t *testing.T, addr string) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	cfg := small(bench.Pairs, addr)
	cfg.Count, cfg.Duration, cfg.Warmup = 0, time.Hour, 0
	res, err := bench.Run(ctx, cfg)
	if err == nil || res == nil || res.Delivered == 0 {
		t.Errorf("%+v %v", res, err)
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	for _, mode := range []bench.Mode{bench.Pairs, bench.Connects} {
		if _, err := bench.Run(t.Context(), small(mode, addr)); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

// liar is a broker that loses, repeats and reorders, for one publisher and one subscriber at QoS 0.
type liar struct {
	mu         sync.Mutex
	subscriber net.Conn
}

func (l *liar) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	var b []byte
	var swapped []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		b = append(b, buf[:n]...)
		for {
			first, body, size, err := mqtt.Split(b, 0)
			if err != nil || size == 0 {
				break
			}
			packet := bytes.Clone(b[:size])
			b = b[size:]
			switch mqtt.TypeOf(first) {
			case mqtt.CONNECT:
				_, _ = c.Write((&mqtt.Connack{}).Append(nil, mqtt.V311))
			case mqtt.SUBSCRIBE:
				l.mu.Lock()
				l.subscriber = c
				l.mu.Unlock()
				_, _ = c.Write((&mqtt.Suback{PacketID: 1, Codes: []byte{0}}).Append(nil, mqtt.V311))
			case mqtt.PUBLISH:
				l.mu.Lock()
				to := l.subscriber
				l.mu.Unlock()
				switch number := binary.BigEndian.Uint64(body[len(body)-8:]); number {
				case 3, 4: // lost
				case 5:
					_, _ = to.Write(append(packet, packet...))
				case 6:
					swapped = packet
				case 7:
					_, _ = to.Write(append(packet, swapped...))
				default:
					_, _ = to.Write(packet)
				}
			}
		}
	}
}

func TestCounts(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	defer group.Wait()
	defer func() { _ = ln.Close() }()
	var l liar
	group.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			group.Go(func() { l.serve(c) })
		}
	})
	cfg := small(bench.Pairs, ln.Addr().String())
	cfg.Pairs, cfg.Count, cfg.Payload, cfg.Window = 1, 10, bench.MinPayload, 100
	cfg.Drain = 50 * time.Millisecond
	res, err := bench.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if res.Sent != 10 || res.Received != 8 || res.Lost != 2 || res.Repeated != 1 || res.Reordered != 1 {
		t.Errorf("%+v", res)
	}
	var out bytes.Buffer
	if err := res.JSON(&out); err != nil || !json.Valid(out.Bytes()) {
		t.Errorf("%s %v", out.String(), err)
	}
	out.Reset()
	if err := res.Table(&out); err != nil || !strings.Contains(out.String(), "lost        2\n") {
		t.Errorf("%s %v", out.String(), err)
	}
}

func TestValidate(t *testing.T) {
	for want, change := range map[string]func(*bench.Config){
		"mode":      func(c *bench.Config) { c.Mode = "pear" },
		"addr":      func(c *bench.Config) { c.SubAddrs = nil },
		"version":   func(c *bench.Config) { c.Version = 7 },
		"qos":       func(c *bench.Config) { c.QoS = 3 },
		"payload":   func(c *bench.Config) { c.Payload = 19 },
		"window":    func(c *bench.Config) { c.Window = 0 },
		"rate":      func(c *bench.Config) { c.Rate = -1 },
		"duration":  func(c *bench.Config) { c.Duration = 0 },
		"keepalive": func(c *bench.Config) { c.KeepAlive = 20 * time.Hour },
	} {
		cfg := bench.Default()
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), "bench: "+want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
