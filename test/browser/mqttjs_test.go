package browser

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/skein-mqtt/skein/proto/mqttjs"
	h "github.com/skein-mqtt/skein/test/harness"
)

func TestMain(m *testing.M) { h.Main(m) }

// blank serves an empty page and the module.
func blank(t *testing.T) *httptest.Server {
	mux := http.NewServeMux()
	mux.Handle("GET /mqtt/", http.StripPrefix("/mqtt/", http.FileServerFS(mqttjs.Files)))
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>blank</title>")
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// prelude gives every script the module, and a client that keeps what comes.
const prelude = `(async () => {
	const { Client, Store, MemoryStore } = await import("/mqtt/index.js")
	const text = b => new TextDecoder().decode(b)
	const until = async (what, ok) => {
		for (let i = 0; !ok(); i++) {
			if (i > 4000) throw new Error("did not come to pass: " + what + ", there is " + JSON.stringify([...(window.got ?? [])]))
			await new Promise(r => setTimeout(r, 10))
		}
	}
	window.got ??= []
	const take = m => got.push([m.topic, text(m.payload), m.qos])
	const online = c => c.state === "online" ? Promise.resolve() : new Promise((resolve, reject) => c.addEventListener("state", e => {
		if (e.detail.state === "online") resolve()
		if (e.detail.state === "stopped") reject(new Error(e.detail.reason))
	}))
	`

func script(body string) string { return prelude + body + "})()" }

// TestModule: what a page sends and receives, on a node.
func TestModule(t *testing.T) {
	b := Start(t)
	node := h.Start(t, 1).Node(1)
	ws := "ws://" + node.WS + "/mqtt"
	pages := blank(t)

	t.Run("round trip", func(t *testing.T) {
		p := b.Open("round trip", pages.URL, true)
		got := Eval[[][]any](p, script(fmt.Sprintf(`
			const c = new Client({ url: %q, clientId: "round", onmessage: take, store: await Store.open("round"), sessionExpiry: 60 })
			c.start()
			if (await c.subscribe("r/#", { qos: 2 }) !== 2) throw new Error("not QoS 2")
			await c.publish("r/0", "zero")
			const codes = await Promise.all([c.publish("r/1", "one", { qos: 1 }), c.publish("r/2", "twö", { qos: 2, properties: { userProperties: [["a", "b"]], contentType: "text/plain" } })])
			await until("three messages", () => got.length === 3)
			await until("nothing under way", () => c.pending === 0)
			c.unsubscribe("r/#")
			const none = await c.publish("r/2", "nobody hears it", { qos: 2 })
			await c.end({ sessionExpiry: 0 })
			return [...got.sort(), codes, [none]]`, ws)))
		want := "[[r/0 zero 0] [r/1 one 1] [r/2 twö 2] [0 0] [16]]"
		if fmt.Sprint(got) != want {
			t.Errorf("got %v, not %s", got, want)
		}
	})

	t.Run("a big packet in many frames, and what is too big", func(t *testing.T) {
		p := b.Open("big", pages.URL, true)
		got := Eval[[]float64](p, script(fmt.Sprintf(`
			const sizes = []
			const c = new Client({ url: %q, clientId: "big", onmessage: m => sizes.push(m.payload.length) })
			c.start()
			await c.subscribe("big", { qos: 1 })
			for (const n of [0, 127, 128, 16384, 300000]) await c.publish("big", new Uint8Array(n), { qos: 1 })
			const refused = await c.publish("big", new Uint8Array(1 << 21), { qos: 1 }).catch(err => err.code)
			await c.publish("big", "x", { qos: 1 })
			await until("six", () => sizes.length === 6)
			return [...sizes, refused]`, ws)))
		if want := []float64{0, 127, 128, 16384, 300000, 1, 0x95}; !slices.Equal(got, want) {
			t.Errorf("got %v, not %v", got, want)
		}
	})

	t.Run("request and response", func(t *testing.T) {
		p := b.Open("request", pages.URL, true)
		got := Eval[string](p, script(fmt.Sprintf(`
			const server = new Client({ url: %[1]q, clientId: "server", onmessage: m =>
				server.publish(m.properties.responseTopic, "re: " + text(m.payload), { qos: 1, properties: { correlationData: m.properties.correlationData } }) })
			const c = new Client({ url: %[1]q, clientId: "asker" })
			server.start(); c.start()
			await Promise.all([server.subscribe("ask", { qos: 1 }), c.subscribe("answer/asker", { qos: 1 })])
			return text((await c.request("ask", "why", { qos: 1, responseTopic: "answer/asker" })).payload)`, ws)))
		if got != "re: why" {
			t.Error(got)
		}
	})

	t.Run("the page ends and is loaded again", func(t *testing.T) {
		p := b.Open("reload", pages.URL, true)
		open := fmt.Sprintf(`
			const store = await Store.open("reload", { stores: { seen: { autoIncrement: true } } })
			const c = window.c = new Client({ url: %q, clientId: "reload", sessionExpiry: 60, store, onmessage: take,
				onstore: (m, tx) => tx.objectStore("seen").add(text(m.payload)) })`, ws)
		Eval[any](p, script(open+`
			c.start()
			await c.subscribe("reload", { qos: 2 })
			await c.publish("reload", "0", { qos: 2 })
			await until("one", () => got.length === 1 && c.pending === 0)
			await c.end()
			for (let i = 1; i <= 5; i++) c.publish("reload", String(i), { qos: 2, tag: i })
			await until("kept", () => c.pending === 5)
			await new Promise(r => setTimeout(r, 200))`))
		other, _ := node.MustConnect(5, h.Packet{ClientID: "other", Clean: true})
		other.MustSend(h.Packet{Type: h.PUBLISH, Topic: "reload", Payload: "while it was away", QoS: 1, ID: 1})
		other.Await(h.PUBACK)
		p.Do(reload())
		got := Eval[[]string](p, script(open+`
			const tags = []
			c.addEventListener("progress", e => e.detail.step === "done" && tags.push(e.detail.tag))
			let present
			c.addEventListener("session", e => present = e.detail.present)
			c.start()
			await online(c)
			if (!present) throw new Error("the session is gone")
			await until("all", () => got.length === 6 && tags.length === 5)
			const seen = await new Promise(r => { const q = store.db.transaction("seen").objectStore("seen").getAll(); q.onsuccess = () => r(q.result) })
			return [...seen, ...tags.map(String)]`))
		want := []string{"0", "while it was away", "1", "2", "3", "4", "5", "1", "2", "3", "4", "5"}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, not %v", got, want)
		}
	})

	t.Run("two pages with one client id do not fight", func(t *testing.T) {
		p := b.Open("fight", pages.URL, true)
		got := Eval[[]any](p, script(fmt.Sprintf(`
			const a = new Client({ url: %[1]q, clientId: "one" }), b = new Client({ url: %[1]q, clientId: "one" })
			a.start()
			await online(a)
			let why
			a.addEventListener("state", e => why = e.detail.code)
			b.start()
			await until("the first stops", () => a.state === "stopped")
			await online(b)
			return [why, b.state]`, ws)))
		if fmt.Sprint(got) != "[142 online]" {
			t.Error(got)
		}
	})

	t.Run("cut at every step", func(t *testing.T) { cutEverywhere(t, b, node, pages.URL) })
}

// cutEverywhere: a page publishes and receives through a proxy that cuts its first connection at the first
// read, the second at the second, and so on, before or behind it.
func cutEverywhere(t *testing.T, b *Browser, node *h.Node, url string) {
	const cuts, count = 30, 80
	proxy := newCutter(t, node.WS, cuts)
	watcher, _ := node.MustConnect(5, h.Packet{ClientID: "watcher", Clean: true})
	watcher.Subscribe(2, "cut/#")
	p := b.Open("cut", url, true)
	got := Eval[[][]any](p, script(fmt.Sprintf(`
		const store = await Store.open("cut", { stores: { seen: { autoIncrement: true } }, durability: "relaxed" })
		const c = new Client({ url: "ws://%s/mqtt", clientId: "cut", sessionExpiry: 60, store, minBackoff: 5, maxBackoff: 20, onmessage: take,
			onstore: (m, tx) => tx.objectStore("seen").add([m.topic, text(m.payload), m.qos]) })
		c.start()
		await c.subscribe("cut/#", { qos: 2 })
		for (let i = 0; i < %d; i++) {
			c.publish("cut/2", String(i), { qos: 2 })
			c.publish("cut/1", String(i), { qos: 1 })
			await new Promise(r => setTimeout(r, 20))
		}
		await until("all is confirmed", () => c.pending === 0)
		await until("all has come", () => new Set(got.map(String)).size === %d)
		await new Promise(r => setTimeout(r, 300))
		return new Promise(r => { const q = store.db.transaction("seen").objectStore("seen").getAll(); q.onsuccess = () => r(q.result) })`,
		proxy.Addr(), count, 2*count)))
	if proxy.Cuts() < cuts {
		t.Errorf("only %d connections were cut", proxy.Cuts())
	}
	var want, at2, at1 []string
	for i := range count {
		want = append(want, fmt.Sprint(i))
	}
	for _, m := range got {
		if m[0] == "cut/2" {
			at2 = append(at2, m[1].(string))
		} else if s := m[1].(string); !slices.Contains(at1, s) { // a repeat is QoS 1's right
			at1 = append(at1, s)
		}
	}
	if !slices.Equal(at2, want) {
		t.Errorf("the page has at QoS 2: %s", strings.Join(at2, " "))
	}
	if !slices.Equal(at1, want) {
		t.Errorf("the page has at QoS 1: %s", strings.Join(at1, " "))
	}
	var heard []string
	for len(heard) < count {
		m := watcher.Await(h.PUBLISH)
		if m.QoS == 2 {
			watcher.MustSend(h.Packet{Type: h.PUBREC, ID: m.ID})
		}
		if m.QoS == 1 {
			watcher.MustSend(h.Packet{Type: h.PUBACK, ID: m.ID})
		}
		if m.Topic == "cut/2" {
			heard = append(heard, m.Payload)
		}
	}
	if !slices.Equal(heard, want) {
		t.Errorf("another subscriber has at QoS 2: %s", strings.Join(heard, " "))
	}
	if errors := p.Errors(); len(errors) > 0 {
		t.Errorf("the console: %q", errors)
	}
}
