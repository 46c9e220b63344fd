package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/proto"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// An entry of the raft log is an envelope around a batch or a system command:
//
//	byte  0     format, 1
//	byte  1     kind: 1 batch, 2 system
//	bytes 2-3   group, 0: reserved
//	bytes 4-7   CRC-32C of all the other bytes
//	bytes 8-15  the leader's stamp, ms since 1970
//	bytes 16-   payload
//
// The stamp stands outside of the payload because a batch is kept as its origin made it, byte for
// byte, while each leader that appends it stamps it anew.
const (
	entryFormat = 1
	entryHeader = 16

	kindBatch  = 1
	kindSystem = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Errors of Apply. Each must stop the node: to skip the entry would let the replicas diverge.
var (
	// ErrCorrupt: the entry's bytes are not what was written.
	ErrCorrupt = errors.New("fsm: log entry is corrupt")
	// ErrNewer: the entry holds what only a newer binary knows.
	ErrNewer = errors.New("fsm: log entry needs a newer binary")
)

// EncodeBatch appends the entry of a marshalled fsmpb.Batch to dst.
func EncodeBatch(dst []byte, stamp int64, batch []byte) []byte {
	at := len(dst)
	dst = appendHeader(dst, kindBatch, stamp)
	dst = append(dst, batch...)
	return seal(dst, at)
}

// EncodeSystem appends the entry of a system command to dst.
func EncodeSystem(dst []byte, stamp int64, s *fsmpb.System) []byte {
	at := len(dst)
	dst = appendHeader(dst, kindSystem, stamp)
	body, err := s.MarshalVT()
	if err != nil { // only for strings that are not UTF-8, which the generated code does not check
		panic(fmt.Sprintf("fsm: marshal system command: %v", err))
	}
	dst = append(dst, body...)
	return seal(dst, at)
}

func appendHeader(dst []byte, kind byte, stamp int64) []byte {
	dst = append(dst, entryFormat, kind, 0, 0, 0, 0, 0, 0)
	return binary.BigEndian.AppendUint64(dst, uint64(stamp))
}

func seal(dst []byte, at int) []byte {
	binary.BigEndian.PutUint32(dst[at+4:], checksum(dst[at:]))
	return dst
}

func checksum(entry []byte) uint32 {
	sum := crc32.Update(0, castagnoli, entry[:4])
	return crc32.Update(sum, castagnoli, entry[8:])
}

// open checks the envelope. payload aliases entry.
func open(entry []byte) (kind byte, stamp int64, payload []byte, err error) {
	if len(entry) < entryHeader {
		return 0, 0, nil, fmt.Errorf("%w: %d bytes", ErrCorrupt, len(entry))
	}
	if entry[0] != entryFormat {
		return 0, 0, nil, fmt.Errorf("%w: format %d", ErrNewer, entry[0])
	}
	if sum := binary.BigEndian.Uint32(entry[4:]); sum != checksum(entry) {
		return 0, 0, nil, fmt.Errorf("%w: checksum %08x, want %08x", ErrCorrupt, checksum(entry), sum)
	}
	if group := binary.BigEndian.Uint16(entry[2:]); group != 0 {
		return 0, 0, nil, fmt.Errorf("%w: group %d", ErrNewer, group)
	}
	if entry[1] != kindBatch && entry[1] != kindSystem {
		return 0, 0, nil, fmt.Errorf("%w: kind %d", ErrNewer, entry[1])
	}
	return entry[1], int64(binary.BigEndian.Uint64(entry[8:])), entry[entryHeader:], nil
}

// decodeBatch fills b, whose strings and slices alias payload. All of it is checked before any of
// it is applied, so that an error leaves the state as it was.
func decodeBatch(b *fsmpb.Batch, payload []byte) error {
	if err := b.UnmarshalVTUnsafe(payload); err != nil {
		return fmt.Errorf("%w: batch: %w", ErrCorrupt, err)
	}
	if hasUnknown(b) {
		return fmt.Errorf("%w: batch of %q has unknown fields", ErrNewer, b.Origin)
	}
	for i, cmd := range b.Commands {
		if !known(cmd) {
			return fmt.Errorf("%w: command %d of %q is unknown", ErrNewer, b.First+uint64(i), b.Origin)
		}
	}
	return nil
}

func decodeSystem(s *fsmpb.System, payload []byte) error {
	if err := s.UnmarshalVTUnsafe(payload); err != nil {
		return fmt.Errorf("%w: system command: %w", ErrCorrupt, err)
	}
	ok := !hasUnknown(s)
	switch op := s.Op.(type) {
	case *fsmpb.System_NodeUp:
		ok = ok && !hasUnknown(op.NodeUp)
	case *fsmpb.System_NodeDown:
		ok = ok && !hasUnknown(op.NodeDown)
	case *fsmpb.System_Reap:
		ok = ok && !hasUnknown(op.Reap)
	case *fsmpb.System_Tick:
		ok = ok && !hasUnknown(op.Tick)
	case *fsmpb.System_NodeRemoved:
		ok = ok && !hasUnknown(op.NodeRemoved)
	default:
		ok = false
	}
	if !ok {
		return fmt.Errorf("%w: unknown system command", ErrNewer)
	}
	return nil
}

// hasUnknown tells whether a newer binary wrote fields that this one would ignore: replicas of
// both kinds would then disagree.
func hasUnknown(m proto.Message) bool {
	return len(m.ProtoReflect().GetUnknown()) != 0
}

func known(cmd *fsmpb.Command) bool {
	if hasUnknown(cmd) {
		return false
	}
	switch op := cmd.Op.(type) {
	case *fsmpb.Command_Connect:
		c := op.Connect
		return !hasUnknown(c) && (c.Limits == nil || !hasUnknown(c.Limits)) && (c.Will == nil || !hasUnknown(c.Will))
	case *fsmpb.Command_Disconnect:
		return !hasUnknown(op.Disconnect) && (op.Disconnect.Progress == nil || knownProgress(op.Disconnect.Progress))
	case *fsmpb.Command_Subscribe:
		return !hasUnknown(op.Subscribe) && knownSubscriptions(op.Subscribe.Subscriptions)
	case *fsmpb.Command_Unsubscribe:
		return !hasUnknown(op.Unsubscribe) && knownSubscriptions(op.Unsubscribe.Subscriptions)
	case *fsmpb.Command_Interest:
		return !hasUnknown(op.Interest)
	case *fsmpb.Command_Publish:
		return !hasUnknown(op.Publish)
	case *fsmpb.Command_Release:
		return !hasUnknown(op.Release)
	case *fsmpb.Command_Progress:
		return knownProgress(op.Progress)
	case *fsmpb.Command_Relay:
		return !hasUnknown(op.Relay)
	case *fsmpb.Command_SharedDone:
		return !hasUnknown(op.SharedDone)
	case *fsmpb.Command_DeleteSession:
		return !hasUnknown(op.DeleteSession)
	case *fsmpb.Command_ChangeAccess:
		return knownAccess(op.ChangeAccess)
	}
	return false
}

func knownAccess(c *fsmpb.ChangeAccess) bool {
	ok := !hasUnknown(c)
	for _, one := range c.Changes {
		ok = ok && !hasUnknown(one)
		switch op := one.Op.(type) {
		case *fsmpb.AccessChange_PutUser:
			ok = ok && !hasUnknown(op.PutUser) && knownGrants(op.PutUser.Roles) && knownGrants(op.PutUser.Groups)
		case *fsmpb.AccessChange_PutGroup:
			ok = ok && !hasUnknown(op.PutGroup) && knownGrants(op.PutGroup.Roles)
		case *fsmpb.AccessChange_PutRole:
			ok = ok && !hasUnknown(op.PutRole)
			for _, rule := range op.PutRole.Rules {
				ok = ok && !hasUnknown(rule)
			}
		case *fsmpb.AccessChange_PutBan:
			ok = ok && !hasUnknown(op.PutBan) && (op.PutBan.Key == nil || !hasUnknown(op.PutBan.Key))
		case *fsmpb.AccessChange_PutDefaults:
			ok = ok && !hasUnknown(op.PutDefaults)
		case *fsmpb.AccessChange_DeleteBan:
			ok = ok && !hasUnknown(op.DeleteBan)
		case *fsmpb.AccessChange_DeleteUser, *fsmpb.AccessChange_DeleteGroup, *fsmpb.AccessChange_DeleteRole:
		default:
			return false
		}
	}
	return ok
}

func knownGrants(list []*fsmpb.Grant) bool {
	for _, g := range list {
		if hasUnknown(g) {
			return false
		}
	}
	return true
}

func knownProgress(p *fsmpb.Progress) bool {
	for _, d := range p.Drops {
		if hasUnknown(d) {
			return false
		}
	}
	return !hasUnknown(p)
}

func knownSubscriptions(subs []*fsmpb.Subscription) bool {
	for _, s := range subs {
		if hasUnknown(s) {
			return false
		}
	}
	return true
}
