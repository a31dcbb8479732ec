//go:build cgo && linux

package rdmacore

// #include <rdma/rdma_cma.h>
// #include "shim.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"iserblk/verbs"
)

// The bounds of Dial's other steps (see patience.go); the context may end them sooner.
const (
	routeTime   = 2 * time.Second
	cleanUpTime = 2 * time.Second
)

const (
	maxResponderResources = 128
	rnrTimerCode          = 12 // 0.64 ms; rdma_cm leaves 0, which means 655 ms
)

// Dial connects to a.Dst. Its errors are *verbs.OpError and match ErrNoDevice, ErrMemlock, ErrTimeout, ErrRejected or
// the context's where one of them is the cause.
func (p *Provider) Dial(ctx context.Context, a verbs.DialAttr) (verbs.Conn, error) {
	if err := Library(); err != nil {
		return nil, err
	}
	if err := checkAttr(a); err != nil {
		return nil, &verbs.OpError{Op: "connect to", Peer: a.Dst.String(), Err: err}
	}
	var c *conn
	err := whileStale(ctx, func() (err error) {
		c, err = dialOnce(ctx, a)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// dialOnce makes one attempt with an identifier and a queue pair of its own, and undoes it if it fails.
func dialOnce(ctx context.Context, a verbs.DialAttr) (*conn, error) {
	c := &conn{peer: a.Dst, events: newEventQueue(), fd: -1}
	if c.c = C.blk_conn_new(); c.c == nil {
		return nil, errNoMemory
	}
	if err := c.dial(ctx, a); err != nil {
		c.noDevice = errors.Is(err, verbs.ErrNoDevice)
		_ = c.destroyWithin(cleanUpTime) // the cause says more
		return nil, err
	}
	return c, nil
}

func (c *conn) dial(ctx context.Context, a verbs.DialAttr) error {
	steps := []func(context.Context, verbs.DialAttr) error{
		c.open, c.resolve, c.askDevice, c.setUp, c.postFirst, c.connect,
	}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return ended("connect to", a.Dst, err)
		}
		if err := step(ctx, a); err != nil {
			return err
		}
	}
	c.start()
	return nil
}

// open makes the event channel and the identifier and sets its options.
func (c *conn) open(_ context.Context, a verbs.DialAttr) error {
	if r := C.blk_cm_open(c.c); r < 0 {
		return explainOpen(errno(r))
	}
	cm, err := newPoller(int(C.blk_cm_fd(c.c)), "rdma-cm-events")
	if err != nil {
		return &verbs.OpError{Op: "watch CM events", Err: err}
	}
	c.cm = cm
	return c.setOptions(a)
}

func (c *conn) setOptions(a verbs.DialAttr) error {
	if a.TOS != 0 {
		if r := C.blk_cm_option(c.c, 0, C.uint8_t(a.TOS)); r < 0 {
			return &verbs.OpError{Op: "set type of service", Err: errno(r)}
		}
	}
	if a.AckTimeout > 0 {
		if r := C.blk_cm_option(c.c, 1, C.uint8_t(ackTimeoutCode(a.AckTimeout))); r < 0 {
			return &verbs.OpError{Op: "set ack timeout", Err: errno(r)}
		}
	}
	return nil
}

// resolve finds the device and the path. Afterwards the device is known.
func (c *conn) resolve(ctx context.Context, a verbs.DialAttr) error {
	err := whileUnresolved(ctx, func() error {
		if err := checkRoute(a); err != nil {
			return err
		}
		return c.resolveAddr(ctx, a)
	})
	if err != nil {
		return explainAddr(a, err)
	}
	if r := C.blk_resolve_route(c.c, C.int(routeTime.Milliseconds())); r < 0 {
		return &verbs.OpError{Op: "resolve route to", Peer: a.Dst.String(), Err: errno(r)}
	}
	return c.await(ctx, "resolve route to", C.RDMA_CM_EVENT_ROUTE_RESOLVED, routeTime)
}

// resolveAddr has the kernel find the neighbour once.
func (c *conn) resolveAddr(ctx context.Context, a verbs.DialAttr) error {
	src, dst := cAddr(netip.AddrPortFrom(a.Src, 0)), cAddr(a.Dst)
	if r := C.blk_resolve_addr(c.c, &src, &dst, C.int(askTime.Milliseconds())); r < 0 {
		return errno(r)
	}
	return c.await(ctx, "resolve address of", C.RDMA_CM_EVENT_ADDR_RESOLVED, addrTime)
}

// await waits for one CM event. Any other is an error: before the connection is up, events come only as answers.
func (c *conn) await(ctx context.Context, op string, want C.uint32_t, limit time.Duration) error {
	_, err := c.awaitEvent(ctx, op, want, limit)
	return err
}

func (c *conn) awaitEvent(ctx context.Context, op string, want C.uint32_t, limit time.Duration) (
	ev C.struct_blk_cm_event, err error,
) {
	c.cm.setDeadline(time.Now().Add(limit))
	if c.portLost.Load() {
		c.cm.interrupt()
	}
	stop := context.AfterFunc(ctx, c.cm.interrupt)
	ev, err = c.nextCM()
	if !stop() {
		return ev, ended(op, c.peer, ctx.Err())
	}
	if err == nil && ev._type != want {
		err = unwanted(&ev)
	}
	if err != nil {
		err = &verbs.OpError{Op: op, Peer: c.peer.String(), Err: asTimeout(err)}
	}
	return ev, err
}

// unwanted is the error for an event that says no.
func unwanted(ev *C.struct_blk_cm_event) error {
	cause := cmStatus(ev)
	switch {
	case cause == nil:
		return errors.New(cmEventName(ev))
	case errors.Is(cause, verbs.ErrRejected):
		return cause
	}
	return fmt.Errorf("%s: %w", cmEventName(ev), cause)
}

// askDevice finds out what the device that the route leads over can do, and whether it can do it now.
func (c *conn) askDevice(_ context.Context, a verbs.DialAttr) error {
	d := &c.limits
	if r := C.blk_query_device(c.c, d); r < 0 {
		return &verbs.OpError{Op: "query device", Err: errno(r)}
	}
	c.local = goAddr(&d.local)
	c.info = describe(d, c.local.Addr())
	c.responderResources = responderResources(uint32(d.max_qp_rd_atom))
	c.initiatorDepth = uint8(min(1, d.max_qp_init_rd_atom))
	if err := checkDepths(a, d); err != nil {
		return err
	}
	return c.checkPort()
}

// setUp makes the memory keys and the queues.
func (c *conn) setUp(ctx context.Context, a verbs.DialAttr) error {
	if err := c.join(ctx, a.Arena); err != nil {
		return err
	}
	return c.makeQueues(a, &c.limits)
}

// join makes the connection one of the device's and the arena's.
func (c *conn) join(ctx context.Context, arena *verbs.Arena) (err error) {
	if c.device, err = useDevice(C.blk_context(c.c)); err != nil {
		return &verbs.OpError{Op: "watch device " + c.info.Name, Err: err}
	}
	if c.domain, err = c.device.attach(ctx, arena); contextual(err) {
		return ended("connect to", c.peer, err)
	}
	return err
}

var nextVector atomic.Uint32 // spreads connections over the device's interrupt vectors

func (c *conn) makeQueues(a verbs.DialAttr, d *C.struct_blk_device) error {
	sends, recvs := C.uint32_t(a.SendDepth), C.uint32_t(a.RecvDepth)
	vector := nextVector.Add(1) % max(1, uint32(d.num_comp_vectors))
	if r := C.blk_create_cq(c.c, sends, recvs, C.int(vector)); r < 0 {
		return explainMemory("create completion queue", errno(r), 0)
	}
	c.fd = int(C.blk_cq_fd(c.c))
	if err := c.makeQP(sends, recvs, a.MaxInline); err != nil {
		return explainMemory("create queue pair", err, 0)
	}
	c.qpObject, c.cqObject = C.blk_qp(c.c), C.blk_cq(c.c)
	c.device.subscribe(c)
	return nil
}

// makeQP asks for less inline data when a device does not have as much: siw stops at 80 bytes.
func (c *conn) makeQP(sends, recvs C.uint32_t, inline int) error {
	var r C.int
	for _, n := range []int{inline, min(inline, 80), 0} {
		r = C.blk_create_qp(c.c, c.domain.pd, sends, recvs, C.uint32_t(n))
		if r >= 0 {
			c.maxInline = int(r)
			return nil
		}
	}
	return errno(r)
}

// postFirst posts the receives that the peer may use as soon as it has accepted.
func (c *conn) postFirst(_ context.Context, a verbs.DialAttr) error {
	recvs := append([]verbs.RecvWR(nil), a.Recvs...)
	for i := range recvs {
		recvs[i].SGE.LKey = c.domain.lkeyAt(recvs[i].SGE.Addr, recvs[i].SGE.Len)
	}
	_, err := c.PostRecv(recvs)
	return err
}

func (c *conn) connect(ctx context.Context, a verbs.DialAttr) error {
	c.connecting.Store(true)
	defer c.connecting.Store(false)
	if err := c.checkPort(); err != nil {
		return err
	}
	c.requested = true
	if err := c.request(a); err != nil {
		return &verbs.OpError{Op: "connect to", Peer: c.peer.String(), Err: err}
	}
	ev, err := c.awaitEvent(ctx, "connect to", C.RDMA_CM_EVENT_ESTABLISHED, connectTime)
	if err != nil && c.portLost.Load() {
		return portDown(c.peer, c.info)
	}
	if err != nil {
		return explainConnect(err)
	}
	c.private = C.GoBytes(unsafe.Pointer(&ev.private_data), C.int(ev.private_len))
	return nil
}

// request sends the CM request. Its private data is pinned, because C gets at it through a struct.
func (c *conn) request(a verbs.DialAttr) error {
	p := C.struct_blk_params{
		responder_resources: C.uint8_t(c.responderResources),
		initiator_depth:     C.uint8_t(c.initiatorDepth),
		retry_count:         C.uint8_t(a.RetryCount),
		rnr_retry_count:     C.uint8_t(a.RNRRetry),
	}
	if len(a.PrivateData) > 0 {
		var pin runtime.Pinner
		defer pin.Unpin()
		pin.Pin(&a.PrivateData[0])
		p.private_data, p.private_len = unsafe.Pointer(&a.PrivateData[0]), C.uint8_t(len(a.PrivateData))
	}
	return errno(C.blk_connect(c.c, &p))
}

// responderResources is how many RDMA READs the target may have under way towards us: the speed of our writes.
// librdmacm compares it with the lowest 8 bits of the device's limit.
func responderResources(limit uint32) uint8 {
	return uint8(min(limit, maxResponderResources, uint32(uint8(limit))))
}

// start sets the receiver-not-ready timer, where the device lets us, and begins to watch CM events.
func (c *conn) start() {
	C.blk_set_rnr_timer(c.c, rnrTimerCode)
	c.cm.setDeadline(time.Time{})
	c.cmEnded = make(chan struct{})
	go c.readCM()
}

// describe tells of a connection's port: the device's own word, and what sysfs adds.
func describe(d *C.struct_blk_device, local netip.Addr) verbs.DeviceInfo {
	info := sysClass.port(C.GoString(&d.name[0]), int(d.port), local)
	info.Active = d.active != 0
	if d.active_mtu > 0 {
		info.PathMTU = 128 << d.active_mtu
	}
	return info
}

// checkDepths refuses queues that this device does not have.
func checkDepths(a verbs.DialAttr, d *C.struct_blk_device) error {
	wr, cqe := int(d.max_qp_wr), int(d.max_cqe)
	if a.SendDepth <= wr && a.RecvDepth <= wr && a.SendDepth+a.RecvDepth <= cqe {
		return nil
	}
	return &verbs.OpError{
		Op: "create queues on " + C.GoString(&d.name[0]), Hint: "use a smaller queue depth",
		Err: fmt.Errorf("%d sends and %d receives wanted, the device has %d work requests a queue and %d completions",
			a.SendDepth, a.RecvDepth, wr, cqe),
	}
}
