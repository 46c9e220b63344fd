package replica

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// logFile makes a log whose pages are branches, leaves, long ones and free ones.
func logFile(t *testing.T) (dir string, whole []byte) {
	t.Helper()
	dir = t.TempDir()
	s, err := openStore(dir, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	var list []*raft.Log
	for i := uint64(1); i <= 600; i++ {
		size := 100
		if i%50 == 0 {
			size = 9000
		}
		list = append(list, &raft.Log{Index: i, Term: 1, Data: []byte(strings.Repeat("x", size))})
	}
	for len(list) > 0 {
		if err := s.StoreLogs(list[:50]); err != nil {
			t.Fatal(err)
		}
		list = list[50:]
	}
	if err := errors.Join(s.SetUint64([]byte("CurrentTerm"), 1), s.DeleteRange(1, 200), s.close()); err != nil {
		t.Fatal(err)
	}
	whole, err = os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	return dir, whole
}

// TestPages: bits that turn in the header of a page, or in what says where its entries are, are found before bbolt sees
// them; it would end this process. A file with any other bits turned opens, or does not, and nothing else happens.
func TestPages(t *testing.T) {
	dir, whole := logFile(t)
	path := filepath.Join(dir, "log.db")
	if err := verifyPages(path); err != nil {
		t.Fatalf("a sound file: %v", err)
	}
	if err := verifyPages(filepath.Join(dir, "nothing")); err != nil {
		t.Errorf("no file: %v", err)
	}
	p := os.Getpagesize()
	rng := rand.New(rand.NewPCG(1, 2))
	refused := 0
	try := func(at int, bit byte) {
		b := append([]byte(nil), whole...)
		b[at] ^= bit
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := openStore(dir, func(error) {})
		if err != nil {
			refused++
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path) {
				t.Errorf("byte %d: %v", at, err)
			}
			return
		}
		for i := uint64(1); i <= 600; i++ {
			var l raft.Log
			if err := s.GetLog(i, &l); err == nil && (l.Index != i || len(l.Data) != 100 && len(l.Data) != 9000) {
				t.Errorf("byte %d: entry %d is another one", at, i)
			}
		}
		if err := s.close(); err != nil {
			t.Errorf("byte %d: close: %v", at, err)
		}
	}
	for page := 2; page < len(whole)/p; page++ {
		for field := range pageHeader + 2*element {
			if rng.IntN(50) == 0 {
				try(page*p+field, 1<<rng.IntN(8))
			}
		}
	}
	if refused < 10 {
		t.Errorf("only %d were refused", refused)
	}
	for range 20 {
		try(rng.IntN(len(whole)), 1<<rng.IntN(8))
	}
	for _, size := range []int{p, 3 * p, len(whole) / 2, len(whole) - p} { // cut short
		if err := os.WriteFile(path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := openStore(dir, func(error) {}); err == nil {
			err = s.close()
			t.Log(fmt.Sprintf("%d of %d bytes are a sound file", size, len(whole)), err)
		}
	}
}
