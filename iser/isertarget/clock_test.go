package isertarget_test

import (
	"testing"
	"testing/synctest"
	"time"

	"iserblk/iser"
	"iserblk/iser/isertarget"
	"iserblk/session"
	"iserblk/session/scsi"
	"iserblk/verbs"
	"iserblk/verbs/verbstest"
)

// clocked is a connection that is waited for by the clock alone: a descriptor would wait outside the bubble.
type clocked struct{ *iser.Conn }

func (clocked) Fd() int { return -1 }

// Every planned fault takes exactly as long as it was planned to, by the test's clock, time after time.
func TestFaultsKeepTheTestsTime(t *testing.T) {
	type step struct {
		at     time.Duration
		status scsi.Status
	}
	const unit = time.Second // there are a thousand polls in one
	run := func(t *testing.T) (steps []step) {
		synctest.Test(t, func(t *testing.T) {
			net, target := verbstest.New(), isertarget.New(isertarget.Options{})
			target.AddDisk(0, isertarget.DiskOptions{})
			door := must[*isertarget.Portal](t)(target.Listen(t.Context(), net, portalAddr, 1))
			arena := must[*verbs.Arena](t)(verbs.NewArena(8 << 20))
			region := must[verbs.RegionID](t)(arena.Carve(4096, verbs.AccessRemote))
			conn := must[*iser.Conn](t)(iser.Dial(t.Context(), net, iser.Options{Target: portalAddr, Arena: arena}))
			n := must[*session.Nexus](t)(session.Login(t.Context(), clocked{conn}, session.Params{
				InitiatorName: "iqn.2026-01.test:initiator", TargetName: target.Name(), NOPInterval: -1,
			}))
			begin := time.Now()
			one := func(a isertarget.Action) {
				target.SetHooks(plan(1, a)())
				c := &session.Command{Dir: session.In, Expiry: time.Hour, Buf: session.Buffer{Mem: arena.Mem(region)[:512], Region: uint32(region)}}
				scsi.Read10(&c.CDB, 0, 1, false)
				if err := session.Do(t.Context(), n, c); err != nil {
					t.Fatal(err)
				}
				steps = append(steps, step{time.Since(begin).Round(100 * time.Millisecond), c.Status})
			}
			one(isertarget.Delay(2 * unit))
			one(isertarget.Late(3 * unit))
			one(isertarget.Answer(scsi.StatusBusy))
			time.AfterFunc(5*unit, func() { target.Release(nil) })
			one(isertarget.Park())
			door.Freeze()
			time.AfterFunc(7*unit, door.Thaw)
			one(isertarget.Execute())
			n.Abandon()
			target.Close()
			_ = conn.Close()
			_ = arena.Close()
		})
		return steps
	}
	want := []step{
		{2 * unit, scsi.StatusGood},
		{5 * unit, scsi.StatusGood},
		{5 * unit, scsi.StatusBusy},
		{10 * unit, scsi.StatusGood},
		{17 * unit, scsi.StatusGood},
	}
	for range 3 {
		got := run(t)
		for i := range want {
			if i >= len(got) || got[i] != want[i] {
				t.Fatalf("step %d: %+v, want %+v", i, got, want)
			}
		}
	}
}
