package peer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
)

// Errors of a dial.
var (
	// ErrOtherCluster: the port belongs to a node of another cluster: of another name, or founded apart.
	ErrOtherCluster = errors.New("it belongs to another cluster")
	// ErrOtherServer: another server has that address now: a node that was moved, or lost its disk.
	ErrOtherServer = errors.New("another server has that address")
	// ErrGreeting: what answers there is no node of this version.
	ErrGreeting = errors.New("no node of this kind answers there")
)

// kind is what a connection is for.
type kind byte

const (
	kindRPC  kind = 'g' // gRPC
	kindRaft kind = 'r' // raft's own transport
	// kindOrders is for whoever else serves the other nodes: see Port.Orders.
	kindOrders kind = 'o'
)

// A connection begins with the magic, the kind, the cluster's name, its identity (empty: the node is
// blank) and the server that is meant (empty: whoever is there), each after a byte with its length.
// The answer is a verdict and the name that was wrong, in the same form; only then does the other
// protocol begin.
var magic = []byte("SKN\x01")

type verdict byte

const (
	welcome verdict = iota
	otherCluster
	otherServer
	otherIdentity
)

// maxName bounds the names in a greeting: their length is one byte.
const maxName = 255

type greeting struct {
	kind     kind
	cluster  string
	identity string
	target   string
}

func appendName(b []byte, name string) []byte { return append(append(b, byte(len(name))), name...) }

func readName(r io.Reader) (string, error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return "", err
	}
	name := make([]byte, n[0])
	_, err := io.ReadFull(r, name)
	return string(name), err
}

// send greets and waits for the answer. The caller has set a deadline.
func (g greeting) send(conn net.Conn) error {
	b := append(bytes.Clone(magic), byte(g.kind))
	b = appendName(appendName(appendName(b, g.cluster), g.identity), g.target)
	if _, err := conn.Write(b); err != nil {
		return err
	}
	var v [1]byte
	if _, err := io.ReadFull(conn, v[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return ErrGreeting
		}
		return err
	}
	var name string
	if verdict(v[0]) <= otherIdentity {
		var err error
		if name, err = readName(conn); err != nil {
			return err
		}
	}
	switch verdict(v[0]) {
	case welcome:
		return nil
	case otherCluster:
		return fmt.Errorf("%w: %q, not %q", ErrOtherCluster, name, g.cluster)
	case otherServer:
		return fmt.Errorf("%w: %s, not %s", ErrOtherServer, name, g.target)
	case otherIdentity:
		return fmt.Errorf("%w: of the same name, but founded apart (%s, not %s)", ErrOtherCluster, name, g.identity)
	}
	return fmt.Errorf("%w: it answers %#x", ErrGreeting, v[0])
}

// tlsHandshake is how a node with certificates begins.
const tlsHandshake = 0x16

// receive reads a greeting and answers it. The caller has set a deadline.
func receive(conn net.Conn, cfg *Config) (greeting, error) {
	head := make([]byte, len(magic)+1)
	if _, err := io.ReadFull(conn, head); err != nil {
		return greeting{}, err
	}
	if !bytes.Equal(head[:len(magic)], magic) {
		if head[0] == tlsHandshake {
			return greeting{}, fmt.Errorf("%w: it speaks TLS, and this node has no certificate", ErrGreeting)
		}
		return greeting{}, ErrGreeting
	}
	g := greeting{kind: kind(head[len(magic)])}
	for _, name := range []*string{&g.cluster, &g.identity, &g.target} {
		var err error
		if *name, err = readName(conn); err != nil {
			return greeting{}, err
		}
	}
	if g.kind != kindRPC && g.kind != kindRaft && g.kind != kindOrders {
		return greeting{}, fmt.Errorf("%w: a connection of kind %#x", ErrGreeting, byte(g.kind))
	}
	answer, name, err := g.judge(cfg)
	if _, werr := conn.Write(appendName([]byte{byte(answer)}, name)); werr != nil {
		return greeting{}, errors.Join(err, werr)
	}
	return g, err
}

// judge tells whether the connection may begin. A blank node takes the identity of the first cluster
// whose log it is sent, for ever.
func (g greeting) judge(cfg *Config) (verdict, string, error) {
	switch {
	case g.cluster != cfg.Cluster:
		return otherCluster, cfg.Cluster, fmt.Errorf("%w: %q", ErrOtherCluster, g.cluster)
	case g.target != "" && g.target != cfg.Server:
		return otherServer, cfg.Server, fmt.Errorf("%w: it was meant for %s", ErrOtherServer, g.target)
	case g.identity == "":
		return welcome, "", nil
	}
	own := cfg.Identity.Get()
	if own == "" && g.kind == kindRaft {
		if err := cfg.Identity.Adopt(g.identity); err != nil {
			return otherIdentity, "", err
		}
		own = cfg.Identity.Get()
	}
	if own != "" && own != g.identity {
		return otherIdentity, own, fmt.Errorf("%w: %s", ErrOtherCluster, g.identity)
	}
	return welcome, "", nil
}
