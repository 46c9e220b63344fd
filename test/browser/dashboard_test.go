package browser

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	h "github.com/skein-mqtt/skein/test/harness"
)

// shoot keeps pictures of a page, light and dark, wide and narrow, in the folder that SKEIN_SCREENSHOTS names.
func shoot(t *testing.T, p *Page, name string) {
	t.Helper()
	p.Look(400, 800, false)
	if wide := Eval[int](p, "document.documentElement.scrollWidth"); wide > 400 {
		t.Errorf("%s is %d wide on a phone", name, wide)
	}
	dir := os.Getenv("SKEIN_SCREENSHOTS")
	for _, look := range []struct {
		name          string
		width, height int64
		dark          bool
	}{{"desktop-light", 1280, 800, false}, {"desktop-dark", 1280, 800, true}, {"phone-light", 400, 800, false}, {"phone-dark", 400, 800, true}} {
		if dir == "" {
			break
		}
		p.Look(look.width, look.height, look.dark)
		if err := os.WriteFile(filepath.Join(dir, name+"-"+look.name+".png"), p.Screenshot(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p.Look(1280, 800, false)
}

// TestDashboard: what an operator sees and does in a browser.
func TestDashboard(t *testing.T) {
	b := Start(t)
	c := h.Start(t, 2, "--set", "mqtt.max_queued_messages=3")
	one, two := c.Node(1), c.Node(2)
	away := h.NewSession(t, "reader/1 <b>", h.V5)
	away.Connect(one)
	away.Subscribe(1, "meters/#")
	away.Disconnect()
	pub := h.NewSession(t, "pump", h.V311)
	pub.Clean = true
	pub.Connect(two)
	for i := range 5 {
		if err := pub.Publish("meters/"+fmt.Sprint(i), "41", 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := pub.Flush(); err != nil {
		t.Fatal(err)
	}

	p := b.Open("dashboard", "http://"+one.HTTP+"/", true)
	p.Look(1280, 800, false)
	text := func(want string) string {
		return fmt.Sprintf("document.querySelector('main').innerText.includes(%q)", want)
	}
	to := func(hash string) { Eval[bool](p, fmt.Sprintf("(location.hash = %q, true)", hash)) }
	press := func(button string) {
		t.Helper()
		p.Await("a button "+button, fmt.Sprintf("[...document.querySelectorAll('main button')].some(b => b.textContent === %q)", button))
		Eval[bool](p, fmt.Sprintf("([...document.querySelectorAll('main button')].find(b => b.textContent === %q).click(), true)", button))
	}
	agree := func() {
		t.Helper()
		p.Await("a question", "document.getElementById('ask').open")
		Eval[bool](p, "(document.querySelector('#ask button[value=yes]').click(), true)")
	}

	p.Await("both nodes are ready", "document.querySelectorAll('.state.ready').length === 2")
	p.Await("what was dropped", text("queue_full"))
	p.Await("a chart has a line", "[...document.querySelectorAll('figure path')].some(x => x.getAttribute('d').includes('L'))")
	shoot(t, p, "nodes")

	to("#/sessions")
	p.Await("the session", text("reader/1 <b>"))
	Eval[bool](p, "(document.querySelector('input[type=search]').value = 'queued>50', document.querySelector('form.bar').requestSubmit(), true)")
	p.Await("an empty search", text("Nobody like that."))
	Eval[bool](p, "(document.querySelector('input[type=search]').value = 'reader', document.querySelector('form.bar').requestSubmit(), true)")
	p.Await("a found session", text("reader/1 <b>"))
	shoot(t, p, "sessions")
	Eval[bool](p, "(document.querySelector('main table a').click(), true)")
	p.Await("the client's ledger", text("queue_full"))
	p.Await("its subscription", text("meters/#"))
	p.Await("its last events", text("the client said goodbye"))
	shoot(t, p, "client")

	to("#/clients")
	p.Await("the publisher", text("pump"))
	shoot(t, p, "clients")

	to("#/console")
	p.Await("the broker's address", "document.querySelector('main input').value.startsWith('ws://')")
	press("Connect")
	p.Await("a connection", text("online"))
	press("Subscribe")
	p.Await("a subscription", text("subscribed to #"))
	Eval[bool](p, `(document.querySelectorAll('main form')[2].querySelector('input').value = 'geese/today', document.querySelector('textarea').value = 'are back',
		document.querySelector('main input[type=checkbox]').checked = true, true)`)
	press("Publish")
	p.Await("its own message", text("are back"))
	shoot(t, p, "console")

	to("#/topics")
	p.Await("the tree", text("geese"))
	Eval[bool](p, "(document.querySelectorAll('details').forEach(d => d.open = true), true)")
	p.Await("the retained message", text("are back"))
	shoot(t, p, "topics")

	to("#/trace")
	press("Follow")
	p.Await("both nodes take part", "document.querySelector('main').innerText.split('takes part').length === 3")
	if err := pub.Publish("meters/9", "42", 1); err != nil {
		t.Fatal(err)
	}
	if err := pub.Flush(); err != nil {
		t.Fatal(err)
	}
	p.Await("the steps", text("committed")+"&&"+text("queue_full"))
	shoot(t, p, "trace")

	to("#/events")
	p.Await("what happened", text("the client said goodbye"))
	late := h.NewSession(t, "late", h.V5)
	late.Clean = true
	late.Connect(two)
	p.Await("what happens", text("late"))
	shoot(t, p, "events")

	to("#/")
	p.Await("the nodes", "document.querySelectorAll('.state.ready').length === 2")
	Eval[bool](p, "([...document.querySelectorAll('main tr')].find(r => r.innerText.startsWith('node2')).querySelector('button').click(), true)")
	agree()
	p.Await("a cordoned node", "document.querySelectorAll('.state.cordoned').length === 1")
	if code := two.Ready(); code != 404 {
		t.Errorf("/readyz of the cordoned node says %d", code)
	}
	press("Uncordon")
	agree()
	p.Await("it is back", "document.querySelectorAll('.state.ready').length === 2")
	Eval[bool](p, "([...document.querySelectorAll('main tr')].find(r => r.innerText.startsWith('node2')).querySelectorAll('button')[1].click(), true)")
	agree()
	p.Await("a drained node", text("Drain of node2: done"))

	if errors := p.Errors(); len(errors) > 0 {
		t.Errorf("the console: %s", strings.Join(errors, "\n"))
	}
	if elsewhere := Eval[[]string](p, "performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(location.origin))"); len(elsewhere) > 0 {
		t.Errorf("fetched from elsewhere: %q", elsewhere)
	}
}
