package chaos

import "github.com/skein-mqtt/skein/test/harness"

// point is a place in an exchange where a connection can be cut.
type point string

const (
	nowhere       point = ""
	sentConnect   point = "CONNECT sent"
	sentSubscribe point = "SUBSCRIBE sent"
	sentPublish   point = "PUBLISH sent"
	sentPuback    point = "PUBACK sent"
	sentPubrec    point = "PUBREC sent"
	sentPubrel    point = "PUBREL sent"
	sentPubcomp   point = "PUBCOMP sent"
	gotPublish    point = "PUBLISH unread"
	gotPuback     point = "PUBACK unread"
	gotPubrec     point = "PUBREC unread"
	gotPubrel     point = "PUBREL unread"
	gotPubcomp    point = "PUBCOMP unread"
	gotSuback     point = "SUBACK unread"
)

var (
	publisherPoints  = []point{sentPublish, sentPubrel, gotPuback, gotPubrec, gotPubcomp, sentConnect}
	subscriberPoints = []point{sentPuback, sentPubrec, sentPubcomp, gotPublish, gotPubrel, sentConnect, sentSubscribe, gotSuback}
	sentPoints       = map[byte]point{
		harness.PUBLISH: sentPublish, harness.PUBACK: sentPuback, harness.PUBREC: sentPubrec,
		harness.PUBREL: sentPubrel, harness.PUBCOMP: sentPubcomp, harness.SUBSCRIBE: sentSubscribe,
	}
	gotPoints = map[byte]point{
		harness.PUBLISH: gotPublish, harness.PUBACK: gotPuback, harness.PUBREC: gotPubrec,
		harness.PUBREL: gotPubrel, harness.PUBCOMP: gotPubcomp, harness.SUBACK: gotSuback,
	}
)

func sentPoint(p harness.Packet) point { return sentPoints[p.Type] }
func gotPoint(p harness.Packet) point  { return gotPoints[p.Type] }

// cutPoint is where a client cuts its connection: at the left-th packet of that kind.
type cutPoint struct {
	point point
	left  int
}

// drawCut decides where the next cut is.
func (c *client) drawCut() cutPoint {
	if !c.plan.cuts {
		return cutPoint{}
	}
	var points []point
	if len(c.plan.streams) > 0 {
		points = append(points, publisherPoints...)
	}
	if len(c.plan.subs) > 0 {
		points = append(points, subscriberPoints...)
	}
	if len(points) == 0 {
		return cutPoint{}
	}
	p := cutPoint{points[c.rng.IntN(len(points))], 1 + c.rng.IntN(150)}
	switch p.point {
	case sentConnect, sentSubscribe, gotSuback:
		p.left = 1
	}
	return p
}

// hit counts a packet and tells whether the connection is to be cut at it: only while there are
// faults.
func (p *cutPoint) hit(at point, c *client) bool {
	if at == nowhere || at != p.point || !c.w.busy() {
		return false
	}
	p.left--
	if p.left > 0 {
		return false
	}
	p.point = nowhere
	c.w.model.count(func(s *stats) { s.cuts[string(at)]++ })
	return true
}
