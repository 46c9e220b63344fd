//go:build chaos

package lease

import (
	"os"
	"strings"
	"time"
)

// wall is the system's clock in ms since 1970, set wrong by the duration in the file that CLOCK_OFFSET_FILE names: for
// the fault checker, which has no other way to set one process's clock.
func wall() int64 {
	now := time.Now()
	b, err := os.ReadFile(os.Getenv("CLOCK_OFFSET_FILE"))
	if err != nil {
		return now.UnixMilli()
	}
	offset, _ := time.ParseDuration(strings.TrimSpace(string(b))) // what can't be read is no offset
	return now.Add(offset).UnixMilli()
}
