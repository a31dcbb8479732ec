package multipath

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"iserblk/internal/lane"
	"iserblk/session"
	"iserblk/session/scsi"
)

// Link is one logged-in nexus, as a Dialer hands it over.
type Link struct {
	Nexus *session.Nexus
	// Scratch is memory for the commands that check the units, session.ProbeSize bytes.
	Scratch session.Buffer
	// Lost reports that the connection ended by other means than its completions: a CM event, a fatal device event.
	Lost <-chan error
	// Portal is where it goes, for people.
	Portal string
}

// Dialer connects and logs in, always with the path's own ISID, so that the target ends the nexus before this one
// first (RFC 7143 6.3.5). It tries every portal it knows; it returns the error that says most.
type Dialer func(ctx context.Context) (*Link, error)

// Config is what a Path is made from.
type Config struct {
	Lane *lane.Lane
	Dial Dialer
	// Await, where there is one, returns when dialling is worth a try at once, such as when a port has come up since
	// the last Dial, and when ctx ends.
	Await func(ctx context.Context)
	// NoPathTimeout is how long requests wait for a path before they end with EIO: 0 not at all, negative for ever.
	NoPathTimeout time.Duration
	// Log takes the path's history. It is never used on the lane.
	Log *slog.Logger
}

// Path is one I_T nexus on one lane, kept alive: connected by Start, and again whenever it is lost, until Stop.
type Path struct {
	cfg   Config
	units []*Unit // fixed while not on the lane's side of a handover: see AddUnit

	// On the lane.
	nexus   *session.Nexus // nil while the path is down
	failing bool           // something has waited for longer than NoPathTimeout
	queues  []*Queue
	expiry  *lane.Timer // nil when it is not running
	ticker  *lane.Timer
	tick    func()
	down    chan *session.Nexus // lane to keeper: drained, or to be closed by force
	notices chan Notice
	pokes   chan struct{} // to the keeper: a unit wants to be looked at

	group int // the target portal group of the last nexus in charge; the keeper's

	// For status, from anywhere.
	mu     sync.Mutex
	status Status

	quit   chan struct{}
	once   sync.Once
	done   chan struct{}
	losses atomic.Uint64

	loggedOut atomic.Bool
}

// Status is what people want to know of a path.
type Status struct {
	State   State
	Portal  string
	Since   time.Time
	Losses  uint64 // times that the nexus was lost
	LastErr string // why it was lost, or why it does not come back
	GaveUp  bool   // requests fail instead of waiting: NoPathTimeout is over
}

// State says where a path is.
type State uint8

// The states of a path.
const (
	StateConnecting State = iota
	StateUp
	StateReconnecting
	StateClosed
)

// Notice is something the control side may want to act on or to log.
type Notice struct {
	LUN   scsi.LUN
	Sense scsi.Sense
}

// NewPath makes a path that is not connected. log may be shared by paths.
func NewPath(cfg Config) *Path {
	p := &Path{
		cfg:     cfg,
		down:    make(chan *session.Nexus, 1),
		notices: make(chan Notice, 64),
		pokes:   make(chan struct{}, 1),
		quit:    make(chan struct{}),
		done:    make(chan struct{}),
	}
	p.tick = p.runTick
	p.status = Status{State: StateConnecting, Since: time.Now()}
	return p
}

// Start puts link in charge and keeps the path alive from then on. The path's units may be submitted to at any time.
// When it fails, link is still the caller's.
func (p *Path) Start(_ context.Context, link *Link) error {
	if err := p.install(link); err != nil {
		return err
	}
	go p.keep(link)
	return nil
}

// AddUnit makes q's requests follow the path's fate. The unit must have been probed over a nexus to the same target.
func (p *Path) AddUnit(ctx context.Context, u *Unit, q *Queue) error {
	return p.cfg.Lane.Do(ctx, func() {
		p.mu.Lock()
		p.units = append(p.units, u)
		p.mu.Unlock()
		p.queues = append(p.queues, q)
	})
}

// ErrInFlight is RemoveUnit's answer while the unit has requests.
var ErrInFlight = errors.New("requests are in flight")

// RemoveUnit forgets u. It fails while requests of u are in flight, and then the memory of none of them may be used
// for anything else.
func (p *Path) RemoveUnit(_ context.Context, u *Unit) error {
	var busy error
	err := p.cfg.Lane.Do(context.Background(), func() { busy = p.removeUnit(u) })
	return errors.Join(err, busy)
}

func (p *Path) removeUnit(u *Unit) error {
	mine := func(q *Queue) bool { return q.unit == u }
	if slices.ContainsFunc(p.queues, func(q *Queue) bool { return mine(q) && !q.idle() }) {
		return ErrInFlight
	}
	p.mu.Lock()
	p.units = slices.DeleteFunc(slices.Clone(p.units), func(x *Unit) bool { return x == u })
	p.mu.Unlock()
	p.queues = slices.DeleteFunc(p.queues, mine)
	return nil
}

// Status is safe to call from any goroutine.
func (p *Path) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	s.Losses = p.losses.Load()
	return s
}

// Counters is what a path's nexus and queues have counted, and what its login agreed on; zero while it is down.
type Counters struct {
	Nexus       session.Stats
	Negotiated  session.Negotiated
	MaxCommands int
	Queues      QueueStats // of all queues of the path
}

// Counters reads the path's counters on its lane.
func (p *Path) Counters(ctx context.Context) (Counters, error) {
	c := new(Counters) // the lane's until it is done, which may be after ctx has ended
	if err := p.cfg.Lane.Do(ctx, func() { p.count(c) }); err != nil {
		return Counters{}, err
	}
	return *c, nil
}

func (p *Path) count(c *Counters) {
	if p.nexus != nil {
		c.Nexus, c.Negotiated, c.MaxCommands = p.nexus.Stats(), p.nexus.Negotiated(), p.nexus.MaxCommands()
	}
	for _, q := range p.queues {
		c.Queues.add(q.stats)
		c.Queues.Parked += uint64(q.parked.n)
	}
}

// ErrStopped is why a path that was stopped is not up.
var ErrStopped = errors.New("path was stopped")

// setGaveUp is for Status only; the lane goes by failing.
func (p *Path) setGaveUp(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.GaveUp = yes && p.status.State != StateUp
}

func (p *Path) setStatus(state State, portal string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.State, p.status.Since = state, time.Now()
	p.status.GaveUp = p.status.GaveUp && state == StateReconnecting
	if portal != "" {
		p.status.Portal = portal
	}
	if err != nil {
		p.status.LastErr = err.Error()
	}
}

// note never blocks the lane: what does not fit is dropped.
func (p *Path) note(n Notice) {
	select {
	case p.notices <- n:
	default:
	}
}
