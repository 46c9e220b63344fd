package chaos

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

// onClocks are faults that need a binary whose clock can be set wrong.
var onClocks = []fault{
	{"clock-ahead", func(ctx context.Context, c *cluster, rng *rand.Rand) error { return wrongClock(ctx, c, rng, time.Hour) }},
	{"clock-behind", func(ctx context.Context, c *cluster, rng *rand.Rand) error {
		return wrongClock(ctx, c, rng, -time.Hour)
	}},
}

// clockTag is the build tag of such a binary.
const clockTag = "chaos"

// clockFaults tells whether the run has faults of clocks: unless nobody asks for them by name, for want of the
// right binary. An error: they are asked for.
func (o *Options) clockFaults() (bool, error) {
	named := slices.ContainsFunc(onClocks, func(f fault) bool { return slices.Contains(o.Faults, f.name) })
	if len(o.Faults) > 0 && !named {
		return false, nil
	}
	info, err := buildinfo.ReadFile(o.Binary)
	if err == nil {
		for _, s := range info.Settings {
			if s.Key == "-tags" && slices.Contains(strings.Split(s.Value, ","), clockTag) {
				return true, nil
			}
		}
	}
	if named {
		return false, fmt.Errorf("%s can't have its clock set wrong: build it with -tags %s", o.Binary, clockTag)
	}
	return false, nil
}

// setClock sets a node's clock wrong by so much, while it runs as well.
func (n *node) setClock(offset time.Duration) error {
	n.model.Node("%s: clock off by %v", n.id, offset)
	if err := os.WriteFile(n.clock+".new", []byte(offset.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(n.clock+".new", n.clock)
}

// rightClock undoes setClock.
func (n *node) rightClock() error {
	if err := os.Remove(n.clock); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// wrongClock sets one node's clock wrong and has it lead, or die as the leader, or only vote for whoever leads.
func wrongClock(ctx context.Context, c *cluster, rng *rand.Rand, offset time.Duration) error {
	n := c.any(rng)
	if err := n.setClock(offset); err != nil {
		return err
	}
	wait(ctx, between(rng, 0, 2))
	if rng.IntN(3) == 0 {
		if err := killLeader(ctx, c, rng); err != nil {
			return err
		}
	} else {
		err := n.ask(ctx, 10*time.Second, func(ctx context.Context, a adminpb.AdminClient) error {
			_, err := a.TransferLeader(ctx, &adminpb.TransferLeaderRequest{Node: n.id})
			return err
		})
		if err != nil && ctx.Err() == nil {
			c.model.Node("leadership does not go to %s: %v", n.id, err)
		}
	}
	wait(ctx, between(rng, 3, 9))
	return nil // heal sets it right while it may lead
}
