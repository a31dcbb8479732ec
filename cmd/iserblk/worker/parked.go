package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"iserblk/nbd/nbdkernel"
	"iserblk/ublk"
)

// What the kernel keeps of the devices of a worker that died, by each front end.

// Parked says whether the kernel keeps a device, and the requests to it, for the next worker after the one that made it
// has died (Backend.Parked).
func Parked(ctx context.Context, d Device) (bool, error) {
	switch {
	case d.Cookie == "":
		return false, nil
	case d.Frontend == FrontNBD:
		return parkedNBD(d), nil
	case d.Frontend == FrontUblk:
		return parkedUblk(ctx, d)
	}
	return false, nil
}

func parkedNBD(d Device) bool {
	index, err := nbdkernel.Index(d.Path)
	if err != nil {
		return false
	}
	for _, s := range nbdkernel.Held(d.Cookie) {
		if s.Index == index && s.Cookie == d.Cookie {
			return true
		}
	}
	return false
}

func parkedUblk(ctx context.Context, d Device) (held bool, err error) {
	err = withLeft(ctx, d, func(c *ublk.Control, l ublk.Left) (err error) {
		held, err = c.Held(ctx, l)
		return err
	})
	return held, err
}

// withLeft has f look after a ublk device of a worker that died, if there is one.
func withLeft(ctx context.Context, d Device, f func(*ublk.Control, ublk.Left) error) error {
	l, err := leftOf(d)
	if err != nil || !l.Exists() {
		return err
	}
	c, err := ublk.Open(ctx, ublk.Options{NoModprobe: true})
	if err != nil {
		return err
	}
	return errors.Join(f(c, l), c.Close())
}

func leftOf(d Device) (ublk.Left, error) {
	number, ok := strings.CutPrefix(d.Path, "/dev/ublkb")
	id, err := strconv.Atoi(number)
	if !ok || err != nil {
		return ublk.Left{}, fmt.Errorf("%s: %w: not the path of a ublk device", d.Path, ErrInput)
	}
	return ublk.Left{ID: id, Cookie: d.Cookie}, nil
}

// Orphans are the devices of a target that a worker made and nobody heard of: it died before it wrote them down
// (Backend.Orphans).
func Orphans(ctx context.Context, run, target string) []Device {
	var all []Device
	owner := cookiePrefix(run, target)
	for _, s := range nbdkernel.Held(owner) {
		all = append(all, Device{Path: fmt.Sprintf("/dev/nbd%d", s.Index), Frontend: FrontNBD, Cookie: s.Cookie})
	}
	owned, _ := ublk.Owned(ctx, owner) // without ublk there are none
	for _, l := range owned {
		all = append(all, Device{Path: l.Path(), Frontend: FrontUblk, Cookie: l.Cookie})
	}
	return all
}

// RemoveDevice takes away what a worker that died left of its devices (Backend.RemoveDevice).
func RemoveDevice(ctx context.Context, d Device) error {
	switch {
	case d.Frontend == FrontNBD:
		return releaseNBD(ctx, d)
	case d.Frontend == FrontExport:
		removeSocket(d.Path)
		return nil
	case d.Cookie != "":
		return withLeft(ctx, d, func(c *ublk.Control, l ublk.Left) error { return c.Discard(ctx, l) })
	}
	return reapUblk(ctx)
}

// releaseNBD has the kernel forget a device of a dead worker.
func releaseNBD(ctx context.Context, d Device) error {
	index, err := nbdkernel.Index(d.Path)
	if err != nil || !parkedNBD(d) {
		return err
	}
	c, err := nbdkernel.Open(ctx, nbdkernel.Options{NoModprobe: true})
	if err != nil {
		return err
	}
	return c.Release(ctx, index, d.Cookie)
}

// reapUblk deletes what the kernel keeps of the devices of dead workers. The block devices are gone by themselves.
func reapUblk(ctx context.Context) error {
	c, err := ublk.Open(ctx, ublk.Options{NoModprobe: true})
	if err != nil {
		return err
	}
	_, err = c.Reap(ctx)
	return errors.Join(err, c.Close())
}

// removeSocket removes the socket that a URI names, if there is one.
func removeSocket(uri string) {
	if path := socketOf(uri); path != "" && filepath.IsAbs(path) {
		_ = os.Remove(path)
	}
}
