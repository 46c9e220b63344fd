package mosquitto

import (
	"net/url"
	"strconv"
	"strings"
	"time"
)

// option does what one line asks for.
func (c *converter) option(l line) (Fate, string) {
	if h, ok := handlers[l.option]; ok {
		return h(c, l)
	}
	if strings.HasPrefix(l.option, "bridge_") {
		return Missing, "bridges have no counterpart yet"
	}
	if strings.HasPrefix(l.option, "plugin_opt_") || strings.HasPrefix(l.option, "auth_opt_") {
		return Missing, "it belongs to a plugin"
	}
	return Bad, "Mosquitto has no such option, or it is newer than this command"
}

type handler func(c *converter, l line) (Fate, string)

func says(f Fate, text string) handler {
	return func(*converter, line) (Fate, string) { return f, text }
}

// number sets a key to a whole number.
func number(name, note string) handler {
	return func(c *converter, l line) (Fate, string) {
		n, err := strconv.ParseInt(l.value, 10, 64)
		if err != nil || n < 0 {
			return Bad, "wants a number"
		}
		c.set(name, strconv.FormatInt(n, 10))
		if note != "" {
			return Changed, name + ": " + note
		}
		return Taken, name
	}
}

// yesNo sets a key to true or false.
func yesNo(name string) handler {
	return func(c *converter, l line) (Fate, string) {
		if l.value != "true" && l.value != "false" {
			return Bad, "wants true or false"
		}
		c.set(name, l.value)
		return Taken, name
	}
}

// path sets a key to a file.
func path(name string) handler {
	return func(c *converter, l line) (Fate, string) {
		if l.value == "" {
			return Bad, "wants a file"
		}
		c.set(name, text(l.value))
		return Taken, name
	}
}

// setting is one of the listener's, in its URL.
func setting(name string) handler {
	return func(c *converter, l line) (Fate, string) {
		if l.value == "" {
			return Bad, "wants a value"
		}
		c.current().query.Set(name, l.value)
		return Taken, name + "= of its listener"
	}
}

var handlers map[string]handler

func init() {
	handlers = map[string]handler{
		"listener":     openListener,
		"port":         func(c *converter, l line) (Fate, string) { c.current().port = l.value; return Taken, "listen" },
		"bind_address": func(c *converter, l line) (Fate, string) { c.current().host = l.value; return Taken, "listen" },
		"protocol": func(c *converter, l line) (Fate, string) {
			switch l.value {
			case "mqtt":
				return Needless, "it is that anyway"
			case "websockets":
				c.current().websockets = true
				return Taken, "listen: ws:// or wss://"
			}
			return Missing, "this protocol is not spoken"
		},
		"include_dir": says(Taken, "its files are read here"),

		"certfile":                 setting("cert"),
		"keyfile":                  setting("key"),
		"cafile":                   setting("ca"),
		"crlfile":                  setting("crl"),
		"require_certificate":      setting("require_client_cert"),
		"use_identity_as_username": setting("use_identity_as_username"),
		"use_subject_as_username":  setting("use_subject_as_username"),
		"tls_version": func(c *converter, l line) (Fate, string) {
			v := strings.TrimPrefix(l.value, "tlsv")
			if v != "1.2" && v != "1.3" {
				return Changed, "the lowest that is spoken is 1.2"
			}
			c.current().query.Set("tls_version", v)
			return Changed, "tls_version=: the lowest that is spoken, in place of the only one"
		},
		"psk_hint": setting("hint"),
		"psk_file": func(c *converter, l line) (Fate, string) {
			if c.each {
				c.current().psk = l.value
				return Taken, "file= of its listener, if that has psk_hint"
			}
			c.psk = l.value
			return Taken, "file= of the listeners with psk_hint"
		},
		"capath":  says(Missing, "put the authorities into one file, and name it with cafile"),
		"ciphers": says(Needless, "the suites are those that are sound today"), "ciphers_tls1.3": says(Needless, "the suites are those that are sound today"),
		"dhparamfile": says(Needless, "only elliptic curves are used"), "tls_engine": says(Missing, "keys are files"),
		"tls_engine_kpass_sha1": says(Missing, "keys are files"),
		"tls_keyform": func(_ *converter, l line) (Fate, string) {
			if l.value == "pem" {
				return Needless, "it is that anyway"
			}
			return Missing, "keys are files"
		},

		"allow_anonymous": func(c *converter, l line) (Fate, string) {
			if l.value != "true" && l.value != "false" {
				return Bad, "wants true or false"
			}
			if c.each && c.now != nil {
				c.now.anonymous = l.value
				return Taken, "allow_anonymous= of its listener"
			}
			c.anonymous = l.value
			if c.each {
				return Taken, "allow_anonymous= of listeners that don't say otherwise"
			}
			return Taken, "auth.allow_anonymous, or auth.require"
		},
		"password_file": onlyFile, "acl_file": onlyFile,
		"per_listener_settings": func(c *converter, l line) (Fate, string) {
			if l.value == "false" {
				return Needless, "it is that anyway"
			}
			c.each = true
			return Changed, "a listener says who needs no proof, and which psk_file counts; passwords and access lists are the node's"
		},
		"plugin": plugin, "auth_plugin": plugin, "global_plugin": plugin, "plugin_load": plugin, "plugin_use": plugin,
		"auth_plugin_deny_special_chars": says(Needless, "names with + and # never fill the holes of a pattern"),
		"use_username_as_clientid":       yesNo("mqtt.username_as_client_id"),
		"clientid_prefixes":              says(Missing, "give users a client id of their own: 'skein create user --client-id'"),
		"allow_zero_length_clientid": func(_ *converter, l line) (Fate, string) {
			if l.value == "true" {
				return Needless, "it is that anyway"
			}
			return Missing, "clients may leave their id out"
		},
		"auto_id_prefix":      says(Missing, "ids that the broker gives begin with auto-"),
		"check_retain_source": says(Missing, "who may publish is asked when a message is published, who may have it at each delivery"),

		"max_connections": func(c *converter, l line) (Fate, string) {
			if l.value == "-1" {
				return Needless, "it is that anyway"
			}
			if n, err := strconv.Atoi(l.value); err != nil || n < 1 {
				return Bad, "wants a number, or -1"
			}
			return setting("max_connections")(c, l)
		},
		"global_max_connections": number("mqtt.max_connections", ""), "global_max_clients": number("mqtt.max_connections", "of connections"),
		"max_packet_size": number("mqtt.max_packet_size", ""), "message_size_limit": number("mqtt.max_packet_size", "of the packet, not of its payload"),
		"max_inflight_messages": number("mqtt.max_inflight", ""), "max_inflight_bytes": says(Missing, "mqtt.max_inflight bounds messages"),
		"max_queued_messages": number("mqtt.max_queued_messages", ""), "max_queued_bytes": number("mqtt.max_queued_bytes", ""),
		"queue_qos0_messages": yesNo("mqtt.queue_qos0"), "max_keepalive": number("mqtt.max_keepalive", ""),
		"max_topic_alias": number("mqtt.topic_alias_maximum", ""), "max_qos": number("mqtt.max_qos", "of the node, not of the listener"),
		"retain_available": yesNo("mqtt.retain_available"),
		"sys_interval": func(c *converter, l line) (Fate, string) {
			n, err := strconv.Atoi(l.value)
			if err != nil || n < 0 {
				return Bad, "wants a number of seconds"
			}
			c.set("mqtt.sys_interval", (time.Duration(n) * time.Second).String())
			return Taken, "mqtt.sys_interval"
		},
		"persistent_client_expiration": expiration,
		"memory_limit": func(c *converter, l line) (Fate, string) {
			switch n, err := strconv.ParseUint(l.value, 10, 62); {
			case err != nil:
				return Bad, "wants a number of bytes"
			case n == 0:
				return Changed, "memory.limit: without one it is memory.limit_percent of what is there"
			case n < 32<<20:
				c.set("memory.limit", strconv.Itoa(32<<20))
				return Changed, "memory.limit: a node needs 32 MiB at least"
			default:
				c.set("memory.limit", l.value)
				return Taken, "memory.limit"
			}
		},
		"retain_expiry_interval":   says(Missing, "a message may carry an expiry of its own in MQTT 5.0"),
		"mount_point":              mountPoint,
		"accept_protocol_versions": setting("protocol_versions"),
		"bind_interface":           says(Missing, "name the interface's address in the listener"),
		"socket_domain":            says(Missing, "name an IPv4 or IPv6 address in the listener"),
		"http_dir":                 says(Missing, "no files are served"), "websockets_headers_size": says(Needless, "headers are bounded"),
		"websockets_log_level": says(Needless, "see log.level"), "websockets_origin": says(Missing, "every origin may connect"),

		"persistence": func(_ *converter, l line) (Fate, string) {
			if l.value == "true" {
				return Needless, "sessions and retained messages are always on disk"
			}
			return Changed, "sessions and retained messages are always on disk"
		},
		"persistence_location": func(c *converter, l line) (Fate, string) {
			c.set("data.dir", text(strings.TrimSuffix(l.value, "/")+"/skein"))
			return Changed, "data.dir: a folder of its own in there; Mosquitto's own file is not read"
		},
		"persistence_file":     says(Needless, "see data.dir"),
		"autosave_interval":    says(Needless, "every change is on disk before it is acknowledged"),
		"autosave_on_changes":  says(Needless, "every change is on disk before it is acknowledged"),
		"log_dest":             says(Changed, "the log goes to stderr"),
		"log_facility":         says(Needless, "the log goes to stderr"),
		"log_timestamp":        says(Needless, "every line has one"),
		"log_timestamp_format": says(Needless, "it is RFC 3339"),
		"connection_messages":  says(Needless, "see log.level"),
		"log_type": func(c *converter, l line) (Fate, string) {
			if l.value == "all" || l.value == "debug" {
				c.set("log.level", "debug")
				return Taken, "log.level"
			}
			return Changed, "log.level is one threshold for all kinds"
		},
		"pid_file":                 says(Needless, "the service manager knows the process"),
		"user":                     says(Needless, "start it as the user that it is to run as"),
		"set_tcp_nodelay":          says(Needless, "it is so anyway, and packets are written together"),
		"upgrade_outgoing_qos":     says(Missing, "a message keeps the QoS that it was published with"),
		"allow_duplicate_messages": says(Needless, "a client has a message once for all of its subscriptions"),
		"enable_control_api":       says(Missing, "see 'skein get', 'apply' and 'create'"),
	}
}

func openListener(c *converter, l line) (Fate, string) {
	f := strings.Fields(l.value)
	if len(f) == 0 {
		return Bad, "wants a port"
	}
	n, err := strconv.Atoi(f[0])
	if err != nil || n < 0 || n > 65535 {
		return Bad, "wants a port"
	}
	c.now = &listener{port: f[0], query: url.Values{}}
	c.listeners = append(c.listeners, c.now)
	switch {
	case len(f) > 1 && strings.HasPrefix(f[1], "/"):
		c.now.path = f[1]
	case len(f) > 1:
		c.now.host = f[1]
	case n == 0:
		c.listeners = c.listeners[:len(c.listeners)-1]
		return Bad, "port 0 wants a socket's path"
	}
	return Taken, "listen"
}

// onlyFile is one that each listener may have with per_listener_settings, and here the node has.
func onlyFile(c *converter, l line) (Fate, string) {
	before := c.files[l.option]
	c.files[l.option] = l.value
	fate, note := path("auth."+l.option)(c, l)
	if fate == Taken && before != "" && before != l.value {
		return Missing, "auth." + l.option + " is the node's: this file counts for all listeners, and not " + before
	}
	return fate, note
}

// mountPoint of Mosquitto need not end in a slash.
func mountPoint(c *converter, l line) (Fate, string) {
	fate, note := setting("mount_point")(c, l)
	if fate == Taken && !strings.HasSuffix(l.value, "/") {
		return Changed, note + ", where a slash follows it"
	}
	return fate, note
}

func plugin(c *converter, l line) (Fate, string) {
	c.plugin = true
	if strings.Contains(l.value, "dynamic_security") {
		return Missing, "users, groups and roles live in the cluster: see 'skein apply' and 'skein create'; until there is a user nobody is let in without a password"
	}
	return Missing, "see auth.jwt, auth.http and auth.ldap for other ways to log in"
}

func expiration(c *converter, l line) (Fate, string) {
	units := map[byte]uint64{'h': 3600, 'd': 86400, 'w': 7 * 86400, 'm': 30 * 86400, 'y': 365 * 86400}
	if l.value == "" {
		return Bad, "wants a time such as 14d"
	}
	unit, ok := units[l.value[len(l.value)-1]]
	n, err := strconv.ParseUint(l.value[:len(l.value)-1], 10, 32)
	if !ok || err != nil || n*unit >= 1<<32-1 {
		return Bad, "wants a time such as 14d"
	}
	c.set("mqtt.session_expiry_max", strconv.FormatUint(n*unit, 10))
	return Taken, "mqtt.session_expiry_max"
}
