package tlspsk

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// client is the other side, as small as it can be, for what no honest client does. It shares the
// record layer and the key schedule with the server: vectors and other people's clients test those.
type client struct {
	nc       net.Conn
	in       input
	out      output
	identity string
	key      []byte
	suite    uint16
	hello    helloOptions
	sent     [][]byte // ClientHellos
	hand     []byte
	secrets  [2][]byte // TLS 1.3: ours, the server's
	retried  bool

	forge func(hello []byte) []byte // changes a ClientHello as the last thing
	stop  int                       // handshake messages after which it falls silent; 0: none
	told  int
}

// helloOptions are what a ClientHello offers.
type helloOptions struct {
	groups     []uint16
	shares     []*ecdh.PrivateKey
	modes      []byte
	early      bool
	session    []byte
	identities []string // in front of the real one
	suites     []uint16 // nil: the client's own
	sizeLimit  uint16
	secondary  func(*helloOptions) // changes the second one
	random     []byte
}

func newClient(nc net.Conn, identity string, key []byte) *client {
	c := &client{nc: nc, identity: identity, key: key, suite: 0x1301}
	c.in.prot, c.out.prot, c.out.limit = plainText{}, plainText{}, maxPlain
	c.hello = helloOptions{groups: []uint16{29}, shares: []*ecdh.PrivateKey{x25519()}, modes: []byte{modeDHEKE}, random: make([]byte, 32)}
	rand.Read(c.hello.random)
	return c
}

func x25519() *ecdh.PrivateKey {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

func groupOf(c ecdh.Curve) uint16 {
	return groups[slices.IndexFunc(groups, func(g uint16) bool { return curve(g) == c })]
}

func (c *client) send(typ byte, data []byte) error {
	_, err := c.nc.Write(c.out.append(nil, typ, data))
	return err
}

var errSilent = errors.New("the client fell silent")

// tell sends a handshake message, unless the client was to stop.
func (c *client) tell(m []byte) error {
	if c.stop > 0 && c.told == c.stop {
		return errSilent
	}
	c.told++
	return c.send(recordHandshake, m)
}

func (c *client) message(typ byte) ([]byte, error) {
	for {
		if len(c.hand) >= 4 {
			n := 4 + (int(c.hand[1])<<16 | int(c.hand[2])<<8 | int(c.hand[3]))
			if len(c.hand) >= n {
				m := c.hand[:n:n]
				c.hand = c.hand[n:]
				if m[0] != typ {
					return nil, fmt.Errorf("message %d, want %d", m[0], typ)
				}
				return m, nil
			}
		}
		_, data, err := c.in.next(c.nc, nil, true)
		if err != nil {
			return nil, err
		}
		c.hand = append(c.hand, data...)
	}
}

// clientHello makes one with the binder over before.
func (c *client) clientHello(o *helloOptions, before []byte) []byte {
	var b cryptobyte.Builder
	list := o.suites
	if list == nil {
		list = []uint16{c.suite}
	}
	b.AddUint8(typeClientHello)
	names := append(slices.Clone(o.identities), c.identity)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint16(0x0303)
		b.AddBytes(o.random)
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(o.session) })
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			for _, s := range list {
				b.AddUint16(s)
			}
		})
		b.AddBytes([]byte{1, 0})
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			extension(b, extVersions, func(b *cryptobyte.Builder) { b.AddBytes([]byte{2, 3, 4}) })
			if o.modes != nil {
				extension(b, extModes, func(b *cryptobyte.Builder) {
					b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(o.modes) })
				})
			}
			if o.groups != nil {
				extension(b, extGroups, func(b *cryptobyte.Builder) {
					b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
						for _, g := range o.groups {
							b.AddUint16(g)
						}
					})
				})
			}
			extension(b, extKeyShare, func(b *cryptobyte.Builder) {
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
					for _, k := range o.shares {
						b.AddUint16(groupOf(k.Curve()))
						b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(k.PublicKey().Bytes()) })
					}
				})
			})
			if o.early {
				extension(b, extEarlyData, func(*cryptobyte.Builder) {})
			}
			if o.sizeLimit > 0 {
				extension(b, extRecordSize, func(b *cryptobyte.Builder) { b.AddUint16(o.sizeLimit) })
			}
			extension(b, extPreShared, func(b *cryptobyte.Builder) {
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
					for _, n := range names {
						b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(n)) })
						b.AddUint32(0)
					}
				})
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
					for range names {
						b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(make([]byte, 32)) })
					}
				})
			})
		})
	})
	m := b.BytesOrPanic()
	s := suite13(c.suite)
	tail := 2 + 33*len(names)
	copy(m[len(m)-32:], binder(s.hash, extract(s.hash, c.key, nil), digest(s.hash, before, m[:len(m)-tail])))
	if c.forge != nil {
		m = c.forge(m)
	}
	c.sent = append(c.sent, m)
	return m
}

// handshake13 connects with TLS 1.3, answering a HelloRetryRequest.
func (c *client) handshake13() error {
	s := suite13(c.suite)
	c.in.tls13 = true
	o := c.hello
	hello := c.clientHello(&o, nil)
	if err := c.tell(hello); err != nil {
		return err
	}
	if o.early {
		if err := c.send(recordApplication, bytes.Repeat([]byte("early"), 20)); err != nil {
			return err
		}
	}
	sh, err := c.message(typeServerHello)
	if err != nil {
		return err
	}
	transcript := bytes.Clone(hello)
	if bytes.Equal(sh[6:38], retryRandom[:]) {
		c.retried = true
		group := uint16(sh[len(sh)-2])<<8 | uint16(sh[len(sh)-1])
		sum := digest(s.hash, hello)
		transcript = append(append([]byte{typeMessageHash, 0, 0, byte(len(sum))}, sum...), sh...)
		k, err := curve(group).GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		o.shares, o.early = []*ecdh.PrivateKey{k}, false
		if o.secondary != nil {
			o.secondary(&o)
		}
		hello = c.clientHello(&o, transcript)
		if err := c.tell(hello); err != nil {
			return err
		}
		transcript = append(transcript, hello...)
		if sh, err = c.message(typeServerHello); err != nil {
			return err
		}
	}
	z := make([]byte, 32)
	fixed := 4 + 2 + 32 + 1 + len(o.session)                           // what comes before is random
	if at := bytes.Index(sh[fixed:], []byte{0, extKeyShare}); at > 0 { // in front of pre_shared_key
		at += fixed
		group := uint16(sh[at+4])<<8 | uint16(sh[at+5])
		for _, k := range o.shares {
			if groupOf(k.Curve()) == group {
				if z, err = agree(k, sh[at+8:at+8+int(sh[at+7])]); err != nil {
					return err
				}
			}
		}
	}
	transcript = append(transcript, sh...)
	handshake := extract(s.hash, z, derive(s.hash, extract(s.hash, c.key, nil)))
	return c.finish(s, handshake, transcript)
}

func (c *client) finish(s *suite, handshake, transcript []byte) error {
	sum := digest(s.hash, transcript)
	ours, theirs := expandLabel(s.hash, handshake, "c hs traffic", sum, 32), expandLabel(s.hash, handshake, "s hs traffic", sum, 32)
	if err := c.keys(s, ours, theirs); err != nil {
		return err
	}
	for _, typ := range []byte{typeEncrypted, typeFinished} {
		m, err := c.message(typ)
		if err != nil {
			return err
		}
		if typ == typeFinished && !hmac.Equal(m[4:], finished13(s.hash, theirs, digest(s.hash, transcript))) {
			return errors.New("the server's Finished is wrong")
		}
		transcript = append(transcript, m...)
	}
	master := extract(s.hash, make([]byte, 32), derive(s.hash, handshake))
	sum = digest(s.hash, transcript)
	if err := c.tell(append([]byte{typeFinished, 0, 0, 32}, finished13(s.hash, ours, sum)...)); err != nil {
		return err
	}
	c.in.skip = 0
	return c.keys(s, expandLabel(s.hash, master, "c ap traffic", sum, 32), expandLabel(s.hash, master, "s ap traffic", sum, 32))
}

func (c *client) keys(s *suite, ours, theirs []byte) error {
	out, err := newAEAD13(s, ours)
	if err != nil {
		return err
	}
	in, err := newAEAD13(s, theirs)
	c.out.prot, c.out.seq, c.in.prot, c.in.seq = out, 0, in, 0
	c.secrets = [2][]byte{ours, theirs}
	return err
}

// pair is a client and the server's end on a real socket, which go away with the test.
func pair(t testing.TB, cfg *Config) (*client, *Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	theirs, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ours, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		theirs.Close()
		ours.Close()
	})
	if err := theirs.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	key, _ := testKeys.Find("alice")
	return newClient(theirs, "alice", key), Server(ours, cfg)
}

// shake runs both handshakes. The server's connection is closed when its own failed.
func shake(t testing.TB, c *client, s *Conn, run func() error) (clientErr, serverErr error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		err := s.HandshakeContext(t.Context())
		if err != nil {
			s.Close()
		}
		done <- err
	}()
	clientErr = run()
	if errors.Is(clientErr, errSilent) {
		c.nc.Close()
	}
	return clientErr, <-done
}

// established is a pair after a handshake that went well.
func established(t testing.TB, change func(*client)) (*client, *Conn) {
	t.Helper()
	c, s := pair(t, &Config{Key: testKeys.Find})
	if change != nil {
		change(c)
	}
	if cerr, serr := shake(t, c, s, c.handshake13); cerr != nil || serr != nil {
		t.Fatalf("client: %v; server: %v", cerr, serr)
	}
	return c, s
}

// expectBytes reads from the server's side.
func expectBytes(t testing.TB, s *Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(s, got); err != nil || string(got) != want {
		t.Fatalf("%.40q %v, want %.40q", got, err, want)
	}
}
