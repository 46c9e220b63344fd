package listener

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"github.com/pires/go-proxyproto"
)

// Proxy says that each connection begins with a PROXY protocol header, and who may send one.
// There is no "if present": whoever could choose would choose the address that we log and limit.
type Proxy struct {
	Version int // 1 or 2
	From    []netip.Prefix
}

// Why a connection was refused.
var (
	errNotTrusted = errors.New("the PROXY protocol is expected here, and its sender is not in proxy_from")
	errNoHeader   = errors.New("no PROXY protocol header where one is expected")
)

// The longest headers: version 1's by its specification; version 2's with room for the TLVs that
// balancers add.
const (
	longestV1 = 107
	longestV2 = 16 + 4096
)

// parseProxy reads the settings of the PROXY protocol; nil: there are none.
func parseProxy(query url.Values) (*Proxy, error) {
	from := strings.Join(query["proxy_from"], ",")
	var p Proxy
	switch v := query.Get("proxy"); v {
	case "":
		if from != "" {
			return nil, errors.New("proxy_from wants proxy=v2 (or v1) beside it")
		}
		return nil, nil
	case "v1":
		p.Version = 1
	case "v2":
		p.Version = 2
	default:
		return nil, fmt.Errorf("proxy wants v1 or v2, not %q", v)
	}
	for text := range strings.SplitSeq(from, ",") {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			ip, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("proxy_from wants networks, as in 10.0.0.0/8,::1/128, not %q", text)
			}
			prefix = netip.PrefixFrom(ip, ip.BitLen())
		}
		p.From = append(p.From, prefix.Masked())
	}
	if len(p.From) == 0 {
		return nil, errors.New("proxy wants proxy_from=NETWORK,… beside it: the balancers that may speak for clients")
	}
	return &p, nil
}

// trusts tells whether a balancer at that address may speak for clients.
func (p *Proxy) trusts(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return false
	}
	ip := ap.Addr().Unmap().WithZone("")
	for _, prefix := range p.From {
		if prefix.Contains(ip) {
			return true
		}
	}
	return false
}

// accept reads the header from a connection that has just been made, not a byte beyond it, so
// that the socket can be used raw afterwards. It blocks: the caller has set a deadline. The
// address is the client's own, or the balancer's when that speaks for itself (LOCAL).
func (p *Proxy) accept(nc net.Conn) (net.Addr, error) {
	if !p.trusts(nc.RemoteAddr()) {
		return nil, errNotTrusted
	}
	read := readV2
	if p.Version == 1 {
		read = readV1
	}
	raw, err := read(nc)
	if err != nil {
		return nil, err
	}
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(raw), len(raw)+16))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoHeader, err)
	}
	if h.Command.IsLocal() || h.SourceAddr == nil {
		return nc.RemoteAddr(), nil
	}
	return h.SourceAddr, nil
}

func readV2(r io.Reader) ([]byte, error) {
	raw := make([]byte, 16, 128)
	if _, err := io.ReadFull(r, raw); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoHeader, err)
	}
	if !bytes.Equal(raw[:12], proxyproto.SIGV2) {
		return nil, errNoHeader
	}
	rest := int(binary.BigEndian.Uint16(raw[14:]))
	if rest > longestV2-16 {
		return nil, fmt.Errorf("%w: it is %d bytes long", errNoHeader, rest)
	}
	raw = append(raw, make([]byte, rest)...)
	if _, err := io.ReadFull(r, raw[16:]); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoHeader, err)
	}
	return raw, nil
}

// readV1 reads byte by byte: only the line's end tells its length. Balancers that are still at
// version 1 pay for it.
func readV1(r io.Reader) ([]byte, error) {
	raw := make([]byte, 0, longestV1)
	for len(raw) < longestV1 {
		raw = raw[:len(raw)+1]
		if _, err := io.ReadFull(r, raw[len(raw)-1:]); err != nil {
			return nil, fmt.Errorf("%w: %w", errNoHeader, err)
		}
		if n := len(raw); n <= 5 && !bytes.Equal(raw, []byte("PROXY")[:n]) {
			return nil, errNoHeader
		}
		if bytes.HasSuffix(raw, []byte("\r\n")) {
			return raw, nil
		}
	}
	return nil, errNoHeader
}

// proxied is a TCP connection under the client's own address. It embeds the socket, so that it
// can still be used raw.
type proxied struct {
	*net.TCPConn
	remote net.Addr
}

// RemoteAddr is the client's own address.
func (p *proxied) RemoteAddr() net.Addr { return p.remote }
