// Package browser runs a headless Chromium for tests of the project's pages.
//
// It owns the browser's process and its tabs, which end with the test. It must never know a page. A
// machine without Chromium skips the test and says so.
package browser

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience bounds each step in a page.
const patience = 60 * time.Second

// Browser is one Chromium with a profile of its own.
type Browser struct {
	ctx context.Context
	t   testing.TB
}

// Start starts Chromium, or skips the test where there is none, or where only quick tests are run.
func Start(t testing.TB) *Browser {
	t.Helper()
	if os.Getenv("TEST_SKEIN_HEAVY") == "" {
		t.Skip("takes longer: scripts/browser runs it")
	}
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("there is no chromium (apt-get install chromium)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.Flag("disable-dev-shm-usage", true))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	allocator, freeAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, free := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx)
		free()
		freeAllocator()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return &Browser{ctx: ctx, t: t}
}

// Page is one tab. Its errors in the console are kept.
type Page struct {
	Name string
	ctx  context.Context
	t    testing.TB

	mu     sync.Mutex
	errors []string
}

// Open opens a tab; name is for messages. private gives it storage of its own, as another person's
// browser has.
func (b *Browser) Open(name, url string, private bool) *Page {
	b.t.Helper()
	var options []chromedp.ContextOption
	if private {
		options = append(options, chromedp.WithNewBrowserContext())
	}
	ctx, free := chromedp.NewContext(b.ctx, options...)
	b.t.Cleanup(free)
	p := &Page{Name: name, ctx: ctx, t: b.t}
	if err := chromedp.Listen(ctx, p.listen); err != nil {
		b.t.Fatalf("%s: %v", name, err)
	}
	// Several people look at several windows at once: each is in front.
	focus := chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
		return err
	})
	p.Do(focus, chromedp.Navigate(url))
	return p
}

func (p *Page) listen(event any) {
	var text string
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		text = e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += " " + e.ExceptionDetails.Exception.Description
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type != "error" {
			return
		}
		for _, a := range e.Args {
			text += fmt.Sprintf("%s%s ", a.Value, a.Description)
		}
	default:
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errors = append(p.errors, text)
}

// Errors are what the page has written into the console as errors, and exceptions that nobody caught.
func (p *Page) Errors() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.errors...)
}

// Do runs steps in the tab.
func (p *Page) Do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatalf("%s: %v; the console: %s", p.Name, err, strings.Join(p.Errors(), "\n"))
	}
}

// Eval evaluates an expression, waits for it when it is a promise, and returns its value.
func Eval[T any](p *Page, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %.300s: %v; the console: %s", p.Name, expression, err, strings.Join(p.Errors(), "\n"))
	}
	return value
}

// Await polls until the expression is true.
func (p *Page) Await(what, expression string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if Eval[bool](p, "!!("+expression+")") {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: did not come to pass: %s; it shows:\n%s\nthe console: %s", p.Name, what,
				Eval[string](p, "document.body.innerText"), strings.Join(p.Errors(), "\n"))
		}
	}
}

// Look sets the size of the window and whether the person prefers dark colours.
func (p *Page) Look(width, height int64, dark bool) {
	p.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	p.Do(chromedp.EmulateViewport(width, height), chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}))
}

// Screenshot is the visible part of the tab as PNG.
func (p *Page) Screenshot() []byte {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	// A tab in the background is not drawn.
	if _, err := chromedp.Call(ctx, page.BringToFront, cdp.Empty{}); err != nil {
		p.t.Fatalf("%s: %v", p.Name, err)
	}
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatalf("%s: %v", p.Name, err)
	}
	return png
}
