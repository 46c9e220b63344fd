package operators

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// ListenUnix opens a socket that only this node's own user may use. One that a process left behind when it was
// killed is removed.
func ListenUnix(path string) (net.Listener, error) {
	if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSocket != 0 {
		c, err := net.DialTimeout("unix", path, time.Second)
		if err == nil {
			_ = c.Close()
		} else if errors.Is(err, syscall.ECONNREFUSED) {
			_ = os.Remove(path) // else the next line says why
		}
	}
	// The mode of the socket before it has a name is that of the name.
	listen := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), 0o600) })
		return errors.Join(err, failed)
	}}
	return listen.Listen(context.Background(), "unix", path)
}
