package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/quic-go/quic-go"
	"github.com/xdg-go/scram"

	h "github.com/skein-mqtt/skein/test/harness"
)

// The clients of the login matrix. Each makes the attempts of a list, one after the other, and returns the code in
// each CONNACK; noAnswer where none came.

const noAnswer = -1

func loginMosquitto(t *testing.T, list []attempt) (codes []int) {
	connack := regexp.MustCompile(`received CONNACK \((\d+)\)`)
	for _, a := range list {
		args := []string{"-d", "-i", a.ID, "-V", map[byte]string{h.V311: "mqttv311", h.V5: "mqttv5"}[a.Version], "-t", "login", "-m", "x"}
		if a.Scheme == "unix" {
			args = append(args, "--unix", a.Address)
		} else {
			host, port, err := net.SplitHostPort(a.Address)
			if err != nil {
				t.Fatal(err)
			}
			args = append(args, "-h", host, "-p", port)
		}
		for option, value := range map[string]string{
			"-u": a.User, "-P": a.Password, "--cafile": a.CA, "--cert": a.Cert, "--key": a.Key, "--psk": a.PSK, "--psk-identity": a.Identity,
		} {
			if value != "" {
				args = append(args, option, value)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*h.Patience)
		out, _ := exec.CommandContext(ctx, "mosquitto_pub", args...).CombinedOutput() // it fails where it is not let in
		cancel()
		code := noAnswer
		if m := connack.FindSubmatch(out); m != nil {
			code, _ = strconv.Atoi(string(m[1]))
		}
		codes = append(codes, code)
	}
	return codes
}

// loginScript has a program make the attempts.
func loginScript(t *testing.T, list []attempt, command ...string) (codes []int) {
	t.Helper()
	stdin, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var errs strings.Builder
	cmd.Stdin, cmd.Stderr = strings.NewReader(string(stdin)), &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, &errs)
	}
	for line := range strings.Lines(string(out)) {
		code, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			t.Fatalf("%s says %q", command, line)
		}
		codes = append(codes, code)
	}
	return codes
}

func loginPahoPython(t *testing.T, list []attempt) []int {
	return loginScript(t, list, python(t), "testdata/logins.py")
}

func loginMQTTjs(t *testing.T, list []attempt) []int {
	return loginScript(t, list, append(nodejs(t), "testdata/logins.js")...)
}

// tlsConfig is what an attempt says of certificates.
func (a *attempt) tlsConfig() (*tls.Config, error) {
	conf := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
	if a.CA != "" {
		text, err := os.ReadFile(a.CA)
		if err != nil {
			return nil, err
		}
		conf.RootCAs.AppendCertsFromPEM(text)
	}
	if a.Cert != "" {
		pair, err := tls.LoadX509KeyPair(a.Cert, a.Key)
		if err != nil {
			return nil, err
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

// quicConn is a stream as a connection.
type quicConn struct {
	*quic.Stream
	c *quic.Conn
}

func (q quicConn) LocalAddr() net.Addr  { return q.c.LocalAddr() }
func (q quicConn) RemoteAddr() net.Addr { return q.c.RemoteAddr() }
func (q quicConn) Close() error         { return q.c.CloseWithError(0, "") }

// dialOther opens the connections that Go's clients can be given, but don't open themselves.
func (a *attempt) dialOther(ctx context.Context) (net.Conn, error) {
	if a.Scheme == "unix" {
		return (&net.Dialer{}).DialContext(ctx, "unix", a.Address)
	}
	conf, err := a.tlsConfig()
	if err != nil {
		return nil, err
	}
	conf.NextProtos = []string{"mqtt"}
	qc, err := quic.DialAddr(ctx, a.Address, conf, nil)
	if err != nil {
		return nil, err
	}
	stream, err := qc.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	return quicConn{stream, qc}, nil
}

func (a *attempt) url() *url.URL { return &url.URL{Scheme: a.Scheme, Host: a.Address, Path: "/mqtt"} }

func loginPahoGo3(t *testing.T, list []attempt) (codes []int) {
	for _, a := range list {
		conf, err := a.tlsConfig()
		if err != nil {
			t.Fatal(err)
		}
		o := paho3.NewClientOptions().SetClientID(a.ID).SetProtocolVersion(uint(a.Version)).SetTLSConfig(conf).
			SetConnectTimeout(h.Patience).SetConnectRetry(false).SetAutoReconnect(false)
		o.Servers = []*url.URL{a.url()}
		if a.Scheme == "unix" || a.Scheme == "quic" {
			o.SetCustomOpenConnectionFn(func(*url.URL, paho3.ClientOptions) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(t.Context(), h.Patience)
				defer cancel()
				return a.dialOther(ctx)
			})
		}
		if a.User != "" {
			o.SetUsername(a.User).SetPassword(a.Password)
		}
		c := paho3.NewClient(o)
		connect, _ := c.Connect().(*paho3.ConnectToken)
		code := noAnswer
		if connect.WaitTimeout(2 * h.Patience) {
			switch got := connect.ReturnCode(); {
			case connect.Error() == nil, got > 0 && got < 6: // beyond these it is the client's own
				code = int(got)
			}
		}
		c.Disconnect(0)
		codes = append(codes, code)
	}
	return codes
}

// loginPahoGo5 also knows SCRAM, as enhanced authentication.
func loginPahoGo5(t *testing.T, list []attempt) (codes []int) {
	for _, a := range list {
		codes = append(codes, a.pahoGo5(t))
	}
	return codes
}

func (a *attempt) pahoGo5(t *testing.T) int {
	ctx, cancel := context.WithTimeout(t.Context(), 2*h.Patience)
	defer cancel()
	conf, err := a.tlsConfig()
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan int, 1)
	tell := func(code int) {
		select {
		case result <- code:
		default: // the first counts
		}
	}
	proof := a.scramProof(t)
	o := autopaho.ClientConfig{
		ServerUrls: []*url.URL{a.url()}, KeepAlive: 30, ConnectTimeout: h.Patience, CleanStartOnInitialConnection: true, TlsCfg: conf,
		ReconnectBackoff: func(n int) time.Duration { return time.Duration(n) * time.Hour },
		OnConnectError: func(err error) {
			var refused *autopaho.ConnackError
			if !errors.As(err, &refused) {
				tell(noAnswer)
				return
			}
			tell(int(refused.ReasonCode))
		},
		OnConnectionUp: func(_ *autopaho.ConnectionManager, ack *paho.Connack) {
			if proof != nil && !proof.trusts(ack.Properties.AuthData) {
				t.Errorf("%s: the server does not prove that it knows the password", a.method)
			}
			tell(0)
		},
		ClientConfig: paho.ClientConfig{ClientID: a.ID, PacketTimeout: h.Patience},
	}
	if a.Scheme == "tcp" {
		o.ServerUrls[0].Scheme = "mqtt"
	}
	if a.Scheme == "unix" || a.Scheme == "quic" {
		o.AttemptConnection = func(ctx context.Context, _ autopaho.ClientConfig, _ *url.URL) (net.Conn, error) {
			c, err := a.dialOther(ctx)
			if err != nil {
				return nil, err
			}
			return packets.NewThreadSafeConn(c), nil
		}
	}
	if proof != nil {
		o.AuthHandler = proof
		o.ConnectPacketBuilder = proof.begin
	} else if a.User != "" {
		o.ConnectUsername, o.ConnectPassword = a.User, []byte(a.Password)
	}
	cm, err := autopaho.NewConnection(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	code := <-result // one comes at the latest after ConnectTimeout
	if code == 0 {
		_ = cm.Disconnect(ctx)
	}
	cancel()
	<-cm.Done()
	return code
}

// scramProof is a client's side of SCRAM-SHA-256.
type scramProof struct {
	c *scram.ClientConversation
}

// scramProof is nil where the attempt uses a password as it is.
func (a *attempt) scramProof(t *testing.T) *scramProof {
	if !a.scram {
		return nil
	}
	c, err := scram.SHA256.NewClient(a.User, a.Password, "")
	if err != nil {
		t.Fatal(err)
	}
	return &scramProof{c.NewConversation()}
}

const scramName = "SCRAM-SHA-256"

func (p *scramProof) begin(c *paho.Connect, _ *url.URL) (*paho.Connect, error) {
	word, err := p.c.Step("")
	if err != nil {
		return nil, err
	}
	if c.Properties == nil {
		c.Properties = &paho.ConnectProperties{}
	}
	c.Properties.AuthMethod, c.Properties.AuthData = scramName, []byte(word)
	return c, nil
}

// Authenticate implements paho.Auther.
func (p *scramProof) Authenticate(a *paho.Auth) *paho.Auth {
	word, err := p.c.Step(string(a.Properties.AuthData))
	if err != nil {
		slog.Error("SCRAM", "error", err)
	}
	return &paho.Auth{ReasonCode: packets.AuthContinueAuthentication, Properties: &paho.AuthProperties{AuthMethod: scramName, AuthData: []byte(word)}}
}

// Authenticated implements paho.Auther.
func (*scramProof) Authenticated() {}

// trusts tells whether the server's last word shows that it knows the password, too.
func (p *scramProof) trusts(last []byte) bool {
	_, err := p.c.Step(string(last))
	return err == nil && p.c.Valid()
}

func (a *attempt) String() string {
	return fmt.Sprintf("%s on %s as %s", version(a.Version), a.listener, a.method)
}
