package broker

import (
	"context"
	"errors"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/proto/fsmpb"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// Errors of an operator's orders.
var (
	// ErrUnknownClient: the log knows no client or session of that id.
	ErrUnknownClient = errors.New("broker: no such client")
	// ErrRefused: the log did not take the order.
	ErrRefused = errors.New("broker: the order makes no sense")
)

// Disconnect closes a client's connection with DISCONNECT 0x98; its will is published and its session
// stays. false: it is not connected here.
func (b *Broker) Disconnect(id string) bool {
	b.mu.Lock()
	c := b.clients[id]
	b.mu.Unlock()
	if c == nil {
		return false
	}
	c.with(func(ba *conn.Batch) { c.dismiss(mqtt.AdministrativeAction, ba) })
	return true
}

// DeleteSession ends a client's session, wherever it is, and closes its connection. It blocks until
// the log has that.
func (b *Broker) DeleteSession(ctx context.Context, id string) error {
	r, err := b.order(ctx, &fsmpb.Command{Op: &fsmpb.Command_DeleteSession{DeleteSession: &fsmpb.DeleteSession{ClientId: id}}})
	if err == nil && r.Code == fsm.NotFound {
		err = ErrUnknownClient
	}
	return err
}

// Publish publishes a message as the node itself, by the log, and tells whether anybody subscribes to
// its topic. It blocks until the log has it.
func (b *Broker) Publish(ctx context.Context, topic string, payload []byte, qos byte, retain bool) (matched bool, err error) {
	r, err := b.order(ctx, &fsmpb.Command{Op: &fsmpb.Command_Publish{Publish: &fsmpb.Publish{
		Topic: topic, Payload: payload, Qos: uint32(qos), Retain: retain,
	}}})
	if err == nil && r.Code == fsm.Invalid {
		err = ErrRefused
	}
	return r.Code == fsm.OK, err
}

// ChangeAccess changes users, roles, bans and the like. It blocks until this node has applied that; why
// the log refused it is in the result.
func (b *Broker) ChangeAccess(ctx context.Context, c *fsmpb.ChangeAccess) (fsm.Result, error) {
	return b.order(ctx, &fsmpb.Command{Op: &fsmpb.Command_ChangeAccess{ChangeAccess: c}})
}

func (b *Broker) order(ctx context.Context, cmd *fsmpb.Command) (fsm.Result, error) {
	type outcome struct {
		r   fsm.Result
		err error
	}
	done := make(chan outcome, 1)
	b.cluster.Propose(cmd, func(r fsm.Result, err error) { done <- outcome{r, err} })
	select {
	case o := <-done:
		return o.r, o.err
	case <-ctx.Done():
		return fsm.Result{}, ctx.Err()
	}
}

// Road is the road that a publish to a topic would take from here, and why.
func (b *Broker) Road(topic string, qos byte, retain, persistent bool) (name, reason string) {
	r := b.state.Route(topic)
	if why := whyLog(&r, qos, retain, persistent); why != "" {
		return RoadNames[roadLog], why
	}
	return RoadNames[roadLink], whyLink
}

// whyLink is why a publish takes the link road, for people.
const whyLink = "no persistent session is owed it: it goes straight to the nodes with subscribers"
