// Package cluster makes one node a part of the cluster, or a cluster of one: what the broker and the
// operator's service use of the other nodes goes through it.
//
// It owns the life of this node's incarnations (announced, serving, ended), who is a member of the
// log and how it becomes one (founding, joining, promotion, removal), and it joins the parts below it:
// replica (the log), lease (who may serve), link (publishes between nodes), membership (gossip) and
// peer (connections).
//
// It must never know what an MQTT session is, never acknowledge or admit anything itself, and never
// let gossip change the voters of the log.
package cluster
