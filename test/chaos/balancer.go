package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// balancer is HAProxy in front of the nodes, with the configuration that docker-compose.yml uses.
type balancer struct {
	address string
	cmd     *exec.Cmd
	log     *os.File
}

// balanced is the name of a connection's node that is known to the balancer alone.
const balanced = "balancer"

// balancerConfig is that configuration, from the root of the repository.
const balancerConfig = "scripts/haproxy/haproxy.cfg"

// haproxy finds the program.
func haproxy() (string, error) {
	if path, err := exec.LookPath("haproxy"); err == nil {
		return path, nil
	}
	return exec.LookPath("/usr/sbin/haproxy")
}

var (
	checkPort = regexp.MustCompile(`check port \d+`)
	sections  = regexp.MustCompile(`(?m)^(\w+)(?: (\w+))?.*\n(?:[ \t#].*\n|\n)*`)
)

// localConfig is the shipped configuration with this machine's addresses: the MQTT part of it, to the nodes' ports
// that want PROXY protocol.
func localConfig(shipped, bind string, nodes []*node) (string, error) {
	var b strings.Builder
	for _, m := range sections.FindAllStringSubmatch(shipped, -1) {
		text, kind, name := m[0], m[1], m[2]
		switch {
		case kind == "global" || kind == "defaults":
			text = strings.ReplaceAll(text, "resolvers docker init-addr last,libc,none ", "")
		case name != "mqtt":
			continue
		}
		b.WriteString(text)
	}
	config := strings.Replace(b.String(), "bind :1883", "bind "+bind, 1)
	for _, n := range nodes {
		_, port, err := net.SplitHostPort(n.http)
		if err != nil {
			return "", err
		}
		line := regexp.MustCompile(`(?m)^\s+server ` + n.id + ` .*$`)
		found := line.FindString(config)
		if found == "" {
			return "", fmt.Errorf("%s has no server %s", balancerConfig, n.id)
		}
		here := strings.Replace(found, n.id+":1883", n.proxied, 1)
		config = strings.Replace(config, found, checkPort.ReplaceAllString(here, "check port "+port), 1)
	}
	if strings.Contains(config, "docker") || !strings.Contains(config, "bind "+bind) {
		return "", fmt.Errorf("%s is not as expected", balancerConfig)
	}
	return config, nil
}

// newBalancer starts it and waits until it takes connections.
func newBalancer(ctx context.Context, dir string, nodes []*node) (*balancer, error) {
	program, err := haproxy()
	if err != nil {
		return nil, fmt.Errorf("balancer: %w", err)
	}
	shipped, err := os.ReadFile(balancerConfig)
	if err != nil {
		return nil, fmt.Errorf("balancer: %w", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	b := &balancer{address: fmt.Sprintf("127.0.0.1:%d", port)}
	config, err := localConfig(string(shipped), b.address, nodes)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, err
	}
	if b.log, err = os.Create(filepath.Join(dir, "haproxy.log")); err != nil {
		return nil, err
	}
	b.cmd = exec.Command(program, "-db", "-f", path)
	b.cmd.Stdout, b.cmd.Stderr = b.log, b.log
	b.cmd.SysProcAttr = dieWithParent()
	if err := b.cmd.Start(); err != nil {
		return nil, errors.Join(err, b.log.Close())
	}
	for deadline := time.Now().Add(10 * time.Second); ; wait(ctx, 50*time.Millisecond) {
		conn, err := net.DialTimeout("tcp", b.address, dialTime)
		if err == nil {
			return b, conn.Close()
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			b.close()
			return nil, fmt.Errorf("balancer: see %s: %w", b.log.Name(), err)
		}
	}
}

func (b *balancer) close() {
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait() // it was killed
	_ = b.log.Close()
}
