package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

// backupHeader is what a backup file begins with: JSON, filled up with blanks to headerSize, so that it can be
// written last. The state follows.
type backupHeader struct {
	Format string    `json:"format"`
	Node   string    `json:"node"`
	Index  uint64    `json:"index"`
	Time   time.Time `json:"time"` // on the log's clock
	Size   uint64    `json:"size"`
	SHA256 []byte    `json:"sha256"`
}

const (
	backupFormat = "skein-backup/1"
	headerSize   = 1024
)

func newBackup(a *asker) *cobra.Command {
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Write the replicated state to a file, while the cluster serves", Args: arguments("FILE"),
		Long: "Write sessions with their subscriptions, queues and half-finished exchanges, retained messages and wills\n" +
			"to a file, as they stand at one index of the log: all that was acknowledged before is in it. The cluster\n" +
			"goes on meanwhile. The file is there under its name only when it is whole and on the disk.",
	}
	a.flags(cmd)
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		ctx, stop := interruptible(cmd) // the unfinished file goes
		defer stop()
		return a.ask(func(c adminpb.AdminClient) error {
			h, err := backup(ctx, c, args[0])
			if err == nil {
				fmt.Fprintf(a.env.Out, "%s: the state at index %d, %d bytes, by %s\n", args[0], h.Index, h.Size, h.Node)
			}
			return err
		})
	})
	return cmd
}

func backup(ctx context.Context, c adminpb.AdminClient, path string) (h backupHeader, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Backup(ctx, &adminpb.BackupRequest{})
	if err != nil {
		return h, err
	}
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.part")
	if err != nil {
		return h, err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(file.Name())
		}
	}()
	if _, err := file.Write(bytes.Repeat([]byte(" "), headerSize)); err != nil {
		return h, err
	}
	h.Format = backupFormat
	sum := sha256.New()
	for size := uint64(0); ; {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return h, errors.New("the node stopped before the backup was whole")
		}
		if err != nil {
			return h, err
		}
		if m.Node != "" {
			h.Node, h.Index, h.Time = m.Node, m.Index, time.UnixMilli(m.Time).UTC()
		}
		if _, err := file.Write(m.Data); err != nil {
			return h, err
		}
		sum.Write(m.Data)
		size += uint64(len(m.Data))
		if !m.Last {
			continue
		}
		if m.Size != size || !bytes.Equal(m.Sha256, sum.Sum(nil)) {
			return h, errors.New("the backup did not come through as it was sent: try again")
		}
		h.Size, h.SHA256 = m.Size, m.Sha256
		return h, h.seal(file, path)
	}
}

// seal writes the header and gives the file its name.
func (h *backupHeader) seal(file *os.File, path string) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if _, err := file.WriteAt(text, 0); err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func newRestore(a *asker) *cobra.Command {
	var force, dryRun bool
	var limit time.Duration
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Replace the replicated state by a backup's", Args: arguments("FILE"),
		Long: "Replace the replicated state of the cluster, whatever its size, by the one that a backup holds. Every client\n" +
			"is disconnected and finds its session as it was when the backup was made. Clients that were connected then\n" +
			"count as if their node had died: wills are published, sessions begin to expire. The time since the backup\n" +
			"does not count for sessions that were waiting. What the cluster has now is lost: with --force alone.",
	}
	a.flags(cmd)
	fs := cmd.Flags()
	fs.BoolVar(&force, "force", false, "also when the cluster has sessions or retained messages, which are lost")
	fs.DurationVar(&limit, "timeout", 10*time.Minute, "how long it may take")
	dryRunFlag(fs, &dryRun)
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		return a.ask(func(c adminpb.AdminClient) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			res, err := restore(ctx, c, args[0], force, dryRun)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.env.Out, "%s: index %d, %d sessions with %d queued messages, %d retained messages\n",
				args[0], res.BackupIndex, res.Sessions, res.Queued, res.Retained)
			what := "replaced"
			if dryRun {
				what = "would be replaced (dry run)"
			}
			fmt.Fprintf(a.env.Out, "%d sessions and %d retained messages of the cluster %s\n", res.ReplacedSessions, res.ReplacedRetained, what)
			return nil
		})
	})
	return cmd
}

// open reads the header of a backup file, and leaves the reader at its data.
func openBackup(path string) (*os.File, backupHeader, error) {
	var h backupHeader
	file, err := os.Open(path)
	if err != nil {
		return nil, h, err
	}
	text := make([]byte, headerSize)
	if _, err := io.ReadFull(file, text); err != nil || json.Unmarshal(text, &h) != nil || h.Format != backupFormat {
		_ = file.Close()
		return nil, h, fmt.Errorf("%s is no backup that 'skein backup' has written", path)
	}
	return file, h, nil
}

func restore(ctx context.Context, c adminpb.AdminClient, path string, force, dryRun bool) (*adminpb.RestoreResponse, error) {
	file, h, err := openBackup(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	stream, err := c.Restore(ctx)
	if err != nil {
		return nil, err
	}
	m := &adminpb.RestoreChunk{Header: &adminpb.RestoreHeader{Size: h.Size, Sha256: h.SHA256, Force: force, DryRun: dryRun}}
	buf := make([]byte, 256<<10)
	for stream.Send(m) == nil { // what the answer is, if that fails, says why
		n, err := file.Read(buf)
		if n > 0 {
			m = &adminpb.RestoreChunk{Data: buf[:n]}
			continue
		}
		if !errors.Is(err, io.EOF) {
			return nil, err
		}
		break
	}
	return stream.CloseAndRecv()
}

func newSnapshot(a *asker) *cobra.Command {
	req := &adminpb.SnapshotRequest{}
	cmd := &cobra.Command{
		Use: "snapshot [NODE]", Short: "Have a node write a snapshot of its state and shorten its log", Args: arguments("[NODE]"),
		Long: "Have a node, the one that is asked if none is named, write a snapshot of its state into its data folder and\n" +
			"drop the log before the last one, as it does by itself when the log has grown by cluster.snapshot_bytes.",
	}
	a.flags(cmd)
	dryRunFlag(cmd.Flags(), &req.DryRun)
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			req.Node = args[0]
		}
		return a.once(cmd.Context(), func(ctx context.Context, c adminpb.AdminClient) error {
			res, err := c.Snapshot(ctx, req)
			if err == nil {
				fmt.Fprintf(a.env.Out, "node/%s %s a snapshot up to index %d%s\n", res.Node, would(req.DryRun, "has written", "would write"), res.Index, dry(req.DryRun))
			}
			return err
		})
	})
	return cmd
}
