package conn

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// maxRequest is the longest HTTP request that is read.
const maxRequest = 8 << 10

// protocols are the subprotocols that we speak, the best first [MQTT-6.0.0-3]. The second is what
// clients of MQTT 3.1 say.
var protocols = []string{"mqtt", "mqttv3.1"}

// UpgradeError says why a WebSocket handshake was refused, and with which HTTP status.
type UpgradeError struct {
	Status int
	Msg    string

	header string // lines of the answer that belong to this status
}

func (e *UpgradeError) Error() string {
	return fmt.Sprintf("websocket: answered %d %s: %s", e.Status, http.StatusText(e.Status), e.Msg)
}

var errHandshake = errors.New("websocket: handshake failed")

// Upgrade is the server's side of the WebSocket handshake on an accepted socket (plain or TLS),
// and wraps it like New. An empty path stands for any. It blocks for up to timeout, or until nc is
// closed. After an error, which an *UpgradeError says was told to the client, nc is closed.
func Upgrade(nc net.Conn, listener, path string, timeout time.Duration) (*Conn, error) {
	early, err := handshake(nc, path, timeout)
	if err != nil {
		nc.Close()
		return nil, err
	}
	c := New(nc, listener)
	c.ws = &wsReader{early: early}
	return c, nil
}

func handshake(nc net.Conn, path string, timeout time.Duration) (early []byte, err error) {
	if err := nc.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, fmt.Errorf("%w: %w", errHandshake, err)
	}
	head, early, err := readRequest(nc)
	answer := ""
	if err == nil {
		answer, err = judge(head, path)
	}
	var refused *UpgradeError
	if errors.As(err, &refused) {
		refuse(nc, refused)
		return nil, err
	}
	if err == nil {
		_, err = io.WriteString(nc, answer)
	}
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errHandshake, err)
	}
	return early, nil
}

// readRequest reads up to the empty line, and returns what came behind it, too.
func readRequest(nc net.Conn) (head, early []byte, err error) {
	buf := make([]byte, 0, 1024)
	for {
		if len(buf) == cap(buf) {
			if cap(buf) >= maxRequest {
				return nil, nil, &UpgradeError{Status: http.StatusRequestHeaderFieldsTooLarge, Msg: fmt.Sprintf("the request is longer than %d bytes", maxRequest)}
			}
			buf = slices.Grow(buf, min(cap(buf), maxRequest-cap(buf)))
			buf = buf[:len(buf):min(cap(buf), maxRequest)]
		}
		n, err := nc.Read(buf[len(buf):cap(buf)])
		from := max(0, len(buf)-3)
		buf = buf[:len(buf)+n]
		if i := bytes.Index(buf[from:], []byte("\r\n\r\n")); i >= 0 {
			end := from + i + 4
			return buf[:end], bytes.Clone(buf[end:]), nil
		}
		if err != nil {
			return nil, nil, err
		}
	}
}

// judge returns the answer that completes the handshake (RFC 6455, section 4.2).
func judge(head []byte, path string) (string, error) {
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return "", &UpgradeError{Status: http.StatusBadRequest, Msg: "this is no HTTP request"}
	}
	refused := func(status int, msg, header string) (string, error) {
		return "", &UpgradeError{status, msg, header}
	}
	key := r.Header.Get("Sec-WebSocket-Key")
	raw, keyErr := base64.StdEncoding.DecodeString(key)
	switch {
	case path != "" && r.URL.Path != path:
		return refused(http.StatusNotFound, "there is nothing at this path", "")
	case r.Method != http.MethodGet:
		return refused(http.StatusMethodNotAllowed, "a WebSocket handshake is a GET", "Allow: GET\r\n")
	case !r.ProtoAtLeast(1, 1):
		return refused(http.StatusHTTPVersionNotSupported, "a WebSocket handshake needs HTTP/1.1", "")
	case !lists(r.Header, "Connection", "upgrade") || !lists(r.Header, "Upgrade", "websocket"):
		return refused(http.StatusUpgradeRequired, "this is a WebSocket endpoint for MQTT clients", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return refused(http.StatusUpgradeRequired, "only version 13 of WebSocket is supported", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")
	case keyErr != nil || len(raw) != 16:
		return refused(http.StatusBadRequest, "Sec-WebSocket-Key is not 16 bytes in base64", "")
	}
	for _, p := range protocols {
		if lists(r.Header, "Sec-WebSocket-Protocol", p) {
			return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
				acceptKey(key) + "\r\nSec-WebSocket-Protocol: " + p + "\r\n\r\n", nil
		}
	}
	return refused(http.StatusBadRequest, "the client does not offer the subprotocol mqtt", "")
}

// lists tells whether a header, a list, has the token, in whatever case.
func lists(h http.Header, name, token string) bool {
	for _, line := range h.Values(name) {
		for item := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(item), token) {
				return true
			}
		}
	}
	return false
}

func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// refuse answers and lets the client read it: what he still sends is read for a moment, since
// closing a socket with unread bytes would reset it.
func refuse(nc net.Conn, e *UpgradeError) {
	_, err := fmt.Fprintf(nc, "HTTP/1.1 %d %s\r\nConnection: close\r\n%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s\n",
		e.Status, http.StatusText(e.Status), e.header, len(e.Msg)+1, e.Msg)
	if err != nil || nc.SetDeadline(time.Now().Add(lingering)) != nil {
		return
	}
	if cw, ok := nc.(interface{ CloseWrite() error }); ok && cw.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(nc, 1<<20))
	}
}
