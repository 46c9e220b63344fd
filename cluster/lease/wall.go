//go:build !chaos

package lease

import "time"

// wall is the system's clock in ms since 1970.
func wall() int64 { return time.Now().UnixMilli() }
