package isertarget_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"iserblk/iser"
	"iserblk/iser/isertarget"
	"iserblk/session"
	"iserblk/session/scsi"
	"iserblk/verbs"
	"iserblk/verbs/softroce"
	"iserblk/verbs/verbstest"
)

// reads are commands in flight, each of which reads blocks of its own until enough was read.
type reads struct {
	n                   *session.Nexus
	slots               []readSlot
	todo, busy          int
	done, aborted, lost int
	wrong               int
}

type readSlot struct {
	session.Command
	of   *reads
	want []byte
}

// readLen is what each of them reads, in bytes.
const readLen = 16 << 10

// newReads writes what is to be read.
func (v *visit) newReads(n *session.Nexus, depth, todo int) *reads {
	v.t.Helper()
	r := &reads{n: n, slots: make([]readSlot, depth), todo: todo}
	want := pattern(depth*readLen, 3)
	copy(v.buf.Mem, want)
	if err := v.move(n, session.Out, len(want)); err != nil {
		v.t.Fatal(err)
	}
	for i := range r.slots {
		s := &r.slots[i]
		s.of, s.want, s.Dir, s.Done = r, want[i*readLen:][:readLen], session.In, s
		s.Buf = session.Buffer{Mem: v.buf.Mem[i*readLen:][:readLen], Region: v.buf.Region}
		scsi.Read10(&s.CDB, uint32(1+i*readLen/512), readLen/512, false)
		s.submit()
	}
	n.Flush()
	return r
}

func (s *readSlot) submit() {
	s.of.todo--
	s.of.busy++
	clear(s.Buf.Mem)
	s.of.n.Submit(&s.Command)
}

// CommandDone checks what came and reads it again.
func (s *readSlot) CommandDone(c *session.Command) {
	r := s.of
	r.busy--
	r.done++
	switch {
	case c.Err == session.ErrAborted:
		r.aborted++
	case c.Err != nil:
		r.lost++
		return
	case c.Status != scsi.StatusGood || !bytes.Equal(c.Buf.Mem, s.want):
		r.wrong++
	}
	if r.todo > 0 {
		s.submit()
	}
}

// run drives the nexus until n reads are done or it is dead, and returns the most bytes that were under way after a turn.
func (r *reads) run(t *testing.T, n int) (most int) {
	t.Helper()
	for late := time.Now().Add(10 * time.Second); r.done < n && r.busy > 0; {
		got := r.n.Poll()
		r.n.Tick(time.Now())
		r.n.Flush()
		most = max(most, r.n.Stats().Outstanding*readLen)
		if got == 0 {
			time.Sleep(10 * time.Microsecond)
		}
		if time.Now().After(late) {
			t.Fatalf("%d reads hang: %+v", r.busy, r.n.Stats())
		}
	}
	if r.wrong != 0 || r.lost != 0 {
		t.Fatalf("%d reads went wrong, %d were lost: %v", r.wrong, r.lost, r.n.Cause())
	}
	return most
}

// narrow is RDMA in memory whose connections have room for little.
type narrow struct{ *verbstest.Net }

func (p narrow) Dial(ctx context.Context, a verbs.DialAttr) (verbs.Conn, error) {
	c, err := p.Net.Dial(ctx, a)
	if err != nil {
		return nil, err
	}
	return narrowConn{c}, nil
}

type narrowConn struct{ verbs.Conn }

func (narrowConn) InboundLimit() int { return 3 * readLen }

func TestNoMoreIsReadAtATimeThanThereIsRoomForAndAbortedReadsTakeNone(t *testing.T) {
	v := newVisit(t, narrow{verbstest.New()}, portalAddr)
	ignored := 0
	v.target.SetHooks(isertarget.Hooks{Command: func(c isertarget.Command) isertarget.Action {
		if c.EDTL != readLen || c.Seq%10 != 0 || ignored == 5 { // more than would fit if they took room for ever
			return isertarget.Execute()
		}
		ignored++
		return isertarget.Ignore()
	}})
	p := v.params()
	p.CommandTimeout = 50 * time.Millisecond
	r := v.newReads(must[*session.Nexus](t)(session.Login(v.ctx(), v.dial(false), p)), 16, 400)
	if most := r.run(t, 400); most != 3*readLen || r.aborted < 5 {
		t.Errorf("%d bytes at a time, %d reads were aborted", most, r.aborted)
	}
}

// socketOf finds the UDP socket that wakes a connection.
func socketOf(t *testing.T, c *iser.Conn) int {
	t.Helper()
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", c.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(info)) {
		var fd int
		if _, err := fmt.Sscanf(line, "tfd: %d", &fd); err != nil {
			continue
		}
		if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil {
			return fd
		}
	}
	t.Fatalf("no socket in %s", info)
	return -1
}

// drops is how many packets the kernel had no room for in a socket (SK_MEMINFO_DROPS of linux/sock_diag.h).
func drops(t *testing.T, socket int) uint32 {
	t.Helper()
	var info [9]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(socket), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	return info[8]
}

func TestReadsOverRoCEKeepToTheReceiveBufferOnceItHasOverflowed(t *testing.T) {
	v := newVisit(t, softroce.New(), netip.MustParseAddrPort("127.0.0.50:0"))
	c := v.dial(false)
	n := must[*session.Nexus](t)(session.Login(v.ctx(), c, v.params()))
	const buffer = 200 << 10 // bytes, of which the kernel counts 9 KiB for a packet
	socket := socketOf(t, c)
	if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer/2); err != nil { // which it doubles
		t.Fatal(err)
	}
	r := v.newReads(n, 16, 400)
	for end := time.Now().Add(5 * time.Second); drops(t, socket) == 0; time.Sleep(100 * time.Microsecond) { // nobody polls
		if time.Now().After(end) {
			t.Fatal("everything fits")
		}
	}
	r.run(t, 200)
	if most := r.run(t, 400); most > buffer/2 {
		t.Errorf("%d bytes at a time, into a buffer of %d", most, buffer)
	}
	if err := session.Logout(v.ctx(), n); err != nil {
		t.Error(err)
	}
}
