package broker

import (
	"net"
	"testing"

	"github.com/skein-mqtt/skein/proto/mqtt"
)

// TestPerAddress: one address has as many connections as it may, and room again when one has gone.
func TestPerAddress(t *testing.T) {
	l, _ := newLone(t, func(c *Config) { c.MaxPerAddress = 2 })
	one := l.dial(&mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: "one"})
	l.dial(&mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: "two"})
	limit, full := func() (Limit, bool) {
		l.Broker.mu.Lock()
		defer l.Broker.mu.Unlock()
		return l.crowded(l.clients["one"].conn)
	}()
	if !full || limit != LimitPerAddress {
		t.Errorf("a third connection from one address: %t, %s", full, LimitNames[limit])
	}
	_ = one.Close()
	l.eventually("there is room again", func() bool {
		l.Broker.mu.Lock()
		defer l.Broker.mu.Unlock()
		_, full := l.crowded(l.clients["two"].conn)
		return !full && len(l.addresses) == 1
	})
	l.dial(&mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: "three"})
}

func TestNetworks(t *testing.T) {
	of := func(text string) string {
		a, err := net.ResolveTCPAddr("tcp", text)
		if err != nil {
			t.Fatal(err)
		}
		return networkOf(a).String()
	}
	for text, want := range map[string]string{
		"192.0.2.7:1": "192.0.2.7/32", "[::ffff:192.0.2.7]:1": "192.0.2.7/32", "[2001:db8::1:2]:9": "2001:db8::/64",
	} {
		if got := of(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	if networkOf(&net.UnixAddr{Name: "@", Net: "unix"}).IsValid() {
		t.Error("a unix socket has an address")
	}
}
