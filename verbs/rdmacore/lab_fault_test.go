//go:build cgo && linux

package rdmacore

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"iserblk/verbs"
)

// failsWithin dials and checks that it fails soon, and how.
func (p *peer) failsWithin(ctx context.Context, limit time.Duration, a verbs.DialAttr, want error, words ...string) {
	p.t.Helper()
	begin := time.Now()
	err := p.dial(ctx, a)
	if err == nil {
		p.t.Fatal("connected")
	}
	p.t.Logf("after %v: %v", time.Since(begin).Round(time.Millisecond), err)
	if took := time.Since(begin); took > limit {
		p.t.Errorf("failing took %v", took)
	}
	says(p.t, err, want, words...)
	var op *verbs.OpError
	if !errors.As(err, &op) {
		p.t.Errorf("%T is no OpError", err)
	}
}

func TestAPortWithoutListenerRejects(t *testing.T) {
	p := newPeer(t)
	p.failsWithin(context.Background(), 2*time.Second, p.attr(labClosed), verbs.ErrRejected, "reason 8", labClosed.String())
}

func TestAHostThatIsNotThereTimesOut(t *testing.T) {
	p := newPeer(t)
	p.failsWithin(context.Background(), 5*time.Second, p.attr(labAbsent), nil, "resolve address of "+labAbsent.String())
}

// A host that comes onto the link after the kernel has asked for it three times, and before it gives it up: whoever waits
// for its address by then would wait in vain.
func TestAHostThatComesBackIsFoundThoughTheKernelHadStoppedAsking(t *testing.T) {
	p := newPeer(t)
	p.failsWithin(context.Background(), 5*time.Second, p.attr(labLate), verbs.ErrTimeout, "resolve address of")
	run(t, "ip", "-n", "dark", "address", "add", labLate.Addr().String()+"/24", "dev", "x0p")
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	p.failsWithin(ctx, 4*time.Second, p.attr(labLate), verbs.ErrTimeout, "connect to "+labLate.String()) // it has no RDMA
}

func TestADeadlineEndsTheSearchForAHost(t *testing.T) {
	p := newPeer(t)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	p.failsWithin(ctx, 1300*time.Millisecond, p.attr(labAbsent), verbs.ErrTimeout)
}

func TestADeadlineEndsAConnectThatNobodyAnswers(t *testing.T) {
	p := newPeer(t)
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	p.failsWithin(ctx, 1500*time.Millisecond, p.attr(labDark), context.DeadlineExceeded, "connect to "+labDark.String())
}

func TestACancelledConnectEndsAtOnce(t *testing.T) {
	p := newPeer(t)
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(300*time.Millisecond, cancel)
	p.failsWithin(ctx, 1300*time.Millisecond, p.attr(labDark), context.Canceled)
}

func TestAConnectThatNobodyAnswersEndsByItself(t *testing.T) {
	p := newPeer(t)
	p.failsWithin(context.Background(), connectTime+4*time.Second, p.attr(labDark), verbs.ErrTimeout, "UDP port 4791")
}

func TestANetworkDeviceWithoutRDMAIsNamed(t *testing.T) {
	p := newPeer(t)
	p.failsWithin(context.Background(), 3*time.Second, p.attr(labPlain), verbs.ErrNoDevice,
		"rdma link add rxe0 type rxe netdev plain0")
}

func TestASourceThatIsNotHereIsNamed(t *testing.T) {
	p := newPeer(t)
	a := p.attr(labTarget)
	a.Src = netip.MustParseAddr("10.77.0.1")
	p.failsWithin(context.Background(), 3*time.Second, a, nil, "10.0.0.1:3260")
}

func TestMoreWorkThanTheDeviceHoldsIsRefused(t *testing.T) {
	p := newPeer(t)
	a := p.attr(labTarget)
	a.SendDepth = 1 << 24
	p.failsWithin(context.Background(), 3*time.Second, a, nil, "rxe_d0", "smaller queue depth")
}

// TestTooLittleLockedMemoryIsNamed runs itself again without the right to exceed the limit.
func TestTooLittleLockedMemoryIsNamed(t *testing.T) {
	p := newPeer(t)
	if os.Getenv("ISERBLK_LIMITED") == "" {
		cmd := exec.Command("setpriv", "--bounding-set=-ipc_lock,-sys_resource", "--inh-caps=-ipc_lock,-sys_resource",
			"prlimit", "--memlock=65536:65536", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "ISERBLK_LIMITED=1")
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Error(err)
		}
		return
	}
	if _, err := p.arena.Carve(1<<20, verbs.AccessRemote); err != nil {
		t.Fatal(err)
	}
	p.failsWithin(context.Background(), 5*time.Second, p.attr(labTarget), verbs.ErrMemlock, "64 KiB", "2128 KiB", "ulimit -l")
}

// TestALimitThatMayBeRaisedIsRaised runs itself again with a low limit and the right to change it.
func TestALimitThatMayBeRaisedIsRaised(t *testing.T) {
	p := newPeer(t)
	if os.Getenv("ISERBLK_LIMITED") == "" {
		cmd := exec.Command("setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock",
			"prlimit", "--memlock=65536:65536", os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), "ISERBLK_LIMITED=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	if _, err := p.arena.Carve(1<<20, verbs.AccessRemote); err != nil {
		t.Fatal(err)
	}
	p.mustDial(p.attr(labTarget))
}

func TestAPulledCableIsAnEventAtOnceAndSoIsItsReturn(t *testing.T) {
	p := newPeer(t)
	p.mustDial(p.attr(labTarget))
	defer run(t, "ip", "link", "set", "d0", "up")
	begin := time.Now()
	run(t, "ip", "link", "set", "d0", "down")
	ev := p.eventOf(verbs.EventPortDown)
	t.Logf("port down after %v: %v", time.Since(begin).Round(time.Millisecond), ev.Err)
	if time.Since(begin) > 2*time.Second {
		t.Error("late")
	}
	run(t, "ip", "link", "set", "d0", "up")
	p.eventOf(verbs.EventPortUp)
}

func TestADeadPeerDisconnectsAndFlushes(t *testing.T) {
	p := newPeer(t)
	at := netip.AddrPortFrom(labHost, 7010)
	server := p.rping(at)
	a := p.attr(at)
	a.Recvs = []verbs.RecvWR{p.recv(0), p.recv(1)}
	p.mustDial(a)
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.eventOf(verbs.EventDisconnected)
	for _, wc := range p.poll(2) {
		if wc.Status != verbs.StatusFlushed {
			t.Errorf("%+v", wc)
		}
	}
}

func TestARemovedDeviceIsAnEventAndConnectsAgainWhenItIsBack(t *testing.T) {
	p := newPeer(t)
	at := netip.MustParseAddrPort("10.7.0.1:7011")
	run(t, "rdma", "link", "add", "rxe_gone", "type", "rxe", "netdev", "gone0")
	server := p.rping(at)
	a := p.attr(at)
	a.Recvs = []verbs.RecvWR{p.recv(0)}
	p.mustDial(a)
	removed := make(chan error, 1)
	go func() { removed <- exec.Command("rdma", "link", "del", "rxe_gone").Run() }()
	p.eventOf(verbs.EventDeviceGone)
	begin := time.Now()
	if err := p.conn.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("closing took %v", time.Since(begin).Round(time.Millisecond))
	server.Process.Kill() // the kernel waits until no process has rxe open
	select {
	case err := <-removed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the device is held open")
	}
	run(t, "rdma", "link", "add", "rxe_gone", "type", "rxe", "netdev", "gone0")
	at = netip.AddrPortFrom(at.Addr(), 7012)
	p.rping(at)
	p.mustDial(p.attr(at))
	if p.conn.Device().Name != "rxe_gone" {
		t.Errorf("%+v", p.conn.Device())
	}
}

func TestDevicesAndFindingsShowTheLab(t *testing.T) {
	needLab(t)
	devices, err := Devices(context.Background())
	if err != nil || len(devices) < 2 {
		t.Fatal(devices, err)
	}
	for _, f := range Probe(context.Background(), netip.Addr{}, labTarget.Addr(), labPlain.Addr()) {
		t.Logf("%+v", f)
		wantOK := !strings.Contains(f.Detail, "plain0")
		if f.Check != "pinned memory" && f.OK != wantOK {
			t.Errorf("%+v", f)
		}
	}
}

// deafen has a network device lose all it sends; both ends stay up and nobody is told.
func deafen(t *testing.T, dev string) {
	t.Helper()
	run(t, "tc", "qdisc", "replace", "dev", dev, "root", "netem", "loss", "100%")
	t.Cleanup(func() { run(t, "tc", "qdisc", "del", "dev", dev, "root") })
}

func TestASilentPathFailsWithinItsRetriesAndClosesSoon(t *testing.T) {
	needLab(t)
	if _, err := os.Stat("/sys/class/net/h0"); err != nil {
		t.Skip("rxe of this kernel cannot live in a namespace, so there is no second host")
	}
	p := newPeer(t)
	at := netip.MustParseAddrPort("10.6.0.2:7013")
	cmd := exec.Command("ip", "netns", "exec", "far", "rping", "-s", "-a", at.Addr().String(), "-p", itoa(int(at.Port())))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	a := p.attr(at)
	a.Recvs = []verbs.RecvWR{p.recv(0)}
	p.mustDial(a)
	deafen(t, "h0")
	begin := time.Now()
	p.tell(p.source(), p.conn.Keys(p.remote).ReadKey)
	wcs := p.poll(2)
	took := time.Since(begin)
	t.Logf("after %v: %v, %v", took.Round(time.Millisecond), wcs[0].Status, wcs[1].Status)
	if wcs[0].Status != verbs.StatusRetryExc || wcs[1].Status != verbs.StatusFlushed {
		t.Errorf("%+v", wcs)
	}
	if took < 200*time.Millisecond || took > 3*time.Second {
		t.Errorf("it took %v to notice", took)
	}
	begin = time.Now()
	if err := p.conn.Close(); err != nil || time.Since(begin) > 2*time.Second {
		t.Errorf("closing took %v: %v", time.Since(begin), err)
	}
}

func TestAConnectionClosesWhileItsCableIsPulled(t *testing.T) {
	p := newPeer(t)
	p.mustDial(p.attr(labTarget))
	before := resources(t, "cm_id")
	defer run(t, "ip", "link", "set", "d0", "up")
	run(t, "ip", "link", "set", "d0", "down")
	begin := time.Now()
	if err := errors.Join(p.conn.Abort(), p.conn.Close()); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("closing took %v", took)
	}
	for _, kind := range []string{"qp", "cq", "mr"} { // librdmacm keeps a pd of its own as long as the identifier
		if n := resources(t, kind); n != 0 {
			t.Errorf("%d %s left, so memory may still be touched", n, kind)
		}
	}
	bringUp(t)
	p.mustDial(p.attr(labTarget)) // rxe cannot after anything was sent while it was down
	eventually(t, "the old identifier to go", func() bool { return resources(t, "cm_id") == before })
}

func TestADialByAPortThatIsDownFailsAtOnceAndDoesNoHarm(t *testing.T) {
	p := newPeer(t)
	defer run(t, "ip", "link", "set", "d0", "up")
	run(t, "ip", "link", "set", "d0", "down")
	p.failsWithin(context.Background(), time.Second, p.attr(labTarget), verbs.ErrPortDown, "rxe_d0 port 1 on d0", "ip link set d0 up")
	bringUp(t)
	p.mustDial(p.attr(labTarget))
}

func TestADialThatWaitsEndsWhenItsPortGoesDown(t *testing.T) {
	p := newPeer(t)
	defer run(t, "ip", "link", "set", "x0", "up")
	time.AfterFunc(500*time.Millisecond, func() { _ = exec.Command("ip", "link", "set", "x0", "down").Run() })
	p.failsWithin(context.Background(), 3*time.Second, p.attr(labDark), verbs.ErrPortDown, "rxe_x0 port 1 on x0")
}

// bringUp opens d0 and waits for its port.
func bringUp(t *testing.T) {
	t.Helper()
	run(t, "ip", "link", "set", "d0", "up")
	eventually(t, "the port to come up", func() bool { return slices.Contains(sysClass.activePorts(), "rxe_d0/1") })
	time.Sleep(portSettle)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain for " + what)
		}
	}
}
