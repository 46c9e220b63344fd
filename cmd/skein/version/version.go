// Package version knows what this binary is.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Number is the release; the linker may set it (-X .../version.Number=v1.2.3).
var Number = "v0.1.0-dev"

// Commit is the commit that the binary was built from, as far as the toolchain recorded it.
func Commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	commit, dirty := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+"
			}
		}
	}
	return commit + dirty
}

// Go is the toolchain and the platform.
func Go() string { return fmt.Sprintf("%s %s/%s", runtime.Version(), runtime.GOOS, runtime.GOARCH) }

// Line is all of it, for people.
func Line() string {
	if c := Commit(); c != "" {
		return fmt.Sprintf("skein %s (%s, %s)", Number, c, Go())
	}
	return fmt.Sprintf("skein %s (%s)", Number, Go())
}
