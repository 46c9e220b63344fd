package broker

import (
	"strings"

	"github.com/skein-mqtt/skein/proto/mqtt"
	"github.com/skein-mqtt/skein/proto/topic"
)

// A listener with a mount point shows its clients a part of the cluster's topics: the mount point stands before
// each topic and filter that they say, and is left out of each topic that they are told. Everything but the
// packets of their connections knows whole topics: the log, other nodes, access rules, people.
//
// There are no topics that begin with $ below a mount point. A wildcard at the beginning of a client's filter
// would match them [MQTT-4.7.2-1], since it stands behind the mount point.

// maxTopic is how long a topic may be, whatever stands before it [MQTT-1.5.4].
const maxTopic = 65535

// outside tells whether a client's own topic or filter is one that the mount point does not lead to.
func (c *client) outside(name string) bool { return c.mount != "" && strings.HasPrefix(name, "$") }

// whole is a topic as the cluster knows it.
func (c *client) whole(name string) (string, error) {
	if c.mount == "" {
		return name, nil
	}
	if len(c.mount)+len(name) > maxTopic {
		return "", topic.ErrTooLong
	}
	return c.mount + name, nil
}

// sees tells whether a topic is one that the client's listener shows.
func (c *client) sees(name string) bool {
	if c.mount == "" {
		return true
	}
	own, ok := strings.CutPrefix(name, c.mount)
	return ok && own != "" && !c.outside(own)
}

// mountWill puts a CONNECT's will below the mount point.
func (c *client) mountWill(p *mqtt.Connect) mqtt.ReasonCode {
	if p.Will == nil {
		return mqtt.Success
	}
	name, err := c.whole(p.Will.Topic)
	if err != nil || c.outside(p.Will.Topic) {
		return mqtt.TopicNameInvalid
	}
	p.Will.Topic = name
	return mqtt.Success
}
