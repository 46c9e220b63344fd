package cli

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/skein-mqtt/skein/cmd/skein/client"
	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/proto/mqtt"
	"github.com/skein-mqtt/skein/proto/topic"
)

// connection are the flags that 'pub' and 'sub' share, named as mosquitto_pub's.
type connection struct {
	host, version, id, user, password string
	port                              uint16
	addrs                             []string
	stay, verbose                     bool
	expiry                            uint32
	keepAlive                         uint16
	patience                          time.Duration
	willTopic, willPayload            string
	willQoS                           uint8
	willRetain                        bool
}

func (o *connection) flags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.Bool("help", false, "help for this command") // -h is the host, as mosquitto's users expect
	fs.StringVarP(&o.host, "host", "h", "127.0.0.1", "`HOST` of the broker")
	fs.Uint16VarP(&o.port, "port", "p", 1883, "its port")
	fs.StringSliceVar(&o.addrs, "addr", nil, "brokers, tried in turn, instead of --host and --port: `HOST:PORT`,…")
	fs.StringVarP(&o.version, "protocol-version", "V", "5", "3.1, 3.1.1 or 5")
	fs.StringVarP(&o.id, "id", "i", "", "client `ID`; empty: the broker chooses one")
	fs.BoolVarP(&o.stay, "disable-clean-session", "c", false, "keep the session beyond this connection (wants --id)")
	fs.Uint32VarP(&o.expiry, "session-expiry-interval", "x", 0, "keep it for so many `SECONDS` (5; with --disable-clean-session: 1 hour)")
	fs.StringVarP(&o.user, "username", "u", "", "user name")
	fs.StringVarP(&o.password, "pw", "P", "", "password")
	fs.Uint16VarP(&o.keepAlive, "keepalive", "k", 60, "`SECONDS`; 0: none")
	fs.StringVar(&o.willTopic, "will-topic", "", "`TOPIC` of the will")
	fs.StringVar(&o.willPayload, "will-payload", "", "its payload")
	fs.Uint8Var(&o.willQoS, "will-qos", 0, "its QoS")
	fs.BoolVar(&o.willRetain, "will-retain", false, "retain it")
	fs.DurationVar(&o.patience, "patience", 30*time.Second, "how long to look for a broker that takes the connection, at first and again")
	fs.BoolVarP(&o.verbose, "debug", "d", false, "tell about connections that break and come back")
}

var versions = map[string]mqtt.Version{
	"31": mqtt.V31, "3.1": mqtt.V31, "mqttv31": mqtt.V31, "311": mqtt.V311, "3.1.1": mqtt.V311, "mqttv311": mqtt.V311,
	"5": mqtt.V5, "5.0": mqtt.V5, "mqttv5": mqtt.V5,
}

func (o *connection) config(env *Env) (client.Config, error) {
	c := client.Config{
		ID: o.id, Clean: !o.stay, KeepAlive: o.keepAlive, Username: o.user, Password: o.password, HasLogin: o.user != "" || o.password != "",
		Patience: o.patience, Addrs: o.addrs,
	}
	var ok bool
	if c.Version, ok = versions[o.version]; !ok {
		return c, usageError("--protocol-version: unknown version %q; the nearest valid one is %s", o.version, config.Nearest(o.version, []string{"3.1", "3.1.1", "5"}))
	}
	if len(c.Addrs) == 0 {
		c.Addrs = []string{net.JoinHostPort(o.host, strconv.Itoa(int(o.port)))}
	}
	for _, a := range c.Addrs {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return c, usageError("--addr: %q wants HOST:PORT", a)
		}
	}
	if o.stay && o.id == "" {
		return c, usageError("--disable-clean-session wants --id: the session is found again by it")
	}
	if c.Version == mqtt.V5 {
		if c.Expiry = o.expiry; o.stay && c.Expiry == 0 {
			c.Expiry = 3600
		}
	}
	if o.willTopic != "" {
		if err := topic.ValidateName(o.willTopic); err != nil {
			return c, usageError("--will-topic: %q: %w", o.willTopic, err)
		}
		c.Will = &mqtt.Will{Topic: o.willTopic, Payload: []byte(o.willPayload), QoS: min(o.willQoS, 2), Retain: o.willRetain}
	}
	if o.verbose {
		c.Log = func(format string, args ...any) { fmt.Fprintf(env.Err, "skein: "+format+"\n", args...) }
	}
	return c, nil
}

func newPub(env *Env) *cobra.Command {
	var o connection
	var name, message, file string
	var qos uint8
	var retain, lines, null bool
	cmd := &cobra.Command{
		Use: "pub", Short: "Publish messages", Args: arguments(),
		Long: "Publish a message, or a message for each line of standard input, and end when the broker has acknowledged\n" +
			"all of them. When the connection breaks it goes on with the next of --addr and sends again what was not\n" +
			"acknowledged. The flags are those of mosquitto_pub.",
		Example: "  skein pub -t meters/7 -m 41.5 -q 1\n  seq 1000 | skein pub --addr 127.0.0.1:18840,127.0.0.1:18850 -t n -l -q 2 -i counter -c",
	}
	fs := cmd.Flags()
	fs.StringVarP(&name, "topic", "t", "", "`TOPIC` to publish to")
	fs.StringVarP(&message, "message", "m", "", "the `MESSAGE`")
	fs.BoolVarP(&lines, "stdin-line", "l", false, "a message for each line of standard input")
	fs.StringVarP(&file, "file", "f", "", "a message with what is in `FILE`; -: standard input")
	fs.BoolVarP(&null, "null-message", "n", false, "an empty message")
	fs.Uint8VarP(&qos, "qos", "q", 0, "0, 1 or 2")
	fs.BoolVarP(&retain, "retain", "r", false, "retain it")
	o.flags(cmd)
	cmd.RunE = run(func(cmd *cobra.Command, _ []string) error {
		c, err := o.config(env)
		if err != nil {
			return err
		}
		if err := topic.ValidateName(name); err != nil {
			return usageError("--topic: %q: %w", name, err)
		}
		if qos > 2 {
			return usageError("--qos: %d is not 0, 1 or 2", qos)
		}
		next, err := payloads(cmd, message, file, lines, null)
		if err != nil {
			return err
		}
		p := client.Publish{Config: c, Next: func() (mqtt.Publish, error) {
			b, err := next()
			return mqtt.Publish{Topic: []byte(name), Payload: b, QoS: qos, Retain: retain}, err
		}}
		return p.Run(cmd.Context())
	})
	return cmd
}

// payloads are the messages that the flags ask for, in turn.
func payloads(cmd *cobra.Command, message, file string, lines, null bool) (func() ([]byte, error), error) {
	asked := 0
	for _, f := range []string{"message", "stdin-line", "file", "null-message"} {
		if cmd.Flags().Changed(f) {
			asked++
		}
	}
	if asked != 1 {
		return nil, usageError("one of --message, --stdin-line, --file and --null-message must say what to publish")
	}
	if lines {
		in := bufio.NewReader(cmd.InOrStdin())
		return func() ([]byte, error) {
			line, err := in.ReadBytes('\n')
			if len(line) > 0 {
				return bytes.TrimRight(line, "\r\n"), nil
			}
			return nil, err
		}, nil
	}
	body := []byte(message)
	var err error
	switch file {
	case "":
	case "-":
		body, err = io.ReadAll(cmd.InOrStdin())
	default:
		body, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("--file: %w", err)
	}
	if null {
		body = nil
	}
	over := false
	return func() ([]byte, error) {
		if over {
			return nil, io.EOF
		}
		over = true
		return body, nil
	}, nil
}

func newSub(env *Env) *cobra.Command {
	var o connection
	var c client.Subscribe
	var filters []string
	var qos uint8
	var verbose, asPublished, noRetained bool
	var wait uint32
	format := "text"
	cmd := &cobra.Command{
		Use: "sub", Short: "Subscribe and print what arrives", Args: arguments(),
		Long: "Subscribe and print what arrives, a message a line. When the connection breaks it goes on with the next of\n" +
			"--addr; with a session that is kept (-c) nothing is lost and no QoS 2 message comes twice. The flags are those\n" +
			"of mosquitto_sub.",
		Example: "  skein sub -t 'meters/+' -q 1 -v\n  skein sub --addr 127.0.0.1:18840,127.0.0.1:18850 -i reader -c -t '#' -q 2",
	}
	fs := cmd.Flags()
	fs.StringSliceVarP(&filters, "topic", "t", nil, "`FILTER` to subscribe to; repeatable")
	fs.Uint8VarP(&qos, "qos", "q", 0, "0, 1 or 2")
	fs.BoolVarP(&verbose, "verbose", "v", false, "the topic before the message")
	fs.StringVarP(&format, "output", "o", "text", "text or json")
	fs.IntVarP(&c.Count, "count", "C", 0, "end after so many messages")
	fs.Uint32VarP(&wait, "wait", "W", 0, "end after so many `SECONDS`")
	fs.BoolVarP(&c.Only, "exit-after-subscribe", "E", false, "make the session and its subscriptions, and end")
	fs.BoolVar(&asPublished, "retain-as-published", false, "keep RETAIN as it was published (5)")
	fs.BoolVarP(&noRetained, "no-retained", "R", false, "no retained messages")
	o.flags(cmd)
	cmd.RunE = run(func(cmd *cobra.Command, _ []string) error {
		var err error
		if c.Config, err = o.config(env); err != nil {
			return err
		}
		if len(filters) == 0 {
			return usageError("--topic: says nothing to subscribe to")
		}
		if qos > 2 {
			return usageError("--qos: %d is not 0, 1 or 2", qos)
		}
		if !slices.Contains([]string{"text", "json"}, format) {
			return usageError("--output: unknown format %q; the nearest valid one is %s", format, config.Nearest(format, []string{"text", "json"}))
		}
		for _, f := range filters {
			if err := topic.ValidateFilter(f); err != nil {
				return usageError("--topic: %q: %w", f, err)
			}
			s := mqtt.Subscription{Filter: f, QoS: qos, RetainAsPublished: asPublished}
			if noRetained {
				s.RetainHandling = 2
			}
			c.Filters = append(c.Filters, s)
		}
		c.Wait = time.Duration(wait) * time.Second
		c.Deliver = func(p *mqtt.Publish) error {
			if noRetained && p.Retain && !asPublished {
				return nil
			}
			return writeMessage(env.Out, p, format, verbose)
		}
		return c.Run(cmd.Context())
	})
	return cmd
}

// received is a message as 'sub -o json' prints it.
type received struct {
	Topic   string `json:"topic"`
	Payload string `json:"payload"`
	Base64  bool   `json:"base64,omitempty"` // the payload is no text
	QoS     byte   `json:"qos"`
	Retain  bool   `json:"retain"`
	Dup     bool   `json:"dup,omitempty"`
	Expiry  uint32 `json:"expiry,omitempty"`
}

func writeMessage(w io.Writer, p *mqtt.Publish, format string, verbose bool) error {
	if format == "json" {
		r := received{Topic: string(p.Topic), Payload: string(p.Payload), QoS: p.QoS, Retain: p.Retain, Dup: p.Dup, Expiry: p.Expiry}
		if !utf8.Valid(p.Payload) {
			r.Payload, r.Base64 = base64.StdEncoding.EncodeToString(p.Payload), true
		}
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		_, err = w.Write(append(b, '\n'))
		return err
	}
	var line strings.Builder
	if verbose {
		line.WriteString(string(p.Topic) + " ")
	}
	line.Write(p.Payload)
	line.WriteByte('\n')
	_, err := io.WriteString(w, line.String())
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
