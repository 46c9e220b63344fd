package conn

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// request is a handshake, changed line by line: "Name: value" replaces, "-Name" removes.
func request(line string, changes ...string) string {
	headers := []string{
		"Host: x", "Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: mqtt",
	}
	for _, c := range changes {
		name, _, _ := strings.Cut(strings.TrimPrefix(c, "-"), ":")
		headers = slices.DeleteFunc(headers, func(h string) bool { return strings.HasPrefix(h, name+":") })
		if !strings.HasPrefix(c, "-") {
			headers = append(headers, c)
		}
	}
	return line + "\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n"
}

// upgrade serves a WebSocket connection on s.
func upgrade(t testing.TB, s net.Conn, client net.Conn) *Conn {
	t.Helper()
	type result struct {
		c   *Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		c, err := Upgrade(s, "ws", "/mqtt", patience)
		done <- result{c, err}
	}()
	mustWrite(t, client, []byte(request(getMQTT)))
	// Not a byte more: what follows are frames.
	var answer []byte
	for one := make([]byte, 1); !bytes.HasSuffix(answer, []byte("\r\n\r\n")); answer = append(answer, one...) {
		if _, err := io.ReadFull(client, one); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range []string{
		"HTTP/1.1 101 Switching Protocols\r\n", "\r\nUpgrade: websocket\r\n", "\r\nConnection: Upgrade\r\n",
		"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", "\r\nSec-WebSocket-Protocol: mqtt\r\n",
	} {
		if !strings.Contains(string(answer), line) {
			t.Fatalf("%q is not in %q", line, answer)
		}
	}
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.c
}

func startWS(t testing.TB, h *hooks, c **Conn) net.Conn {
	t.Helper()
	s, client := accept(t)
	*c = upgrade(t, s, client)
	serve(t, *c, h)
	t.Cleanup(func() { client.Close() })
	return client
}

func TestUpgradeRefused(t *testing.T) {
	for _, tt := range []struct {
		name, request string
		status        int
	}{
		{"wrong path", request("GET /other HTTP/1.1"), 404},
		{"method", request("POST /mqtt HTTP/1.1"), 405},
		{"old HTTP", request("GET /mqtt HTTP/1.0"), 505},
		{"a browser's visit", request(getMQTT, "-Upgrade", "-Connection", "-Sec-WebSocket-Version", "-Sec-WebSocket-Key"), 426},
		{"another upgrade", request(getMQTT, "Upgrade: h2c"), 426},
		{"no connection upgrade", request(getMQTT, "Connection: keep-alive"), 426},
		{"version 8", request(getMQTT, "Sec-WebSocket-Version: 8"), 426},
		{"no key", request(getMQTT, "-Sec-WebSocket-Key"), 400},
		{"short key", request(getMQTT, "Sec-WebSocket-Key: dGhl"), 400},
		{"no subprotocol", request(getMQTT, "-Sec-WebSocket-Protocol"), 400},
		{"other subprotocol", request(getMQTT, "Sec-WebSocket-Protocol: chat, mqttx"), 400},
		{"no HTTP", "\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00\r\n\r\n", 400},
		{"endless", strings.TrimSuffix(request(getMQTT, "X: "+strings.Repeat("x", 20<<10)), "\r\n\r\n"), 431},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, client := accept(t)
			done := make(chan error, 1)
			go func() {
				_, err := Upgrade(s, "ws", "/mqtt", patience)
				done <- err
			}()
			mustWrite(t, client, []byte(tt.request))
			r := bufio.NewReader(client)
			answer, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(answer.Body)
			if err != nil || len(body) == 0 {
				t.Errorf("body %q, error %v", body, err)
			}
			if answer.StatusCode != tt.status {
				t.Errorf("status %s", answer.Status)
			}
			if tt.status == 426 && (answer.Header.Get("Upgrade") != "websocket" || answer.Header.Get("Sec-WebSocket-Version") != "13") {
				t.Errorf("headers %v", answer.Header)
			}
			mustEOF(t, r)
			client.Close()
			var refused *UpgradeError
			if err := <-done; !errors.As(err, &refused) || refused.Status != tt.status {
				t.Errorf("Upgrade: %v", err)
			}
		})
	}
}

func TestUpgradeTimeout(t *testing.T) {
	s, client := accept(t)
	mustWrite(t, client, []byte("GET /mqtt HTTP/1.1\r\nHost"))
	if _, err := Upgrade(s, "ws", "", 20*time.Millisecond); !errors.Is(err, errHandshake) || !isTimeout(err) {
		t.Fatalf("Upgrade: %v", err)
	}
	mustEOF(t, client)
}

func TestUpgradeAlternatives(t *testing.T) {
	for _, tt := range []struct{ request, want string }{
		{request("GET /any?x=1 HTTP/1.1"), "mqtt"},
		{request(getMQTT, "Sec-WebSocket-Protocol: mqttv3.1"), "mqttv3.1"},
		{request(getMQTT, "Sec-WebSocket-Protocol: mqttv3.1, mqtt"), "mqtt"},
		{request(getMQTT, "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: mqtt"), "mqtt"},
		{request(getMQTT, "Upgrade: WebSocket", "Connection: upgrade"), "mqtt"},
	} {
		answer, err := judge([]byte(tt.request), "")
		if err != nil || !strings.Contains(answer, "Sec-WebSocket-Protocol: "+tt.want+"\r\n") {
			t.Errorf("%q: %q, %v", tt.request, answer, err)
		}
	}
}

// TestWSEarly: frames that come in one piece with the handshake are not lost.
func TestWSEarly(t *testing.T) {
	s, client := accept(t)
	mustWrite(t, client, append([]byte(request(getMQTT)), frame(fin|opBinary, []byte("early"))...))
	c, err := Upgrade(s, "ws", "/mqtt", patience)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	h := &hooks{data: func(b []byte, _ *Batch) (int, error) {
		got <- string(b)
		return len(b), nil
	}}
	serve(t, c, h)
	defer client.Close()
	if s := <-got; s != "early" {
		t.Errorf("got %q", s)
	}
}
