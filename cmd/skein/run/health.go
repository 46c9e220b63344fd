package run

import (
	"fmt"
	"time"

	"github.com/skein-mqtt/skein/node/httpd"
)

// health is the one verdict that /readyz, gRPC health, and the list of nodes share.
type health struct {
	// inService tells whether this node has ever served since it last came up; without it there is
	// no grace.
	inService func() bool
	// quarantined says why this node must not serve; empty: it may.
	quarantined func() string
	lease       func() (leased bool, lost time.Duration)
	low         func() (low bool, free, mark uint64)
	cordoned    func() bool
	drain       *drain
	grace       time.Duration
}

// Ready implements httpd.Health.
func (h *health) Ready() (httpd.State, string) {
	if phase := h.drain.phase(); phase != "" {
		return httpd.Draining, phase
	}
	if low, free, mark := h.low(); low {
		return httpd.NotReady, fmt.Sprintf("the data folder's disk is nearly full: %d MiB free, less than %d MiB", free>>20, mark>>20)
	}
	if why := h.quarantined(); why != "" {
		return httpd.NotReady, why
	}
	if !h.inService() {
		return httpd.NotReady, "it waits to be taken into service: a majority of the voters must run, and it must have caught up with the log"
	}
	leased, lost := h.lease()
	switch {
	case (leased || lost <= h.grace) && h.cordoned():
		return httpd.Cordoned, "an operator keeps new clients away"
	case leased:
		return httpd.Ready, ""
	case lost <= h.grace:
		return httpd.Ready, fmt.Sprintf("no lease for %s, within the grace period of %s", lost.Round(time.Millisecond), h.grace)
	}
	return httpd.NotReady, fmt.Sprintf("no lease for %s: it reaches no leader that has a majority", lost.Round(time.Millisecond))
}
