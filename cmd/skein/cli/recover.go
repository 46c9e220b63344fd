package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skein-mqtt/skein/cluster"
	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/fsm"
)

func newRecover(env *Env) *cobra.Command {
	var dir string
	var force, yes bool
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Look into a stopped node's data folder, or found a new cluster from it",
		Long: "Look into the data folder of a node that is stopped, and say what it holds. With --force-new-cluster,\n" +
			"found a new cluster of that node alone: for when a majority of the nodes is lost for good. It says\n" +
			"what may be lost, and asks first. A node that runs, or a majority that can be started again, needs none of this.",
		Args: arguments(),
	}
	cmd.Flags().StringVar(&dir, "data", config.Default().Data.Dir, "the stopped node's data `DIR`")
	cmd.Flags().BoolVar(&force, "force-new-cluster", false, "found a new cluster of this node alone")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.RunE = run(func(cmd *cobra.Command, _ []string) error {
		if yes && !force {
			return usageError("--yes says what is to be done only with --force-new-cluster")
		}
		return recoverNode(env.Out, cmd.InOrStdin(), dir, force, yes)
	})
	return cmd
}

func recoverNode(out io.Writer, in io.Reader, dir string, force, yes bool) (err error) {
	name, err := os.ReadFile(filepath.Join(dir, "node-id"))
	if err != nil {
		return fmt.Errorf("--data: %s is not the data folder of a node: %w", dir, err)
	}
	node := strings.TrimSpace(string(name))
	r, err := cluster.OpenRecovery(dir, node)
	if errors.Is(err, cluster.ErrLocked) {
		return fmt.Errorf("--data: %w: stop the node first", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	others := survey(out, node, r)
	if !force {
		return nil
	}
	fmt.Fprintf(out, `
A new cluster of %[1]s alone is to be founded from this. Know before:
- Lost is whatever the others had committed and %[1]s had not received yet: messages, subscriptions and sessions
  that were acknowledged. Of several survivors take the one whose log ends at the highest term, then entry.
- What the end of its log holds and was never committed counts from now on: a message that nobody acknowledged
  may be delivered, and once more when its publisher sends it again.
- %[2]s belong to the old cluster, and %[1]s refuses them from now on. Never start a majority of them again:
  they would serve beside it. Clear their data folders; then they join.
`, node, others)
	if !yes {
		fmt.Fprintf(out, "Type the node's name, %s, to go on: ", node)
		line, err := bufio.NewReader(in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if strings.TrimSpace(line) != node {
			return errors.New("nothing was changed: the answer is not the node's name (--yes does not ask)")
		}
	}
	if err := r.Force(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is a cluster of its own now. Start it as before.\n", node)
	return nil
}

// survey says what the folder holds, and names the other nodes.
func survey(out io.Writer, node string, r *cluster.Recovery) string {
	state, index, term := r.Survey()
	sessions, queued := 0, 0
	state.Sessions("", func(s fsm.SessionInfo) bool {
		sessions++
		queued += s.Queue
		return true
	})
	clock := "it has never served"
	if ms := state.Now(); ms > 0 {
		clock = "the log's clock says " + time.UnixMilli(ms).UTC().Format(time.RFC3339)
	}
	fmt.Fprintf(out, "%s is stopped. Its log ends at term %d, entry %d; %s.\n", node, term, index, clock)
	fmt.Fprintf(out, "It holds %d sessions with %d queued messages, and %d retained messages.\n", sessions, queued, state.RetainedCount())
	var names, others []string
	for _, m := range r.Members() {
		name := m.ID
		if m.Role == cluster.RoleNonvoter {
			name += " (no vote)"
		}
		names = append(names, name)
		if m.ID != node {
			others = append(others, m.ID)
		}
	}
	fmt.Fprintf(out, "Nodes of its cluster: %s.\n", strings.Join(names, ", "))
	if len(others) == 0 {
		return "Other nodes that were removed before"
	}
	return strings.Join(others, ", ")
}
