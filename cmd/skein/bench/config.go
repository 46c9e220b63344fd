package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/skein-mqtt/skein/proto/mqtt"
)

// Mode is who publishes to whom.
type Mode string

// The modes.
const (
	Pairs    Mode = "pairs"    // each publisher has a subscriber of its own
	FanIn    Mode = "fanin"    // many publishers, one subscriber
	FanOut   Mode = "fanout"   // one publisher, many subscribers
	Shared   Mode = "shared"   // many publishers, one shared group of as many members
	Wildcard Mode = "wildcard" // as pairs, but each message has one of many filters with a wildcard to find
	Retained Mode = "retained" // messages are retained, and then somebody subscribes to all of them
	Replay   Mode = "replay"   // messages are queued for sessions, whose clients then come back
	Connects Mode = "connects" // connections as fast as they are taken
	Idle     Mode = "idle"     // connections that do nothing
)

// Modes are all of them, in the order of the help text.
var Modes = []Mode{Pairs, FanIn, FanOut, Shared, Wildcard, Retained, Replay, Connects, Idle}

// publishes tells whether messages are sent.
func (m Mode) publishes() bool { return m != Connects && m != Idle }

// stores tells whether the broker keeps the messages before it hands them out.
func (m Mode) stores() bool { return m == Retained || m == Replay }

// MinPayload is what a message carries at least: when it was due, its publisher, its number.
const MinPayload = 20

// Config says what to do. Default fills it.
type Config struct {
	Mode     Mode
	PubAddrs []string // publishers' brokers, in turn
	SubAddrs []string // subscribers', and those of connections that do not publish
	Version  mqtt.Version
	Username string
	Password string

	Pairs   int // pairs, shared: publishers, and as many subscribers
	Fan     int // fanin, fanout: the many
	Filters int // wildcard: of all subscribers together
	Clients int // connects, idle
	At      int // connects, idle: connections that are opened at a time

	QoS                  byte
	Payload              int           // bytes of a message
	Window               int           // messages of a publisher that are under way at a time
	Rate                 float64       // messages a second of all publishers; 0: as fast as they are taken
	Warmup               time.Duration // before the figures begin
	Duration             time.Duration // of the figures
	Count                int           // messages of all publishers, instead of Duration; 0: none
	Persistent           bool          // subscribers' sessions outlive their connections
	PersistentPublishers bool
	KeepAlive            time.Duration // connects, idle; 0: none
	Drain                time.Duration // how long to wait for the next of the messages that are missing at the end

	PIDs     []int         // processes to watch
	Progress time.Duration // between lines about how far it is; 0: none
	Log      io.Writer     // where they go
}

// Default is a run of ten pairs at QoS 0.
func Default() Config {
	return Config{
		Mode: Pairs, PubAddrs: []string{"127.0.0.1:1883"}, SubAddrs: []string{"127.0.0.1:1883"}, Version: mqtt.V311,
		Pairs: 10, Fan: 100, Filters: 20_000, Clients: 10_000, At: 100, Payload: 100, Window: 100,
		Warmup: time.Second, Duration: 10 * time.Second, Drain: 5 * time.Second, Progress: 5 * time.Second, Log: io.Discard,
	}
}

// ForMode sets what the mode needs and nobody has chosen: chosen tells of the flags qos, count, pairs and
// persistent.
func (c *Config) ForMode(chosen func(flag string) bool) {
	if !c.Mode.stores() {
		return
	}
	for flag, set := range map[string]func(){
		"qos":        func() { c.QoS = 1 },
		"count":      func() { c.Count = 20_000 },
		"pairs":      func() { c.Pairs = 1 },
		"persistent": func() { c.Persistent = c.Mode == Replay },
	} {
		if !chosen(flag) {
			set()
		}
	}
}

// Validate names what is wrong and what to do.
func (c *Config) Validate() error {
	for _, l := range []struct {
		ok   bool
		text string
	}{
		{slices.Contains(Modes, c.Mode), fmt.Sprintf("mode %q is not known: use %s", c.Mode, modeNames())},
		{len(c.PubAddrs) > 0 && len(c.SubAddrs) > 0, "addr is empty: name a broker, as in 127.0.0.1:1883"},
		{c.Version == mqtt.V31 || c.Version == mqtt.V311 || c.Version == mqtt.V5, "version must be 3.1, 3.1.1 or 5"},
		{c.QoS <= 2, "qos must be 0, 1 or 2"},
		{c.Pairs > 0, "pairs must be at least 1"},
		{c.Fan > 0, "fan must be at least 1"},
		{c.Filters >= c.Pairs || c.Mode != Wildcard, "filters must be at least as many as pairs"},
		{c.Count > 0 && c.Count < 1e7 && c.QoS > 0 || !c.Mode.stores(), "retained and replay need a qos of 1 or 2, and a count below 10,000,000: the broker has to answer for what it keeps"},
		{c.Persistent || c.Mode != Replay, "replay needs persistent sessions"},
		{c.Clients > 0, "clients must be at least 1"},
		{c.At > 0, "concurrency must be at least 1"},
		{c.Payload >= MinPayload && c.Payload < mqtt.MaxPacket/2, fmt.Sprintf("payload must be at least %d bytes: a message carries its time and number", MinPayload)},
		{c.Window > 0 && c.Window <= maxWindow, fmt.Sprintf("window must be between 1 and %d", maxWindow)},
		{c.Rate >= 0, "rate must not be negative"},
		{c.Warmup >= 0, "warmup must not be negative"},
		{c.Count >= 0, "count must not be negative"},
		{c.Duration > 0 || c.Count > 0, "duration must be above 0, unless there is a count"},
		{c.KeepAlive >= 0 && c.KeepAlive <= 65535*time.Second, "keepalive must be between 0 and 65535 seconds"},
		{c.Drain > 0, "drain must be above 0"},
	} {
		if !l.ok {
			return fmt.Errorf("bench: %s", l.text)
		}
	}
	return nil
}

// maxWindow leaves packet ids to choose from.
const maxWindow = 60_000

func modeNames() string {
	names := make([]string, len(Modes))
	for i, m := range Modes {
		names[i] = string(m)
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// publishers and subscribers are how many of each there are.
func (c *Config) publishers() int {
	switch c.Mode {
	case FanIn:
		return c.Fan
	case FanOut:
		return 1
	}
	return c.Pairs
}

func (c *Config) subscribers() int {
	switch c.Mode {
	case FanIn, Retained:
		return 1
	case FanOut:
		return c.Fan
	}
	return c.Pairs
}

// perPublisher is how many topics each publisher takes in turn; 0: it has one.
func (c *Config) perPublisher() int {
	switch c.Mode {
	case Wildcard:
		return c.Filters / c.Pairs
	case Retained:
		return (c.Count + c.Pairs - 1) / c.Pairs
	}
	return 0
}

// fan is how many deliveries a message makes.
func (c *Config) fan() int {
	if c.Mode == FanOut {
		return c.Fan
	}
	return 1
}
