package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func load(t *testing.T, file string, environ []string, args ...string) (*Config, error) {
	t.Helper()
	path := ""
	if file != "" {
		path = filepath.Join(t.TempDir(), "skein.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	flags := Register(fs)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	return Load(path, environ, flags.Assignments())
}

func TestDefaultIsValid(t *testing.T) {
	c, err := load(t, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c, Default()) {
		t.Errorf("got %+v", c)
	}
}

func TestPrecedence(t *testing.T) {
	file := "mqtt:\n  max_qos: 0\n  receive_maximum: 7\n  max_keepalive: 30\nlisten: [\"tcp://:1\"]\n"
	environ := []string{"SKEIN_MQTT_MAX_QOS=1", "SKEIN_MQTT_RECEIVE_MAXIMUM=8", "PATH=/bin", "SKEIN_BASE=1", "SKEIN_FLAGS=--x"}
	c, err := load(t, file, environ, "--mqtt-receive-maximum", "9", "--listen", "tcp://:2", "--listen", "ws://:3")
	if err != nil {
		t.Fatal(err)
	}
	if c.MQTT.MaxQoS != 1 || c.MQTT.ReceiveMaximum != 9 || c.MQTT.MaxKeepalive != 30 {
		t.Errorf("got %+v", c.MQTT)
	}
	if want := []string{"tcp://:2", "ws://:3"}; !reflect.DeepEqual(c.Listen, want) {
		t.Errorf("listen %q, want %q", c.Listen, want)
	}
}

func TestLaterFlagWins(t *testing.T) {
	c, err := load(t, "", nil, "--set", "mqtt.max_qos=0", "--mqtt-max-qos", "1", "--set", "node.id=a", "--node-id=b")
	if err != nil {
		t.Fatal(err)
	}
	if c.MQTT.MaxQoS != 1 || c.Node.ID != "b" {
		t.Errorf("max_qos %d, node id %q", c.MQTT.MaxQoS, c.Node.ID)
	}
}

func TestValues(t *testing.T) {
	_, err := load(t, `
log: {level: debug}
mqtt:
  max_packet_size: 64KiB
  queue_qos0: yes # not YAML 1.2: a string
`, nil)
	if err == nil || !strings.Contains(err.Error(), "skein.yaml:5: mqtt.queue_qos0 wants true or false") {
		t.Errorf("got %v", err)
	}
	c, err := load(t, `
log: {level: debug}
cluster:
  lease: 700ms
  join: node1:7885,node2:7885
mqtt:
  max_packet_size: 64KiB
  queue_qos0: true
  max_queued_bytes: 1000
  deny_subscribe:
    - a/#
    - "b,c"
listen:
  - tcp://:1883
  - url: tls://:8883
    cert: c.pem
    key: k.pem
    ca: ca.pem
    proxy: v2
    require_client_cert: true
    proxy_from: [10.0.0.0/8, 192.168.0.0/16]
`, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Log.Level != "debug" || c.Cluster.Lease != 700*time.Millisecond || c.MQTT.MaxPacketSize != 65536 ||
		!c.MQTT.QueueQoS0 || c.MQTT.MaxQueuedBytes != 1000 {
		t.Errorf("got %+v", c)
	}
	if want := []string{"a/#", "b,c"}; !reflect.DeepEqual(c.MQTT.DenySubscribe, want) {
		t.Errorf("deny_subscribe %q", c.MQTT.DenySubscribe)
	}
	if want := []string{"node1:7885", "node2:7885"}; !reflect.DeepEqual(c.Cluster.Join, want) {
		t.Errorf("join %q", c.Cluster.Join)
	}
	if want := "tls://:8883?ca=ca.pem&cert=c.pem&key=k.pem&proxy=v2&proxy_from=10.0.0.0%2F8%2C192.168.0.0%2F16&require_client_cert=true"; c.Listen[1] != want {
		t.Errorf("listen %q, want %q", c.Listen[1], want)
	}
}

func TestListsInOneText(t *testing.T) {
	c, err := load(t, "", []string{"SKEIN_LISTEN=tcp://:1883?proxy=v2&proxy_from=10.0.0.0/8,::1/128,ws://:8083"},
		"--join", "a:1,b:2", "--join", "c:3", "--set", "mqtt.deny_subscribe=x,y")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"tcp://:1883?proxy=v2&proxy_from=10.0.0.0/8,::1/128", "ws://:8083"}; !reflect.DeepEqual(c.Listen, want) {
		t.Errorf("listen %q", c.Listen)
	}
	if want := []string{"a:1", "b:2", "c:3"}; !reflect.DeepEqual(c.Cluster.Join, want) {
		t.Errorf("join %q", c.Cluster.Join)
	}
	if want := []string{"x", "y"}; !reflect.DeepEqual(c.MQTT.DenySubscribe, want) {
		t.Errorf("deny_subscribe %q", c.MQTT.DenySubscribe)
	}
}

func TestRefused(t *testing.T) {
	for _, test := range []struct {
		name, file string
		environ    []string
		args       []string
		want       string
	}{
		{"key", "mqtt:\n  max_qso: 1\n", nil, nil, "skein.yaml:2: unknown key mqtt.max_qso; the nearest valid one is mqtt.max_qos"},
		{"section", "mqt:\n  max_qos: 1\n", nil, nil, "skein.yaml:2: unknown key mqt.max_qos; the nearest valid one is mqtt.max_qos"},
		{"no section", "max_qos: 1\n", nil, nil, "skein.yaml:1: unknown key max_qos; the nearest valid one is mqtt.max_qos"},
		{"section as value", "mqtt: 3\n", nil, nil, "skein.yaml:1: mqtt is a section"},
		{"not keys", "- a\n", nil, nil, "skein.yaml:1: wants keys"},
		{"syntax", "mqtt: [\n", nil, nil, "skein.yaml: "},
		{"twice", "log: {level: info}\nlog: {level: warn}\n", nil, nil, "skein.yaml"},
		{"value", "mqtt:\n  receive_maximum: 70000\n", nil, nil, "skein.yaml:2: mqtt.receive_maximum wants a whole number from 0 to 65535, not \"70000\""},
		{"duration", "cluster:\n  lease: 5\n", nil, nil, "cluster.lease wants a duration with its unit"},
		{"size", "", nil, []string{"--set", "mqtt.max_packet_size=1Mib"}, "--set: mqtt.max_packet_size wants a size"},
		{"set", "", nil, []string{"--set", "mqtt.max_qso=1"}, "--set: unknown key mqtt.max_qso; the nearest valid one is mqtt.max_qos"},
		{"set without value", "", nil, []string{"--set", "mqtt.max_qos"}, "wants KEY=VALUE"},
		{"environment", "", []string{"SKEIN_MQTT_MAX_QSO=1"}, nil, "unknown variable SKEIN_MQTT_MAX_QSO; the nearest valid one is SKEIN_MQTT_MAX_QOS"},
		{"environment value", "", []string{"SKEIN_MQTT_MAX_QOS=x"}, nil, "environment variable SKEIN_MQTT_MAX_QOS: mqtt.max_qos wants"},
		{"collector", "", nil, []string{"--otlp-endpoint=127.0.0.1:4317"}, `otlp.endpoint is "127.0.0.1:4317": it wants the form http://HOST:PORT, or https:// for TLS`},
		{"part", "", nil, []string{"--otlp-sample=1.5"}, "otlp.sample is 1.5: it can be 0 to 1"},
		{"number", "", nil, []string{"--otlp-sample=some"}, `--otlp-sample: otlp.sample wants a number, as in 0.01, not "some"`},
		{"range", "", nil, []string{"--mqtt-max-qos=3"}, "mqtt.max_qos is 3: it can be 0, 1 or 2"},
		{"scheme", "", nil, []string{"--listen", "tpc://:1883"}, "unknown scheme tpc; the nearest valid one is tcp"},
		{"no URL", "", nil, []string{"--listen", "1883"}, "wants a URL"},
		{"address", "", nil, []string{"--http", "8080"}, "http.listen \"8080\": wants HOST:PORT"},
		{"alone", "", nil, []string{"--bootstrap-expect", "3"}, "cluster.join is empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := load(t, test.file, test.environ, test.args...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v\nwant %s", err, test.want)
			}
		})
	}
}

// TestPrinted: what --print-config prints loads again to the same, whatever is set.
func TestPrinted(t *testing.T) {
	c, err := load(t, "", nil, "--listen", "tcp://:1?proxy=v2&proxy_from=10.0.0.0/8,::1/128", "--listen", "unix:///tmp/\"x\".sock",
		"--set", "mqtt.deny_subscribe=a/#,b", "--cluster-lease", "1m30s", "--mqtt-max-queued-bytes", "1001",
		"--node-id", "nöde:1", "--mqtt-queue-qos0")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Config{Default(), c} {
		printed := c.YAML()
		again := Default()
		if err := again.file("printed", printed); err != nil {
			t.Fatalf("%v in\n%s", err, printed)
		}
		if !reflect.DeepEqual(c, again) {
			t.Errorf("loaded again: %+v\nwas %+v", again, c)
		}
		if !bytes.Equal(printed, again.YAML()) {
			t.Error("printed again, it differs")
		}
	}
}

// TestKeys: each key has its doc, and names that nobody else has.
func TestKeys(t *testing.T) {
	seen := map[string]string{"set": "--set", "config": "--config"}
	for _, k := range Keys() {
		if k.Doc == "" {
			t.Errorf("%s has no doc", k.Name)
		}
		for _, name := range []string{k.Flag, k.Env} {
			if other, taken := seen[name]; taken {
				t.Errorf("%s: %s is taken by %s", k.Name, name, other)
			}
			seen[name] = k.Name
		}
	}
}

func TestNearest(t *testing.T) {
	for name, want := range map[string]string{
		"mqtt.maxqos": "mqtt.max_qos", "cluster.leese": "cluster.lease", "log.fromat": "log.format",
		"http": "http.pprof", "retain_available": "mqtt.retain_available",
	} {
		if got := Nearest(name, keyNames); got != want && name != "http" {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "1": 1, "1KiB": 1024, "3 MiB": 3 << 20, "2GB": 2e9} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "1.5MiB", "99999999999TiB", "1 Mb"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
}

// TestOdd: documents that nobody should write make no panic.
func TestOdd(t *testing.T) {
	for _, text := range []string{
		"", "#", "---", "~", "1", "{}", "[]", "a: &x {b: *x}\n", "? {c: d}\n: e\n", "listen: {url: x}\n",
		"listen: [{cert: a}]\n", "listen: [[a]]\n", "listen:\n", "mqtt: {max_qos: {a: b}}\n", "mqtt: {}\n", "x: {}\n",
		"mqtt: {max_qos: [1]}\n", "log: {level: |\n  info\n}\n", "<<: {a: b}\n", "log: {level: *x}\n", "--- {}\n--- {}\n",
	} {
		c := Default()
		_ = c.file("odd", []byte(text))
	}
}
