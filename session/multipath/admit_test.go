package multipath_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"iserblk/internal/block"
	"iserblk/iser/isertarget"
	"iserblk/session"
	"iserblk/session/multipath"
	"iserblk/session/scsi"
)

func TestAUnitIsAdmittedByTheSessionThatServesIt(t *testing.T) {
	b := newBed(t, setting{})
	if err := b.path.Admit(t.Context(), b.unit, b.scratch); err != nil {
		t.Fatal(err)
	}
	b.cut() // a path that is on its way back is waited for
	if err := b.path.Admit(t.Context(), b.unit, b.scratch); err != nil {
		t.Fatal(err)
	}
	if len(b.target.Commands(opInquiry)) == 0 {
		t.Fatal("nothing was asked")
	}
	b.disk.SetSerial("0000another")
	if err := b.path.Admit(t.Context(), b.unit, b.scratch); err == nil || !strings.Contains(err.Error(), "is now") {
		t.Fatalf("another unit: %v", err)
	}
}

func TestAdmissionEndsWithItsContext(t *testing.T) {
	b := newBed(t, setting{})
	b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(1, isOp(opInquiry), isertarget.Ignore())})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := b.path.Admit(ctx, b.unit, b.scratch); err == nil {
		t.Fatal("admitted")
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Fatalf("it took %v", took)
	}
}

// What a killed process has left at a target that does not wait for it at login must not undo what the next one
// writes.
func TestTheFenceEndsWhatAnotherProcessLeft(t *testing.T) {
	b := newBed(t, setting{target: isertarget.Options{EarlyReinstatement: true}})
	b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(1, isOp(opWrite16), isertarget.ParkPulled())})
	b.begin(block.Write, 0, 0, 512, pattern(1, 512))
	if _, err := b.target.WaitParked(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	before := b.disk.ReadAt(0, 512)
	b.unit.Fail()
	b.path.Stop()
	link := must(b.dial(t.Context()))
	defer link.Nexus.Abandon()
	lu := must(session.Probe(t.Context(), link.Nexus, scsi.LUN{}, b.scratch))
	if err := multipath.Fence(t.Context(), link.Nexus, lu, true); err != nil {
		t.Fatal(err)
	}
	b.target.Release(nil)
	if !bytes.Equal(b.disk.ReadAt(0, 512), before) {
		t.Fatal("a write of the process before landed after the fence")
	}
}
