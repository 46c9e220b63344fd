// Package clusterpb is the language of the nodes among themselves: the gRPC service Peer, generated from
// cluster.proto by scripts/generate, and the frames of the links, which are encoded by hand because there
// is one for every publish and node.
//
// It owns how a frame looks, the handles that stand for client ids on a stream, and the bounds beyond
// which a stream is broken. It must never hold state beyond one stream's, nor know what a frame is for.
package clusterpb
