package e2e

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

// secured is one node with a listener of each kind that knows its clients.
type secured struct {
	t    *testing.T
	dir  string
	node *h.Node
	authority
	psk, tls, wss int // ports
}

// authority signs for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

const annKey, bobKey = "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"

func startSecured(t *testing.T) *secured {
	t.Helper()
	s := &secured{t: t, dir: t.TempDir(), psk: h.FreePort(t), tls: h.FreePort(t), wss: h.FreePort(t)}
	s.cert, s.key = s.issue("ca", &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	s.issue("server", &x509.Certificate{Subject: pkix.Name{CommonName: "node"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	for _, name := range []string{"ann", "bob"} {
		s.issue(name, &x509.Certificate{Subject: pkix.Name{CommonName: name}})
	}
	s.write("keys.psk", "ann:"+annKey+"\nbob:"+bobKey+"\n")
	s.write("acl", "user ann\ntopic write news/#\nuser bob\ntopic read news/#\n")
	certificate := fmt.Sprintf("cert=%s&key=%s", s.path("server.pem"), s.path("server.key"))
	c := h.Start(t, 1, append(flags[:len(flags):len(flags)],
		"--set", "auth.acl_file="+s.path("acl"),
		"--listen", fmt.Sprintf("psk://127.0.0.1:%d?file=%s&hint=geese&use_identity_as_username=true", s.psk, s.path("keys.psk")),
		"--listen", fmt.Sprintf("tls://127.0.0.1:%d?%s&ca=%s&require_client_cert=true&use_identity_as_username=true", s.tls, certificate, s.path("ca.pem")),
		"--listen", fmt.Sprintf("wss://127.0.0.1:%d/mqtt?%s", s.wss, certificate),
	)...)
	s.node = c.Node(1)
	return s
}

func (s *secured) path(name string) string { return filepath.Join(s.dir, name) }

func (s *secured) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// issue writes NAME.pem and NAME.key.
func (s *secured) issue(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template.SerialNumber, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(time.Hour)
	parent, signer := s.cert, s.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		s.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		s.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(name+".pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	s.write(name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	return cert, key
}

// as are a mosquitto client's options to reach a listener as somebody.
func (s *secured) as(kind, name string) []string {
	if kind == "tls" {
		return []string{
			"-h", "127.0.0.1", "-p", fmt.Sprint(s.tls), "--cafile", s.path("ca.pem"), "--cert", s.path(name + ".pem"), "--key", s.path(name + ".key"),
		}
	}
	key := map[string]string{"ann": annKey, "bob": bobKey}[name]
	return []string{"-h", "127.0.0.1", "-p", fmt.Sprint(s.psk), "--psk", key, "--psk-identity", name}
}

// TestSecured: the certificate, or the key, is who the client is, whatever it calls itself, and the
// access list goes by that.
func TestSecured(t *testing.T) {
	needMosquitto(t)
	beside(t)
	s := startSecured(t)
	// mosquitto's --tls-version is a minimum: OpenSSL itself is told the maximum.
	s.write("openssl12.cnf", "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nMaxProtocol = TLSv1.2\n")
	for kind, env := range map[string][]string{"psk": nil, "psk 1.2": {"OPENSSL_CONF=" + s.path("openssl12.cnf")}, "tls": nil} {
		t.Run(kind, func(t *testing.T) {
			kind, _, _ := strings.Cut(kind, " ")
			sub := launch(t, "", "env", append(append(env, "stdbuf", "-oL", "mosquitto_sub", "-d", "-q", "1", "-t", "#", "-C", "2", "-W", "30", "-F", "got %t %p", "-V", "5"), s.as(kind, "bob")...)...)
			sub.until("Subscribed (mid")
			publish := func(name, topic, text string, more ...string) (string, error) {
				args := append(append(env, "mosquitto_pub", "-q", "1", "-V", "5", "-t", topic, "-m", text), s.as(kind, name)...)
				out, err := exec.CommandContext(t.Context(), "env", append(args, more...)...).CombinedOutput()
				return string(out), err
			}
			for _, p := range []struct {
				name, topic string
				more        []string
				allowed     bool
			}{
				{"ann", "news/1", nil, true},
				{"bob", "news/1", nil, false},                   // he may only read
				{"bob", "news/1", []string{"-u", "ann"}, false}, // whatever he calls himself
				{"ann", "other", nil, false},
				{"ann", "news/2", []string{"-u", "bob", "-P", "x"}, true},
			} {
				out, err := publish(p.name, p.topic, p.name, p.more...)
				if refused := strings.Contains(out, "Not authorized"); refused == p.allowed || err != nil && p.allowed {
					t.Errorf("%s publishes to %s %q: %v %q", p.name, p.topic, p.more, err, out)
				}
			}
			same(t, "what bob got", sub.rest("got "), []string{"news/1 ann", "news/2 ann"})
		})
	}
	t.Run("strangers", func(t *testing.T) {
		for what, args := range map[string][]string{
			"wrong key":        {"-p", fmt.Sprint(s.psk), "--psk", bobKey, "--psk-identity", "ann"},
			"unknown identity": {"-p", fmt.Sprint(s.psk), "--psk", annKey, "--psk-identity", "eve"},
			"no certificate":   {"-p", fmt.Sprint(s.tls), "--cafile", s.path("ca.pem")},
		} {
			out, err := exec.CommandContext(t.Context(), "mosquitto_pub", append(args, "-h", "127.0.0.1", "-q", "1", "-t", "news/1", "-m", "x")...).CombinedOutput()
			if err == nil {
				t.Errorf("%s: let in: %s", what, out)
			}
		}
	})
	t.Run("identity replaced", func(t *testing.T) {
		s.write("keys.psk", "eve:"+annKey+"\n")
		h.Await(t, "the new keys", func() bool {
			err := exec.CommandContext(t.Context(), "mosquitto_pub", "-h", "127.0.0.1", "-p", fmt.Sprint(s.psk), "--psk", annKey, "--psk-identity", "eve", "-t", "x", "-m", "x").Run()
			return err == nil
		})
		if err := exec.CommandContext(t.Context(), "mosquitto_pub", append(s.as("psk", "ann"), "-t", "x", "-m", "x")...).Run(); err == nil {
			t.Error("a key that was taken away still fits")
		}
	})
}

// TestWebSocketOverTLS: a PINGREQ there and back, with packets in frames.
func TestWebSocketOverTLS(t *testing.T) {
	beside(t)
	s := startSecured(t)
	pool := x509.NewCertPool()
	pool.AddCert(s.cert)
	nc, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.wss), &tls.Config{RootCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := nc.SetDeadline(time.Now().Add(h.Patience)); err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(nc, "GET /mqtt HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(nc)
	answer, err := http.ReadResponse(r, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v %v", answer, err)
	}
	_ = answer.Body.Close()
	for _, p := range []struct {
		say  h.Packet
		hear byte
	}{
		{h.Packet{Type: h.CONNECT, ClientID: "web", Clean: true}, h.CONNACK}, {h.Packet{Type: h.PINGREQ}, h.PINGRESP},
	} {
		b := p.say.Encode(h.V5)
		if _, err := nc.Write(append([]byte{0x82, 0x80 | byte(len(b)), 0, 0, 0, 0}, b...)); err != nil { // masked with zeros
			t.Fatal(err)
		}
		var head [2]byte
		if _, err := io.ReadFull(r, head[:]); err != nil || head[0] != 0x82 || head[1] >= 126 {
			t.Fatalf("%x %v", head, err)
		}
		body := make([]byte, head[1])
		if _, err := io.ReadFull(r, body); err != nil || body[0]>>4 != p.hear {
			t.Fatalf("%x %v, want a packet of type %d", body, err, p.hear)
		}
	}
}
