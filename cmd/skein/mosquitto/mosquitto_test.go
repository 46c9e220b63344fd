package mosquitto

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/skein-mqtt/skein/cmd/skein/config"
)

// TestImports: each configuration of testdata, what it becomes, and that a node takes it.
func TestImports(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			dir := t.TempDir()
			write := func(name, text string) string {
				file := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				return file
			}
			write("conf.d/B.conf", "max_keepalive 60\n")
			write("conf.d/a.conf", "sys_interval 30\n")
			r, err := Import(write("mosquitto.conf", strings.ReplaceAll(d.Input, "$DIR", dir)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := config.Load(write("skein.yaml", string(r.Config)), nil, nil); err != nil {
				t.Errorf("a node does not take it: %v", err)
			}
			var b strings.Builder
			for _, n := range r.Notes {
				fmt.Fprintln(&b, n)
			}
			_, config, _ := strings.Cut(string(r.Config), "\n")
			return strings.ReplaceAll(b.String()+config, dir, "$DIR")
		})
	})
}

func TestMissingFile(t *testing.T) {
	if _, err := Import("/nowhere"); err == nil {
		t.Error("a file that is not there was read")
	}
}
