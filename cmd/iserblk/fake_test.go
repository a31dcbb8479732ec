package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"iserblk/cmd/iserblk/worker"
	"iserblk/session"
	"iserblk/verbs"
)

// TestMain is also the worker that attach starts, and the program itself for tests that need it whole.
func TestMain(m *testing.M) {
	if os.Getenv(envReal) != "" {
		playReal()
	}
	if len(os.Args) > 1 && os.Args[1] == "worker" {
		os.Exit((&program{stdout: os.Stdout, stderr: os.Stderr, backend: fakeBackend()}).run(os.Args))
	}
	goleak.VerifyTestMain(m)
}

func fakeBackend() worker.Backend {
	return worker.Backend{
		NewEngine: func(_ context.Context, s worker.Spec, _ worker.AttachOptions, _ *slog.Logger) (worker.Engine, error) {
			if s.CHAP.User != "" && s.CHAP.Secret != "sesame" {
				return nil, fmt.Errorf("portal %s: %w; check the secret", s.Portals[0], session.ErrAuth)
			}
			return &fakeEngine{spec: s}, nil
		},
		Discover: func(_ context.Context, s worker.Spec, _ *slog.Logger) ([]worker.Portal, error) {
			if s.Portals[0].Port() != 3260 {
				return nil, fmt.Errorf("connect to %s: %w", s.Portals[0], verbs.ErrTimeout)
			}
			return []worker.Portal{{Target: target, Address: s.Portals[0].String(), TPGT: 1}}, nil
		},
		LUNs: func(context.Context, worker.Spec, *slog.Logger) ([]worker.LUN, error) {
			return []worker.LUN{
				{LUN: 0, Size: 64 << 20, BlockSize: 512, Vendor: "LIO-ORG", Model: "ram0", WWN: "naa.6001405"},
				{LUN: 1, Error: "not a disk"},
			}, nil
		},
		RemoveDevice: func(context.Context, worker.Device) error { return nil },
	}
}

type fakeEngine struct {
	spec worker.Spec
	mu   sync.Mutex
	devs []worker.Device
}

func (e *fakeEngine) Attach(_ context.Context, luns []uint64, _ worker.AttachOptions) ([]worker.Device, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(luns) == 0 {
		luns = []uint64{0}
	}
	for _, d := range e.devs {
		if d.LUN == luns[0] {
			return nil, fmt.Errorf("LUN %d: %w as %s", d.LUN, worker.ErrAttached, d.Path)
		}
	}
	d := worker.Device{
		Path: fmt.Sprintf("/dev/fake%d", luns[0]), LUN: luns[0], Size: 64 << 20, BlockSize: 512, State: worker.StateLive,
		Frontend: "ublk", Vendor: "LIO-ORG", Queues: 2, Depth: 64,
	}
	e.devs = append(e.devs, d)
	return []worker.Device{d}, nil
}

func (e *fakeEngine) Adopt(_ context.Context, d worker.Device) (worker.Device, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.devs = append(e.devs, d)
	return d, nil
}

func (e *fakeEngine) Detach(_ context.Context, name string, force bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, d := range e.devs {
		if d.Path == name {
			if d.LUN == 7 && !force {
				return fmt.Errorf("%s is %w", name, worker.ErrBusy)
			}
			e.devs = append(e.devs[:i:i], e.devs[i+1:]...)
			return nil
		}
	}
	return worker.ErrNotFound
}

func (e *fakeEngine) Status(context.Context) worker.Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	return worker.Status{
		Target: e.spec.Target, Initiator: e.spec.InitiatorName, Queues: 2, Devices: e.devs,
		Paths: []worker.PathStatus{{
			Portal: e.spec.Portals[0].String(), Source: "10.0.0.2", RDMADevice: "rxe0", State: worker.StateLive, InUse: true,
			Since: time.Now(), Negotiated: worker.Negotiated{MaxBurst: 262144, FirstBurst: 65536},
		}},
	}
}

func (e *fakeEngine) Close(context.Context, bool) error { e.devs = nil; return nil }

func (e *fakeEngine) Empty() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.devs) == 0
}

const (
	target = "iqn.2003-01.org.linux-iscsi:disk0"
	url0   = "iser://10.0.0.1/" + target
)
