package chaos

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// socketOwner finds out which of some processes a loopback TCP port belongs to, by what /proc says.
// 0: none of them.
func socketOwner(port int, pids []int) int {
	link := "socket:[" + inode(port) + "]"
	if link == "socket:[]" {
		return 0
	}
	for _, pid := range pids {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // it has ended
		}
		for _, e := range entries {
			if to, err := os.Readlink(dir + "/" + e.Name()); err == nil && to == link {
				return pid
			}
		}
	}
	return 0
}

// inode is that of the socket that has this local port and a connection.
func inode(port int) string {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	suffix := fmt.Sprintf(":%04X", port)
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) > 9 && strings.HasSuffix(fields[1], suffix) && fields[3] != "0A" && fields[9] != "0" {
			if _, err := strconv.ParseUint(fields[9], 10, 64); err == nil {
				return fields[9]
			}
		}
	}
	return ""
}
