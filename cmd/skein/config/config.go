// Package config is the configuration of a node: every key with its default and its explanation,
// read from a YAML file, from the environment and from flags, in that order.
//
// It owns names and values; it must never know what a value does. A key that nobody knows is
// refused with the nearest valid one: a limit that was misspelt is a limit that is not there.
package config

import (
	"math"
	"time"
)

// Config is the effective configuration. The tags are the single source of the keys: of the
// file's, the environment's and the flags' names, and of the comments in the printed form.
type Config struct {
	Node    Node     `key:"node" doc:"Who this node is."`
	Data    Data     `key:"data" doc:"What it keeps on disk."`
	Listen  []string `key:"listen" doc:"MQTT listeners, as URLs: tcp://HOST:PORT, ws://HOST:PORT/PATH, tls://, wss://, psk://, unix:///PATH.\nTheir own settings are the URL's query, or keys beside 'url:', as in tls://:8883?cert=c.pem&key=k.pem\nor tcp://:1883?proxy=v2&proxy_from=10.0.0.0/8 (PROXY protocol, required from these networks)."`
	HTTP    HTTP     `key:"http" doc:"Health, metrics and the status page."`
	Admin   Admin    `key:"admin" doc:"The admin gRPC service, which 'skein get' and the like talk to."`
	Peer    Peer     `key:"peer" doc:"Where the other nodes reach this one: the log and the links."`
	Gossip  Gossip   `key:"gossip" doc:"Where nodes find each other (TCP and UDP)."`
	Cluster Cluster  `key:"cluster" doc:"The other nodes, and how long to wait for them."`
	MQTT    MQTT     `key:"mqtt" doc:"What clients may do."`
	Auth    Auth     `key:"auth" doc:"Who may connect, and to which topics."`
	Drain   Drain    `key:"drain" doc:"How a node that stops lets its clients go."`
	Disk    Disk     `key:"disk" doc:"When the disk counts as full."`
	OTLP    OTLP     `key:"otlp" doc:"Traces of sampled publishes for an OpenTelemetry collector."`
	Memory  Memory   `key:"memory" doc:"How much memory the process may hold."`
	Log     Log      `key:"log" doc:"This process's own log, on stderr."`
}

// Node is the section node.
type Node struct {
	ID string `key:"id" doc:"Its name in the cluster, unique and lasting. Empty: the one that the data folder was made with, else the host's name."`
}

// Data is the section data.
type Data struct {
	Dir string `key:"dir" flag:"data" doc:"The data folder. Locked: one process a folder."`
}

// HTTP is the section http.
type HTTP struct {
	Listen    string `key:"listen" flag:"http" doc:"Address; empty: no HTTP server. /livez and /readyz answer everybody. The rest is for operators, by the rules of the section admin."`
	Advertise string `key:"advertise" doc:"What the others are told; empty: as bound."`
	Cert      string `key:"cert" doc:"The server's certificate; empty: plain HTTP, where no token is taken beyond loopback."`
	Key       string `key:"key" doc:"Its private key."`
	CA        string `key:"ca" doc:"Who signs operators' certificates; empty: they show tokens."`
	Anonymous string `key:"anonymous" doc:"What those may see who show nothing: none, metrics (/metrics alone) or view (the pages, too). On loopback admin.local_role counts as well."`
	Pprof     bool   `key:"pprof" doc:"Serve /debug/pprof, to the role admin."`
}

// Admin is the section admin.
type Admin struct {
	Listen    string `key:"listen" flag:"admin" doc:"Address; empty: none. Beyond loopback it speaks TLS alone, and to those only who show a certificate or a token of an operator."`
	Advertise string `key:"advertise" doc:"What the others are told; empty: as bound."`
	Events    int    `key:"events" doc:"How many events the node remembers for 'skein events' and 'skein describe'."`
	LogLines  int    `key:"log_lines" doc:"How many lines of its log the node remembers for 'skein logs'. 0: none."`
	Socket    string `key:"socket" doc:"A unix socket for the same, which this node's own user may use; empty: none."`
	Cert      string `key:"cert" doc:"The port's certificate; empty: cluster.cert beyond loopback, and plain text on loopback."`
	Key       string `key:"key" doc:"Its private key."`
	CA        string `key:"ca" doc:"Who signs operators' certificates; empty: cluster.ca with cluster.cert, else they show tokens."`
	Operators string `key:"operators_file" doc:"Operators, their roles (view, operate, admin) and tokens, as 'skein operator add' writes it; read again when it changes. Certificates of 'skein certs' need no line."`
	LocalRole string `key:"local_role" doc:"The role of whoever comes from this host, by loopback or the socket, and shows nothing: none, view, operate or admin."`
	AuditFile string `key:"audit_file" doc:"Where every change that an operator orders is written down, as JSON lines; empty: audit.log in the data folder."`
}

// Peer is the section peer.
type Peer struct {
	Listen    string `key:"listen" flag:"peer" doc:"Address. Beyond loopback it wants cluster.certs, or cluster.insecure."`
	Advertise string `key:"advertise" doc:"What the others are told, HOST:PORT or a HOST alone; empty: as bound, or a private address of this host."`
}

// Gossip is the section gossip.
type Gossip struct {
	KeyFile   string `key:"key_file" doc:"A file of keys, one a line, the same on all nodes ('skein keyring'): the first encrypts gossip, all decrypt it; read again when it changes. Empty: gossip is plain."`
	Listen    string `key:"listen" flag:"gossip" doc:"Address. Beyond loopback it wants gossip.key_file, or cluster.insecure."`
	Advertise string `key:"advertise" doc:"What the others are told; empty: as bound, or a private address of this host."`
}

// Cluster is the section cluster.
type Cluster struct {
	Name            string        `key:"name" doc:"Nodes of another name are refused."`
	Join            []string      `key:"join" flag:"join" doc:"Gossip addresses of other nodes. A DNS name stands for all its addresses."`
	Certs           string        `key:"certs" flag:"certs" doc:"A folder as 'skein certs' makes it for a node: it stands for the three files below and for gossip.key_file, where those are empty."`
	Cert            string        `key:"cert" doc:"This node's certificate: nodes prove themselves to each other with it."`
	Key             string        `key:"key" doc:"Its private key."`
	CA              string        `key:"ca" doc:"The authority that all nodes' certificates come from; may hold two while one takes over from the other."`
	Insecure        bool          `key:"insecure" doc:"Speak plain text to other nodes beyond loopback. Whoever reaches the peer or gossip port then reads and changes everything."`
	BootstrapExpect int           `key:"bootstrap_expect" flag:"bootstrap-expect" doc:"A cluster is founded once that many nodes with an empty data folder have met. Matters on the first start only."`
	RaftHeartbeat   time.Duration `key:"raft_heartbeat" doc:"A follower that hears nothing from the leader for so long stands for election."`
	RaftElection    time.Duration `key:"raft_election" doc:"A candidate waits so long for votes."`
	RaftLease       time.Duration `key:"raft_lease" doc:"A leader that reaches no majority for so long steps down; at most raft_heartbeat."`
	Lease           time.Duration `key:"lease" doc:"A node may serve for so long after it last asked the leader."`
	Drift           time.Duration `key:"drift" doc:"How far two nodes' clocks may drift apart within a lease. A node is declared dead after lease + drift."`
	Grace           time.Duration `key:"grace" doc:"A node without a lease keeps its clients for so long, acknowledging nothing; then it closes them."`
	SnapshotBytes   Size          `key:"snapshot_bytes" doc:"A snapshot is taken when the log has grown by this much, each entry counting 1 KiB more than it has."`
	CheckInterval   time.Duration `key:"check_interval" doc:"The nodes compare digests of their states so often; one that differs from a majority is quarantined. 0 means never. Equal on all nodes."`
	LinkBuffer      Size          `key:"link_buffer" doc:"Unacknowledged bytes on the way to one other node before publishers are paused."`
}

// MQTT is the section mqtt.
type MQTT struct {
	MaxPacketSize            Size          `key:"max_packet_size" doc:"The largest packet that a client may send."`
	ReceiveMaximum           uint16        `key:"receive_maximum" doc:"QoS 1 and 2 messages that a client may have on the way to the node."`
	MaxInflight              uint16        `key:"max_inflight" doc:"QoS 1 and 2 messages on the way to a client; its own Receive Maximum may be lower."`
	MaxKeepalive             uint16        `key:"max_keepalive" doc:"Seconds; a longer one, or none, is replaced by this (3.x: refused). 0: no limit."`
	TopicAliasMaximum        uint16        `key:"topic_alias_maximum" doc:"Topic aliases that a client may use towards the node; 0: none."`
	MaxQueuedMessages        uint32        `key:"max_queued_messages" doc:"Messages that wait for a session. 0: no limit."`
	MaxQueuedBytes           Size          `key:"max_queued_bytes" doc:"The same in bytes. 0: no limit."`
	QueuePolicy              string        `key:"queue_policy" doc:"What happens when that is reached: drop_newest, drop_oldest (of those never sent; the newest if there are none),\nor disconnect (a connected client is, with 0x97; its session keeps what it has. The newest is dropped while it is away)."`
	QueueQoS0                bool          `key:"queue_qos0" doc:"Queue QoS 0 messages, too, while a persistent session is not connected."`
	SessionExpiryMax         uint32        `key:"session_expiry_max" doc:"Seconds; a session that asks for more gets this. 4294967295: never expires, also the limit of MQTT 3.x sessions."`
	MaxConnections           int           `key:"max_connections" doc:"Connections to this node. 0: no limit."`
	ConnectTimeout           time.Duration `key:"connect_timeout" doc:"A connection that has not sent its CONNECT by then is closed."`
	RetainAvailable          bool          `key:"retain_available" doc:"Whether messages may be retained."`
	MaxQoS                   uint8         `key:"max_qos" doc:"The highest QoS that a client may publish with: 0, 1 or 2."`
	WildcardAvailable        bool          `key:"wildcard_available" doc:"Whether filters may hold wildcards."`
	SharedAvailable          bool          `key:"shared_available" doc:"Whether shared subscriptions may be made."`
	DenySubscribe            []string      `key:"deny_subscribe" doc:"Filters that nobody may subscribe to."`
	LegacySuback             bool          `key:"legacy_suback" doc:"Answer a refused subscription with 0x80 on 5.0, too."`
	UsernameAsClientID       bool          `key:"username_as_client_id" doc:"Take the user name for the client id, whatever the client says, so that nobody can take over another user's session: one connection a user."`
	SysInterval              time.Duration `key:"sys_interval" doc:"How often $SYS topics are published. 0: never."`
	MaxBufferedBytes         Size          `key:"max_buffered_bytes" doc:"Bytes that wait to be written to one client; above it QoS 0 messages for it are dropped."`
	MaxTopicLevels           int           `key:"max_topic_levels" doc:"Levels that a topic or a filter may have."`
	MaxTopicLength           int           `key:"max_topic_length" doc:"Bytes that a topic or a filter may have. 0: the protocol's 65535."`
	MaxSubscriptions         int           `key:"max_subscriptions" doc:"Subscriptions that one client may have. 0: no limit."`
	MaxConnectionsPerAddress int           `key:"max_connections_per_address" doc:"Connections to this node from one address (IPv6: one /64). 0: no limit."`
	MaxConnectRate           int           `key:"max_connect_rate" doc:"CONNECTs that this node takes in a second; others are refused. 0: no limit."`
	MaxMessageRate           int           `key:"max_message_rate" doc:"Messages that a client may publish in a second, on average and at once; see rate_policy. 0: no limit."`
	MaxByteRate              Size          `key:"max_byte_rate" doc:"The same in bytes of all that it sends. 0: no limit."`
	RatePolicy               string        `key:"rate_policy" doc:"Who is faster is not read until it may go on (pause), or disconnected (disconnect)."`
	MaxRetainedMessages      int           `key:"max_retained_messages" doc:"Retained messages in the cluster. A publish that would add one is refused; one that replaces another is not. 0: no limit."`
	MaxRetainedBytes         Size          `key:"max_retained_bytes" doc:"The same in bytes of topics, payloads and properties. 0: no limit."`
}

// Auth is the section auth.
type Auth struct {
	Methods        []string      `key:"methods" doc:"In which order a client's proof is judged: each lets it in, refuses it or passes it on. file: password_file; users: the cluster's own, as 'skein create user' makes them; jwt, http, ldap: see there. Nobody has to prove anything as long as none of them is in use."`
	PasswordFile   string        `key:"password_file" doc:"User names and passwords, as mosquitto_passwd or 'skein passwd' writes them; read again when it changes. Empty: no passwords are asked for."`
	ACLFile        string        `key:"acl_file" doc:"Who may read and write which topics, in the form of Mosquitto's acl_file; read again when it changes. Empty: everybody may."`
	AllowAnonymous bool          `key:"allow_anonymous" doc:"Let clients without a user name in although passwords are asked for."`
	Require        bool          `key:"require" doc:"Let nobody in without a proof although no method is in use yet: for a node that waits for its first user."`
	FailureDelay   time.Duration `key:"failure_delay" doc:"A refused login is answered after this time, or a multiple of it: it tells nothing of why. 0: at once."`
	MaxFailures    int           `key:"max_failures" doc:"So many failed logins from one address (IPv6: one /64) within failure_window keep it out of that listener for ban_time; a good login takes one back. 0: no limit, for a node behind a balancer that hides its clients' addresses."`
	FailureWindow  time.Duration `key:"failure_window" doc:"See max_failures."`
	BanTime        time.Duration `key:"ban_time" doc:"See max_failures. Connections that stand already stay."`
	JWT            AuthJWT       `key:"jwt" doc:"Passwords that are JSON Web Tokens. The connection is closed when its token expires (0xA0)."`
	HTTP           AuthHTTP      `key:"http" doc:"A server that is asked about logins."`
	LDAP           AuthLDAP      `key:"ldap" doc:"A directory whose users may log in with their passwords."`
}

// AuthJWT is the section auth.jwt.
type AuthJWT struct {
	SecretFile    string        `key:"secret_file" doc:"The secret of HS256, HS384 and HS512, 32 bytes at least; read again when it changes."`
	PublicKeyFile string        `key:"public_key_file" doc:"PEM: RSA, ECDSA and Ed25519 public keys or certificates; read again when it changes."`
	JWKSURL       string        `key:"jwks_url" doc:"Where public keys are published (RFC 7517). They are kept while it can't be reached."`
	JWKSRefresh   time.Duration `key:"jwks_refresh" doc:"How often they are read; besides, at most once a minute, for a key id that is not known."`
	Issuer        string        `key:"issuer" doc:"What a token's iss must be. Empty: anything."`
	Audience      string        `key:"audience" doc:"What a token's aud must hold. Empty: anything."`
	UsernameClaim string        `key:"username_claim" doc:"The claim that is the user's name, whatever CONNECT says."`
	ACLClaim      string        `key:"acl_claim" doc:"The claim that says what the client may do, if it is there: {\"pub\": [FILTER…], \"sub\": […], \"all\": […]}, with %u and %c. What it does not name is forbidden."`
	Leeway        time.Duration `key:"leeway" doc:"How far the clocks may be apart."`
}

// AuthHTTP is the section auth.http.
type AuthHTTP struct {
	URL       string        `key:"url" doc:"It gets a POST with {client_id, username, password, address, listener} and answers {\"result\": \"allow\", \"deny\" or \"ignore\"}, and if it likes \"username\", \"acl\" (as auth.jwt.acl_claim) and \"expires_at\" (seconds since 1970). 401 and 403 refuse, and so does an error."`
	TokenFile string        `key:"token_file" doc:"Sent along as Authorization: Bearer. Empty: nothing is."`
	Timeout   time.Duration `key:"timeout" doc:"How long an answer may take."`
	Cache     time.Duration `key:"cache" doc:"How long an answer holds for the same client. 0: every login asks."`
}

// AuthLDAP is the section auth.ldap.
type AuthLDAP struct {
	URL              string        `key:"url" doc:"ldap://HOST:PORT or ldaps://HOST:PORT."`
	StartTLS         bool          `key:"start_tls" doc:"ldap://: turn to TLS before anything is said."`
	CAFile           string        `key:"ca_file" doc:"Who signs its certificate; empty: the system's authorities."`
	UserDN           string        `key:"user_dn" doc:"The name that a user binds as, as in uid=%u,ou=people,dc=example,dc=org."`
	BaseDN           string        `key:"base_dn" doc:"In place of user_dn: where users are looked for."`
	Filter           string        `key:"filter" doc:"How, below base_dn."`
	BindDN           string        `key:"bind_dn" doc:"By whom; empty: by nobody."`
	BindPasswordFile string        `key:"bind_password_file" doc:"The password of bind_dn."`
	Timeout          time.Duration `key:"timeout" doc:"How long a login may take."`
}

// Drain is the section drain.
type Drain struct {
	Timeout         time.Duration `key:"timeout" doc:"A drain takes at most so long, also the one at SIGTERM. A second signal ends it at once."`
	Rate            int           `key:"rate" doc:"Connections that are let go per second. 0: no limit."`
	ClientTimeout   time.Duration `key:"client_timeout" doc:"How long one client may take to acknowledge what it was sent."`
	Notice          time.Duration `key:"notice" doc:"How long a draining node, which says at once that it is not ready, still takes connections: longer than a load balancer needs to notice. 0: not at all."`
	ServerReference string        `key:"server_reference" doc:"Where MQTT 5 clients are told to go, HOST:PORT; empty: they are not told."`
}

// OTLP is the section otlp.
type OTLP struct {
	Endpoint string  `key:"endpoint" doc:"A collector that takes OTLP by gRPC, as in http://127.0.0.1:4317; https:// speaks TLS. Empty: nothing is traced, which costs nothing."`
	Sample   float64 `key:"sample" doc:"Which part of the publishes is traced, 0 to 1. One with the user property traceparent (W3C Trace Context) is traced if that says so."`
}

// Memory is the section memory.
type Memory struct {
	Limit        Size   `key:"limit" doc:"For the process, also told to Go's garbage collector (as GOMEMLIMIT, which counts where this is 0). When three quarters of it can't be given back, publishes are treated as policy says until it is a tenth less. 0: see limit_percent."`
	LimitPercent int    `key:"limit_percent" doc:"The same as a percentage of what is at hand: the control group's limit, or the machine's memory. 0: no limit."`
	Policy       string `key:"policy" doc:"What becomes of clients' publishes meanwhile: pause (they wait, and who publishes is not read beyond 64 KiB) or refuse (0x97 on 5.0; dropped at QoS 0; 3.x clients at QoS 1 and 2 are closed, and send them again)."`
}

// Disk is the section disk.
type Disk struct {
	LowBytes   Size          `key:"low_bytes" doc:"The node turns not ready when less is free on the data folder's disk. 0: not watched."`
	LowPercent int           `key:"low_percent" doc:"The same as a percentage of the disk, where that is less than low_bytes. 0: low_bytes alone counts."`
	Interval   time.Duration `key:"interval" doc:"How often to look."`
}

// Log is the section log.
type Log struct {
	Level  string `key:"level" flag:"log-level" doc:"debug, info, warn or error."`
	Format string `key:"format" flag:"log-format" doc:"text or json."`
}

// Default is the configuration of a node that was told nothing: a whole broker on loopback.
func Default() *Config {
	return &Config{
		Data:   Data{Dir: "./skein-data"},
		Listen: []string{"tcp://127.0.0.1:1883"},
		HTTP:   HTTP{Listen: "127.0.0.1:8080", Anonymous: "none"},
		Admin:  Admin{Listen: "127.0.0.1:7883", LocalRole: "admin", Events: 10_000, LogLines: 2_000},
		Peer:   Peer{Listen: "127.0.0.1:7884"},
		Gossip: Gossip{Listen: "127.0.0.1:7885"},
		Cluster: Cluster{
			Name:            "skein",
			BootstrapExpect: 1,
			RaftHeartbeat:   500 * time.Millisecond,
			RaftElection:    500 * time.Millisecond,
			RaftLease:       250 * time.Millisecond,
			Lease:           500 * time.Millisecond,
			Drift:           100 * time.Millisecond,
			Grace:           3 * time.Second,
			SnapshotBytes:   64 << 20,
			CheckInterval:   10 * time.Minute,
			LinkBuffer:      16 << 20,
		},
		MQTT: MQTT{
			MaxPacketSize:     1 << 20,
			ReceiveMaximum:    1024,
			MaxInflight:       256,
			TopicAliasMaximum: 64,
			MaxQueuedMessages: 100_000,
			MaxQueuedBytes:    64 << 20,
			QueuePolicy:       "drop_newest",
			SessionExpiryMax:  math.MaxUint32,
			ConnectTimeout:    10 * time.Second,
			RetainAvailable:   true,
			MaxQoS:            2,
			WildcardAvailable: true,
			SharedAvailable:   true,
			SysInterval:       10 * time.Second,
			MaxBufferedBytes:  4 << 20,
			MaxTopicLevels:    128,
			RatePolicy:        "pause",
		},
		Auth: Auth{
			Methods: []string{"file", "users", "jwt", "http", "ldap"}, FailureDelay: 250 * time.Millisecond,
			MaxFailures: 100, FailureWindow: time.Minute, BanTime: time.Minute,
			JWT:  AuthJWT{JWKSRefresh: time.Hour, UsernameClaim: "sub", ACLClaim: "acl", Leeway: 10 * time.Second},
			HTTP: AuthHTTP{Timeout: 3 * time.Second, Cache: 30 * time.Second},
			LDAP: AuthLDAP{Filter: "(uid=%u)", Timeout: 5 * time.Second},
		},
		Drain:  Drain{Timeout: 30 * time.Second, Rate: 1000, ClientTimeout: 5 * time.Second},
		Disk:   Disk{LowBytes: 256 << 20, LowPercent: 2, Interval: 5 * time.Second},
		OTLP:   OTLP{Sample: 0.01},
		Memory: Memory{LimitPercent: 80, Policy: "pause"},
		Log:    Log{Level: "info", Format: "text"},
	}
}
