//go:build !linux

package disk

import (
	"errors"
	"math/rand/v2"
)

var errLinux = errors.New("a disk that fails needs Linux")

// Available says why there can be no Disk here.
func Available() error { return errLinux }

// Disk is a mounted folder: there is none here.
type Disk struct{}

// Stats is what a disk has done.
type Stats struct{ Writes, Syncs, Refused, Forgotten, NamesForgotten, Cuts uint64 }

// Mount fails.
func Mount(string) (*Disk, error) { return nil, errLinux }

// Full does nothing here.
func (d *Disk) Full(bool) {}

// Broken does nothing here.
func (d *Disk) Broken(bool) {}

// Stats is empty here.
func (d *Disk) Stats() Stats { return Stats{} }

// Cut fails.
func (d *Disk) Cut(*rand.Rand) error { return errLinux }

// Wipe fails.
func (d *Disk) Wipe() error { return errLinux }

// Close fails.
func (d *Disk) Close() error { return errLinux }

// Store is empty here.
func (d *Disk) Store() string { return "" }
