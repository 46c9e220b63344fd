package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/skein-mqtt/skein/test/chaos/disk"
)

// onDisks are faults that need disks which can fail.
var onDisks = []fault{
	{"power-one", powerOne},
	{"disk-full", diskFull},
	{"sync-fails", syncFails},
	{"flip-log", flipLog},
	{"flip-snapshot", flipSnapshot},
}

// power cuts the power of all nodes at once: with disks that can, what was not synced is lost.
func power(ctx context.Context, c *cluster, rng *rand.Rand) error {
	for _, n := range c.nodes {
		n.expect(true)
		n.signal(syscall.SIGKILL)
	}
	for _, n := range c.nodes {
		if err := c.kill(n); err != nil {
			return err
		}
	}
	for _, n := range c.nodes {
		if err := c.cut(n, rng); err != nil {
			return err
		}
	}
	wait(ctx, between(rng, 0, 1))
	return nil
}

// cut has a node's disk forget what was not synced. The node must not run.
func (c *cluster) cut(n *node, rng *rand.Rand) error {
	if n.disk == nil {
		return nil
	}
	before := n.disk.Stats()
	if err := n.disk.Cut(rng); err != nil {
		return err
	}
	s := n.disk.Stats()
	c.model.Node("power cut: %s has lost %d bytes and %d changes of names", n.id, s.Forgotten-before.Forgotten, s.NamesForgotten-before.NamesForgotten)
	return nil
}

func powerOne(ctx context.Context, c *cluster, rng *rand.Rand) error {
	n := c.any(rng)
	if err := c.kill(n); err != nil {
		return err
	}
	if err := c.cut(n, rng); err != nil {
		return err
	}
	wait(ctx, between(rng, 0, 3))
	return nil
}

// diskFull leaves a node without room for a while. It may end, but not without saying why; started
// again before there is room, it does not serve.
func diskFull(ctx context.Context, c *cluster, rng *rand.Rand) error {
	n := c.any(rng)
	n.expect(true)
	before := n.disk.Stats().Refused
	n.disk.Full(true)
	defer n.disk.Full(false)
	c.model.Node("%s: disk full", n.id)
	n.awaitEnd(ctx, between(rng, 1, 6))
	c.model.Node("%s: %d writes were refused", n.id, n.disk.Stats().Refused-before)
	if n.running() {
		n.disk.Full(false)
		n.awaitEnd(ctx, time.Second) // of the last refused write it may just be hearing
		if n.running() {
			n.expect(false)
			return nil
		}
	}
	if err := n.endedWell("free or repair the disk"); err != nil {
		return err
	}
	if n.disk.Full(true); rng.IntN(2) == 0 {
		if err := c.start(n); err != nil {
			return err
		}
		n.expect(true)
		n.awaitEnd(ctx, 5*time.Second)
		if n.running() {
			return c.kill(n)
		}
	}
	return nil
}

// syncFails has a node's disk refuse to sync. The node must not go on, for it can't keep what it says.
func syncFails(ctx context.Context, c *cluster, rng *rand.Rand) error {
	n := c.any(rng)
	n.expect(true)
	n.disk.Broken(true)
	defer n.disk.Broken(false)
	c.model.Node("%s: disk does not sync", n.id)
	n.awaitEnd(ctx, 10*time.Second)
	if ctx.Err() != nil {
		return nil
	}
	if n.running() {
		return fmt.Errorf("%s goes on though its disk does not sync", n.id)
	}
	if err := n.endedWell("free or repair the disk"); err != nil {
		return err
	}
	n.disk.Broken(false)
	return c.cut(n, rng)
}

func flipLog(ctx context.Context, c *cluster, rng *rand.Rand) error {
	return c.flip(ctx, rng, func(path string) bool { return filepath.Base(path) == "log.db" })
}

func flipSnapshot(ctx context.Context, c *cluster, rng *rand.Rand) error {
	return c.flip(ctx, rng, func(path string) bool {
		return strings.Contains(path, string(filepath.Separator)+"snapshots"+string(filepath.Separator))
	})
}

// flip turns bits in some of a node's files while it is away. When it comes back it may serve, as the
// others do, or end and say why, now or when it reads them; an operator then wipes it.
func (c *cluster) flip(ctx context.Context, rng *rand.Rand, which func(path string) bool) error {
	n := c.any(rng)
	if err := c.kill(n); err != nil {
		return err
	}
	flipped, err := flipBits(n.disk.Store(), which, rng)
	if err != nil {
		return err
	}
	c.model.Node("%s: bits flipped: %s", n.id, strings.Join(flipped, ", "))
	n.damaged = true
	if err := c.start(n); err != nil {
		return err
	}
	n.awaitEnd(ctx, between(rng, 3, 8))
	if n.running() {
		c.model.Node("%s runs with them", n.id)
	}
	return nil // heal does the rest
}

// replace wipes a node whose files were damaged, and which has ended: unless that was for a disk that was
// full or did not sync as well, for then it may start again.
func (c *cluster) replace(n *node) error {
	if n.endedFor(syscall.ENOSPC) || n.endedFor(syscall.EIO) {
		return nil
	}
	if err := n.endedWell("remove the data folder"); err != nil {
		return err
	}
	return c.wipe(n)
}

// flipBits turns one to twenty bits in each file and tells where.
func flipBits(dir string, which func(path string) bool, rng *rand.Rand) (flipped []string, err error) {
	var files []string
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && which(path) {
			files = append(files, path)
		}
		return err
	})
	slices.Sort(files)
	for _, path := range files {
		b, readErr := os.ReadFile(path)
		if len(b) == 0 {
			err = errors.Join(err, readErr)
			continue
		}
		bits := 1 + rng.IntN(20)
		for range bits {
			b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		}
		err = errors.Join(err, os.WriteFile(path, b, 0o600))
		flipped = append(flipped, fmt.Sprintf("%d in %s", bits, filepath.Base(path)))
	}
	return flipped, err
}

// diskFaults tells whether the run has faults that need disks which can fail.
func (o *Options) diskFaults() bool {
	if disk.Available() != nil {
		return false
	}
	return len(o.Faults) == 0 || slices.ContainsFunc(onDisks, func(f fault) bool { return slices.Contains(o.Faults, f.name) }) ||
		slices.Contains(o.Faults, "power")
}
