package iser

import (
	"context"
	"sync"

	"iserblk/session"
	"iserblk/verbs"
)

var _ session.Datamover = (*Conn)(nil)

// wcBatch is how many completions one Poll takes at most.
const wcBatch = 64

// Conn is one iSER connection. See the package comment for who may call what.
type Conn struct {
	qp          verbs.Conn
	arena       *verbs.Arena
	region      verbs.RegionID
	layout      layout
	maxCommands int
	info        Info

	mem    []byte // the region
	base   uint64 // address of mem[0]
	lkey   uint32 // of the region
	inline uint32 // bytes a send may carry inline

	commands, controls []uint32       // free send slots, used as stacks
	sending            []bool         // by slot: with the device
	order              fifo           // slots with the device, in the order of their posting
	unsignaled         int            // command sends enqueued since the last that asked for a completion
	queue              []verbs.SendWR // queued since the last Flush
	receiving          []bool         // by receive buffer: with the device
	repost             []verbs.RecvWR // handled since the last repost
	wcs                [wcBatch]verbs.WC

	windows     windows
	credit      credit
	posted      int // work requests with the device
	fullFeature bool
	aborted     bool
	err         error // what the connection was lost by
	stats       Stats

	closeOnce sync.Once
	closeErr  error
}

// Dial connects to a portal. It returns when the target has accepted, ctx has ended or the connection has failed, and
// leaves nothing behind when it fails. The connection is ready for the login phase: one receive of 8 KiB is posted.
func Dial(ctx context.Context, provider verbs.Provider, o Options) (*Conn, error) {
	l := newLayout(o)
	region, err := o.Arena.Carve(l.size(), verbs.AccessLocal)
	if err != nil {
		return nil, &Error{Op: "connect to", Peer: o.Target.String(), Err: err}
	}
	c := &Conn{arena: o.Arena, region: region, layout: l, maxCommands: o.maxCommands()}
	c.prepare()
	if err := c.dial(ctx, provider, o); err != nil {
		o.Arena.Release(region)
		return nil, &Error{Op: "connect to", Peer: o.Target.String(), Err: err}
	}
	if err := c.postLoginRecv(); err != nil {
		_ = c.Close() // gives the region back, once nothing can touch it
		return nil, err
	}
	return c, nil
}

// prepare makes everything that the data path would else have to allocate.
func (c *Conn) prepare() {
	l := c.layout
	c.mem = c.arena.Mem(c.region)
	c.base = verbs.Addr(c.mem)
	c.sending = make([]bool, l.sends())
	c.receiving = make([]bool, l.recvs)
	c.order.slots = make([]uint32, l.sends())
	c.queue = make([]verbs.SendWR, 0, l.sends())
	c.repost = make([]verbs.RecvWR, 0, l.recvs)
	c.commands = stack(0, l.commands)
	c.controls = stack(l.commands, l.controls)
}

// stack is n free slots from first on, the first on top.
func stack(first, n int) []uint32 {
	s := make([]uint32, n)
	for i := range s {
		s[i] = uint32(first + n - 1 - i)
	}
	return s
}

// dial connects. The login receive follows, when its key is known: an iSER target never sends first.
func (c *Conn) dial(ctx context.Context, provider verbs.Provider, o Options) error {
	qp, err := provider.Dial(ctx, o.dialAttr(c.layout))
	if err != nil {
		return err
	}
	c.qp = qp
	c.lkey = qp.Keys(c.region).LKey
	c.windows.exposer, _ = qp.(verbs.Exposer)
	c.credit.limiter, _ = qp.(verbs.InboundLimiter)
	c.inline = uint32(qp.MaxInline())
	c.info = newInfo(qp)
	return nil
}
