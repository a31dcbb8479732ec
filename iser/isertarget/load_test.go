package isertarget_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"iserblk/iser/isertarget"
	"iserblk/session"
	"iserblk/session/scsi"
	"iserblk/verbs"
)

// slot is one of many commands in flight, each on blocks of its own.
type slot struct {
	session.Command
	load *load
	n    int
	want []byte // what the blocks hold, once a write was answered
	next []byte // what a write under way would make of them
}

const slotLen = 16384

// load keeps slots busy until it has done enough.
type load struct {
	b         *bed
	n         *session.Nexus
	rand      *rand.Rand
	slots     []slot
	todo      int
	busy      int
	lost      int
	corrupted int
}

func newLoad(b *bed, n *session.Nexus, depth, todo int) *load {
	l := &load{b: b, n: n, rand: rand.New(rand.NewPCG(1, 2)), todo: todo, slots: make([]slot, depth)}
	for i := range l.slots {
		s := &l.slots[i]
		s.load, s.n, s.want, s.next = l, i, make([]byte, slotLen), make([]byte, slotLen)
		s.Done = s
	}
	return l
}

// submit starts a random read or write of a random length.
func (l *load) submit(s *slot) {
	l.todo--
	l.busy++
	size := 512 << l.rand.IntN(6)
	s.Buf = l.b.buf(s.n*slotLen, size)
	lba := uint32(s.n * slotLen / 512)
	if l.rand.IntN(2) == 0 {
		s.Dir = session.In
		scsi.Read10(&s.CDB, lba, uint16(size/512), false)
		return
	}
	s.Dir = session.Out
	scsi.Write10(&s.CDB, lba, uint16(size/512), false)
	copy(s.next, pattern(size, byte(l.rand.Int())))
	copy(s.Buf.Mem, s.next[:size])
}

// CommandDone checks what came back and starts the next command.
func (s *slot) CommandDone(c *session.Command) {
	l := s.load
	l.busy--
	switch {
	case c.Err != nil:
		l.lost++
		return
	case c.Status != scsi.StatusGood || c.Short != 0:
		l.corrupted++
	case c.Dir == session.Out:
		copy(s.want[:len(c.Buf.Mem)], s.next)
	case !bytes.Equal(c.Buf.Mem, s.want[:len(c.Buf.Mem)]):
		l.corrupted++
	}
	if l.todo > 0 {
		l.submit(s)
		l.n.Submit(&s.Command)
	}
}

// run drives the nexus until all is done or it is dead.
func (l *load) run() {
	l.b.t.Helper()
	for i := range l.slots {
		l.submit(&l.slots[i])
		l.n.Submit(&l.slots[i].Command)
	}
	for deadline := time.Now().Add(30 * time.Second); l.busy > 0; {
		if l.n.Poll() == 0 {
			time.Sleep(10 * time.Microsecond)
		}
		l.n.Flush()
		if time.Now().After(deadline) {
			l.b.t.Fatalf("%d commands hang: %+v", l.busy, l.n.Stats())
		}
	}
}

func TestManyCommandsAtOnceReturnTheRightBytes(t *testing.T) {
	for name, o := range map[string]isertarget.Options{
		"as LIO": {}, "without immediate data": {NoImmediateData: true}, "window of four": {Window: 4},
		"window of one": {Window: 1}, "window beyond the receives": {Window: 4096},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, o, isertarget.DiskOptions{Blocks: 8192})
			l := newLoad(b, b.login(), 60, 3000)
			peer := b.portal.Peers()[0]
			l.run()
			if l.corrupted != 0 || l.lost != 0 {
				t.Errorf("%d commands went wrong, %d were lost", l.corrupted, l.lost)
			}
			if w := peer.Waits(); w != 0 {
				t.Errorf("the target found no receive %d times", w)
			}
			b.noViolations()
		})
	}
}

func TestCommandsBeyondTheReceiveBuffersWaitForThem(t *testing.T) {
	b := newBed(t, isertarget.Options{Window: 4096, Receives: 128}, isertarget.DiskOptions{Blocks: 1 << 16})
	b.region = b.carve(4 << 20)
	n := b.login()
	l := newLoad(b, n, 200, 2000)
	b.target.SetHooks(isertarget.Hooks{Command: func(c isertarget.Command) isertarget.Action {
		if c.Seq < 100 {
			return isertarget.Delay(20 * time.Millisecond)
		}
		return isertarget.Execute()
	}})
	l.run()
	if l.corrupted != 0 || l.lost != 0 || n.Stats().SlotsFull == 0 {
		t.Errorf("%d wrong, %d lost, %+v", l.corrupted, l.lost, n.Stats())
	}
	b.noViolations()
}

func (b *bed) carve(size int) verbs.RegionID {
	b.t.Helper()
	id, err := b.arena.Carve(size, verbs.AccessRemote)
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

// A connection that dies under load gives every command back once, and what was acknowledged before stays true: the
// blocks hold what the last answered write put there, or what the one under way would have.
func TestWhatWasAcknowledgedSurvivesALostConnection(t *testing.T) {
	for name, kill := range map[string]func(*bed){
		"queue pair broken": func(b *bed) { b.portal.Peers()[0].Kill(verbs.StatusRetryExc) },
		"disconnected":      func(b *bed) { b.portal.Peers()[0].Disconnect() },
		"closed by target":  func(b *bed) { b.target.Conns()[0].Close() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{Blocks: 8192})
			n := b.login()
			l := newLoad(b, n, 32, 1<<30)
			b.target.SetHooks(isertarget.Hooks{Command: func(c isertarget.Command) isertarget.Action {
				if c.Seq == 1000 {
					kill(b)
				}
				return isertarget.Execute()
			}})
			l.run()
			if l.lost == 0 || l.corrupted != 0 || n.Cause() == nil {
				t.Fatalf("%d lost, %d wrong", l.lost, l.corrupted)
			}
			_ = n.Close()
			b.settled()
			l.checkMedium(t)
		})
	}
}

// settled waits until the target has noticed the end of its connections.
func (b *bed) settled() {
	b.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); len(b.target.Conns()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatal("the target keeps its connection")
		}
	}
}

func (l *load) checkMedium(t *testing.T) {
	t.Helper()
	for i := range l.slots {
		s := &l.slots[i]
		got := l.b.disk.ReadAt(s.n*slotLen, slotLen)
		n := len(s.Buf.Mem)
		if !bytes.Equal(got[n:], s.want[n:]) {
			t.Errorf("slot %d: blocks that no command was for have changed", i)
		}
		wrote := s.Dir == session.Out && bytes.Equal(got[:n], s.next[:n])
		if !bytes.Equal(got[:n], s.want[:n]) && !wrote {
			t.Errorf("slot %d holds neither the acknowledged bytes nor those under way", i)
		}
	}
}

func TestABlackHoleIsSilentAndEverythingDrainsAfterwards(t *testing.T) {
	b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{})
	n := b.login()
	b.portal.SetBlackhole(true)
	c := read(b, 0, 4096)
	c.Expiry = time.Hour
	w := &countDone{}
	c.Done = w
	n.Submit(c)
	n.Flush()
	for range 10 {
		n.Poll()
	}
	if w.n != 0 {
		t.Fatal("a command ended in a black hole")
	}
	n.ConnectionLost(errors.New("the link is down"))
	for range 200 {
		n.Poll()
	}
	if w.n != 1 || !errors.Is(c.Err, session.ErrNexusLost) || !n.Drained() {
		t.Errorf("done %d times, %v, drained %v", w.n, c.Err, n.Drained())
	}
	b.portal.SetBlackhole(false)
}

type countDone struct{ n int }

func (w *countDone) CommandDone(*session.Command) { w.n++ }

// LIO numbers an answer before it sends it, and its thread may be put aside in between.
func TestAnAnswerMayBeOvertakenByAThousandOthers(t *testing.T) {
	b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{Blocks: 8192})
	n := b.login()
	l := newLoad(b, n, 32, 3000)
	var held []byte
	seen := 0
	b.target.SetHooks(lie(func(m []byte) [][]byte {
		switch seen++; seen {
		case 100:
			held = m
			return nil
		case 1100:
			return [][]byte{m, held}
		}
		return one(m)
	}))
	l.run()
	if l.lost != 0 || l.corrupted != 0 {
		t.Errorf("%d lost, %d wrong: %v", l.lost, l.corrupted, n.Cause())
	}
}
