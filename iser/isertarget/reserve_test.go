package isertarget_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"

	"iserblk/iser/isertarget"
	"iserblk/session"
	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

// host is one initiator that speaks PERSISTENT RESERVE.
type host struct {
	b *bed
	n *session.Nexus
}

func (b *bed) host(isid uint32) host {
	b.t.Helper()
	p := b.params()
	p.ISID = pdu.NewISID(1, uint16(isid))
	return host{b, must[*session.Nexus](b.t)(session.Login(b.ctx(), b.dial(), p))}
}

// out runs PERSISTENT RESERVE OUT.
func (h host) out(action byte, kind isertarget.ReservationType, key, newKey uint64) scsi.Status {
	h.b.t.Helper()
	c := &session.Command{Dir: session.Out, Buf: h.b.buf(0, 24)}
	clear(c.Buf.Mem)
	binary.BigEndian.PutUint64(c.Buf.Mem, key)
	binary.BigEndian.PutUint64(c.Buf.Mem[8:], newKey)
	c.CDB = [16]byte{0x5f, action, byte(kind), 0, 0, 0, 0, 0, 24}
	return h.do(c)
}

// do runs a command past unit attentions.
func (h host) do(c *session.Command) scsi.Status {
	h.b.t.Helper()
	for {
		if err := session.Do(h.b.ctx(), h.n, c); err != nil {
			h.b.t.Fatal(err)
		}
		if c.Sense.Key != scsi.KeyUnitAttention {
			return c.Status
		}
	}
}

// in runs PERSISTENT RESERVE IN.
func (h host) in(action byte) []byte {
	h.b.t.Helper()
	return h.b.fetch(h.n, 512, func(cdb *[16]byte) { *cdb = [16]byte{0x5e, action, 0, 0, 0, 0, 0, 2, 0} })
}

func (h host) may(t *testing.T, who string, write, read bool) {
	t.Helper()
	allowed := func(s scsi.Status) bool {
		if s != scsi.StatusGood && s != scsi.StatusReservationConflict {
			t.Errorf("%s: status %v", who, s)
		}
		return s == scsi.StatusGood
	}
	w, r := &session.Command{Dir: session.Out, Buf: h.b.buf(0, 512)}, &session.Command{Dir: session.In, Buf: h.b.buf(0, 512)}
	scsi.Write10(&w.CDB, 0, 1, false)
	scsi.Read10(&r.CDB, 0, 1, false)
	if got := allowed(h.do(w)); got != write {
		t.Errorf("%s may write: %v, want %v", who, got, write)
	}
	if got := allowed(h.do(r)); got != read {
		t.Errorf("%s may read: %v, want %v", who, got, read)
	}
}

const (
	register = iota
	reserve
	release
	clearAll
	preempt
	preemptAbort
	registerIgnore
)

func TestEachTypeOfReservationLetsInWhomItShall(t *testing.T) {
	for kind, c := range map[isertarget.ReservationType]struct{ registrant, stranger [2]bool }{ // write, read
		isertarget.WriteExclusive:            {[2]bool{false, true}, [2]bool{false, true}},
		isertarget.ExclusiveAccess:           {[2]bool{false, false}, [2]bool{false, false}},
		isertarget.WriteExclusiveRegistrants: {[2]bool{true, true}, [2]bool{false, true}},
		isertarget.ExclusiveRegistrants:      {[2]bool{true, true}, [2]bool{false, false}},
		isertarget.WriteExclusiveAll:         {[2]bool{true, true}, [2]bool{false, true}},
		isertarget.ExclusiveAll:              {[2]bool{true, true}, [2]bool{false, false}},
	} {
		b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{})
		holder, registrant, stranger := b.host(1), b.host(2), b.host(3)
		for _, s := range []scsi.Status{
			holder.out(register, 0, 0, 1), registrant.out(register, 0, 0, 2), holder.out(reserve, kind, 1, 0),
		} {
			if s != scsi.StatusGood {
				t.Fatalf("type %d: %v", kind, s)
			}
		}
		holder.may(t, "the holder", true, true)
		registrant.may(t, "a registrant", c.registrant[0], c.registrant[1])
		stranger.may(t, "a stranger", c.stranger[0], c.stranger[1])
		if got := holder.in(1); got[21] != byte(kind) {
			t.Errorf("type %d: READ RESERVATION says %x", kind, got)
		}
		if s := holder.out(release, kind, 1, 0); s != scsi.StatusGood {
			t.Errorf("type %d: release: %v", kind, s)
		}
		stranger.may(t, "anyone", true, true)
		b.noViolations()
	}
}

func TestRegistrationsAreListedAndOrdersWithoutTheirKeyAreRefused(t *testing.T) {
	b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{})
	one, two := b.host(1), b.host(2)
	conflict, fine := scsi.StatusReservationConflict, scsi.StatusGood
	for i, c := range []struct{ got, want scsi.Status }{
		{one.out(reserve, 1, 0, 0), conflict},               // not registered
		{one.out(register, 0, 9, 1), conflict},              // not its key
		{one.out(register, 0, 0, 0xa1), fine},               //
		{one.out(register, 0, 0, 0xa2), conflict},           // registered by now
		{one.out(registerIgnore, 0, 0, 0xa3), fine},         //
		{two.out(register, 0, 0, 0xb1), fine},               //
		{one.out(reserve, 3, 0xa1, 0), conflict},            // its key of before
		{one.out(reserve, 3, 0xa3, 0), fine},                //
		{one.out(reserve, 3, 0xa3, 0), fine},                // again
		{one.out(reserve, 1, 0xa3, 0), conflict},            // as another type
		{two.out(reserve, 3, 0xb1, 0), conflict},            // held
		{two.out(release, 3, 0xb1, 0), fine},                // by who does not hold it: nothing happens
		{two.out(preempt, 3, 0xb1, 0xdead), conflict},       // nobody has that key
		{one.out(7, 0, 0xa3, 0), scsi.StatusCheckCondition}, // an action that is not known
	} {
		if c.got != c.want {
			t.Errorf("order %d: %v, want %v", i, c.got, c.want)
		}
	}
	if diff := cmp.Diff([]byte{0, 0, 0, 0, 0, 0, 0, 0xa3, 0, 0, 0, 0, 0, 0, 0, 0xb1}, one.in(0)[8:]); diff != "" {
		t.Error(diff)
	}
	full := one.in(3)
	if !bytes.Contains(full, []byte("iqn.2026-01.test:initiator,i,0x")) || full[8+12] != 1 || full[8+13] != 3 {
		t.Errorf("%q", full)
	}
	if caps := one.in(2); caps[1] != 8 || caps[4] != 0xea || caps[5] != 1 {
		t.Errorf("%x", caps)
	}
}

func TestPreemptTakesTheReservationAndTellsWhoHadIt(t *testing.T) {
	b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{})
	one, two := b.host(1), b.host(2)
	one.out(register, 0, 0, 1)
	two.out(register, 0, 0, 2)
	one.out(reserve, isertarget.ExclusiveAccess, 1, 0)
	if s := two.out(preemptAbort, isertarget.ExclusiveAccess, 2, 1); s != scsi.StatusGood {
		t.Fatal(s)
	}
	c := read(b, 0, 512)
	b.do(one.n, c)
	if c.Sense.Key != scsi.KeyUnitAttention || c.Sense.ASC != 0x2a || c.Sense.ASCQ != 0x05 {
		t.Errorf("the one that lost it was told %v", c.Sense)
	}
	one.may(t, "who lost it", false, false)
	two.may(t, "who took it", true, true)
	if s := two.out(clearAll, 0, 2, 0); s != scsi.StatusGood {
		t.Fatal(s)
	}
	one.may(t, "anyone", true, true)
}

// A registration belongs to the nexus, and the same ISID is the same nexus.
func TestAReservationSurvivesALoginInItsPlace(t *testing.T) {
	b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{})
	one, other := b.host(1), b.host(2)
	one.out(register, 0, 0, 1)
	one.out(reserve, isertarget.WriteExclusive, 1, 0)
	one.n.Abandon()
	again := b.host(1)
	again.may(t, "the holder, back again", true, true)
	other.may(t, "another", false, true)
	again.out(register, 0, 1, 0)
	other.may(t, "another, after the registration", true, true)
}

func TestGetLBAStatusTellsWhatWasWritten(t *testing.T) {
	b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{Blocks: 1024})
	n := b.login()
	b.disk.WriteAt(64*512, bytes.Repeat([]byte{1}, 16*512))
	ask := func(lba uint64) scsi.LBAStatus {
		got := b.fetch(n, 64, func(cdb *[16]byte) {
			*cdb = [16]byte{0x9e, 0x12, 13: 64}
			binary.BigEndian.PutUint64(cdb[2:], lba)
		})
		list := must[[]scsi.LBAStatus](t)(scsi.ParseLBAStatus(got))
		if len(list) != 1 {
			t.Fatalf("%+v", list)
		}
		return list[0]
	}
	for lba, want := range map[uint64]scsi.LBAStatus{
		3:  {Extent: scsi.Extent{LBA: 3, Blocks: 61}, Status: scsi.LBADeallocated},
		70: {Extent: scsi.Extent{LBA: 70, Blocks: 10}, Status: scsi.LBAMapped},
		80: {Extent: scsi.Extent{LBA: 80, Blocks: 944}, Status: scsi.LBADeallocated},
	} {
		if diff := cmp.Diff(want, ask(lba)); diff != "" {
			t.Errorf("from block %d: %s", lba, diff)
		}
	}
}
