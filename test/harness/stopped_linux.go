package harness

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// stopped tells whether all threads of a process have stopped.
func stopped(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return false
	}
	for _, name := range threads {
		stat, err := os.ReadFile(name)
		if err != nil {
			return false
		}
		// The state follows the command's name, which ends with the last bracket.
		if after := stat[bytes.LastIndexByte(stat, ')')+1:]; len(after) < 2 || after[1] != 'T' {
			return false
		}
	}
	return true
}
