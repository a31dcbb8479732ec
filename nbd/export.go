package nbd

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/internal/block"
	"iserblk/internal/lane"
)

// Buffer is the memory of one request.
type Buffer struct {
	Mem    []byte // BufferSize bytes outside the Go heap; the smallest of all is the largest request that clients may make
	Region uint32 // the region of the arena that Mem lies in, for block.Request
}

// QueueConfig is one lane's part of an export.
type QueueConfig struct {
	Lane    *lane.Lane  // serves the connections; on either engine; it must outlive the export
	Unit    block.Queue // takes the requests, on that lane
	Buffers []Buffer    // BuffersPerQueue of them
}

// Config says what to export.
type Config struct {
	// Name is the export's name. Clients may leave it out.
	Name string
	// Description is for people who ask what this is.
	Description string
	Limits      block.Limits
	Queues      []QueueConfig
	// MaxConns is how many connections there may be; 0 means DefaultMaxConns.
	MaxConns int
	// Log takes what happens to connections, not to requests; nil discards it.
	Log *slog.Logger
}

// DefaultMaxConns is how many connections an export takes.
const DefaultMaxConns = 64

// BuffersPerQueue is how many Buffers a QueueConfig has to have: one for each tag, and one for each connection that the
// lane may get, so that a client always finds one.
func BuffersPerQueue(depth uint16, maxConns, queues int) int {
	return int(depth) + connsPerQueue(maxConns, queues)
}

// BufferSize is how many bytes a Buffer should have: the unit's largest transfer, or what clients count on that do not ask
// for the maximum. A longer request than the unit takes is done in several.
func BufferSize(l *block.Limits) int { return max(int(l.MaxTransfer), usualPayload) }

// usualPayload is how much nbdcopy asks for, whatever it was told.
const usualPayload = 256 << 10

func connsPerQueue(maxConns, queues int) int {
	if maxConns <= 0 {
		maxConns = DefaultMaxConns
	}
	return (maxConns + queues - 1) / queues
}

// Export is one logical unit as NBD clients see it. Its methods are safe for concurrent use.
type Export struct {
	name        string
	description string
	limits      block.Limits
	payload     uint32 // the most bytes of a read or write
	size        atomic.Uint64
	fail        atomic.Int32
	closing     atomic.Bool // no more requests
	impatient   atomic.Bool // nor time for clients that do not take their replies
	hubs        []*hub
	log         *slog.Logger

	turn chan struct{} // held by who closes

	mu        sync.Mutex
	listeners []*listener
	closed    bool
}

// NewExport hooks an export into its lanes. It listens nowhere yet.
func NewExport(ctx context.Context, cfg Config) (*Export, error) {
	if err := cfg.check(); err != nil {
		return nil, &Error{Op: "make export", Err: err}
	}
	e := &Export{
		name: cfg.Name, description: cfg.Description, limits: cfg.Limits, payload: cfg.payload(), log: cfg.Log, turn: make(chan struct{}, 1),
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.size.Store(cfg.Limits.Size)
	limit := connsPerQueue(cfg.MaxConns, len(cfg.Queues))
	for _, qc := range cfg.Queues {
		e.hubs = append(e.hubs, newHub(e, qc, limit))
	}
	for _, h := range e.hubs {
		if err := h.lane.Do(ctx, h.hook); err != nil {
			_ = e.Close(context.WithoutCancel(ctx)) // nobody is connected: it waits for nothing but the lanes
			return nil, &Error{Op: "make export", Err: err}
		}
	}
	return e, nil
}

func (cfg *Config) check() error {
	l := &cfg.Limits
	switch {
	case len(cfg.Queues) == 0:
		return fmt.Errorf("no queues")
	case len(cfg.Name) > maxStringSize || len(cfg.Description) > maxStringSize:
		return fmt.Errorf("a name of %d or a description of %d bytes", len(cfg.Name), len(cfg.Description))
	case l.BlockSize < 512 || l.BlockSize > 1<<16 || l.BlockSize&(l.BlockSize-1) != 0:
		return fmt.Errorf("blocks of %d bytes", l.BlockSize)
	case l.Size%uint64(l.BlockSize) != 0:
		return fmt.Errorf("a size of %d with blocks of %d bytes", l.Size, l.BlockSize)
	case l.MaxTransfer < l.BlockSize || l.MaxTransfer%l.BlockSize != 0 || l.MaxTransfer > mostSkipped:
		return fmt.Errorf("transfers of %d bytes with blocks of %d", l.MaxTransfer, l.BlockSize)
	case l.Depth == 0:
		return fmt.Errorf("a depth of 0")
	}
	for i := range cfg.Queues {
		if err := cfg.checkQueue(&cfg.Queues[i]); err != nil {
			return fmt.Errorf("queue %d: %w", i, err)
		}
	}
	return nil
}

// payload is the largest request: what every Buffer has room for, in whole blocks.
func (cfg *Config) payload() uint32 {
	n := mostSkipped
	for i := range cfg.Queues {
		for j := range cfg.Queues[i].Buffers {
			n = min(n, len(cfg.Queues[i].Buffers[j].Mem))
		}
	}
	return uint32(n) &^ (cfg.Limits.BlockSize - 1)
}

func (cfg *Config) checkQueue(qc *QueueConfig) error {
	if want := BuffersPerQueue(cfg.Limits.Depth, cfg.MaxConns, len(cfg.Queues)); len(qc.Buffers) < want {
		return fmt.Errorf("%d buffers, not %d", len(qc.Buffers), want)
	}
	for i := range qc.Buffers {
		if n := len(qc.Buffers[i].Mem); n < int(cfg.Limits.MaxTransfer) {
			return fmt.Errorf("buffer %d has %d bytes, not %d", i, n, cfg.Limits.MaxTransfer)
		}
	}
	return nil
}

// Flags are the transmission flags for clients that get simple replies, as the kernel does.
func (e *Export) Flags() uint16 { return (&rules{limits: &e.limits}).flags() }

// SetSize says that the logical unit has got another size, in bytes. Connections see it by what is refused; a client learns it
// when it connects anew.
func (e *Export) SetSize(size uint64) { e.size.Store(size &^ (uint64(e.limits.BlockSize) - 1)) }

// Fail has every request that comes from now on answered with errno, unseen by the logical unit; 0 ends that. Requests
// that the logical unit has already are its own to finish, and Close waits for them.
func (e *Export) Fail(errno syscall.Errno) { e.fail.Store(int32(errno)) }

// Stats sums up what the lanes have done. It takes no lock and disturbs no lane.
func (e *Export) Stats() Stats {
	var s Stats
	for _, h := range e.hubs {
		h.stats.addTo(&s)
		s.Conns += int(h.tickets.Load())
	}
	return s
}

// ConnOptions is what was agreed with a client, or is known of it.
type ConnOptions struct {
	Queue       int     // of Config.Queues; negative: the one with the fewest connections
	Replies     Replies // Simple for the kernel
	BlockStatus bool    // base:allocation was selected
}

// ServeConn serves the client at the other end of the stream socket fd, without handshake. It takes fd over and closes
// it, also when it fails: with ErrTooMany or ErrClosed, or because fd is nothing to be served.
func (e *Export) ServeConn(fd int, o ConnOptions) (*Conn, error) {
	h, err := e.reserve(o.Queue)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	c, err := h.serve(fd, o)
	if err != nil {
		h.tickets.Add(-1)
		unix.Close(fd)
		return nil, err
	}
	return c, nil
}

// reserve takes a ticket for a connection of a queue.
func (e *Export) reserve(queue int) (*hub, error) {
	if e.closing.Load() {
		return nil, &Error{Op: "serve connection", Err: ErrClosed}
	}
	if queue >= 0 {
		if h := e.hubs[queue%len(e.hubs)]; h.reserve() {
			return h, nil
		}
		return nil, e.tooMany()
	}
	for {
		best := e.hubs[0]
		for _, h := range e.hubs[1:] {
			if h.tickets.Load() < best.tickets.Load() {
				best = h
			}
		}
		if best.reserve() {
			return best, nil
		}
		if int(best.tickets.Load()) >= best.limit {
			return nil, e.tooMany()
		}
	}
}

func (e *Export) tooMany() error {
	return &Error{Op: "serve connection", Err: fmt.Errorf("%w: %d are open", ErrTooMany, e.Stats().Conns)}
}

func (h *hub) reserve() bool {
	for {
		n := h.tickets.Load()
		if int(n) >= h.limit {
			return false
		}
		if h.tickets.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// sendBuffer is how much of replies the kernel may keep for a client on a unix socket, so that a long one does not take
// several turns. TCP finds its own size.
const sendBuffer = 1 << 20

// serve hands a socket to the lane. The caller has a ticket.
func (h *hub) serve(fd int, o ConnOptions) (*Conn, error) {
	if err := prepare(fd); err != nil {
		return nil, &Error{Op: "serve connection", Err: err}
	}
	c := &Conn{
		hub: h, fd: fd, done: make(chan struct{}), header: requestLen,
		rules: rules{limits: &h.exp.limits, payload: h.exp.payload, form: o.Replies, status: o.BlockStatus && o.Replies != Simple},
	}
	if o.Replies == Extended {
		c.header = extRequestLen
	}
	h.lane.Post(c.open)
	return c, nil
}

// prepare makes a stream socket fit for a lane.
func prepare(fd int) error {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err == nil && kind != unix.SOCK_STREAM {
		err = unix.EPROTOTYPE
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return fmt.Errorf("not a stream socket: %w", err)
	}
	if domain, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); domain != unix.AF_UNIX {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		return nil
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
	return nil
}

// drainGrace is how long Close leaves clients to take the replies to what they have asked. Tests cannot sit it out.
var drainGrace = 2 * time.Second
