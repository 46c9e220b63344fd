package tlspsk

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// The interoperability matrix: other people's clients, as far as they are installed.

const (
	aliceKey = "00112233445566778899aabbccddeeff"
	bobKey   = "deadbeefdeadbeefdeadbeefdeadbeef00112233445566778899aabbccddeeff"
)

var testKeys = func() *Keys {
	k, err := ParseKeys([]byte("alice:" + aliceKey + "\nbob:" + bobKey + "\n"))
	if err != nil {
		panic(err)
	}
	return k
}()

// outcome is how a connection went.
type outcome struct {
	state State
	got   int // bytes of MQTT payloads
	err   error
}

// echo is a server that answers MQTT with what is due, and everything else with itself.
type echo struct {
	port     string
	outcomes chan outcome
}

func serveEcho(t *testing.T, cfg *Config) *echo {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{port: port, outcomes: make(chan outcome, 16)}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { e.outcomes <- e.serve(nc, cfg) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		group.Wait()
	})
	return e
}

func (e *echo) serve(nc net.Conn, cfg *Config) (o outcome) {
	c := Server(nc, cfg)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if o.err = c.HandshakeContext(ctx); o.err != nil {
		return o
	}
	o.state = c.State()
	if o.err = c.SetDeadline(time.Now().Add(20 * time.Second)); o.err != nil {
		return o
	}
	r := bufio.NewReaderSize(c, 1024)
	if first, err := r.Peek(1); err != nil || first[0] != 0x10 {
		_, _ = io.Copy(c, r)
		return o
	}
	for {
		head, err := r.ReadByte()
		if err != nil {
			return o
		}
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return o
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(r, body); err != nil {
			return o
		}
		switch head >> 4 {
		case 1: // CONNECT
			_, err = c.Write([]byte{0x20, 2, 0, 0})
		case 3: // PUBLISH, QoS 1
			at := 2 + binary.BigEndian.Uint16(body)
			o.got += len(body) - int(at) - 2
			_, err = c.Write([]byte{0x40, 2, body[at], body[at+1]})
		}
		if err != nil {
			return o
		}
	}
}

func need(t *testing.T, tool, debian string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil {
		t.Skipf("%s is not installed (apt-get install %s)", tool, debian)
	}
	return path
}

// talk starts a client that copies its input to the server and what comes back to its output, sends a
// line, and waits for it; want, if it is set, is whether it comes. It returns what the client printed.
func talk(t *testing.T, want *bool, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		w.Close()
		done <- err
	}()
	_, _ = io.WriteString(in, "there-and-back\n")
	lines := bufio.NewScanner(r)
	found := false
	for lines.Scan() {
		out.Write(append(lines.Bytes(), '\n'))
		if strings.Contains(lines.Text(), "there-and-back") {
			found = true
			break
		}
	}
	in.Close()
	cancel()
	_, _ = io.Copy(&out, r)
	err = <-done
	if want != nil && found != *want {
		t.Errorf("echoed: %t, want %t; %v\n%s %s\n%s", found, *want, err, name, strings.Join(args, " "), out.String())
	}
	return out.String()
}

// expect is how a connection of the matrix shall end: a version and a suite, or refused.
type expect struct {
	version uint16
	suite   uint16 // 0: any
	refused error
}

func (e *echo) check(t *testing.T, want expect) {
	t.Helper()
	select {
	case o := <-e.outcomes:
		switch {
		case want.refused != nil:
			if !errors.Is(o.err, want.refused) {
				t.Errorf("%v, want %v", o.err, want.refused)
			}
		case o.err != nil:
			t.Error(o.err)
		case o.state.Version != want.version || want.suite != 0 && o.state.Suite != want.suite:
			t.Errorf("%s, suite %04x, want %s, %04x", tls.VersionName(o.state.Version), o.state.Suite, tls.VersionName(want.version), want.suite)
		}
	case <-time.After(20 * time.Second):
		t.Error("the connection does not end")
	}
}

func TestOpenSSL(t *testing.T) {
	openssl := need(t, "openssl", "openssl")
	cfg := &Config{Key: testKeys.Find, Hint: "skein"}
	for args, want := range map[string]expect{
		"":                                       {tls.VersionTLS13, 0x1301, nil},
		"-tls1_3":                                {tls.VersionTLS13, 0x1301, nil},
		"-tls1_3 -groups P-256":                  {tls.VersionTLS13, 0x1301, nil},
		"-tls1_3 -groups P-521":                  {tls.VersionTLS13, 0x1301, nil},
		"-tls1_3 -groups X448:P-384":             {tls.VersionTLS13, 0x1301, nil}, // HelloRetryRequest
		"-tls1_3 -allow_no_dhe_kex -groups X448": {tls.VersionTLS13, 0x1301, nil}, // psk_ke
		"-tls1_3 -groups X448":                   {0, 0, ErrProtocol},
		"-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256":  {tls.VersionTLS13, 0x1303, nil},
		"-tls1_3 -ciphersuites TLS_AES_128_CCM_SHA256":        {tls.VersionTLS13, 0x1304, nil},
		"-tls1_3 -ciphersuites TLS_AES_128_CCM_8_SHA256":      {tls.VersionTLS13, 0x1305, nil},
		"-tls1_3 -no_middlebox":                               {tls.VersionTLS13, 0x1301, nil},
		"-tls1_2":                                             {tls.VersionTLS12, 0xCCAC, nil},
		"-tls1_2 -maxfraglen 512":                             {tls.VersionTLS12, 0xCCAC, nil},
		"-tls1_2 -cipher ECDHE-PSK-AES128-CBC-SHA256":         {tls.VersionTLS12, 0xC037, nil},
		"-tls1_2 -cipher ECDHE-PSK-AES256-CBC-SHA384":         {tls.VersionTLS12, 0xC038, nil},
		"-tls1_2 -cipher ECDHE-PSK-AES128-CBC-SHA256 -no_etm": {0, 0, ErrProtocol},
		"-tls1_2 -cipher PSK-AES128-GCM-SHA256":               {tls.VersionTLS12, 0x00A8, nil},
		"-tls1_2 -cipher PSK-AES256-GCM-SHA384":               {tls.VersionTLS12, 0x00A9, nil},
		"-tls1_2 -cipher PSK-CHACHA20-POLY1305":               {tls.VersionTLS12, 0xCCAB, nil},
		"-tls1_2 -cipher PSK-AES128-CCM":                      {tls.VersionTLS12, 0xC0A4, nil},
		"-tls1_2 -cipher PSK-AES256-CCM":                      {tls.VersionTLS12, 0xC0A5, nil},
		"-tls1_2 -cipher PSK-AES128-CCM8@SECLEVEL=0":          {tls.VersionTLS12, 0xC0A8, nil},
		"-tls1_2 -cipher PSK-AES256-CCM8@SECLEVEL=0":          {tls.VersionTLS12, 0xC0A9, nil},
		"-tls1_2 -cipher PSK-AES128-CBC-SHA256":               {tls.VersionTLS12, 0x00AE, nil},
		"-tls1_2 -cipher PSK-AES256-CBC-SHA384":               {tls.VersionTLS12, 0x00AF, nil},
		"-tls1_2 -cipher DHE-PSK-AES128-GCM-SHA256":           {0, 0, ErrProtocol},
		"-tls1_1 -cipher ALL@SECLEVEL=0":                      {0, 0, ErrProtocol},
		"-tls1_2 -fallback_scsv":                              {0, 0, ErrProtocol},
	} {
		t.Run(strings.TrimSpace("s_client "+args), func(t *testing.T) {
			t.Parallel()
			e := serveEcho(t, cfg)
			echoes := want.refused == nil
			all := append([]string{"s_client", "-connect", "127.0.0.1:" + e.port, "-quiet", "-psk", aliceKey, "-psk_identity", "alice"}, strings.Fields(args)...)
			talk(t, &echoes, openssl, all...)
			e.check(t, want)
		})
	}
	for what, args := range map[string]string{
		"wrong key 1.3": "-tls1_3 -psk 00 -psk_identity alice", "unknown identity 1.3": "-tls1_3 -psk " + aliceKey + " -psk_identity mallory",
		"wrong key 1.2": "-tls1_2 -psk 00 -psk_identity alice", "unknown identity 1.2": "-tls1_2 -psk " + aliceKey + " -psk_identity mallory",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			e := serveEcho(t, cfg)
			out := talk(t, new(bool), openssl, append([]string{"s_client", "-connect", "127.0.0.1:" + e.port, "-quiet"}, strings.Fields(args)...)...)
			e.check(t, expect{refused: ErrKey})
			if !strings.Contains(out, "alert decrypt error") {
				t.Errorf("the client was told something else:\n%s", out)
			}
		})
	}
	t.Run("key update", func(t *testing.T) { // K at the start of a line asks for both directions' keys
		t.Parallel()
		e := serveEcho(t, cfg)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, openssl, "s_client", "-connect", "127.0.0.1:"+e.port, "-tls1_3", "-psk", bobKey, "-psk_identity", "bob")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		r, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cmd.Wait() }()
		defer cancel()
		lines := bufio.NewScanner(r)
		said := 0
		_, _ = io.WriteString(in, "line-0\n")
		for lines.Scan() {
			if said == 3 {
				return
			}
			if strings.Contains(lines.Text(), fmt.Sprint("line-", said)) {
				said++
				_, _ = io.WriteString(in, "K\n")
				time.Sleep(50 * time.Millisecond) // s_client takes a command only when it is a read of its own
				_, _ = io.WriteString(in, fmt.Sprint("line-", said, "\n"))
			}
		}
		t.Errorf("%d of 3 lines came back", said)
	})
}

func TestGnuTLS(t *testing.T) {
	gnutls := need(t, "gnutls-cli", "gnutls-bin")
	cfg := &Config{Key: testKeys.Find}
	v12, v13 := "NONE:+VERS-TLS1.2:+COMP-NULL:+MAC-ALL:+SHA256:+SHA384:+SIGN-ALL:+GROUP-ALL:", "NONE:+VERS-TLS1.3:+COMP-NULL:+MAC-ALL:+SIGN-ALL:"
	for priority, want := range map[string]expect{
		"NORMAL:-KX-ALL:+ECDHE-PSK:+DHE-PSK:+PSK":                         {tls.VersionTLS13, 0, nil},
		v13 + "+GROUP-ALL:+ECDHE-PSK:+AES-128-GCM":                        {tls.VersionTLS13, 0x1301, nil},
		v13 + "+GROUP-ALL:+ECDHE-PSK:+CHACHA20-POLY1305":                  {tls.VersionTLS13, 0x1303, nil},
		v13 + "+GROUP-ALL:+ECDHE-PSK:+AES-128-CCM":                        {tls.VersionTLS13, 0x1304, nil},
		v13 + "+GROUP-ALL:+ECDHE-PSK:+AES-128-CCM-8":                      {tls.VersionTLS13, 0x1305, nil},
		v13 + "+GROUP-ALL:+PSK:+AES-128-GCM":                              {tls.VersionTLS13, 0x1301, nil}, // psk_ke
		v13 + "+GROUP-FFDHE2048:+GROUP-SECP384R1:+ECDHE-PSK:+AES-128-GCM": {tls.VersionTLS13, 0x1301, nil},
		v12 + "+ECDHE-PSK:+CHACHA20-POLY1305":                             {tls.VersionTLS12, 0xCCAC, nil},
		v12 + "+ECDHE-PSK:+AES-128-CBC":                                   {tls.VersionTLS12, 0xC037, nil},
		v12 + "+ECDHE-PSK:+AES-256-CBC":                                   {tls.VersionTLS12, 0xC038, nil},
		v12 + "+PSK:+AES-128-GCM":                                         {tls.VersionTLS12, 0x00A8, nil},
		v12 + "+PSK:+AES-256-GCM":                                         {tls.VersionTLS12, 0x00A9, nil},
		v12 + "+PSK:+CHACHA20-POLY1305":                                   {tls.VersionTLS12, 0xCCAB, nil},
		v12 + "+PSK:+AES-128-CCM":                                         {tls.VersionTLS12, 0xC0A4, nil},
		v12 + "+PSK:+AES-256-CCM":                                         {tls.VersionTLS12, 0xC0A5, nil},
		v12 + "+PSK:+AES-128-CCM-8":                                       {tls.VersionTLS12, 0xC0A8, nil},
		v12 + "+PSK:+AES-256-CCM-8":                                       {tls.VersionTLS12, 0xC0A9, nil},
		v12 + "+PSK:+AES-128-CBC":                                         {tls.VersionTLS12, 0x00AE, nil},
		v12 + "+PSK:+AES-128-CBC:%NO_ETM":                                 {0, 0, ErrProtocol},
		v12 + "+PSK:+AES-128-GCM:%NO_SESSION_HASH":                        {tls.VersionTLS12, 0x00A8, nil},
	} {
		t.Run(priority, func(t *testing.T) {
			t.Parallel()
			e := serveEcho(t, cfg)
			args := []string{"--pskusername", "bob", "--pskkey", bobKey, "--priority", priority, "--port", e.port, "127.0.0.1"}
			if strings.HasPrefix(priority, v12+"+ECDHE-PSK") { // gnutls-cli dies of it after the handshake, with gnutls-serv, too
				talk(t, nil, gnutls, args...)
			} else {
				echoes := want.refused == nil
				talk(t, &echoes, gnutls, args...)
			}
			e.check(t, want)
		})
	}
	for _, priority := range []string{v12 + "+PSK:+AES-128-CCM-8", v12 + "+PSK:+AES-128-CBC", v13 + "+GROUP-ALL:+ECDHE-PSK:+AES-128-GCM"} {
		t.Run("wrong key "+priority, func(t *testing.T) {
			t.Parallel()
			e := serveEcho(t, cfg)
			talk(t, new(bool), gnutls, "--pskusername", "bob", "--pskkey", aliceKey, "--priority", priority, "--port", e.port, "127.0.0.1")
			e.check(t, expect{refused: ErrKey})
		})
	}
}

func TestMosquitto(t *testing.T) {
	pub := need(t, "mosquitto_pub", "mosquitto-clients")
	cfg := &Config{Key: testKeys.Find}
	big := hex.EncodeToString(bytes.Repeat([]byte{7}, 500_000))
	// Its --tls-version is a minimum: OpenSSL itself is told the maximum.
	conf := filepath.Join(t.TempDir(), "openssl.cnf")
	if err := os.WriteFile(conf, []byte("openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nMaxProtocol = TLSv1.2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, args, payload string
		want                expect
	}{
		{"default", "--psk " + aliceKey + " --psk-identity alice", "x", expect{tls.VersionTLS13, 0x1301, nil}},
		{"long key", "--psk " + bobKey + " --psk-identity bob", "x", expect{tls.VersionTLS13, 0x1301, nil}},
		{"1.2", "--tls-version tlsv1.2 --psk " + aliceKey + " --psk-identity alice", "x", expect{tls.VersionTLS12, 0, nil}},
		{"1.2 GCM", "--tls-version tlsv1.2 --ciphers PSK-AES128-GCM-SHA256 --psk " + aliceKey + " --psk-identity alice", "x", expect{tls.VersionTLS12, 0x00A8, nil}},
		{"1.2 CBC", "--tls-version tlsv1.2 --ciphers PSK-AES128-CBC-SHA256 --psk " + aliceKey + " --psk-identity alice", "x", expect{tls.VersionTLS12, 0x00AE, nil}},
		{"big 1.3", "--psk " + aliceKey + " --psk-identity alice", big, expect{tls.VersionTLS13, 0x1301, nil}},
		{"big 1.2", "--tls-version tlsv1.2 --psk " + aliceKey + " --psk-identity alice", big, expect{tls.VersionTLS12, 0, nil}},
		{"wrong key", "--psk " + bobKey + " --psk-identity alice", "x", expect{refused: ErrKey}},
		{"wrong key 1.2", "--tls-version tlsv1.2 --psk " + bobKey + " --psk-identity alice", "x", expect{refused: ErrKey}},
		{"unknown", "--psk " + aliceKey + " --psk-identity mallory", "x", expect{refused: ErrKey}},
		{"unknown 1.2", "--tls-version tlsv1.2 --psk " + aliceKey + " --psk-identity mallory", "x", expect{refused: ErrKey}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			e := serveEcho(t, cfg)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, pub, append(strings.Fields(c.args), "-h", "127.0.0.1", "-p", e.port, "-t", "a/b", "-q", "1", "-s")...)
			cmd.Stdin = strings.NewReader(c.payload)
			if strings.Contains(c.args, "tlsv1.2") {
				cmd.Env = append(os.Environ(), "OPENSSL_CONF="+conf)
			}
			out, err := cmd.CombinedOutput()
			if (err == nil) != (c.want.refused == nil) {
				t.Errorf("%v\n%s", err, out)
			}
			e.check(t, c.want)
		})
	}
}
