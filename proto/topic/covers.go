package topic

import "strings"

// Covers tells whether everything that filter matches is matched by wide.
func Covers(wide, filter string) bool {
	if strings.HasPrefix(filter, "$") != strings.HasPrefix(wide, "$") {
		return false
	}
	for {
		w, wideRest, moreWide := strings.Cut(wide, "/")
		if w == "#" {
			return true
		}
		f, filterRest, moreFilter := strings.Cut(filter, "/")
		if f == "#" || w != "+" && w != f {
			return false
		}
		if !moreFilter {
			return !moreWide || wideRest == "#"
		}
		if !moreWide {
			return false
		}
		wide, filter = wideRest, filterRest
	}
}
