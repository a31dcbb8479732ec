package worker

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"iserblk/internal/lane"
	"iserblk/session/multipath"
	"iserblk/verbs"
)

const (
	// arenaCapacity is address space, not memory: only what devices carve is ever populated.
	arenaCapacity = 256 << 30
	// maxTransfer is the largest request in bytes. tgt closes the connection above it and says so nowhere.
	maxTransfer  = 512 << 10
	defaultDepth = 64
)

// QueueLimit is the most queues that a worker serves, whatever the machine.
const QueueLimit = 64

// MaxQueues is the most that make sense here: a queue keeps one processor busy.
func MaxQueues() int { return min(QueueLimit, runtime.NumCPU()) }

// engine serves one target with a lane, and so a session, for each queue.
type engine struct {
	spec     Spec
	log      *slog.Logger
	provider verbs.Provider
	arena    *verbs.Arena
	fronts   frontends
	target   *dialer
	lanes    []*serving
	started  time.Time

	mu      sync.Mutex // held over attach and detach
	past    past
	begun   map[uint64]error // by LUN, why devices cannot be taken over any more
	devices map[uint64]*device
	view    sync.RWMutex // guards devices' map for Status
}

// serving is one lane with its path to the target.
type serving struct {
	lane *lane.Lane
	path *multipath.Path
	link *linkState
}

// NewEngine logs in to spec's target by the first portal that answers, once a queue. first is how the first devices are
// to be made: that they cannot be is found out before anybody is asked.
func NewEngine(ctx context.Context, spec Spec, first AttachOptions, log *slog.Logger) (Engine, error) {
	e := &engine{spec: withDefaults(spec), log: log, devices: map[uint64]*device{}, begun: map[uint64]error{}, started: time.Now()}
	e.fronts = newFrontends(e)
	if err := e.open(ctx, first); err != nil {
		e.teardown()
		return nil, err
	}
	return e, nil
}

func withDefaults(s Spec) Spec {
	if s.Queues <= 0 {
		// A lane serves all that one path carries; more of them pay where there are processors to spare.
		s.Queues = max(1, min(4, runtime.NumCPU()/2))
	}
	if s.Depth <= 0 {
		s.Depth = defaultDepth
	}
	return s
}

func (e *engine) open(ctx context.Context, first AttachOptions) (err error) {
	fe, err := e.fronts.pick(ctx, first)
	if err != nil {
		return err
	}
	if e.arena, err = verbs.NewArena(arenaCapacity); err != nil {
		return err
	}
	if e.provider, err = newProvider(e.spec.Provider); err != nil {
		return err
	}
	e.target = newDialer(e.spec, e.provider, e.arena, e.log)
	if err := e.endPast(ctx); err != nil {
		return err
	}
	for i := range e.spec.Queues {
		if err := e.addLane(ctx, i, ringless(fe)); err != nil {
			return err
		}
	}
	return nil
}

// addLane starts lane i and logs its session in.
func (e *engine) addLane(ctx context.Context, i int, noRing bool) error {
	l, err := lane.New(lane.Options{Spin: e.spec.Spin, NoRing: noRing})
	if err != nil {
		return err
	}
	l.Start()
	s := &serving{lane: l}
	e.lanes = append(e.lanes, s)
	if s.link, err = e.target.lane(i); err != nil {
		return err
	}
	link, err := s.link.dial(ctx)
	if err != nil {
		return err
	}
	p := multipath.NewPath(multipath.Config{
		Lane: l, Dial: s.link.dial, Await: s.link.await, NoPathTimeout: e.spec.Timeouts.NoPath, Log: e.log.With("queue", i),
	})
	if err := p.Start(ctx, link); err != nil {
		e.target.abandon(link.Nexus)
		return err
	}
	s.path = p
	return nil
}

// Empty is safe beside everything else.
func (e *engine) Empty() bool {
	e.view.RLock()
	defer e.view.RUnlock()
	return len(e.devices) == 0
}

// Close detaches every device, logs out and frees everything. The server has looked for mounts before it closes without
// force, so a device that is in use all the same ends it half way.
func (e *engine) Close(ctx context.Context, force bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range e.sorted() {
		if err := e.remove(ctx, d, force); err != nil {
			return err
		}
	}
	e.teardown()
	return nil
}

// teardown ends what open has started, in the opposite order.
func (e *engine) teardown() {
	loggedOut := true
	for _, s := range e.lanes {
		if s.path != nil {
			loggedOut = s.path.Stop() && loggedOut
		}
		s.lane.Stop()
	}
	e.lanes = nil
	e.settle(loggedOut)
	e.fronts.close()
	if e.arena != nil {
		_ = e.arena.Close()
	}
}

// sorted lists the devices by LUN.
func (e *engine) sorted() []*device {
	e.view.RLock()
	defer e.view.RUnlock()
	all := make([]*device, 0, len(e.devices))
	for _, d := range e.devices {
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b *device) int { return int(int64(a.lun) - int64(b.lun)) })
	return all
}
