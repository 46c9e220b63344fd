package memory

import (
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// atHand is how much memory this process may have: the lowest limit of its control groups, or the machine's memory; 0
// when neither can be read.
func atHand() uint64 {
	least := ofGroups("/sys/fs/cgroup", "/proc/self/cgroup")
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		if all := uint64(info.Totalram) * uint64(info.Unit); least == 0 || all < least {
			least = all
		}
	}
	return least
}

// ofGroups reads the limits of the control groups that list names (cgroups(7)), below root; 0: there are none.
func ofGroups(root, list string) (least uint64) {
	text, err := os.ReadFile(list)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // number, controllers, path
		if len(parts) != 3 {
			continue
		}
		folder, name := "", ""
		switch {
		case parts[1] == "": // version 2
			folder, name = root, "memory.max"
		case parts[1] == "memory": // version 1
			folder, name = path.Join(root, "memory"), "memory.limit_in_bytes"
		default:
			continue
		}
		// In a container the path may be the host's, and the group is the root that is seen: all of them are tried.
		for p := path.Clean("/" + parts[2]); ; p = path.Dir(p) {
			if n := number(path.Join(folder, p, name)); n > 0 && (least == 0 || n < least) {
				least = n
			}
			if p == "/" {
				break
			}
		}
	}
	return least
}

// number reads a limit; 0: there is none.
func number(file string) uint64 {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 63)
	if err != nil { // "max"
		return 0
	}
	return n
}
