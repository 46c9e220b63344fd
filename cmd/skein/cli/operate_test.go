package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

func (fake) CordonNode(_ context.Context, req *adminpb.CordonNodeRequest) (*adminpb.CordonNodeResponse, error) {
	return &adminpb.CordonNodeResponse{Changed: req.Node == "node1"}, nil
}

func (fake) Snapshot(_ context.Context, req *adminpb.SnapshotRequest) (*adminpb.SnapshotResponse, error) {
	return &adminpb.SnapshotResponse{Node: orElse(req.Node, "node1"), Index: 99}, nil
}

func (fake) TransferLeader(_ context.Context, req *adminpb.TransferLeaderRequest) (*adminpb.TransferLeaderResponse, error) {
	if req.Node == "" {
		return nil, status.Error(codes.Unimplemented, "unknown method TransferLeader")
	}
	return &adminpb.TransferLeaderResponse{Leader: req.Node}, nil
}

func (fake) Rebalance(req *adminpb.RebalanceRequest, s grpc.ServerStreamingServer[adminpb.RebalanceProgress]) error {
	for _, p := range []*adminpb.RebalanceProgress{
		{Node: "node2", Clients: 10, Share: 20, Done: true},
		{Node: "node1", Clients: 30, Share: 20, Total: 10, Left: 5},
		{Node: "node1", Clients: 30, Share: 20, Total: 10, Done: true},
	} {
		if err := s.Send(p); err != nil {
			return err
		}
	}
	return nil
}

func (fake) ListSettings(_ context.Context, req *adminpb.ListSettingsRequest) (*adminpb.ListSettingsResponse, error) {
	return &adminpb.ListSettingsResponse{Settings: []*adminpb.Setting{
		{Node: "node1", Key: "log.level", Value: "debug", Configured: "info", Changeable: true, Doc: "What is logged."},
		{Node: "node1", Key: "mqtt.max_qos", Value: "2", Configured: "2", Doc: "The highest."},
	}}, nil
}

func (fake) SetSetting(_ context.Context, req *adminpb.SetSettingRequest) (*adminpb.SetSettingResponse, error) {
	if req.Key != "log.level" {
		return nil, status.Errorf(codes.InvalidArgument, "%s can't be changed", req.Key)
	}
	res := &adminpb.SetSettingResponse{Settings: []*adminpb.Setting{{Node: "node1", Key: req.Key, Value: req.Value}}}
	if req.Value == "warn" {
		res.Missing = []*adminpb.Missing{{Node: "node2", Reason: "no answer in time"}}
	}
	return res, nil
}

// backups is a server that gives a state and takes it back.
type backups struct {
	adminpb.UnimplementedAdminServer
	data  []byte
	cut   bool
	wrong bool
	got   []byte
	head  *adminpb.RestoreHeader
}

func (b *backups) Backup(_ *adminpb.BackupRequest, s grpc.ServerStreamingServer[adminpb.BackupChunk]) error {
	sum := sha256.Sum256(b.data)
	if b.wrong {
		sum[0]++
	}
	if err := s.Send(&adminpb.BackupChunk{Node: "node1", Index: 42, Time: clock.UnixMilli(), Data: b.data[:10]}); err != nil || b.cut {
		return err
	}
	if err := s.Send(&adminpb.BackupChunk{Data: b.data[10:]}); err != nil {
		return err
	}
	return s.Send(&adminpb.BackupChunk{Last: true, Size: uint64(len(b.data)), Sha256: sum[:]})
}

func (b *backups) Restore(s grpc.ClientStreamingServer[adminpb.RestoreChunk, adminpb.RestoreResponse]) error {
	b.got, b.head = nil, nil
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return s.SendAndClose(&adminpb.RestoreResponse{BackupIndex: 42, Sessions: 3, Retained: 2, Queued: 5, ReplacedSessions: 1})
		}
		if err != nil {
			return err
		}
		if m.Header != nil {
			b.head = m.Header
			if !m.Header.Force {
				return status.Error(codes.FailedPrecondition, "the state that there is would be lost")
			}
		}
		b.got = append(b.got, m.Data...)
	}
}

// A file that backup wrote is what restore reads; what is not whole gets no name.
func TestBackupFile(t *testing.T) {
	b := &backups{data: bytes.Repeat([]byte("0123456789"), 100_000)}
	server := serveAdmin(t, b)
	path := filepath.Join(t.TempDir(), "b")
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		err := Execute(t.Context(), Env{Out: &out, Err: &out}, append(args, "--server", server))
		return out.String(), err
	}
	for _, fault := range []*bool{&b.cut, &b.wrong} {
		*fault = true
		if _, err := run("backup", path); err == nil {
			t.Error("a bad backup was taken for a good one")
		}
		*fault = false
	}
	if list, _ := os.ReadDir(filepath.Dir(path)); len(list) != 0 {
		t.Errorf("left behind: %v", list)
	}
	if out, err := run("backup", path); err != nil || !strings.Contains(out, "index 42, 1000000 bytes, by node1") {
		t.Fatalf("%s %v", out, err)
	}
	if out, err := run("restore", path); err == nil || !strings.Contains(err.Error(), "would be lost") {
		t.Errorf("%s %v", out, err)
	}
	out, err := run("restore", path, "--force")
	if want := fmt.Sprintf("%s: index 42, 3 sessions with 5 queued messages, 2 retained messages\n1 sessions and 0 retained messages of the cluster replaced\n", path); err != nil || out != want {
		t.Errorf("%s %v", out, err)
	}
	if !bytes.Equal(b.got, b.data) || b.head.Size != 1_000_000 || b.head.DryRun {
		t.Errorf("%d bytes came back, %v", len(b.got), b.head)
	}
	if _, err := run("restore", path, "--force", "--dry-run"); err != nil || !b.head.DryRun {
		t.Errorf("%v %v", b.head, err)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run("restore", other); err == nil || !strings.Contains(err.Error(), "is no backup") {
		t.Error(err)
	}
}

// turning is a list of clients that is another one each time that it is asked for.
type turning struct {
	adminpb.UnimplementedAdminServer
	turn  int
	after func()
}

func (s *turning) ListClients(context.Context, *adminpb.ListClientsRequest) (*adminpb.ListClientsResponse, error) {
	s.turn++
	a := &adminpb.Client{Id: "a", Node: "node1", Connected: ago(time.Minute)}
	switch s.turn {
	case 1, 2:
		return &adminpb.ListClientsResponse{Clients: []*adminpb.Client{a}}, nil
	case 3:
		a.Queued = 7
		return &adminpb.ListClientsResponse{Clients: []*adminpb.Client{a, {Id: "b", Node: "node2"}}}, nil
	}
	if s.turn == 5 {
		s.after()
	}
	return &adminpb.ListClientsResponse{Clients: []*adminpb.Client{{Id: "b", Node: "node2"}}}, nil
}

// -w prints what is there, and afterwards what changes, each once.
func TestWatchList(t *testing.T) {
	now = func() time.Time { return clock }
	defer func() { now = time.Now }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	server := serveAdmin(t, &turning{after: cancel})
	var out bytes.Buffer
	err := Execute(ctx, Env{Out: &out, Err: &out}, []string{"get", "clients", "-w", "--interval", "100ms", "--server", server})
	want := `ID   NODE    ADDRESS   USER   PROTOCOL   PERSISTENT   SUBSCRIPTIONS   INFLIGHT   QUEUED   CONNECTED
a    node1   -         -      -          no           0               0          0        1m
a    node1   -         -      -          no           0               0          7        1m
b    node2   -         -      -          no           0               0          0        -
client/a is gone
`
	if out.String() != want || err == nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}
