// Package conformance is what every provider of package verbs has to do, as one table of tests: the provider's own tests
// run it over whatever network they have. It knows a provider by the interfaces of package verbs alone.
package conformance

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/verbs"
)

// Bed is what is tested, and where.
type Bed struct {
	Provider verbs.Provider
	Acceptor verbs.Acceptor
	// Addrs are local addresses that both ends use; the whole table runs over the first, the main path over each.
	Addrs []netip.Addr
}

// Run runs the table.
func Run(t *testing.T, b Bed) {
	for _, a := range b.Addrs {
		t.Run("over "+a.String(), func(t *testing.T) {
			for _, row := range mainPath {
				t.Run(row.name, func(t *testing.T) { row.test(newRig(t, b, a)) })
			}
		})
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) { row.test(newRig(t, b, b.Addrs[0])) })
	}
}

type row struct {
	name string
	test func(*rig)
}

var mainPath = []row{
	{"both ends learn what the other has to say", bothEndsLearnPrivateData},
	{"messages arrive whole and in order", messagesArriveInOrder},
	{"a peer writes and reads exactly what it was given", aPeerWritesAndReads},
}

var table = []row{
	{"a connection knows its ends", aConnectionKnowsItsEnds},
	{"a key works in one direction and its range only", aKeyWorksInOneDirectionOnly},
	{"a released region is closed to the peer", aReleasedRegionIsClosed},
	{"a new region has keys after sync", aNewRegionHasKeysAfterSync},
	{"receives given to dial are posted before the peer can send", receivesOfDialArePosted},
	{"a send waits for a receive", aSendWaitsForAReceive},
	{"unsignaled sends complete silently", unsignaledSendsAreSilent},
	{"an inline send copies at once", anInlineSendCopiesAtOnce},
	{"no more is taken than the depth", noMoreIsTakenThanTheDepth},
	{"a completion makes Fd readable after Arm", aCompletionMakesFdReadable},
	{"a message that comes while asleep makes Fd readable", aMessageWakes},
	{"abort flushes all that is posted", abortFlushes},
	{"after abort the peer reaches no memory", abortClosesMemory},
	{"a peer that leaves is an event and flushes", aPeerThatLeaves},
	{"a closed connection refuses everything and closes again", aClosedConnectionRefuses},
	{"nobody listens is a rejection", nobodyListens},
	{"a connect that is cancelled ends at once", aCancelledConnectEnds},
	{"private data, depths and retries have limits", limitsAreChecked},
	{"listening twice at a port is refused, and again after close is not", listeningTwice},
	{"connections come and go and leave nothing behind", connectionsLeaveNothing},
	{"connections are made and closed at the same time", connectionsAtOnce},
	{"the data path does not allocate", noAllocation},
}

const (
	msgLen  = 8192
	msgs    = 32
	dataLen = 1 << 20
	depth   = 16
	patient = 10 * time.Second
)

// rig is a listener, memory, and a connection once there is one.
type rig struct {
	t        *testing.T
	bed      Bed
	at       netip.Addr
	arena    *verbs.Arena
	local    verbs.RegionID
	remote   verbs.RegionID
	listener verbs.Listener
	conn     verbs.Conn
	peer     verbs.Peer
}

func newRig(t *testing.T, b Bed, at netip.Addr) *rig {
	t.Helper()
	r := &rig{t: t, bed: b, at: at}
	var err error
	if r.arena, err = verbs.NewArena(64 << 20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	if r.local, err = r.arena.Carve(msgs*msgLen, verbs.AccessLocal); err != nil {
		t.Fatal(err)
	}
	if r.remote, err = r.arena.Carve(dataLen, verbs.AccessRemote); err != nil {
		t.Fatal(err)
	}
	r.listener, err = b.Acceptor.Listen(context.Background(), r.listenAttr(netip.AddrPortFrom(at, 0)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) listenAttr(at netip.AddrPort) verbs.ListenAttr {
	return verbs.ListenAttr{Addr: at, PrivateData: []byte("welcome"), RecvDepth: depth, RecvSize: msgLen}
}

func (r *rig) close() {
	r.hangUp()
	if r.listener != nil {
		if err := r.listener.Close(); err != nil {
			r.t.Error(err)
		}
	}
	if err := r.arena.Close(); err != nil {
		r.t.Error(err)
	}
}

// hangUp closes both ends.
func (r *rig) hangUp() {
	if r.conn != nil {
		if err := r.conn.Close(); err != nil {
			r.t.Error(err)
		}
	}
	if r.peer != nil {
		_ = r.peer.Close()
	}
	r.conn, r.peer = nil, nil
}

func (r *rig) attr() verbs.DialAttr {
	return verbs.DialAttr{
		Src: r.at, Dst: r.listener.Addr(), PrivateData: []byte("hello"), RetryCount: 5, RNRRetry: 7,
		AckTimeout: 67 * time.Millisecond, SendDepth: depth, RecvDepth: depth, MaxInline: 76, Arena: r.arena,
	}
}

func (r *rig) connect() *rig {
	r.t.Helper()
	r.connectWith(r.attr())
	return r
}

func (r *rig) connectWith(a verbs.DialAttr) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	var err error
	if r.conn, err = r.bed.Provider.Dial(ctx, a); err != nil {
		r.t.Fatal(err)
	}
	if r.peer, err = r.listener.Accept(ctx); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) mem() []byte      { return r.arena.Mem(r.remote) }
func (r *rig) va() uint64       { return verbs.Addr(r.mem()) }
func (r *rig) keys() verbs.Keys { return r.conn.Keys(r.remote) }

func (r *rig) msg(i int) []byte { return r.arena.Mem(r.local)[i*msgLen : (i+1)*msgLen] }

// recvWR receives into message i; its key is 0 before there is a connection.
func (r *rig) recvWR(i int) verbs.RecvWR {
	wr := verbs.RecvWR{ID: uint64(i), SGE: verbs.SGE{Addr: verbs.Addr(r.msg(i)), Len: msgLen}}
	if r.conn != nil {
		wr.SGE.LKey = r.conn.Keys(r.local).LKey
	}
	return wr
}

func (r *rig) recv(first, n int) {
	r.t.Helper()
	var wrs []verbs.RecvWR
	for i := range n {
		wrs = append(wrs, r.recvWR(first+i))
	}
	if got, err := r.conn.PostRecv(wrs); got != n || err != nil {
		r.t.Fatal(got, err)
	}
}

// sendWR sends the first n bytes of message i in two pieces, and asks for a completion.
func (r *rig) sendWR(i, n int) verbs.SendWR {
	key, head := r.conn.Keys(r.local).LKey, min(n, 28)
	wr := verbs.SendWR{ID: uint64(1000 + i), NumSGE: 1, Signaled: 1}
	wr.SGE[0] = verbs.SGE{Addr: verbs.Addr(r.msg(i)), Len: uint32(head), LKey: key}
	if n > head {
		wr.NumSGE = 2
		wr.SGE[1] = verbs.SGE{Addr: verbs.Addr(r.msg(i)[head:]), Len: uint32(n - head), LKey: key}
	}
	return wr
}

func (r *rig) send(wrs ...verbs.SendWR) {
	r.t.Helper()
	if n, err := r.conn.PostSend(wrs); n != len(wrs) || err != nil {
		r.t.Fatal(n, err)
	}
}

// poll collects n completions, sleeping on Fd in between as a lane does.
func (r *rig) poll(n int) []verbs.WC {
	r.t.Helper()
	wcs := make([]verbs.WC, n)
	end := time.Now().Add(patient)
	for got := 0; got < n; {
		k, err := r.conn.Poll(wcs[got:])
		if err != nil {
			r.t.Fatal(err)
		}
		if got += k; k > 0 {
			continue
		}
		if time.Now().After(end) {
			r.t.Fatalf("%d of %d completions: %+v", got, n, wcs[:got])
		}
		if err := r.conn.Arm(); err != nil {
			r.t.Fatal(err)
		}
		if k, _ := r.conn.Poll(wcs[got:]); k > 0 {
			got += k
			continue
		}
		readable(r.conn.Fd(), 200*time.Millisecond)
	}
	return wcs
}

func readable(fd int, wait time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for end := time.Now().Add(wait); ; {
		n, err := unix.Poll(fds, int(wait.Milliseconds()))
		if !errors.Is(err, unix.EINTR) || time.Now().After(end) {
			return n > 0
		}
	}
}

// during runs what the peer does while this end polls, and gives its error.
func (r *rig) during(do func() error) error {
	r.t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	var wc [1]verbs.WC
	for end := time.Now().Add(patient); ; time.Sleep(100 * time.Microsecond) {
		select {
		case err := <-done:
			return err
		default:
		}
		if _, err := r.conn.Poll(wc[:0:0]); err != nil && !errors.Is(err, verbs.ErrClosed) {
			r.t.Fatal(err)
		}
		if time.Now().After(end) {
			r.t.Fatal("the peer's operation does not end")
		}
	}
}

// event waits for an event of a kind and passes others over.
func (r *rig) event(kind verbs.EventKind) {
	r.t.Helper()
	timer := time.After(patient)
	for {
		select {
		case ev, open := <-r.conn.Events():
			if !open {
				r.t.Fatal("events end")
			}
			if ev.Kind == kind {
				return
			}
		case <-timer:
			r.t.Fatal("no event came")
		}
	}
}

func (r *rig) peerRecv() []byte {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	buf := make([]byte, msgLen)
	n, err := r.peer.Recv(ctx, buf)
	if err != nil {
		r.t.Fatal(err)
	}
	return buf[:n]
}

// pattern is n bytes that differ by place and by seed.
func pattern(seed, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(seed + i + i>>8)
	}
	return b
}

func (r *rig) same(what string, got, want []byte) {
	r.t.Helper()
	if !bytes.Equal(got, want) {
		r.t.Errorf("%s: other bytes", what)
	}
}
