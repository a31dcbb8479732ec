package conformance

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"iserblk/verbs"
)

func abortFlushes(r *rig) {
	r.connect().recv(0, depth)
	begin := time.Now()
	if err := errors.Join(r.conn.Abort(), r.conn.Abort()); err != nil {
		r.t.Fatal(err)
	}
	if took := time.Since(begin); took > time.Second {
		r.t.Errorf("aborting took %v", took)
	}
	seen := make(map[uint64]bool)
	for _, wc := range r.poll(depth) {
		if wc.Status != verbs.StatusFlushed {
			r.t.Errorf("%+v", wc)
		}
		seen[wc.ID] = true
	}
	if len(seen) != depth {
		r.t.Errorf("%d receives came back", len(seen))
	}
	r.send(r.sendWR(20, 16))
	if wc := r.poll(1)[0]; wc.Status != verbs.StatusFlushed || wc.ID != 1020 {
		r.t.Errorf("a later send: %+v", wc)
	}
}

func abortClosesMemory(r *rig) {
	r.connect()
	if err := r.conn.Abort(); err != nil {
		r.t.Fatal(err)
	}
	before := append([]byte(nil), r.mem()...)
	failed := make(chan error, 1)
	go func() { failed <- r.peer.RDMAWrite(r.keys().WriteKey, r.va(), pattern(5, 4096)) }()
	time.Sleep(50 * time.Millisecond)
	r.same("memory after abort", r.mem(), before)
	if err := r.conn.Close(); err != nil { // tells the peer, whose write then fails
		r.t.Fatal(err)
	}
	select {
	case err := <-failed:
		if err == nil {
			r.t.Error("the peer could write")
		}
	case <-time.After(patient):
		r.t.Error("the peer's write does not end")
	}
	r.same("memory after close", r.mem(), before)
}

func aPeerThatLeaves(r *rig) {
	r.connect().recv(0, 4)
	if err := r.peer.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.event(verbs.EventDisconnected)
	for _, wc := range r.poll(4) {
		if wc.Status != verbs.StatusFlushed {
			r.t.Errorf("%+v", wc)
		}
	}
	if _, err := r.peer.Recv(context.Background(), make([]byte, 16)); err == nil {
		r.t.Error("a closed peer receives")
	}
	if err := r.peer.Send([]byte("x")); err == nil {
		r.t.Error("a closed peer sends")
	}
}

func aClosedConnectionRefuses(r *rig) {
	r.connect().recv(0, 1)
	if err := errors.Join(r.conn.Close(), r.conn.Close(), r.conn.Abort()); err != nil {
		r.t.Error(err)
	}
	_, perr := r.conn.Poll(make([]verbs.WC, 1))
	for _, err := range []error{perr, r.conn.Arm(), r.conn.Sync()} {
		if !errors.Is(err, verbs.ErrClosed) {
			r.t.Error(err)
		}
	}
	for range r.conn.Events() { // ends only if it is closed
	}
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	if _, err := r.peer.Recv(ctx, make([]byte, 16)); err == nil || ctx.Err() != nil {
		r.t.Errorf("the peer was not told: %v", err)
	}
}

func nobodyListens(r *rig) {
	a := r.attr()
	if err := r.listener.Close(); err != nil {
		r.t.Fatal(err)
	}
	begin := time.Now()
	_, err := r.bed.Provider.Dial(context.Background(), a)
	var reject *verbs.RejectError
	var op *verbs.OpError
	if !errors.Is(err, verbs.ErrRejected) || !errors.As(err, &reject) || reject.Reason != 8 || !errors.As(err, &op) {
		r.t.Errorf("%T %v", err, err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		r.t.Errorf("it took %v", took)
	}
	if _, err := r.listener.Accept(context.Background()); !errors.Is(err, net.ErrClosed) {
		r.t.Error(err)
	}
}

func aCancelledConnectEnds(r *rig) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if c, err := r.bed.Provider.Dial(ctx, r.attr()); !errors.Is(err, context.Canceled) {
		r.t.Errorf("%v, %v", c, err)
	}
}

func limitsAreChecked(r *rig) {
	for name, change := range map[string]func(*verbs.DialAttr){
		"57 bytes of private data": func(a *verbs.DialAttr) { a.PrivateData = make([]byte, 57) },
		"retry for ever":           func(a *verbs.DialAttr) { a.RetryCount = 7 },
		"no send depth":            func(a *verbs.DialAttr) { a.SendDepth = 0 },
		"more receives than depth": func(a *verbs.DialAttr) { a.Recvs = make([]verbs.RecvWR, depth+1) },
		"no address of this host":  func(a *verbs.DialAttr) { a.Src = netip.MustParseAddr("192.0.2.77") },
	} {
		a := r.attr()
		change(&a)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if c, err := r.bed.Provider.Dial(ctx, a); err == nil {
			r.t.Errorf("%s: connected", name)
			_ = c.Close()
		}
		cancel()
	}
}

func listeningTwice(r *rig) {
	at := r.listener.Addr()
	if l, err := r.bed.Acceptor.Listen(context.Background(), r.listenAttr(at)); err == nil {
		r.t.Error("twice")
		_ = l.Close()
	}
	if err := r.listener.Close(); err != nil {
		r.t.Fatal(err)
	}
	l, err := r.bed.Acceptor.Listen(context.Background(), r.listenAttr(at))
	if err != nil {
		r.t.Fatal(err)
	}
	r.listener = l
	r.connect()
}

func connectionsLeaveNothing(r *rig) {
	cycle := func() {
		r.connect()
		r.hangUp()
	}
	cycle() // opens what stays open
	fds, routines := openFiles(r.t), runtime.NumGoroutine()
	for range 50 {
		cycle()
	}
	for end := time.Now().Add(patient); ; time.Sleep(10 * time.Millisecond) {
		nowFds, nowRoutines := openFiles(r.t), runtime.NumGoroutine()
		if nowFds <= fds && nowRoutines <= routines {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("%d descriptors became %d, %d goroutines %d", fds, nowFds, routines, nowRoutines)
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func connectionsAtOnce(r *rig) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patient)
	closed := make(chan struct{})
	defer func() { cancel(); <-closed }() // what goes on beside the next test counts there
	go func() {
		defer close(closed)
		for {
			p, err := r.listener.Accept(ctx)
			if err != nil {
				return
			}
			defer p.Close()
		}
	}()
	results := make(chan error)
	for range 4 {
		go func() {
			var errs []error
			for range 5 {
				c, err := r.bed.Provider.Dial(ctx, r.attr())
				if err == nil {
					err = c.Close()
				}
				errs = append(errs, err)
			}
			results <- errors.Join(errs...)
		}()
	}
	for range 4 {
		if err := <-results; err != nil {
			r.t.Error(err)
		}
	}
}

func noAllocation(r *rig) {
	r.connect()
	wcs := make([]verbs.WC, 16)
	recv := []verbs.RecvWR{r.recvWR(0)}
	allocs := testing.AllocsPerRun(depth-1, func() { // one warm-up
		if _, err := r.conn.PostRecv(recv); err != nil {
			r.t.Fatal(err)
		}
		_, _ = r.conn.Poll(wcs)
		_ = r.conn.Arm()
	})
	if allocs != 0 {
		r.t.Errorf("%v allocations", allocs)
	}
}
