package worker

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"iserblk/cmd/iserblk/state"
)

// Worker is one worker as a listing shows it.
type Worker struct {
	Status
	Portals []string `json:"portals"` // that it was started with
	files   files
	record  Record
}

// Recoverable says whether the worker is dead and has left a device that another can take over, and how to start that
// one; the CHAP secrets are missing.
func (w Worker) Recoverable() (Spec, bool) {
	parked := func(d Device) bool { return d.State == StateParked }
	return w.record.Spec, w.State == StateDead && slices.ContainsFunc(w.Devices, parked)
}

const (
	askTimeout = 3 * time.Second // how long a listing waits for one worker
	askPause   = 20 * time.Millisecond
)

// List finds every worker, and those that died and left something behind. Files that mean nothing are removed.
func List(ctx context.Context, d state.Dirs) ([]Worker, error) {
	names, err := targets(d.Run)
	if err != nil {
		return nil, err
	}
	found, kept := make([]Worker, len(names)), make([]bool, len(names))
	var wg sync.WaitGroup
	for i, name := range names { // at once, as one that is silent takes its time
		wg.Go(func() { found[i], kept[i] = look(ctx, files{d.Run, name}) })
	}
	wg.Wait()
	var all []Worker
	for i, w := range found {
		if kept[i] {
			all = append(all, w)
		}
	}
	return all, nil
}

func look(ctx context.Context, f files) (Worker, bool) {
	w := Worker{files: f}
	w.record, _ = readRecord(f) // without one there is the lock to go by
	w.Portals = w.record.Portals
	switch {
	case f.locked():
		var gone bool
		if w.Status, gone = ask(ctx, f, w.record); gone {
			return look(ctx, f)
		}
	case len(w.record.Devices) > 0:
		w.Status = fromRecord(ctx, f, w.record, StateDead)
	default:
		if removeOrphans(ctx, f) == nil { // of one that died in its first attach
			f.bury()
		}
		return w, false
	}
	return w, true
}

// ask asks a worker that is alive, and falls back on its record. gone says that it was not: nobody answered, and then
// nobody had the lock any more. A worker that has just begun or was just killed needs a moment for either.
func ask(ctx context.Context, f files, r Record) (st Status, gone bool) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for ctx.Err() == nil {
		st, err := askOnce(ctx, f)
		switch {
		case err == nil:
			return st, false
		case !errors.Is(err, errGone):
			return fromRecord(ctx, f, r, StateSilent), false
		case !f.locked():
			return st, true
		}
		time.Sleep(askPause)
	}
	return fromRecord(ctx, f, r, StateSilent), false
}

// askOnce fails with errGone when nobody is there.
func askOnce(ctx context.Context, f files) (Status, error) {
	c, err := f.client()
	if err != nil {
		return Status{}, fmt.Errorf("%w: %w", errGone, err)
	}
	defer c.Close()
	return c.Status(ctx)
}

func fromRecord(ctx context.Context, f files, r Record, st string) Status {
	s := Status{
		State: st, Target: f.target, Initiator: r.Initiator, PID: r.PID, Started: r.Started, Foreground: r.Foreground,
		Devices: r.Devices,
	}
	for i := range s.Devices {
		s.Devices[i].State = st
		if st == StateDead && (Backend{Parked: Parked}).parked(ctx, s.Devices[i]) {
			s.Devices[i].State = StateParked
		}
	}
	return s
}

// Find looks for a worker by the path or the name of one of its devices ("/dev/ublkb0", "ublkb0"), by its target, or
// by a URL or TARGET/LUN. The device is its path, or "" when the whole target is meant.
func Find(ctx context.Context, d state.Dirs, name string) (w Worker, device string, err error) {
	all, err := List(ctx, d)
	if err != nil {
		return w, "", err
	}
	target, lun, hasLUN := splitName(name)
	for _, w := range all {
		if w.Target == target && !hasLUN {
			return w, "", nil
		}
		for _, dev := range w.Devices {
			byLUN := hasLUN && w.Target == target && strconv.FormatUint(dev.LUN, 10) == lun
			if byLUN || dev.Path == name || filepath.Base(dev.Path) == name || name != "" && socketOf(dev.Path) == name {
				return w, dev.Path, nil
			}
		}
	}
	return w, "", fmt.Errorf("%s: %w: no device or target of this name is attached; see iserblk list", name, ErrNotFound)
}

// splitName takes a target and perhaps a LUN out of "iser://portal/TARGET/LUN" or "TARGET/LUN".
func splitName(name string) (target, lun string, hasLUN bool) {
	if u, err := url.Parse(name); err == nil && u.Scheme == "iser" {
		name = strings.TrimPrefix(u.Path, "/")
	}
	return strings.Cut(strings.TrimSuffix(name, "/"), "/")
}
