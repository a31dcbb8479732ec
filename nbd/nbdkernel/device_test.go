package nbdkernel

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mdlayher/genetlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// config is for a device whose sockets are served by reading them to their end; served counts them.
func config(sockets int, served *atomic.Int32) Config {
	return Config{
		Limits: limits(), Cookie: "iserblk/test", Sockets: sockets, RequestTimeout: time.Minute, DeadTimeout: time.Minute,
		Serve: func(_, fd int) (Conn, error) { served.Add(1); return serve(fd), nil },
	}
}

func files(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func eventually(t *testing.T, what string, yes func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !yes(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

func TestADeviceIsMadeAndTakenDownWithoutALeak(t *testing.T) {
	k, c := newKernel(t)
	before := files(t)
	var served atomic.Int32
	d, err := c.Create(t.Context(), config(2, &served))
	if err != nil {
		t.Fatal(err)
	}
	if d.Path() != "/dev/nbd3" || d.Index() != 3 || served.Load() != 2 || k.alive() != 2 {
		t.Errorf("%s, %d served, %d alive", d.Path(), served.Load(), k.alive())
	}
	if got := c.read(3, "queue/max_sectors_kb"); got != "512" {
		t.Errorf("max_sectors_kb %q", got)
	}
	if got := c.read(3, "queue/nr_requests"); got != "64" {
		t.Errorf("nr_requests %q", got)
	}
	if err := d.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-d.Lost()
	if !errors.Is(d.Err(), ErrStopped) {
		t.Error(d.Err())
	}
	if err := d.Stop(t.Context()); err != nil {
		t.Error("again:", err)
	}
	if after := files(t); after != before {
		t.Errorf("%d files, had %d", after, before)
	}
}

func TestOneSocketHasATickAndNoTimeout(t *testing.T) {
	_, c := newKernel(t)
	var served atomic.Int32
	cfg := config(1, &served)
	cfg.RequestTimeout = 0
	d, err := c.Create(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.read(3, "queue/io_timeout"); got != "5000" {
		t.Errorf("io_timeout %q", got)
	}
	if err := d.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	cfg.Sockets = 2
	if _, err := c.Create(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "30 s") {
		t.Error("two sockets without a timeout:", err)
	}
}

func TestAKernelThatRefusesLeavesNothing(t *testing.T) {
	k, c := newKernel(t)
	k.refuse[cmdConnect] = int(unix.EPERM)
	before := files(t)
	var served atomic.Int32
	_, err := c.Create(t.Context(), config(2, &served))
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "user namespace") {
		t.Error(err)
	}
	if after := files(t); after != before {
		t.Errorf("%d files, had %d", after, before)
	}
}

func TestASocketThatTheKernelGaveUpIsReplaced(t *testing.T) {
	k, c := newKernel(t)
	var served atomic.Int32
	d, err := c.Create(t.Context(), config(2, &served))
	if err != nil {
		t.Fatal(err)
	}
	k.kill(1)
	eventually(t, "a third socket is served", func() bool { return served.Load() == 3 && k.alive() == 2 })
	if err := d.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestADeviceThatSomebodyElseDisconnectsIsLost(t *testing.T) {
	_, c := newKernel(t)
	var served atomic.Int32
	d, err := c.Create(t.Context(), config(1, &served))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.disconnect(t.Context(), d.Index()); err != nil {
		t.Fatal(err)
	}
	<-d.Lost()
	if !errors.Is(d.Err(), ErrGone) {
		t.Error(d.Err())
	}
	if err := d.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// orphaned is a device whose server has died: its sockets are dead, and the kernel keeps it.
func orphaned(t *testing.T, k *kernel, c *Control, sockets int) {
	t.Helper()
	var served atomic.Int32
	cfg := config(sockets, &served)
	kernel := make([]int, sockets)
	for i := range kernel {
		ours, theirs, err := pair()
		if err != nil {
			t.Fatal(err)
		}
		kernel[i] = theirs
		unix.Close(ours)
	}
	if _, err := c.connect(t.Context(), &cfg, kernel); err != nil {
		t.Fatal(err)
	}
	closeAll(kernel)
	for i := range kernel {
		k.kill(i)
	}
}

func TestADeadServersDeviceIsTakenOver(t *testing.T) {
	k, c := newKernel(t)
	orphaned(t, k, c, 2)
	k.slow = 2 // the kernel has not noticed yet
	before := files(t)
	var served atomic.Int32
	cfg := config(2, &served)
	cfg.Limits.Size *= 2 // it has grown meanwhile
	d, err := c.Adopt(t.Context(), 3, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := c.Lookup(3); served.Load() != 2 || k.alive() != 2 || s.Size != cfg.Limits.Size || err != nil {
		t.Errorf("%d served, %d alive, %+v, %v", served.Load(), k.alive(), s, err)
	}
	if err := d.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if after := files(t); after != before {
		t.Errorf("%d files, had %d", after, before)
	}
}

func TestADeviceThatDoesNotFitIsNotTakenOver(t *testing.T) {
	k, c := newKernel(t)
	orphaned(t, k, c, 1)
	for name, change := range map[string]func(*Config){
		"another cookie": func(cfg *Config) { cfg.Cookie = "iserblk/other" },
		"smaller":        func(cfg *Config) { cfg.Limits.Size /= 2 },
		"other blocks":   func(cfg *Config) { cfg.Limits.BlockSize = 4096 },
	} {
		var served atomic.Int32
		cfg := config(1, &served)
		change(&cfg)
		if _, err := c.Adopt(t.Context(), 3, cfg); err == nil || served.Load() != 0 {
			t.Errorf("%s: %v, %d served", name, err, served.Load())
		}
	}
	if _, err := c.Lookup(3); err != nil {
		t.Error("the device is gone:", err)
	}
}

func TestAReleasedDeviceIsForgotten(t *testing.T) {
	k, c := newKernel(t)
	orphaned(t, k, c, 1)
	if err := c.Release(t.Context(), 3, "iserblk/other"); err != nil {
		t.Error(err)
	}
	if _, err := c.Lookup(3); err != nil {
		t.Error("somebody else's device was taken away")
	}
	if got := held(c.sysfs, "iserblk/"); len(got) != 1 || got[0].Index != 3 {
		t.Errorf("held: %+v", got)
	}
	if err := c.Release(t.Context(), 3, "iserblk/test"); err != nil {
		t.Error(err)
	}
	if _, err := c.Lookup(3); !errors.Is(err, ErrGone) {
		t.Error("still there:", err)
	}
}

func TestAResizeThatMakesNoSenseIsRefused(t *testing.T) {
	_, c := newKernel(t)
	var served atomic.Int32
	d, err := c.Create(t.Context(), config(1, &served))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Resize(t.Context(), 1000); err == nil {
		t.Error("half a block more")
	}
	if err := d.Resize(t.Context(), 128<<20); err != nil {
		t.Error(err)
	}
	if s, _ := c.Lookup(3); s.Size != 128<<20 {
		t.Errorf("%+v", s)
	}
	if err := d.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := d.Resize(t.Context(), 64<<20); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
}

func TestACommandThatHangsDoesNotHoldItsCallerUp(t *testing.T) {
	_, c := newKernel(t)
	release := make(chan struct{})
	dial := c.dial
	hung := make(chan struct{})
	c.dial = func() (conn *genetlink.Conn, err error) {
		<-release
		defer close(hung)
		return dial()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.disconnect(ctx, 3); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(release)
	<-hung
}

func TestTheKernelsListTellsWhatIsInUse(t *testing.T) {
	_, c := newKernel(t)
	want := func(connected bool) {
		t.Helper()
		got, err := c.Status(t.Context())
		if err != nil || len(got) != 1 || got[0] != (DeviceStatus{Index: 3, Connected: connected}) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	want(false)
	var served atomic.Int32
	d, err := c.Create(t.Context(), config(1, &served))
	if err != nil {
		t.Fatal(err)
	}
	want(true)
	if err := d.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(false)
}
