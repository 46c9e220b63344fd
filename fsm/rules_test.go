package fsm

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestDeterminism: what would let replicas diverge, or block Apply, is not even there. It looks at
// the syntax: a range over anything named like a map of this package is refused.
func TestDeterminism(t *testing.T) {
	set := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, n := range names {
		if strings.HasSuffix(n, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, n, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	allowed := map[string]bool{
		"bytes": true, "cmp": true, "crypto/sha256": true, "encoding/binary": true, "errors": true, "fmt": true,
		"hash/crc32": true, "io": true, "slices": true, "sort": true, "strings": true, "sync": true, "sync/atomic": true,
		"github.com/tidwall/btree": true, "google.golang.org/protobuf/proto": true,
		"github.com/skein-mqtt/skein/proto/fsmpb": true,
	}
	maps := make(map[string]bool)
	name := func(e ast.Expr) string {
		switch e := e.(type) {
		case *ast.Ident:
			return e.Name
		case *ast.SelectorExpr:
			return e.Sel.Name
		}
		return ""
	}
	isMap := func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.MapType:
			return true
		case *ast.CompositeLit:
			_, ok := e.Type.(*ast.MapType)
			return ok
		case *ast.CallExpr:
			if name(e.Fun) == "make" {
				_, ok := e.Args[0].(*ast.MapType)
				return ok
			}
		}
		return false
	}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Field:
				for _, id := range n.Names {
					maps[id.Name] = maps[id.Name] || isMap(n.Type)
				}
			case *ast.AssignStmt:
				for i, l := range n.Lhs {
					if i < len(n.Rhs) && isMap(n.Rhs[i]) {
						maps[name(l)] = true
					}
				}
			}
			return true
		})
	}
	if !maps["incs"] || !maps["byID"] || !maps["saved"] {
		t.Fatal("the test does not see the maps any more")
	}
	for _, file := range files {
		for _, i := range file.Imports {
			if p := strings.Trim(i.Path.Value, `"`); !allowed[p] {
				t.Errorf("%s imports %s", set.Position(i.Pos()), p)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt, *ast.SelectStmt, *ast.ChanType:
				t.Errorf("%s: no goroutines and channels in here", set.Position(n.Pos()))
			case *ast.RangeStmt:
				if maps[name(n.X)] {
					t.Errorf("%s: the order of map %s", set.Position(n.Pos()), name(n.X))
				}
			}
			return true
		})
	}
}
