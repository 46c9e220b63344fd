package chaos

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Options of a run.
type Options struct {
	Seed   uint64
	Length time.Duration // of all rounds; the last one is finished
	Round  time.Duration // faults for so long, then calm and validation
	Faults []string      // names; empty: all
	Nodes  int
	Binary string   // the skein binary
	Flags  []string // more flags of each node
	Dir    string   // data and logs of the nodes; must be empty
	Rate   float64  // of publishes; 1 is about 100 a second
	// Balancer has the clients reach the nodes through HAProxy alone.
	Balancer bool
	Out      io.Writer
	Verbose  bool // every connection's end and every fault as it happens

	plain bool // the nodes as operators run them: no relays between them, no settings
}

// Validate says what is wrong with the options.
func (o *Options) Validate() error {
	switch {
	case o.Binary == "":
		return errors.New("no binary to test")
	case o.Dir == "":
		return errors.New("no folder for the nodes' data")
	case o.Nodes < 3:
		return fmt.Errorf("%d nodes: faults need at least 3", o.Nodes)
	case o.Length <= 0 || o.Round <= 0:
		return errors.New("the length of the run and of a round must be above 0")
	case o.Rate <= 0:
		return errors.New("the rate must be above 0")
	}
	for _, name := range o.Faults {
		if !slices.Contains(FaultNames(), name) {
			return fmt.Errorf("there is no fault %q; there are %s", name, strings.Join(FaultNames(), ", "))
		}
	}
	return nil
}
