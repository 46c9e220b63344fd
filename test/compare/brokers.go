package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// peer is a kind of broker. All run with their defaults; what is set is what lets them take the load at
// all, and is said in about.
type peer struct {
	name   string
	about  string
	binary string // in -bin, or on the PATH
	nodes  []int  // how many it can be
	// command is the arguments and the files of node i of those at ports, in its own folder.
	command func(dir string, i int, ports []ports) (args []string, files map[string]string)
}

// ports of one node.
type ports struct{ mqtt, peer, gossip, other int }

var allPeers = []peer{
	{
		name: "Skein", about: "defaults: fsync before PUBACK of what persistent sessions are to get", binary: "skein", nodes: []int{1, 3},
		command: func(dir string, i int, p []ports) ([]string, map[string]string) {
			args := []string{
				"run", "--node-id", fmt.Sprintf("n%d", i+1), "--data", dir, "--listen", "tcp://" + addr(p[i].mqtt), "--peer", addr(p[i].peer),
				"--gossip", addr(p[i].gossip), "--admin", "", "--http", "", "--bootstrap-expect", fmt.Sprint(len(p)),
			}
			for j := range p {
				if j != i {
					args = append(args, "--join", addr(p[j].gossip))
				}
			}
			return args, nil
		},
	},
	{
		name: "Mosquitto", about: "max_queued_messages 0, max_inflight_messages 100, persistence false: nothing on disk", binary: "mosquitto", nodes: []int{1},
		command: func(dir string, i int, p []ports) ([]string, map[string]string) {
			return []string{"-c", filepath.Join(dir, "conf")}, map[string]string{"conf": fmt.Sprintf(
				"listener %d 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 100\npersistence false\nlog_type none\n", p[i].mqtt)}
		},
	},
	{
		name: "mochi", about: "github.com/mochi-mqtt/server, defaults: nothing on disk", binary: "mochi", nodes: []int{1},
		command: func(_ string, i int, p []ports) ([]string, map[string]string) {
			return []string{addr(p[i].mqtt)}, nil
		},
	},
	{
		name: "NATS", about: "nats-server with MQTT and JetStream, defaults: on disk without fsync; three nodes with R3", binary: "nats", nodes: []int{1, 3},
		command: func(dir string, i int, p []ports) ([]string, map[string]string) {
			conf := fmt.Sprintf("server_name: n%d\nlisten: %q\njetstream { store_dir: %q }\nmqtt { host: \"127.0.0.1\", port: %d }\n",
				i+1, addr(p[i].other), filepath.Join(dir, "store"), p[i].mqtt)
			if len(p) > 1 {
				var routes []string
				for _, q := range p {
					routes = append(routes, "nats://"+addr(q.peer))
				}
				conf += fmt.Sprintf("cluster { name: c, listen: %q, routes: [%s] }\n", addr(p[i].peer), strings.Join(routes, ", "))
			}
			return []string{"-c", filepath.Join(dir, "conf")}, map[string]string{"conf": conf}
		},
	},
	{
		name: "FlashMQ", about: "defaults, anonymous: nothing on disk before PUBACK", binary: "flashmq", nodes: []int{1},
		command: func(dir string, i int, p []ports) ([]string, map[string]string) {
			return []string{"--config-file", filepath.Join(dir, "conf")}, map[string]string{"conf": fmt.Sprintf(
				"allow_anonymous true\nlog_file %s\nlisten {\n  protocol mqtt\n  port %d\n  inet4_bind_address 127.0.0.1\n}\n", filepath.Join(dir, "log.txt"), p[i].mqtt)}
		},
	},
}

func addr(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// present finds the peers' binaries.
func present(bin string) (found []peer, missing []string) {
	for _, p := range allPeers {
		name := p.binary
		if own := filepath.Join(bin, p.binary); exists(own) {
			p.binary = own
		} else if path, err := exec.LookPath(name); err == nil {
			p.binary = path
		} else if path := "/usr/sbin/" + name; exists(path) {
			p.binary = path
		} else {
			missing = append(missing, fmt.Sprintf("%s: there is no %s on the PATH", p.name, name))
			continue
		}
		found = append(found, p)
	}
	return found, missing
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// broker is a peer that runs.
type broker struct {
	*peer
	addrs []string
	pids  []string
	procs []*exec.Cmd
}

// start starts n nodes and waits until each takes a CONNECT.
func (p *peer) start(ctx context.Context, dir string, n int) (*broker, error) {
	b := &broker{peer: p}
	all := make([]ports, n)
	for i := range all {
		free, err := freePorts(4)
		if err != nil {
			return nil, err
		}
		all[i] = ports{free[0], free[1], free[2], free[3]}
		b.addrs = append(b.addrs, addr(free[0]))
	}
	for i := range all {
		if err := b.launch(filepath.Join(dir, fmt.Sprintf("%s%d", p.name, i+1)), i, all); err != nil {
			b.stop()
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	for _, a := range b.addrs {
		if err := await(ctx, a); err != nil {
			b.stop()
			return nil, fmt.Errorf("%s is not ready: %w", p.name, err)
		}
	}
	return b, nil
}

func (b *broker) launch(dir string, i int, all []ports) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	args, files := b.command(dir, i, all)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	log, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(b.binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.procs = append(b.procs, cmd)
	b.pids = append(b.pids, fmt.Sprint(cmd.Process.Pid))
	return nil
}

func (b *broker) stop() {
	for _, c := range b.procs {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
}

func freePorts(n int) ([]int, error) {
	var out []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out, nil
}

// await waits until a broker accepts an MQTT client.
func await(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := errors.New("nobody tried")
	for ctx.Err() == nil {
		if err = knock(addr); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return err
}

// knock says CONNECT (MQTT 3.1.1, clean, "knock") and reads the CONNACK.
func knock(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte("\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05knock")); err != nil {
		return err
	}
	var ack [4]byte
	if _, err := c.Read(ack[:]); err != nil {
		return err
	}
	if ack[3] != 0 {
		return fmt.Errorf("CONNACK %d", ack[3])
	}
	_, err = c.Write([]byte("\xe0\x00"))
	return err
}
