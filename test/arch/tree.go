package arch

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// module is what the project's own import paths begin with.
const module = "github.com/skein-mqtt/skein/"

// source is one parsed Go file.
type source struct {
	path      string // within the module, with slashes
	syntax    *ast.File
	lines     int
	generated bool
}

func (s *source) folder() string { return path.Dir(s.path) }

func (s *source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// tree is all Go files of the module.
type tree struct {
	set     *token.FileSet
	sources []*source
}

// read parses the files of a module.
func read(module fs.FS) (*tree, error) {
	t := &tree{set: token.NewFileSet()}
	err := fs.WalkDir(module, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			if name != "." && skipped(entry.Name()) {
				return fs.SkipDir
			}
			return nil
		case path.Ext(name) != ".go":
			return nil
		}
		return t.add(module, name)
	})
	return t, err
}

// skipped are the folders that the go command does not look into either.
func skipped(folder string) bool {
	return folder == "testdata" || folder == "vendor" || folder[0] == '.' || folder[0] == '_'
}

func (t *tree) add(module fs.FS, name string) error {
	text, err := fs.ReadFile(module, name)
	if err != nil {
		return err
	}
	syntax, err := parser.ParseFile(t.set, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	t.sources = append(t.sources, &source{
		path: name, syntax: syntax, lines: bytes.Count(text, []byte("\n")), generated: ast.IsGenerated(syntax),
	})
	return nil
}

// at says where something is that breaks a rule.
func (t *tree) at(n ast.Node, format string, args ...any) string {
	p := t.set.Position(n.Pos())
	return fmt.Sprintf("%s:%d: %s", p.Filename, p.Line, fmt.Sprintf(format, args...))
}

// imported is one import of a file.
type imported struct {
	spec *ast.ImportSpec
	path string
}

// own is the folder within the module that is imported; false: it is somebody else's package.
func (i imported) own() (folder string, ok bool) { return strings.CutPrefix(i.path, module) }

func (s *source) imports() []imported {
	var out []imported
	for _, spec := range s.syntax.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil { // the parser has seen to that
			out = append(out, imported{spec, p})
		}
	}
	return out
}

// names calls visit for what a file names of other packages, with the package's path: functions, also
// where they are not called on the spot.
func (s *source) names(visit func(n ast.Node, pkg, name string)) {
	packages := make(map[string]string)
	for _, i := range s.imports() {
		name := path.Base(i.path)
		if i.spec.Name != nil {
			name = i.spec.Name.Name
		}
		packages[name] = i.path
	}
	ast.Inspect(s.syntax, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && packages[x.Name] != "" {
			visit(n, packages[x.Name], sel.Sel.Name)
		}
		return true
	})
}

// within tells whether a folder is one of these, or lies in one.
func within(folder string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return folder == root || strings.HasPrefix(folder, root+"/")
	})
}
