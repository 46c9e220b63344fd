package run

import (
	"context"

	"github.com/skein-mqtt/skein/node/auth"
	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// access is the access rules as the broker asks for them.
type access struct{ *auth.Rules }

// Authenticate implements broker.Access.
func (a access) Authenticate(ctx context.Context, p *mqtt.Connect, id broker.Identity) mqtt.ReasonCode {
	switch a.Rules.Authenticate(ctx, &auth.Attempt{
		ClientID: p.ClientID, Username: p.Username, HasUsername: p.HasUsername, Password: p.Password, Verified: id.Verified,
		Anonymous: id.Policy != nil && id.Policy.Anonymous != nil && *id.Policy.Anonymous,
	}) {
	case auth.Allowed:
		return mqtt.Success
	case auth.NoLogin:
		return mqtt.NotAuthorized
	}
	return mqtt.BadUserNameOrPassword
}
