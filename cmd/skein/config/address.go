package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"

	"github.com/skein-mqtt/skein/node/listener"
)

var schemes = []string{"tcp", "tls", "ws", "wss", "psk", "unix", "quic"}

// checkListener finds a misspelt scheme; the rest is the listener's to say.
func checkListener(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" {
		return errors.New("wants a URL, as in tcp://127.0.0.1:1883")
	}
	if !slices.Contains(schemes, u.Scheme) {
		return fmt.Errorf("unknown scheme %s; the nearest valid one is %s", u.Scheme, Nearest(u.Scheme, schemes))
	}
	_, err = listener.Parse(text)
	return err
}

func checkAddress(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return errors.New("wants HOST:PORT, as in 127.0.0.1:1883, [::1]:1883 or :1883")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %q is not a number from 0 to 65535", port)
	} else if n == 0 {
		return nil // the system picks one
	}
	return nil
}
