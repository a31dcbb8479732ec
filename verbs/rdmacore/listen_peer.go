//go:build cgo && linux

package rdmacore

// #include <rdma/rdma_cma.h>
// #include "listen.h"
import "C"

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"iserblk/verbs"
)

const (
	peerSlots    = 32        // work requests that a peer has under way: SENDs, RDMA WRITEs and READs
	peerSlotSize = 128 << 10 // bytes of one of them; what is longer goes in pieces
	acceptTime   = 10 * time.Second
)

// peerConn is the passive end of a connection. What it moves it copies through registered memory of its own: it is for
// test beds.
type peerConn struct {
	*conn
	attr    verbs.ListenAttr
	request []byte // the private data of the CM request
	arena   *verbs.Arena
	recvs   memoryPart // of the receive buffers
	slots   memoryPart

	wake    *poller
	stopped chan struct{} // the reader of completions has ended
	dead    chan struct{} // the connection is of no use any more
	deadOne sync.Once

	received chan arrival
	free     chan int              // slots
	ends     [peerSlots]chan error // of the work request in each slot

	using     sync.RWMutex // held shared by whoever touches the queues or the memory
	postMu    sync.Mutex
	closeOnce sync.Once
	closeErr  error
}

// memoryPart is one region of a peer's arena.
type memoryPart struct {
	id  verbs.RegionID
	mem []byte
}

// arrival is a received message in one of the receive buffers.
type arrival struct{ buffer, n int }

// newPeerConn accepts a connection request. It returns when the connection is up.
func newPeerConn(a verbs.ListenAttr, req *C.struct_blk_request) (*peerConn, error) {
	c := &conn{peer: goAddr(&req.remote), events: newEventQueue(), fd: -1}
	if c.c = C.blk_conn_new(); c.c == nil {
		C.blk_refuse(req.id)
		return nil, errNoMemory
	}
	if r := C.blk_take(c.c, req.id); r < 0 {
		C.blk_refuse(req.id)
		_ = c.destroyWithin(cleanUpTime)
		return nil, errno(r)
	}
	p := &peerConn{
		conn: c, attr: a, request: C.GoBytes(unsafe.Pointer(&req.private_data), C.int(req.private_len)),
		stopped: make(chan struct{}), dead: make(chan struct{}),
		received: make(chan arrival, a.RecvDepth), free: make(chan int, peerSlots),
	}
	if err := p.open(req); err != nil {
		_ = c.destroyWithin(cleanUpTime)
		if p.arena != nil {
			_ = p.arena.Close()
		}
		return nil, err
	}
	go p.reap()
	return p, nil
}

// open takes the steps of Dial that the passive end shares, and accepts.
func (p *peerConn) open(req *C.struct_blk_request) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), acceptTime)
	defer cancel()
	if p.cm, err = newPoller(int(C.blk_cm_fd(p.c)), "rdma-cm-events"); err != nil {
		return err
	}
	a := verbs.DialAttr{SendDepth: peerSlots, RecvDepth: p.attr.RecvDepth}
	if err := p.askDevice(ctx, a); err != nil {
		return err
	}
	if err := p.makeMemory(); err != nil {
		return err
	}
	a.Arena = p.arena
	if err := p.setUp(ctx, a); err != nil {
		return err
	}
	if err := p.postAll(); err != nil {
		return err
	}
	if p.wake, err = newPoller(p.fd, "rdma-completions"); err != nil {
		return err
	}
	if err := p.accept(ctx, req); err != nil {
		p.wake.close()
		return err
	}
	p.start()
	return nil
}

// makeMemory carves the receive buffers and the slots.
func (p *peerConn) makeMemory() (err error) {
	const pages = 1 << 16 // room to round up to whole pages, of any size
	recvs, slots := p.attr.RecvDepth*p.attr.RecvSize, peerSlots*peerSlotSize
	if p.arena, err = verbs.NewArena(recvs + slots + 2*pages); err != nil {
		return err
	}
	if p.recvs, err = p.carve(recvs); err == nil {
		p.slots, err = p.carve(slots)
	}
	if err != nil {
		return err
	}
	for i := range p.ends {
		p.ends[i] = make(chan error, 1)
		p.free <- i
	}
	return nil
}

func (p *peerConn) carve(size int) (memoryPart, error) {
	id, err := p.arena.Carve(size, verbs.AccessLocal)
	if err != nil {
		return memoryPart{}, err
	}
	return memoryPart{id, p.arena.Mem(id)}, nil
}

func (p *peerConn) postAll() error {
	for i := range p.attr.RecvDepth {
		if err := p.postBuffer(i); err != nil {
			return err
		}
	}
	return nil
}

func (p *peerConn) buffer(i int) []byte { return p.recvs.mem[i*p.attr.RecvSize:][:p.attr.RecvSize] }
func (p *peerConn) slot(i int) []byte   { return p.slots.mem[i*peerSlotSize:][:peerSlotSize] }

// postBuffer gives a receive buffer to the device.
func (p *peerConn) postBuffer(i int) error {
	b := p.buffer(i)
	p.postMu.Lock()
	defer p.postMu.Unlock()
	_, err := p.PostRecv([]verbs.RecvWR{{
		ID: recvID | uint64(i), SGE: verbs.SGE{Addr: verbs.Addr(b), Len: uint32(len(b)), LKey: p.Keys(p.recvs.id).LKey},
	}})
	return err
}

// recvID tells receives from everything else: the operation of a failed completion does not count.
const recvID = 1 << 32

// accept answers the request and waits until the initiator knows.
func (p *peerConn) accept(ctx context.Context, req *C.struct_blk_request) error {
	par := C.struct_blk_params{
		responder_resources: min(req.responder_resources, C.uint8_t(p.conn.responderResources)),
		initiator_depth:     min(req.initiator_depth, C.uint8_t(min(p.limits.max_qp_init_rd_atom, maxResponderResources))),
		rnr_retry_count:     7, // the initiator's sends wait for our receives
	}
	if len(p.attr.PrivateData) > 0 {
		var pin runtime.Pinner
		defer pin.Unpin()
		pin.Pin(&p.attr.PrivateData[0])
		par.private_data, par.private_len = unsafe.Pointer(&p.attr.PrivateData[0]), C.uint8_t(len(p.attr.PrivateData))
	}
	p.requested = true
	if r := C.blk_accept(p.c, &par); r < 0 {
		return &verbs.OpError{Op: "accept connection from", Peer: p.peer.String(), Err: errno(r)}
	}
	return p.await(ctx, "accept connection from", C.RDMA_CM_EVENT_ESTABLISHED, acceptTime)
}

// PrivateData is what the CM request carried.
func (p *peerConn) PrivateData() []byte { return p.request }

// reap takes completions until the connection is closed.
func (p *peerConn) reap() {
	defer close(p.stopped)
	_ = p.wake.wait(func() bool {
		p.take()
		if p.Arm() != nil {
			p.die()
			return true
		}
		p.take() // what came before the notification was asked for raises none
		return false
	})
}

// take hands out the completions there are.
func (p *peerConn) take() {
	var wcs [32]verbs.WC
	for {
		n, err := p.Poll(wcs[:])
		if err != nil {
			p.die()
		}
		if n == 0 {
			return
		}
		for i := range wcs[:n] {
			p.complete(&wcs[i])
		}
	}
}

func (p *peerConn) complete(wc *verbs.WC) {
	i := int(uint32(wc.ID))
	var err error
	if wc.Status != verbs.StatusSuccess {
		err = wc.Status
		defer p.die() // after the one that has the reason
	}
	switch {
	case wc.ID&recvID == 0:
		p.ends[i] <- err
	case err == nil:
		p.received <- arrival{i, int(wc.Len)} // there is room for every buffer
	}
}

// die has everything that waits for the connection return.
func (p *peerConn) die() { p.deadOne.Do(func() { close(p.dead) }) }

// errPeerGone is what a connection that has ended answers.
var errPeerGone = errors.New("the connection has ended")

// Recv waits for the next message.
func (p *peerConn) Recv(ctx context.Context, buf []byte) (int, error) {
	var a arrival
	select {
	case a = <-p.received:
	default:
		select {
		case a = <-p.received:
		case <-p.dead:
			return 0, p.failed("receive from", errPeerGone)
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	p.using.RLock()
	defer p.using.RUnlock()
	if p.closed.Load() {
		return 0, p.failed("receive from", verbs.ErrClosed)
	}
	if a.n > len(buf) {
		return 0, p.failed("receive from", verbs.StatusLocLenErr)
	}
	copy(buf, p.buffer(a.buffer)[:a.n])
	if err := p.postBuffer(a.buffer); err != nil {
		return 0, err
	}
	return a.n, nil
}

func (p *peerConn) failed(op string, err error) error {
	return &verbs.OpError{Op: op, Peer: p.peer.String(), Err: err}
}

// Send returns when the other end has the message.
func (p *peerConn) Send(msg []byte) error {
	if len(msg) > peerSlotSize {
		return p.failed("send to", verbs.StatusLocLenErr)
	}
	return p.move(C.BLK_SEND, 0, 0, msg)
}

// RDMAWrite returns when the other end has acknowledged all of b.
func (p *peerConn) RDMAWrite(rkey uint32, va uint64, b []byte) error {
	return p.pieces(C.BLK_RDMA_WRITE, rkey, va, b)
}

// RDMARead returns when b is there.
func (p *peerConn) RDMARead(rkey uint32, va uint64, b []byte) error {
	return p.pieces(C.BLK_RDMA_READ, rkey, va, b)
}

func (p *peerConn) pieces(op C.int, rkey uint32, va uint64, b []byte) error {
	for len(b) > 0 {
		n := min(len(b), peerSlotSize)
		if err := p.move(op, rkey, va, b[:n]); err != nil {
			return err
		}
		va, b = va+uint64(n), b[n:]
	}
	return nil
}

// move does one work request through a slot and waits for its end.
func (p *peerConn) move(op C.int, rkey uint32, va uint64, b []byte) error {
	p.using.RLock()
	defer p.using.RUnlock()
	if p.closed.Load() { // and the slots are gone
		return p.failed("reach", verbs.ErrClosed)
	}
	var i int
	select {
	case i = <-p.free:
	case <-p.dead:
		return p.failed("reach", errPeerGone)
	}
	mem := p.slot(i)[:len(b)]
	if op != C.BLK_RDMA_READ {
		copy(mem, b)
	}
	if err := p.post(op, i, rkey, va, mem); err != nil {
		p.free <- i
		return p.failed("reach", err)
	}
	if err := p.wait(i); err != nil {
		return p.failed("reach", err) // with the queue pair in ERR no slot is needed any more
	}
	if op == C.BLK_RDMA_READ {
		copy(b, mem)
	}
	p.free <- i
	return nil
}

// wait waits for the end of the work request in slot i.
func (p *peerConn) wait(i int) error {
	select {
	case err := <-p.ends[i]:
		return err
	case <-p.dead:
	}
	select {
	case err := <-p.ends[i]: // both: it may be why
		return err
	default:
		return errPeerGone
	}
}

func (p *peerConn) post(op C.int, i int, rkey uint32, va uint64, mem []byte) error {
	sge := C.struct_blk_sge{
		addr: C.uint64_t(verbs.Addr(mem)), len: C.uint32_t(len(mem)), lkey: C.uint32_t(p.Keys(p.slots.id).LKey),
	}
	p.postMu.Lock()
	defer p.postMu.Unlock()
	if p.closed.Load() {
		return verbs.ErrClosed
	}
	return errno(C.blk_post_one(p.c, op, C.uint64_t(i), &sge, C.uint64_t(va), C.uint32_t(rkey)))
}

// Close disconnects. Whatever waits returns.
func (p *peerConn) Close() error {
	p.closeOnce.Do(func() {
		p.die()
		p.using.Lock()
		defer p.using.Unlock()
		p.wake.close()
		<-p.stopped
		p.closeErr = p.conn.Close()
		if p.closeErr == nil { // else the device may still use the memory
			p.closeErr = p.arena.Close()
		}
	})
	return p.closeErr
}
