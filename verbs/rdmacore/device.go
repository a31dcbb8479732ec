//go:build cgo && linux

package rdmacore

// #include <infiniband/verbs.h>
// #include "shim.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"iserblk/verbs"
)

// openDevices are the devices with connections, by ibv_context. librdmacm has one context a device and process, and
// its asynchronous events can be read only once, so there is one table for the process.
var openDevices = struct {
	sync.Mutex
	byContext map[unsafe.Pointer]*device
}{byContext: make(map[unsafe.Pointer]*device)}

// device is what connections on one RDMA device share. It lives as long as the first to the last of them, and no
// longer than any rdma_cm_id on it: that keeps the context open.
type device struct {
	context unsafe.Pointer
	async   *poller
	stopped chan struct{} // the reader of async has ended
	uses    int           // connections; guarded by openDevices

	gate    chan struct{} // whoever holds its one token may use domains
	domains map[*verbs.Arena]*domain

	mu    sync.Mutex
	conns map[*conn]struct{} // to hand events to

	gone atomic.Bool // it has been or is being removed
}

// forgetRemoved has librdmacm let go of devices that were removed. Until every process has, the kernel cannot finish
// the removal of a device that has no way to revoke their access: rxe and siw.
func forgetRemoved() { C.blk_forget_removed() }

// useDevice finds or opens the device of a context. leave ends the use.
func useDevice(context unsafe.Pointer) (*device, error) {
	openDevices.Lock()
	defer openDevices.Unlock()
	if d := openDevices.byContext[context]; d != nil {
		d.uses++
		return d, nil
	}
	d, err := openDevice(context)
	if err != nil {
		return nil, err
	}
	openDevices.byContext[context] = d
	return d, nil
}

func openDevice(context unsafe.Pointer) (*device, error) {
	fd := C.blk_async_fd(context)
	if fd < 0 {
		return nil, errno(fd)
	}
	async, err := newPoller(int(fd), "rdma-async-events")
	if err != nil {
		return nil, err
	}
	d := &device{
		context: context, async: async, stopped: make(chan struct{}), uses: 1,
		gate:    make(chan struct{}, 1),
		domains: make(map[*verbs.Arena]*domain),
		conns:   make(map[*conn]struct{}),
	}
	go d.readEvents()
	return d, nil
}

// leave ends one use; with the last one the reader of events is gone when leave returns.
func (d *device) leave() {
	openDevices.Lock()
	defer openDevices.Unlock()
	if d.uses--; d.uses > 0 {
		return
	}
	delete(openDevices.byContext, d.context)
	d.async.close()
	<-d.stopped
}

// lock takes the gate, unless ctx ends first: whoever holds it may be registering gigabytes.
func (d *device) lock(ctx context.Context) error {
	select {
	case d.gate <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *device) unlock() { <-d.gate }

// subscribe has c told of events until unsubscribe.
func (d *device) subscribe(c *conn) {
	d.mu.Lock()
	d.conns[c] = struct{}{}
	d.mu.Unlock()
}

func (d *device) unsubscribe(c *conn) {
	d.mu.Lock()
	delete(d.conns, c)
	d.mu.Unlock()
}

// readEvents hands out asynchronous events until the poller is closed or the device is gone.
func (d *device) readEvents() {
	defer close(d.stopped)
	for {
		var ev C.struct_blk_async_event
		var r C.int
		err := d.async.wait(func() bool {
			r = C.blk_async_next(d.context, &ev)
			return r != -C.int(syscall.EAGAIN)
		})
		if err != nil {
			return
		}
		if r < 0 {
			d.tell(verbs.Event{Kind: verbs.EventDeviceGone, Err: errno(r)}, func(*conn) bool { return true })
			return
		}
		d.dispatch(&ev)
	}
}

var (
	errQPFatal     = errors.New("fatal error of the queue pair")
	errQPRequest   = errors.New("invalid request on the queue pair")
	errQPAccess    = errors.New("access violation on the queue pair")
	errCQ          = errors.New("completion queue overrun")
	errDeviceFatal = errors.New("fatal error of the device")
)

// asyncEvents says what an asynchronous event means to a connection (ibv_get_async_event(3)).
var asyncEvents = map[C.uint32_t]verbs.Event{
	C.IBV_EVENT_CQ_ERR:        {Kind: verbs.EventQPError, Err: errCQ},
	C.IBV_EVENT_QP_FATAL:      {Kind: verbs.EventQPError, Err: errQPFatal},
	C.IBV_EVENT_QP_REQ_ERR:    {Kind: verbs.EventQPError, Err: errQPRequest},
	C.IBV_EVENT_QP_ACCESS_ERR: {Kind: verbs.EventQPError, Err: errQPAccess},
	C.IBV_EVENT_PORT_ACTIVE:   {Kind: verbs.EventPortUp},
	C.IBV_EVENT_PORT_ERR:      {Kind: verbs.EventPortDown},
	C.IBV_EVENT_GID_CHANGE:    {Kind: verbs.EventAddrChange},
	C.IBV_EVENT_DEVICE_FATAL:  {Kind: verbs.EventDeviceGone, Err: errDeviceFatal},
}

// dispatch tells the connections that an event is about.
func (d *device) dispatch(ev *C.struct_blk_async_event) {
	out, known := asyncEvents[ev._type]
	if !known {
		return
	}
	if out.Kind == verbs.EventPortDown {
		out.Err = fmt.Errorf("port %d lost its link", ev.port)
	}
	d.tell(out, func(c *conn) bool { return c.concerns(ev) })
}

// concerns says whether an event is about this connection's port or queues, or about the device.
func (c *conn) concerns(ev *C.struct_blk_async_event) bool {
	switch {
	case ev.object != 0:
		return ev.object == c.qpObject || ev.object == c.cqObject
	case ev.port != 0:
		return ev.port == C.uint32_t(c.info.Port)
	}
	return true
}

func (d *device) tell(ev verbs.Event, about func(*conn) bool) {
	if ev.Kind == verbs.EventDeviceGone {
		d.gone.Store(true)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.conns {
		if about(c) {
			c.events.post(ev)
			c.noticePort(ev.Kind)
		}
	}
}
