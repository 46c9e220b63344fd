package broker

import (
	"errors"

	"github.com/skein-mqtt/skein/proto/mqtt"
	"github.com/skein-mqtt/skein/proto/topic"
)

// Limit is one that a client can reach and that no other counter tells of.
type Limit uint8

// The limits.
const (
	LimitPacketSize Limit = iota
	LimitReceiveMaximum
	LimitInflight
	LimitTopicAlias
	LimitTopicLength
	LimitTopicLevels
	LimitSubscriptions
	LimitSessionExpiry
	LimitKeepalive
	LimitConnections
	LimitConnectTimeout
	LimitQoS
	LimitRetain
	LimitWildcard
	LimitShared
	LimitDenySubscribe
	LimitQueue
	LimitPerAddress
	LimitConnectRate
	LimitMessageRate
	LimitByteRate
	LimitRetainedMessages
	LimitRetainedBytes
	LimitMemory
	LimitCount
)

// LimitNames are the keys that set the limits, the labels of Stats.Limits.
var LimitNames = [LimitCount]string{
	"mqtt.max_packet_size", "mqtt.receive_maximum", "mqtt.max_inflight", "mqtt.topic_alias_maximum", "mqtt.max_topic_length",
	"mqtt.max_topic_levels", "mqtt.max_subscriptions", "mqtt.session_expiry_max", "mqtt.max_keepalive", "mqtt.max_connections",
	"mqtt.connect_timeout", "mqtt.max_qos", "mqtt.retain_available", "mqtt.wildcard_available", "mqtt.shared_available",
	"mqtt.deny_subscribe", "mqtt.queue_policy", "mqtt.max_connections_per_address", "mqtt.max_connect_rate", "mqtt.max_message_rate",
	"mqtt.max_byte_rate", "mqtt.max_retained_messages", "mqtt.max_retained_bytes", "memory.limit",
}

// reached counts that a client has reached a limit.
func (b *Broker) reached(l Limit) { b.stats.limits[l].Add(1) }

// tooMuch counts the limit of this node that the error of a packet names.
func (b *Broker) tooMuch(err error) error {
	switch codeOf(err) {
	case mqtt.PacketTooLarge:
		b.reached(LimitPacketSize)
	case mqtt.ReceiveMaximumExceeded:
		b.reached(LimitReceiveMaximum)
	case mqtt.TopicAliasInvalid:
		b.reached(LimitTopicAlias)
	}
	return err
}

// badTopic counts the limit that a topic or a filter is over, if it is over one.
func (b *Broker) badTopic(err error) error {
	switch {
	case errors.Is(err, topic.ErrTooDeep):
		b.reached(LimitTopicLevels)
	case errors.Is(err, topic.ErrTooLong):
		b.reached(LimitTopicLength)
	}
	return err
}
