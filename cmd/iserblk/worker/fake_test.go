package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"iserblk/verbs"
)

// TestMain is also the worker: Attach starts the program it runs in, which is this one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "worker" {
		os.Exit(Main(fakeBackend()))
	}
	if len(os.Args) > 1 && os.Args[1] == "isolate-me" {
		beIsolated()
		return
	}
	os.Exit(withoutLeaks(m.Run()))
}

// withoutLeaks is goleak's check at the end, with more patience: the last workers, whom a goroutine each waits for, may be
// seconds behind on a busy machine.
func withoutLeaks(code int) int {
	err := goleak.Find()
	for end := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(end); {
		err = goleak.Find()
	}
	if err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// fakeEngine has LUNs 0 to 3. What it does wrong is the last part of the target's name.
type fakeEngine struct {
	spec Spec
	log  *slog.Logger

	mu      sync.Mutex
	devices map[uint64]Device
	closed  bool
}

const fakePrefix = "iqn.2026-11.local.test:"

func fakeBackend() Backend {
	return Backend{NewEngine: newFakeEngine, RemoveDevice: removeFakeDevice, Parked: fakeParked}
}

func (s Spec) trouble() string { return strings.TrimPrefix(s.Target, fakePrefix) }

func newFakeEngine(ctx context.Context, spec Spec, _ AttachOptions, log *slog.Logger) (Engine, error) {
	log.Info("logging in", "portal", spec.Portals[0], "spec", spec)
	switch spec.trouble() {
	case "login-times-out":
		return nil, fmt.Errorf("log in to %s: %w", spec.Portals[0], verbs.ErrTimeout)
	case "login-never-ends":
		<-ctx.Done()
		return nil, ctx.Err()
	case "login-panics":
		panic("the engine fell over")
	case "login-takes-a-while":
		time.Sleep(300 * time.Millisecond)
	}
	return &fakeEngine{spec: spec, log: log, devices: map[uint64]Device{}}, nil
}

func (e *fakeEngine) Attach(_ context.Context, luns []uint64, o AttachOptions) ([]Device, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if luns == nil {
		luns = slices.DeleteFunc([]uint64{0, 1, 2, 3}, func(lun uint64) bool { _, there := e.devices[lun]; return there })
	}
	var made []Device
	for _, lun := range luns {
		switch _, there := e.devices[lun]; {
		case there:
			return nil, fmt.Errorf("LUN %d: %w", lun, ErrAttached)
		case lun > 3:
			return nil, fmt.Errorf("LUN %d: %w", lun, ErrNotFound)
		}
		path := "/dev/fake" + strconv.FormatUint(lun, 10)
		if o.Frontend == FrontExport {
			path = "nbd+unix:///?socket=/nowhere" + path
		}
		d := Device{Path: path, LUN: lun, Size: 1 << 30, BlockSize: 512, State: StateLive, Frontend: o.Frontend}
		if o.Frontend == FrontNBD {
			d.Cookie = path + "'s"
		}
		made = append(made, d)
	}
	for _, d := range made {
		e.devices[d.LUN] = d
	}
	e.log.Info("attached", "devices", len(made))
	return made, nil
}

// fakeParked: a device of front end "nbd" outlives its worker.
func fakeParked(_ context.Context, d Device) (bool, error) {
	if d.Frontend == FrontUblk {
		return false, errors.New("nobody can tell")
	}
	return d.Frontend == FrontNBD, nil
}

func (e *fakeEngine) Adopt(_ context.Context, d Device) (Device, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.spec.trouble() == "another-unit" {
		return Device{}, fmt.Errorf("%s: %w", d.Path, ErrMismatch)
	}
	d.State = StateLive
	e.devices[d.LUN] = d
	e.log.Info("adopted", "device", d.Path)
	return d, nil
}

func (e *fakeEngine) Detach(_ context.Context, name string, force bool) error {
	switch e.spec.trouble() {
	case "detach-hangs":
		select {}
	case "always-open":
		if !force {
			return fmt.Errorf("%s: %w", name, ErrBusy)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for lun, d := range e.devices {
		if d.Path == name || strconv.FormatUint(lun, 10) == name {
			delete(e.devices, lun)
			return nil
		}
	}
	return fmt.Errorf("%s: %w", name, ErrNotFound)
}

func (e *fakeEngine) Status(context.Context) Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	st := Status{Target: e.spec.Target, Initiator: e.spec.InitiatorName, Queues: 1}
	if e.closed {
		st.Queues = 0
	}
	for lun := range uint64(4) {
		if d, ok := e.devices[lun]; ok {
			st.Devices = append(st.Devices, d)
		}
	}
	return st
}

func (e *fakeEngine) Close(_ context.Context, force bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.spec.trouble() == "always-open" && !force && len(e.devices) > 0 {
		return fmt.Errorf("/dev/fake0: %w", ErrBusy)
	}
	clear(e.devices)
	e.closed = true
	return nil
}

func (e *fakeEngine) Empty() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.devices) == 0
}

// removed are the devices that RemoveDevice was called for.
var removed struct {
	sync.Mutex
	paths []string
}

func removeFakeDevice(_ context.Context, d Device) error {
	removed.Lock()
	defer removed.Unlock()
	if d.LUN == 3 {
		return errors.New("the kernel does not let go of it")
	}
	removed.paths = append(removed.paths, d.Path)
	return nil
}
