// Package certname is how a certificate of a cluster says whose it is: a URI among its alternative names,
//
//	skein:CLUSTER/node/NAME              a node
//	skein:CLUSTER/operator/NAME/ROLE     somebody who gives orders
//
// with each part escaped as in a path. It owns that form. It must never decide who is let in: a name is worth
// what the authority is that signed it.
package certname

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

const scheme = "skein"

// The kinds of bearers.
const (
	node     = "node"
	operator = "operator"
)

// Name is what a certificate says.
type Name struct {
	Cluster string
	Node    string // empty: an operator's
	// Operator and Role are an operator's, else empty. The role is a word that the reader has to know.
	Operator, Role string
}

// Errors of Of.
var (
	// ErrNone: no name of this form is in the certificate.
	ErrNone = errors.New("it names no cluster: it was not made by 'skein certs'")
	// ErrMalformed: there are several, or one that can't be read.
	ErrMalformed = errors.New("its name of the form skein:CLUSTER/… can't be read")
)

// Node is a node's name.
func Node(cluster, name string) Name { return Name{Cluster: cluster, Node: name} }

// Operator is an operator's name.
func Operator(cluster, name, role string) Name {
	return Name{Cluster: cluster, Operator: name, Role: role}
}

// URI is the form that goes into a certificate.
func (n Name) URI() *url.URL {
	parts := []string{n.Cluster, node, n.Node}
	if n.Node == "" {
		parts = []string{n.Cluster, operator, n.Operator, n.Role}
	}
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return &url.URL{Scheme: scheme, Opaque: strings.Join(parts, "/")}
}

// String is for messages.
func (n Name) String() string { return n.URI().String() }

// Of reads the one name in a certificate: ErrNone, ErrMalformed.
func Of(c *x509.Certificate) (Name, error) {
	var found *Name
	for _, u := range c.URIs {
		if u.Scheme != scheme {
			continue
		}
		n, err := parse(u.Opaque)
		if err != nil {
			return Name{}, err
		}
		if found != nil {
			return Name{}, fmt.Errorf("%w: there are two", ErrMalformed)
		}
		found = &n
	}
	if found == nil {
		return Name{}, ErrNone
	}
	return *found, nil
}

func parse(text string) (Name, error) {
	parts := strings.Split(text, "/")
	for i := range parts {
		part, err := url.PathUnescape(parts[i])
		if err != nil || part == "" {
			return Name{}, fmt.Errorf("%w: %q", ErrMalformed, text)
		}
		parts[i] = part
	}
	switch {
	case len(parts) == 3 && parts[1] == node:
		return Node(parts[0], parts[2]), nil
	case len(parts) == 4 && parts[1] == operator:
		return Operator(parts[0], parts[2], parts[3]), nil
	}
	return Name{}, fmt.Errorf("%w: %q", ErrMalformed, text)
}
