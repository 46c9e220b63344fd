package config

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
)

// Assignment is one key set by a flag, in the order of the command line.
type Assignment struct {
	Origin string // "--set", "--listen": for messages
	Key    string
	Text   string
	// Whole says that Text is one element of a list key and is not to be taken apart.
	Whole bool
}

// notOurs are SKEIN_ variables that the scripts around a node use, and the commands that ask one.
var notOurs = []string{"SKEIN_BASE", "SKEIN_FLAGS", "SKEIN_SERVER", "SKEIN_CERTS", "SKEIN_CA", "SKEIN_CERT", "SKEIN_KEY", "SKEIN_TOKEN", "SKEIN_CONTEXT", "SKEIN_CONTEXTS"}

// Load reads the file (none if path is empty), then environ (as os.Environ gives it), then the
// flags; the later wins, for a list as a whole. The result is validated.
func Load(path string, environ []string, flags []Assignment) (*Config, error) {
	c := Default()
	if path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("--config: %w", err)
		}
		if err := c.file(path, data); err != nil {
			return nil, err
		}
	}
	if err := c.environment(environ); err != nil {
		return nil, err
	}
	if err := c.flags(flags); err != nil {
		return nil, err
	}
	c.fill()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// assign sets one key; origin is what a message starts with.
func (c *Config) assign(origin string, k Key, texts []string) error {
	if err := set(reflect.ValueOf(c).Elem().FieldByIndex(k.index), texts); err != nil {
		return fmt.Errorf("%s: %s %w, not %q", origin, k.Name, err, strings.Join(texts, ","))
	}
	return nil
}

func (c *Config) environment(environ []string) error {
	byEnv := make(map[string]Key, len(keys))
	for _, k := range keys {
		byEnv[k.Env] = k
	}
	sorted := slices.Sorted(slices.Values(environ)) // one message, always the same
	for _, entry := range sorted {
		name, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "SKEIN_") || slices.Contains(notOurs, name) {
			continue
		}
		k, ok := byEnv[name]
		if !ok {
			var all []string
			for _, k := range keys {
				all = append(all, k.Env)
			}
			return &UnknownError{Origin: "environment", Name: "variable " + name, Nearest: Nearest(name, all)}
		}
		texts := []string{text}
		if k.List {
			texts = split(k.Name, text)
		}
		if err := c.assign("environment variable "+name, k, texts); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) flags(flags []Assignment) error {
	lists := map[string][]string{} // a repeated list flag adds to the list
	for _, a := range flags {
		k, ok := lookup(a.Key)
		if !ok {
			if section(a.Key) {
				return fmt.Errorf("%s: %s is a section; the nearest key in it is %s", a.Origin, a.Key, Nearest(a.Key, keyNames))
			}
			return &UnknownError{Origin: a.Origin, Name: "key " + a.Key, Nearest: Nearest(a.Key, keyNames)}
		}
		texts := []string{a.Text}
		if k.List {
			if !a.Whole {
				texts = split(k.Name, a.Text)
			}
			lists[k.Name] = append(lists[k.Name], texts...)
			texts = lists[k.Name]
		}
		if err := c.assign(a.Origin, k, texts); err != nil {
			return err
		}
	}
	return nil
}

// Validate refuses values that no part of the program could mean anything by.
func (c *Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf(key+" "+format, args...))
	}
	if c.Data.Dir == "" {
		bad("data.dir", "is empty: name a folder")
	}
	if strings.ContainsAny(c.Node.ID, "/ \t\n,") {
		bad("node.id", "%q holds a blank, a slash or a comma", c.Node.ID)
	}
	if len(c.Listen) == 0 {
		bad("listen", "is empty: a broker needs a listener, as in tcp://127.0.0.1:1883")
	}
	for _, l := range c.Listen {
		if err := checkListener(l); err != nil {
			bad("listen", "%q: %w", l, err)
		}
	}
	for key, addr := range map[string]string{
		"http.listen": c.HTTP.Listen, "admin.listen": c.Admin.Listen,
		"peer.listen": c.Peer.Listen, "gossip.listen": c.Gossip.Listen,
	} {
		if addr == "" && (key == "http.listen" || key == "admin.listen") {
			continue
		}
		if err := checkAddress(addr); err != nil {
			bad(key, "%q: %w", addr, err)
		}
	}
	if c.Admin.Events < 1 || c.Admin.Events > 10_000_000 {
		bad("admin.events", "%d is not between 1 and 10000000", c.Admin.Events)
	}
	if c.Admin.LogLines < 0 || c.Admin.LogLines > 10_000_000 {
		bad("admin.log_lines", "%d is not between 0 and 10000000", c.Admin.LogLines)
	}
	c.checkOperators(bad)
	c.checkNodes(bad)
	if c.Cluster.BootstrapExpect < 1 {
		bad("cluster.bootstrap_expect", "is 0: a cluster has at least one node")
	}
	if c.Cluster.BootstrapExpect > 1 && len(c.Cluster.Join) == 0 {
		bad("cluster.join", "is empty, but cluster.bootstrap_expect is %d: name the other nodes with --join", c.Cluster.BootstrapExpect)
	}
	for key, d := range map[string]int64{
		"cluster.raft_heartbeat": int64(c.Cluster.RaftHeartbeat), "cluster.raft_election": int64(c.Cluster.RaftElection),
		"cluster.raft_lease": int64(c.Cluster.RaftLease), "cluster.lease": int64(c.Cluster.Lease),
		"mqtt.connect_timeout": int64(c.MQTT.ConnectTimeout), "disk.interval": int64(c.Disk.Interval),
		"drain.timeout": int64(c.Drain.Timeout),
	} {
		if d == 0 {
			bad(key, "is 0: it must be longer")
		}
	}
	c.Auth.validate(bad)
	if c.Drain.Notice > 0 && c.Drain.Notice >= c.Drain.Timeout {
		bad("drain.notice", "is %s: it must be shorter than drain.timeout, which is %s", c.Drain.Notice, c.Drain.Timeout)
	}
	if c.Cluster.RaftLease > c.Cluster.RaftHeartbeat {
		bad("cluster.raft_lease", "is longer than cluster.raft_heartbeat")
	}
	if c.Cluster.RaftElection < c.Cluster.RaftHeartbeat {
		bad("cluster.raft_election", "is shorter than cluster.raft_heartbeat")
	}
	if c.MQTT.MaxQoS > 2 {
		bad("mqtt.max_qos", "is %d: it can be 0, 1 or 2", c.MQTT.MaxQoS)
	}
	if !slices.Contains([]string{"pause", "disconnect"}, c.MQTT.RatePolicy) {
		bad("mqtt.rate_policy", "is %q: it can be pause or disconnect", c.MQTT.RatePolicy)
	}
	for key, n := range map[string]int{
		"mqtt.max_connections_per_address": c.MQTT.MaxConnectionsPerAddress, "mqtt.max_connect_rate": c.MQTT.MaxConnectRate,
		"mqtt.max_message_rate": c.MQTT.MaxMessageRate, "mqtt.max_retained_messages": c.MQTT.MaxRetainedMessages,
	} {
		if n < 0 {
			bad(key, "is %d: it must not be less than 0", n)
		}
	}
	if c.MQTT.ReceiveMaximum == 0 {
		bad("mqtt.receive_maximum", "is 0: it must be at least 1")
	}
	if c.MQTT.MaxInflight == 0 {
		bad("mqtt.max_inflight", "is 0: it must be at least 1")
	}
	if c.MQTT.MaxPacketSize < 64 || c.MQTT.MaxPacketSize > 268435460 {
		bad("mqtt.max_packet_size", "is %s: it can be 64 to 268435460 bytes", c.MQTT.MaxPacketSize)
	}
	if c.Memory.LimitPercent < 0 || c.Memory.LimitPercent > 100 {
		bad("memory.limit_percent", "is %d: it can be 0 to 100", c.Memory.LimitPercent)
	}
	if c.Memory.Limit > 0 && c.Memory.Limit < 32<<20 {
		bad("memory.limit", "is %s: a node needs 32MiB at least", c.Memory.Limit)
	}
	if !slices.Contains([]string{"pause", "refuse"}, c.Memory.Policy) {
		bad("memory.policy", "is %q: it can be pause or refuse", c.Memory.Policy)
	}
	if c.Disk.LowPercent > 99 {
		bad("disk.low_percent", "is %d: it can be 0 to 99", c.Disk.LowPercent)
	}
	if c.OTLP.Endpoint != "" {
		if u, err := url.Parse(c.OTLP.Endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
			bad("otlp.endpoint", "is %q: it wants the form http://HOST:PORT, or https:// for TLS", c.OTLP.Endpoint)
		}
	}
	if !(c.OTLP.Sample >= 0 && c.OTLP.Sample <= 1) { // NaN neither
		bad("otlp.sample", "is %v: it can be 0 to 1", c.OTLP.Sample)
	}
	if !slices.Contains([]string{"drop_newest", "drop_oldest", "disconnect"}, c.MQTT.QueuePolicy) {
		bad("mqtt.queue_policy", "is %q: it can be drop_newest, drop_oldest or disconnect", c.MQTT.QueuePolicy)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		bad("log.level", "is %q: it can be debug, info, warn or error", c.Log.Level)
	}
	if !slices.Contains([]string{"text", "json"}, c.Log.Format) {
		bad("log.format", "is %q: it can be text or json", c.Log.Format)
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}
