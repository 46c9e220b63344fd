package admin

import (
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

func restore(t *testing.T, c adminpb.AdminClient, h *adminpb.RestoreHeader, data []byte) (*adminpb.RestoreResponse, error) {
	t.Helper()
	stream, err := c.Restore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&adminpb.RestoreChunk{Header: h})
	for part := range slices.Chunk(data, 100_000) {
		if stream.Send(&adminpb.RestoreChunk{Data: part}) != nil {
			break // the answer says why
		}
	}
	return stream.CloseAndRecv()
}

// What a backup streams can be restored through any node; what is cut, changed or not a backup is refused.
func TestBackupAndRestore(t *testing.T) {
	w := &world{}
	clients := cluster(t, w, &node{}, &node{})
	stream, err := clients[1].Backup(t.Context(), &adminpb.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var data []byte
	var first, last *adminpb.BackupChunk
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = m
		}
		last = m
		data = append(data, m.Data...)
	}
	sum := sha256.Sum256(data)
	if first.Index != 42 || first.Time != 43 || first.Node != "node2" || !last.Last || last.Size != uint64(len(data)) || string(last.Sha256) != string(sum[:]) {
		t.Errorf("first %v, last %v, %d bytes", first.Index, last, len(data))
	}
	good := &adminpb.RestoreHeader{Size: last.Size, Sha256: last.Sha256, Force: true}
	if res, err := restore(t, clients[1], good, data); err != nil || res.BackupIndex != 42 {
		t.Errorf("%v %v", res, err)
	}
	bad := sha256.Sum256([]byte("bad"))
	for _, test := range []struct {
		h    *adminpb.RestoreHeader
		data []byte
		want codes.Code
	}{
		{nil, nil, codes.InvalidArgument},
		{good, data[1:], codes.InvalidArgument},
		{good, append(slices.Clone(data), 'x'), codes.InvalidArgument},
		{&adminpb.RestoreHeader{Size: last.Size, Sha256: make([]byte, 32), Force: true}, data, codes.InvalidArgument},
		{&adminpb.RestoreHeader{Size: 3, Sha256: bad[:], Force: true}, []byte("bad"), codes.InvalidArgument},
		{&adminpb.RestoreHeader{Size: last.Size, Sha256: last.Sha256}, data, codes.FailedPrecondition},
		{&adminpb.RestoreHeader{Size: last.Size, Sha256: last.Sha256, Force: true, DryRun: true}, data, codes.OK},
	} {
		for _, c := range clients {
			if _, err := restore(t, c, test.h, test.data); status.Code(err) != test.want {
				t.Errorf("%v: %v", test.h, err)
			}
		}
	}
	if !slices.Equal(w.removed, []string{"node1 restores 600000 bytes"}) {
		t.Errorf("%q", w.removed)
	}
}

// A dry run tells the same and changes nothing.
func TestDryRuns(t *testing.T) {
	w := &world{sessions: []*adminpb.Session{{Id: "s"}}, retained: []*adminpb.Retained{{Topic: "r/1"}}}
	one, two := &node{}, &node{clients: []*adminpb.Client{{Id: "there"}}}
	for _, c := range cluster(t, w, one, two) {
		if res, err := c.DisconnectClient(t.Context(), &adminpb.DisconnectClientRequest{Id: "there", DryRun: true}); err != nil || res.Node != "node2" {
			t.Errorf("disconnect: %v %v", res, err)
		}
		if _, err := c.DeleteSession(t.Context(), &adminpb.DeleteSessionRequest{Id: "s", DryRun: true}); err != nil {
			t.Errorf("delete: %v", err)
		}
		if _, err := c.DeleteSession(t.Context(), &adminpb.DeleteSessionRequest{Id: "x", DryRun: true}); status.Code(err) != codes.NotFound {
			t.Errorf("delete: %v", err)
		}
		if res, err := c.DeleteRetained(t.Context(), &adminpb.DeleteRetainedRequest{Filter: "#", DryRun: true}); err != nil || res.Deleted != 1 {
			t.Errorf("retained: %v %v", res, err)
		}
		if _, err := c.RemoveNode(t.Context(), &adminpb.RemoveNodeRequest{Node: "node2", Force: true, DryRun: true}); err != nil {
			t.Errorf("remove: %v", err)
		}
		if _, err := c.RemoveNode(t.Context(), &adminpb.RemoveNodeRequest{Node: "node2", DryRun: true}); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("remove: %v", err)
		}
		if res, err := c.TransferLeader(t.Context(), &adminpb.TransferLeaderRequest{Node: "node1", DryRun: true}); err != nil || res.Leader != "node1" {
			t.Errorf("transfer: %v %v", res, err)
		}
		drain, err := c.DrainNode(t.Context(), &adminpb.DrainNodeRequest{Node: "node2", DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		if p, err := drain.Recv(); err != nil || !p.Done || p.Total != 1 {
			t.Errorf("drain: %v %v", p, err)
		}
		if res, err := c.CordonNode(t.Context(), &adminpb.CordonNodeRequest{Node: "node2", On: true, DryRun: true}); err != nil || !res.Changed {
			t.Errorf("cordon: %v %v", res, err)
		}
	}
	if len(w.removed) > 0 || two.drains || two.cordoned {
		t.Errorf("something was changed: %q", w.removed)
	}
}

func TestCordonSettingsSnapshot(t *testing.T) {
	one, two := &node{}, &node{}
	for i, c := range cluster(t, &world{}, one, two) {
		if res, err := c.CordonNode(t.Context(), &adminpb.CordonNodeRequest{Node: "node2", On: i == 0}); err != nil || !res.Changed || two.cordoned != (i == 0) {
			t.Errorf("cordon: %v %v", res, err)
		}
		if res, err := c.Snapshot(t.Context(), &adminpb.SnapshotRequest{Node: "node2"}); err != nil || res.Node != "node2" || res.Index != 77 {
			t.Errorf("snapshot: %v %v", res, err)
		}
		set := func(req *adminpb.SetSettingRequest, want codes.Code) {
			t.Helper()
			if _, err := c.SetSetting(t.Context(), req); status.Code(err) != want {
				t.Errorf("%v: %v", req, err)
			}
		}
		set(&adminpb.SetSettingRequest{Key: "a.one", Value: "all"}, codes.OK)
		set(&adminpb.SetSettingRequest{Key: "a.one", Value: "two", Node: "node2"}, codes.OK)
		set(&adminpb.SetSettingRequest{Key: "a.one", Value: "dry", DryRun: true}, codes.OK)
		set(&adminpb.SetSettingRequest{Key: "b.two", Value: "x", Node: "node2"}, codes.InvalidArgument)
		set(&adminpb.SetSettingRequest{Key: "a.one", Value: "x", Node: "node9"}, codes.NotFound)
		res, err := c.ListSettings(t.Context(), &adminpb.ListSettingsRequest{Prefix: "a."})
		if err != nil || len(res.Settings) != 2 || res.Settings[0].Value != "all" || res.Settings[1].Value != "two" || res.Settings[1].Node != "node2" {
			t.Errorf("%v %v", res, err)
		}
	}
}

// Who has more than a fair share lets the rest of it go; within the tolerance nobody does.
func TestRebalance(t *testing.T) {
	many := func(n int) (list []*adminpb.Client) {
		for range n {
			list = append(list, &adminpb.Client{})
		}
		return list
	}
	one, two, three := &node{clients: many(30)}, &node{clients: many(3)}, &node{clients: many(3)}
	clients := cluster(t, &world{}, one, two, three)
	run := func(c adminpb.AdminClient, req *adminpb.RebalanceRequest) (total uint64) {
		t.Helper()
		stream, err := c.Rebalance(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		done := 0
		for {
			p, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				if done != 3 {
					t.Errorf("%d nodes are done", done)
				}
				return total
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.Share != 12 {
				t.Errorf("%v", p)
			}
			if p.Done {
				done++
				total += p.Total
			}
		}
	}
	if total := run(clients[1], &adminpb.RebalanceRequest{DryRun: true}); total != 18 || one.shed != 0 {
		t.Errorf("a dry run: %d, %d gone", total, one.shed)
	}
	if total := run(clients[1], &adminpb.RebalanceRequest{}); total != 18 || one.shed != 18 || two.shed+three.shed != 0 {
		t.Errorf("%d, gone %d, %d, %d", total, one.shed, two.shed, three.shed)
	}
	if total := run(clients[0], &adminpb.RebalanceRequest{TolerancePercent: 200}); total != 0 {
		t.Errorf("within the tolerance: %d", total)
	}
}
