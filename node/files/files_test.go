package files

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestWatch: what is written, replaced by another file, pointed elsewhere, removed or made anew is noticed.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(file, []byte("one"), 0o600))
	must(os.Symlink(file, link))
	put := func(path, text string) { // at once: an empty file in between would be a change of its own
		t.Helper()
		must(os.WriteFile(path+".new", []byte(text), 0o600))
		must(os.Rename(path+".new", path))
	}
	names := func() []string { return []string{link, filepath.Join(dir, "none")} }
	ctx, stop := context.WithCancel(t.Context())
	changed := make(chan struct{}, 100)
	var group sync.WaitGroup
	loaded := Look(names())
	group.Go(func() { Watch(ctx, time.Millisecond, loaded, names, func() { changed <- struct{}{} }) })
	noticed := func(what string) {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(time.Minute):
			t.Fatalf("not noticed: %s", what)
		}
	}
	put(file, "longer")
	noticed("another text")
	other := filepath.Join(dir, "other")
	must(os.WriteFile(other, []byte("longer"), 0o600))
	st, err := os.Stat(file)
	must(err)
	must(os.Chtimes(other, time.Time{}, st.ModTime()))
	must(os.Rename(other, file))
	noticed("another file of the same size and time")
	must(os.WriteFile(other, []byte("x"), 0o600))
	must(os.Symlink(other, filepath.Join(dir, "new")))
	must(os.Rename(filepath.Join(dir, "new"), link))
	noticed("a link that leads elsewhere")
	must(os.Remove(other))
	noticed("its removal")
	put(other, "y")
	noticed("its return")
	stop()
	group.Wait()
	if len(changed) > 0 {
		t.Errorf("%d changes too many", len(changed))
	}
}
