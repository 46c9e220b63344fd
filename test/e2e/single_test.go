package e2e

import (
	"math/rand/v2"
	"testing"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

func TestSingleNodeKeepsItsStateAcrossRestarts(t *testing.T) {
	beside(t)
	c := h.Start(t, 1, flags...)
	n := c.Node(1)
	for name, end := range map[string]func(){"SIGTERM": n.Stop, "SIGKILL": n.Kill} {
		sub := stored(t, n, "sub-"+name, h.V5)
		sub.Subscribe(2, name+"/#")
		sub.Disconnect()
		pub := clean(t, n, "pub", h.V311)
		list := payloads(50)
		publishAll(t, pub, name+"/q", 2, list)
		pub.MustSend(h.Packet{Type: h.PUBLISH, Topic: name + "/kept", Payload: "kept", QoS: 1, ID: 9000, Retain: true})
		pub.Await(h.PUBACK)
		pub.Close()
		end()
		n.Start()
		n.WaitReady()
		sub.Resume(n)
		sub.Receive(51)
		sub.Quiet(quiet)
		same(t, name, sub.Got, append(list, "kept"))
		sub.Disconnect()
		late := clean(t, n, "late", h.V5)
		late.Subscribe(1, name+"/kept")
		if p := late.Await(h.PUBLISH); !p.Retain || p.Payload != "kept" {
			t.Errorf("%s: %s instead of the retained message", name, p)
		}
		late.Disconnect()
	}
}

// Whatever a stranger sends, the node serves the others.
func TestGarbageHarmsNobody(t *testing.T) {
	c := h.Start(t, 1, flags...)
	n := c.Node(1)
	sub := clean(t, n, "sub", h.V5)
	sub.Subscribe(1, "#")
	pub := clean(t, n, "pub", h.V5)
	connect := h.Packet{Type: h.CONNECT, ClientID: "bad", Clean: true}
	r := rand.New(rand.NewPCG(1, 1))
	noise := func(size int) []byte {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	bad := [][]byte{
		{0x10, 0x00},
		{0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F},
		{0x30, 0x03, 0x00, 0x01, 'a'}, // a PUBLISH before CONNECT
		append(connect.Encode(h.V5), connect.Encode(h.V5)...),
		append(connect.Encode(h.V5), 0x36, 0x06, 0, 1, 'a', 0, 1, 0),
		append(connect.Encode(h.V5), 0x32, 0x06, 0, 1, 'a', 0, 0, 0),
		append(connect.Encode(h.V5), 0x82, 0x03, 0, 1, 0),
		append(connect.Encode(h.V311), 0x30, 0x03, 0, 1, '#'),
		append(connect.Encode(h.V311), 0xD0, 0x00),
	}
	for _, b := range bad {
		x := n.MustDial(h.V5)
		if err := x.SendBytes(b); err != nil {
			t.Fatal(err)
		}
		x.ExpectClosed()
	}
	for range heavy(200, 5000) {
		x, err := n.Dial(h.V5)
		if err != nil {
			t.Fatalf("the node is gone: %v", err)
		}
		b := noise(1 + r.IntN(200))
		if r.IntN(2) == 0 {
			b = append(connect.Encode([]byte{h.V311, h.V5}[r.IntN(2)]), b...)
		}
		_ = x.SendBytes(b) // the node may have closed already
		x.Close()
	}
	for _, b := range [][]byte{{0x10}, []byte("GET / HTTP/1.1\r\n\r\n"), append(connect.Encode(h.V5), 0x30, 0xFF, 0xFF, 0xFF, 0x7F)} {
		half := n.MustDial(h.V5) // says half a thing, must not hold anybody up
		if err := half.SendBytes(b); err != nil {
			t.Fatal(err)
		}
	}
	publishAll(t, pub, "fine", 2, []string{"still", "here"})
	found := 0
	for found < 2 {
		p, err := sub.Next(h.Patience)
		if err != nil {
			t.Fatal(err)
		}
		if p.Type == h.PUBLISH && p.Topic == "fine" {
			found++
		}
		if err := sub.Handle(p); err != nil {
			t.Fatal(err)
		}
	}
	if n.Ready() != 200 {
		t.Error("the node is not ready any more")
	}
}

// A client that says nothing for one and a half times its keepalive is gone [MQTT-3.1.2-22].
func TestKeepaliveEndsASilentClient(t *testing.T) {
	beside(t)
	c := h.Start(t, 1, flags...)
	x, _ := c.Node(1).MustConnect(h.V5, h.Packet{ClientID: "silent", Clean: true, KeepAlive: 1})
	begin := time.Now()
	if p := x.ExpectClosed(); p == nil || p.Code != 0x8D {
		t.Errorf("%v instead of DISCONNECT 0x8D", p)
	}
	if d := time.Since(begin); d < 1400*time.Millisecond {
		t.Errorf("closed after %v, want 1.5 s or more", d)
	}
}
