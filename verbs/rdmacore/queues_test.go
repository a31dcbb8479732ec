//go:build cgo && linux

package rdmacore

import (
	"errors"
	"syscall"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"iserblk/verbs"
	"iserblk/verbs/rdmacore/internal/fakedriver"
)

// The values of infiniband/verbs.h.
const (
	opSend       = 2
	sendSignaled = 1 << 1
	sendInline   = 1 << 3
)

func newQueues(t *testing.T, sends, recvs int) (*queues, *fakedriver.Driver) {
	t.Helper()
	d := fakedriver.New()
	q := queuesAround(d.QP(), d.CQ(), sends, recvs)
	t.Cleanup(func() { q.free(); d.Close() })
	return q, d
}

func TestStructsHaveTheLayoutThatCExpects(t *testing.T) {
	for name, got := range map[string][2]uintptr{
		"SGE":             {unsafe.Sizeof(verbs.SGE{}), 16},
		"SendWR":          {unsafe.Sizeof(verbs.SendWR{}), 56},
		"SendWR.NumSGE":   {unsafe.Offsetof(verbs.SendWR{}.NumSGE), 40},
		"SendWR.Inline":   {unsafe.Offsetof(verbs.SendWR{}.Inline), 44},
		"SendWR.Signaled": {unsafe.Offsetof(verbs.SendWR{}.Signaled), 48},
		"RecvWR":          {unsafe.Sizeof(verbs.RecvWR{}), 24},
		"WC":              {unsafe.Sizeof(verbs.WC{}), 32},
		"WC.InvRKey":      {unsafe.Offsetof(verbs.WC{}.InvRKey), 24},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %d, want %d", name, got[0], got[1])
		}
	}
}

func TestABatchOfSendsRingsOneDoorbellAndArrivesAsItIs(t *testing.T) {
	q, d := newQueues(t, 8, 8)
	head, body := verbs.SGE{Addr: 0x1000, Len: 76, LKey: 1}, verbs.SGE{Addr: 0x2000, Len: 4096, LKey: 2}
	n, err := q.PostSend([]verbs.SendWR{
		{ID: 7, SGE: [2]verbs.SGE{head}, NumSGE: 1, Inline: 1},
		{ID: 8, SGE: [2]verbs.SGE{head, body}, NumSGE: 2, Signaled: 1},
		{ID: 9, SGE: [2]verbs.SGE{body}, NumSGE: 1},
	})
	if n != 3 || err != nil {
		t.Fatalf("PostSend: %d, %v", n, err)
	}
	want := []fakedriver.WR{
		{ID: 7, SGEs: []verbs.SGE{head}, Opcode: opSend, Flags: sendInline},
		{ID: 8, SGEs: []verbs.SGE{head, body}, Opcode: opSend, Flags: sendSignaled},
		{ID: 9, SGEs: []verbs.SGE{body}, Opcode: opSend},
	}
	if diff := cmp.Diff(want, d.Posted()); diff != "" {
		t.Error(diff)
	}
	if d.Doorbells() != 1 {
		t.Errorf("%d doorbells", d.Doorbells())
	}
}

func TestABatchOfReceivesRingsOneDoorbellAndArrivesAsItIs(t *testing.T) {
	q, d := newQueues(t, 8, 8)
	a, b := verbs.SGE{Addr: 0x1000, Len: 256, LKey: 3}, verbs.SGE{Addr: 0x1100, Len: 256, LKey: 3}
	if n, err := q.PostRecv([]verbs.RecvWR{{ID: 1, SGE: a}, {ID: 2, SGE: b}}); n != 2 || err != nil {
		t.Fatalf("PostRecv: %d, %v", n, err)
	}
	want := []fakedriver.WR{{ID: 1, SGEs: []verbs.SGE{a}}, {ID: 2, SGEs: []verbs.SGE{b}}}
	if diff := cmp.Diff(want, d.Posted()); diff != "" {
		t.Error(diff)
	}
	if d.Doorbells() != 1 {
		t.Errorf("%d doorbells", d.Doorbells())
	}
}

func TestAPostSaysHowManyTheDeviceTook(t *testing.T) {
	q, d := newQueues(t, 8, 8)
	d.RefuseAfter(2)
	n, err := q.PostSend(make([]verbs.SendWR, 5))
	if n != 2 || !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("PostSend: %d, %v", n, err)
	}
	n, err = q.PostRecv(make([]verbs.RecvWR, 5))
	if n != 0 || !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("PostRecv: %d, %v", n, err)
	}
}

func TestAPostBeyondTheDepthTakesTheDepth(t *testing.T) {
	q, d := newQueues(t, 4, 3)
	n, err := q.PostSend(make([]verbs.SendWR, 6))
	if n != 4 || !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("PostSend: %d, %v", n, err)
	}
	n, err = q.PostRecv(make([]verbs.RecvWR, 6))
	if n != 3 || !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("PostRecv: %d, %v", n, err)
	}
	if len(d.Posted()) != 7 {
		t.Errorf("the driver got %d", len(d.Posted()))
	}
}

func TestCompletionsArriveAsTheyAre(t *testing.T) {
	q, d := newQueues(t, 8, 8)
	want := make([]verbs.WC, 70) // more than two batches of the shim
	for i := range want {
		want[i] = verbs.WC{
			ID: uint64(i), Status: verbs.Status(i % 3), Op: verbs.WCRecv, Len: uint32(100 + i),
			Flags: verbs.WCWithInv, InvRKey: uint32(5000 + i), VendorErr: uint32(i),
		}
		d.Complete(want[i])
	}
	got := make([]verbs.WC, 80)
	n, err := q.Poll(got[:65])
	if n != 65 || err != nil {
		t.Fatalf("Poll: %d, %v", n, err)
	}
	if n, err = q.Poll(got[65:]); n != 5 || err != nil {
		t.Fatalf("Poll of the rest: %d, %v", n, err)
	}
	if diff := cmp.Diff(want, got[:70]); diff != "" {
		t.Error(diff)
	}
}

func TestArmAsksForEveryKindOfCompletion(t *testing.T) {
	q, d := newQueues(t, 1, 1)
	if err := q.Arm(); err != nil || d.Requests() != 1 {
		t.Errorf("%d requests, %v", d.Requests(), err)
	}
}

func TestNothingIsAskedOfAClosedConnection(t *testing.T) {
	q, d := newQueues(t, 4, 4)
	q.closed.Store(true)
	_, sendErr := q.PostSend(make([]verbs.SendWR, 1))
	_, recvErr := q.PostRecv(make([]verbs.RecvWR, 1))
	_, pollErr := q.Poll(make([]verbs.WC, 1))
	for _, err := range []error{sendErr, recvErr, pollErr, q.Arm()} {
		if !errors.Is(err, verbs.ErrClosed) {
			t.Error(err)
		}
	}
	if d.Doorbells()+d.Requests() != 0 {
		t.Error("the driver was called")
	}
}

func TestAnEmptyBatchIsNothing(t *testing.T) {
	q, d := newQueues(t, 1, 1)
	for _, f := range []func() (int, error){
		func() (int, error) { return q.PostSend(nil) },
		func() (int, error) { return q.PostRecv(nil) },
		func() (int, error) { return q.Poll(nil) },
	} {
		if n, err := f(); n != 0 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	if d.Doorbells() != 0 {
		t.Error("the driver was called")
	}
}

func TestTheDataPathDoesNotAllocate(t *testing.T) {
	q, d := newQueues(t, 32, 32)
	d.Complete(verbs.WC{ID: 1})
	sends, recvs, wcs := make([]verbs.SendWR, 16), make([]verbs.RecvWR, 16), make([]verbs.WC, 16)
	allocs := testing.AllocsPerRun(100, func() {
		d.Reset()
		n, err := q.PostSend(sends)
		m, err2 := q.PostRecv(recvs)
		k, err3 := q.Poll(wcs)
		if n != 16 || m != 16 || k != 1 || err != nil || err2 != nil || err3 != nil {
			t.Fatal(n, m, k, err, err2, err3)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkPostSixteenSends(b *testing.B) {
	d := fakedriver.New()
	defer d.Close()
	q := queuesAround(d.QP(), d.CQ(), 16, 16)
	defer q.free()
	wrs := make([]verbs.SendWR, 16)
	b.ReportAllocs()
	for b.Loop() {
		d.Reset()
		if _, err := q.PostSend(wrs); err != nil {
			b.Fatal(err)
		}
	}
}
