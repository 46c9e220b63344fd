package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// ports are taken below the range from which the kernel takes ports for outgoing connections: a
// stopped node's port must still be free when the node starts again.
var ports struct {
	mu   sync.Mutex
	next int
}

const (
	lowestPort  = 12000
	highestPort = 32000
)

// FreePort is for listeners beside a node's own.
func FreePort(t testing.TB) int {
	t.Helper()
	return freePort(t)
}

// freePort is a loopback port that nobody listens on, neither TCP nor UDP, and that is not handed
// out again.
func freePort(t testing.TB) int {
	t.Helper()
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if ports.next == 0 { // test binaries run beside each other
		ports.next = lowestPort + rand.IntN(highestPort-lowestPort)
	}
	for range highestPort - lowestPort {
		ports.next++
		if ports.next >= highestPort {
			ports.next = lowestPort
		}
		if free(ports.next) {
			return ports.next
		}
	}
	t.Fatal("no free port")
	return 0
}

func free(port int) bool {
	address := fmt.Sprintf("127.0.0.1:%d", port)
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	_ = l.Close()
	p, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	_ = p.Close()
	return true
}
