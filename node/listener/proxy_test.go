package listener

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

// pair is the two ends of a TCP connection on loopback.
func pair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	if err := s.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

func header(t *testing.T, version byte, command proxyproto.ProtocolVersionAndCommand, from string) string {
	t.Helper()
	ap := netip.MustParseAddrPort(from)
	h := proxyproto.Header{
		Version: version, Command: command, TransportProtocol: proxyproto.TCPv4,
		SourceAddr: net.TCPAddrFromAddrPort(ap), DestinationAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.9:1883")),
	}
	if ap.Addr().Is6() {
		h.TransportProtocol = proxyproto.TCPv6
		h.DestinationAddr = net.TCPAddrFromAddrPort(netip.MustParseAddrPort("[2001:db8::9]:1883"))
	}
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestProxy(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	v4, v6 := "192.0.2.1:4000", "[2001:db8::1]:4000"
	for _, test := range []struct {
		name    string
		version int
		from    []netip.Prefix
		sent    string
		want    string // client's address, or what the error holds
	}{
		{"v2", 2, trusted, header(t, 2, proxyproto.PROXY, v4), v4},
		{"v2, IPv6", 2, trusted, header(t, 2, proxyproto.PROXY, v6), v6},
		{"v2, local", 2, trusted, header(t, 2, proxyproto.LOCAL, v4), "127.0.0.1:"},
		{"v1", 1, trusted, header(t, 1, proxyproto.PROXY, v4), v4},
		{"v1, IPv6", 1, trusted, header(t, 1, proxyproto.PROXY, v6), v6},
		{"v1, unknown", 1, trusted, "PROXY UNKNOWN\r\n", "127.0.0.1:"},
		{"v1 where v2 is expected", 2, trusted, header(t, 1, proxyproto.PROXY, v4), "no PROXY protocol header"},
		{"v2 where v1 is expected", 1, trusted, header(t, 2, proxyproto.PROXY, v4), "no PROXY protocol header"},
		{"MQTT where v2 is expected", 2, trusted, "\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04abcd", "no PROXY protocol header"},
		{"MQTT where v1 is expected", 1, trusted, "\x10\x10\x00\x04MQTT", "no PROXY protocol header"},
		{"half of it", 2, trusted, header(t, 2, proxyproto.PROXY, v4)[:20], "no PROXY protocol header"},
		{"too long", 2, trusted, string(proxyproto.SIGV2) + "\x21\x11\xff\xff", "no PROXY protocol header"},
		{"endless v1", 1, trusted, "PROXY TCP4 " + strings.Repeat("1", 200), "no PROXY protocol header"},
		{"nonsense v1", 1, trusted, "PROXY TCP4 a b c d\r\n", "no PROXY protocol header"},
		{"stranger", 2, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, header(t, 2, proxyproto.PROXY, v4), "not in proxy_from"},
	} {
		t.Run(test.name, func(t *testing.T) {
			client, server := pair(t)
			if _, err := io.WriteString(client, test.sent+"rest"); err != nil {
				t.Fatal(err)
			}
			if err := client.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			p := Proxy{Version: test.version, From: test.from}
			address, err := p.accept(server)
			if err != nil {
				if !strings.Contains(err.Error(), test.want) || (test.want != errNotTrusted.Error() && test.name != "stranger" && !errors.Is(err, errNoHeader)) {
					t.Errorf("got %v", err)
				}
				return
			}
			if !strings.HasPrefix(address.String(), test.want) {
				t.Errorf("address %v, want %s", address, test.want)
			}
			rest, err := io.ReadAll(&proxied{TCPConn: server, remote: address})
			if err != nil || string(rest) != "rest" {
				t.Errorf("the rest: %q %v", rest, err)
			}
		})
	}
}

func FuzzProxy(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"), 1)
	f.Add(append(append([]byte{}, proxyproto.SIGV2...), "\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02"...), 2)
	f.Fuzz(func(_ *testing.T, data []byte, version int) {
		p := Proxy{Version: version, From: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
		_, _ = p.accept(&canned{Reader: strings.NewReader(string(data))})
	})
}

// canned is a connection that reads from memory.
type canned struct {
	net.Conn
	io.Reader
}

func (c *canned) Read(b []byte) (int, error) { return c.Reader.Read(b) }
func (c *canned) RemoteAddr() net.Addr       { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
