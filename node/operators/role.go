package operators

import "fmt"

// Role is what an operator may do; a higher one may do all that the lower may.
type Role uint8

// The roles.
const (
	// Nobody may ask whether the node is alive and ready, no more.
	Nobody Role = iota
	// View may look at everything: metrics, clients, sessions, messages that are kept.
	View
	// Operate may also move and end clients and sessions, drain nodes, publish.
	Operate
	// Admin may do everything: remove nodes, change who may do what.
	Admin
)

var roleNames = [...]string{"none", "view", "operate", "admin"}

// String is the role's word in configurations and certificates.
func (r Role) String() string { return roleNames[r] }

// ParseRole reads a role's word.
func ParseRole(text string) (Role, error) {
	for i, name := range roleNames {
		if name == text {
			return Role(i), nil
		}
	}
	return Nobody, fmt.Errorf("%q is no role: use view, operate or admin (or none)", text)
}
