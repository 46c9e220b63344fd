package chattest

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/skein-mqtt/skein/test/browser"
	h "github.com/skein-mqtt/skein/test/harness"
)

// page starts the server of the page and returns its URL.
func (s *stack) page() string {
	s.t.Helper()
	binary := filepath.Join(s.dir, "chat-web")
	if out, err := exec.Command("go", "build", "-o", binary, "../web").CombinedOutput(); err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	port := h.FreePort(s.t)
	s.process("web", binary, "-listen", fmt.Sprintf("127.0.0.1:%d", port), "-port", fmt.Sprint(s.ws), "-assistants", s.staff)
	s.listens(port)
	return fmt.Sprintf("http://127.0.0.1:%d", port)
}

// window is a person's page.
type window struct {
	*browser.Page
	s    *stack
	user string
}

func (s *stack) window(b *browser.Browser, url, user string) *window {
	s.t.Helper()
	w := &window{Page: b.Open(user, url, true), s: s, user: user}
	w.signIn()
	return w
}

func (w *window) signIn() {
	w.Await("the form", `document.querySelector("#login-form button")`)
	w.Do(chromedp.SendKeys("#user", w.user), chromedp.SendKeys("#password", w.user+"\r"))
	w.Await("signed in", `document.querySelector("#connection").textContent === "Connected"`)
}

// says types a message and sends it with the Enter key.
func (w *window) says(text string) { w.Do(chromedp.SendKeys("#text", text+"\r")) }

// words are the messages that the window shows, in the order in which it shows them.
func (w *window) words() []string {
	return browser.Eval[[]string](w.Page, `[...document.querySelectorAll("#messages .words")].map(e => e.textContent)`)
}

func (w *window) sees(text string) {
	w.s.t.Helper()
	w.Await("sees "+text, fmt.Sprintf(`[...document.querySelectorAll("#messages .words")].some(e => e.textContent === %q)`, text))
}

// shows awaits a text in an element.
func (w *window) shows(element, text string) {
	w.s.t.Helper()
	w.Await(element+" shows "+text, fmt.Sprintf(`document.querySelector(%q)?.innerText.includes(%q)`, element, text))
}

// node is the node that the window is connected to.
func (w *window) node() *h.Node {
	w.s.t.Helper()
	var at *h.Node
	w.s.Await(w.user+" at a node", func() bool {
		for _, n := range w.s.Nodes {
			out, err := n.Skein("get", "clients", "--no-headers")
			if err != nil {
				continue
			}
			for line := range strings.Lines(out) {
				f := strings.Fields(line)
				if len(f) > 1 && strings.HasPrefix(f[0], w.user+".web-") {
					at = w.s.Nodes[slices.IndexFunc(w.s.Nodes, func(n *h.Node) bool { return n.ID == f[1] })]
					return true
				}
			}
		}
		return false
	})
	return at
}

// picture writes a screenshot to where the docs have it, when asked for.
func (w *window) picture(name string) {
	w.s.t.Helper()
	png := w.Screenshot()
	if len(png) < 1000 {
		w.s.t.Errorf("the screenshot %s has %d bytes", name, len(png))
	}
	if dir := os.Getenv("TEST_SKEIN_SCREENSHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
			w.s.t.Fatal(err)
		}
	}
}

// TestPage: an assistant and a user in two windows at different nodes; the node of one is killed in
// mid-sentence.
func TestPage(t *testing.T) {
	heavy(t)
	b := browser.Start(t)
	s := start(t, 3)
	s.balance()
	first := s.worker("one")
	s.worker("two")
	url := s.page()
	if answer, err := http.Get(url + "/config.json"); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer, err)
	}

	wrong := b.Open("wrong", url, true)
	wrong.Await("the form", `document.querySelector("#login-form button")`)
	wrong.Do(chromedp.SendKeys("#user", "alice"), chromedp.SendKeys("#password", "nonsense\r"))
	wrong.Await("refused", `document.querySelector("#login-error").textContent.includes("bad user name or password")`)
	wrong.Do(chromedp.Navigate("about:blank"))

	ann, alice := s.window(b, url, "ann"), s.window(b, url, "alice")
	ann.Look(1000, 640, false)
	alice.Look(390, 700, false)
	if ann.node() == alice.node() {
		t.Fatalf("the balancer has put both on %s", ann.node().ID)
	}

	// A question that the pipeline answers, and one for a person.
	alice.says("When are you open?")
	alice.sees("We are here from 8 to 20 o'clock on working days.")
	alice.says("My geese do not follow the leader.")
	ann.shows("#list", "alice")
	ann.Await("three unread", `document.querySelector("#list .unread")?.textContent.startsWith("3")`)
	ann.Do(chromedp.Click("#list button"))
	ann.sees("My geese do not follow the leader.")
	ann.shows("#presence", "here")
	alice.shows("#presence", "here")
	alice.Await("read", `[...document.querySelectorAll("#messages li.mine .meta")].every(e => e.textContent.includes("read"))`)
	// Typing is QoS 0, and may be lost; people type on.
	honk := "They only honk, and have done so since Monday. I have tried bread, oats and a whistle."
	s.Await("ann sees that alice types", func() bool {
		alice.Do(chromedp.SendKeys("#text", honk[:1]))
		honk = honk[1:]
		return browser.Eval[bool](ann.Page, `document.querySelector("#typing").textContent.includes("alice is typing")`)
	})
	alice.says(honk)
	ann.says("Which one leads?")
	alice.sees("Which one leads?")
	ann.picture("assistant-light")
	ann.Look(1000, 640, true)
	ann.picture("assistant-dark")
	alice.picture("phone-light")
	alice.Look(390, 700, true)
	alice.picture("phone-dark")

	// By keyboard alone, on a phone: back to the list, and to the conversation.
	alice.Do(chromedp.KeyEvent(kb.Escape))
	alice.Await("the list alone", `!document.querySelector("#chat").classList.contains("talking") && document.activeElement.closest("#list")`)
	alice.Do(chromedp.KeyEvent(kb.Enter))
	alice.Await("the conversation alone", `document.querySelector("#chat").classList.contains("talking") && document.activeElement.id === "text"`)
	for _, w := range []*window{ann, alice} {
		if nameless := browser.Eval[[]string](w.Page, `[...document.querySelectorAll("button, input, textarea")].
			filter(e => !e.textContent.trim() && !e.ariaLabel && !e.labels?.length).map(e => e.outerHTML)`); len(nameless) > 0 {
			t.Errorf("a screen reader has no name for %q", nameless)
		}
	}

	// Both talk; the node of one dies, and a worker of the pipeline, and the other's node.
	var fromAlice, fromAnn []string
	talk := func(from, to int, then func()) {
		for i := from; i < to; i++ {
			fromAlice = append(fromAlice, fmt.Sprintf("alice %d", i))
			fromAnn = append(fromAnn, fmt.Sprintf("ann %d", i))
			alice.says(fromAlice[len(fromAlice)-1])
			ann.says(fromAnn[len(fromAnn)-1])
			if i == (from+to)/2 {
				then()
			}
		}
		for _, w := range []*window{ann, alice} {
			w.sees(fromAlice[len(fromAlice)-1])
			w.sees(fromAnn[len(fromAnn)-1])
		}
	}
	victim := alice.node()
	talk(0, 20, victim.Kill)
	if alice.node() == victim {
		t.Errorf("alice is still at %s", victim.ID)
	}
	s.Heal()
	talk(20, 40, func() { end(first) })
	s.worker("one")
	victim = ann.node()
	talk(40, 60, victim.Kill)
	s.Heal()

	// The page is loaded anew while messages come.
	alice.Do(chromedp.Reload())
	ann.says("while you were away")
	alice.signIn()
	alice.sees("while you were away")
	fromAnn = append(fromAnn, "while you were away")

	alice.Await("all is read", `[...document.querySelectorAll("#messages li.mine .meta")].every(e => e.textContent.includes("read"))`)
	only := func(all []string, prefix string, more ...string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(m string) bool { return !strings.HasPrefix(m, prefix) && !slices.Contains(more, m) })
	}
	for _, w := range []*window{ann, alice} {
		words := w.words()
		if got := only(words, "alice "); !slices.Equal(got, fromAlice) {
			t.Errorf("%s sees from alice: %q", w.user, got)
		}
		if got := only(words, "ann ", "while you were away"); !slices.Equal(got, fromAnn) {
			t.Errorf("%s sees from ann: %q", w.user, got)
		}
		if errors := slices.DeleteFunc(w.Errors(), func(e string) bool { return strings.Contains(e, "WebSocket") }); len(errors) > 0 {
			t.Errorf("%s's console: %q", w.user, errors)
		}
	}
	if a, b := ann.words(), alice.words(); !slices.Equal(a, b) {
		t.Errorf("they do not see the same:\n%q\n%q", a, b)
	}
	if got := strings.Split(s.query("SELECT text FROM messages ORDER BY seq"), "\n"); !slices.Equal(got, alice.words()) {
		t.Errorf("the transcript is another one:\n%q", got)
	}

	// Who closes the window is away when the will's delay is over.
	alice.Do(chromedp.Navigate("about:blank"))
	ann.shows("#presence", "away")
	ann.Do(chromedp.Click("#close"))
	ann.Await("closed", `document.querySelector("#text").disabled`)
	t.Logf("said %d messages, three nodes' or workers' deaths", len(fromAlice)+len(fromAnn))
}
