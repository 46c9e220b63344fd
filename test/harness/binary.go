package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// BinaryVariable names a skein binary to use instead of building one.
const BinaryVariable = "TEST_SKEIN_BINARY"

var built struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// Main runs a test binary's tests and removes what Binary built: for TestMain.
func Main(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, "harness:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// Binary builds ./cmd/skein, once per test binary.
func Binary(t testing.TB) string {
	t.Helper()
	built.once.Do(func() { built.path, built.err = build() })
	if built.err != nil {
		t.Fatalf("build skein: %v", built.err)
	}
	return built.path
}

func build() (string, error) {
	if path := os.Getenv(BinaryVariable); path != "" {
		return filepath.Abs(path)
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	if built.dir, err = os.MkdirTemp("", "skein-test-"); err != nil {
		return "", err
	}
	path := filepath.Join(built.dir, "skein")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/skein")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the test")
		}
		dir = parent
	}
}
