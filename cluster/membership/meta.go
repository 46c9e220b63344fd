package membership

import (
	"encoding/json"
	"fmt"
)

// Node is what a node tells about itself.
type Node struct {
	ID     string `json:"i"`
	Store  string `json:"s"` // which data folder it runs on
	Peer   string `json:"p"` // addresses as the others should use them
	MQTT   string `json:"m,omitempty"`
	Admin  string `json:"a,omitempty"`
	HTTP   string `json:"h,omitempty"`
	Exists bool   `json:"x,omitempty"` // its data folder holds a cluster's state
	Expect int    `json:"e,omitempty"` // with how many blank nodes it would found one
	// Founder is the node id that it wants to found the cluster; empty: it has not chosen.
	Founder string `json:"f,omitempty"`
	Gossip  string `json:"-"` // where it was heard from
}

// metaLimit is memberlist's own.
const metaLimit = 512

func (n Node) encode() ([]byte, error) {
	b, err := json.Marshal(n)
	if err != nil {
		return nil, err
	}
	if len(b) > metaLimit {
		return nil, fmt.Errorf("node id and addresses take %d bytes of gossip, more than %d: shorten them", len(b), metaLimit)
	}
	return b, nil
}

func decode(b []byte) (Node, error) {
	var n Node
	if err := json.Unmarshal(b, &n); err != nil {
		return Node{}, fmt.Errorf("notes of a node: %w", err)
	}
	if n.ID == "" {
		return Node{}, fmt.Errorf("notes of a node without its id")
	}
	return n, nil
}
