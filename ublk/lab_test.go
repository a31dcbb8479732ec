package ublk_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/internal/lane"
	"iserblk/ublk"
)

func TestMain(m *testing.M) {
	if os.Getenv("ISERBLK_LAB_SERVE") != "" {
		serveForever()
	}
	os.Exit(m.Run())
}

// serveForever is a server process of its own, to be killed or measured. ISERBLK_LAB_SERVE is its number of queues,
// ISERBLK_LAB_DISK a file that has the disk, ISERBLK_LAB_OWNER who may recover it.
func serveForever() {
	limits := ramLimits(labDiskSize)
	queues, _ := strconv.Atoi(os.Getenv("ISERBLK_LAB_SERVE"))
	spin, _ := time.ParseDuration(os.Getenv("ISERBLK_LAB_SPIN"))
	nap, _ := time.ParseDuration(os.Getenv("ISERBLK_LAB_NAP"))
	r, err := newRig(limits, queues, lane.Options{Spin: spin, Nap: nap})
	if file := os.Getenv("ISERBLK_LAB_DISK"); err == nil && file != "" {
		err = r.onFile(file)
	}
	if err == nil {
		cfg := r.config(limits)
		if cfg.Owner = os.Getenv("ISERBLK_LAB_OWNER"); cfg.Owner != "" {
			for _, q := range r.queues {
				q.delay = 20 * time.Millisecond // it has something when it dies
			}
		}
		r.dev, err = r.control.Create(context.Background(), cfg)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(r.dev.Path(), r.dev.Cookie())
	select {}
}

// server starts a serveForever and says what it serves.
func server(t *testing.T, env ...string) (kill func(), path, cookie string) {
	t.Helper()
	inLab(t)
	s := exec.Command(os.Args[0])
	s.Env = append(os.Environ(), env...)
	pipe, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() { _ = s.Process.Kill(); _ = s.Wait() }
	t.Cleanup(kill)
	line, err := bufio.NewReader(pipe).ReadString('\n')
	if err != nil {
		t.Fatal(line, err)
	}
	path, cookie, _ = strings.Cut(strings.TrimSpace(line), " ")
	return kill, path, cookie
}

func TestSupportedTellsTheTruth(t *testing.T) {
	inLab(t)
	err := ublk.Supported(within(t, 30*time.Second))
	if os.Getenv("ISERBLK_LAB_NO_UBLK") == "" {
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	if !errors.Is(err, ublk.ErrUnsupported) {
		t.Fatalf("error %v", err)
	}
	t.Log(err)
	if s := err.Error(); !strings.Contains(s, "nbd") || !strings.Contains(s, "6.5") {
		t.Errorf("%q shows no way out", s)
	}
}

func TestDataSurvivesTheRoundTrip(t *testing.T) {
	r := serve(t, ramLimits(96<<20), 2)
	common := []string{
		"--filename=" + r.dev.Path(), "--direct=1", "--ioengine=io_uring", "--rw=randwrite", "--verify=crc32c",
		"--verify_fatal=1", "--do_verify=1", "--group_reporting", "--minimal",
	}
	for name, args := range map[string][]string{
		"mixed":  {"--bsrange=512-1M", "--blockalign=512", "--iodepth=128", "--size=24M", "--numjobs=2", "--offset_increment=32M"},
		"single": {"--bs=4k", "--iodepth=1", "--size=4M"},
		"odd":    {"--bs=512", "--iodepth=32", "--size=2M"},
		"large":  {"--bs=1M", "--iodepth=16", "--size=64M"},
	} {
		command(t, "fio", append(append([]string{"--name=" + name}, common...), args...)...)
	}
	if s := r.dev.Stats(); s.Errors != 0 || s.InFlight != 0 {
		t.Errorf("%+v", s)
	}
}

func TestThePageCacheSeesWhatWasWritten(t *testing.T) {
	r := serve(t, ramLimits(64<<20), 2)
	f, err := os.OpenFile(r.dev.Path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := bytes.Repeat([]byte("0123456789abcdef"), 300<<10)
	if _, err := f.WriteAt(want, 1000); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.disk.mem[1000:1000+len(want)], want) {
		t.Error("fsync came back before the data was there")
	}
	if r.disk.flushes.Load() == 0 {
		t.Error("fsync sent no flush")
	}
}

func TestFlushAndFUAArriveAsSuch(t *testing.T) {
	r := serve(t, ramLimits(16<<20), 1)
	if got := sysfs(t, r.dev.Path(), "queue/write_cache"); got != "write back" {
		t.Errorf("write_cache %q", got)
	}
	command(t, "dd", "if=/dev/zero", "of="+r.dev.Path(), "bs=4k", "count=8", "oflag=direct,dsync")
	if r.disk.fua.Load() == 0 {
		t.Error("O_DSYNC sent no FUA")
	}
	if s := r.dev.Stats(); s.FUA != uint64(r.disk.fua.Load()) {
		t.Errorf("counted %d of %d", s.FUA, r.disk.fua.Load())
	}
}

func TestWithoutAWriteCacheThereIsNoFlush(t *testing.T) {
	limits := ramLimits(16 << 20)
	limits.WriteCache, limits.FUA = false, true
	r := serve(t, limits, 1)
	if got := sysfs(t, r.dev.Path(), "queue/write_cache"); got != "write through" {
		t.Errorf("write_cache %q", got)
	}
	command(t, "dd", "if=/dev/zero", "of="+r.dev.Path(), "bs=4k", "count=8", "oflag=direct,dsync")
	if r.disk.flushes.Load() != 0 || r.disk.fua.Load() != 0 {
		t.Errorf("%d flushes, %d FUA", r.disk.flushes.Load(), r.disk.fua.Load())
	}
}

func TestDiscardAndWriteZeroesArrive(t *testing.T) {
	r := serve(t, ramLimits(2<<30), 1)
	for i := range r.disk.mem[:1<<20] {
		r.disk.mem[i] = 0xaa
	}
	command(t, "blkdiscard", "-o", "65536", "-l", "131072", r.dev.Path())
	for _, c := range []struct {
		at   int
		want byte
	}{{65535, 0xaa}, {65536, 0}, {65536 + 131071, 0}, {65536 + 131072, 0xaa}} {
		if got := r.disk.mem[c.at]; got != c.want {
			t.Errorf("byte %d is %#x", c.at, got)
		}
	}
	command(t, "blkdiscard", "-z", r.dev.Path())
	if r.disk.zeroes.Load() == 0 || r.disk.noUnmap.Load() == 0 {
		t.Errorf("%d write-zeroes, %d of them without unmapping", r.disk.zeroes.Load(), r.disk.noUnmap.Load())
	}
	if n := r.disk.largest.Load(); n > 1<<30 {
		t.Errorf("a range of %d bytes in one request", n)
	}
	if i := bytes.IndexByte(r.disk.mem[:1<<20], 0xaa); i >= 0 {
		t.Errorf("byte %d is not zero", i)
	}
}

func TestAReadOnlyDeviceRefusesWrites(t *testing.T) {
	limits := ramLimits(16 << 20)
	limits.ReadOnly = true
	r := serve(t, limits, 1)
	if got := sysfs(t, r.dev.Path(), "ro"); got != "1" {
		t.Errorf("ro %q", got)
	}
	if f, err := os.OpenFile(r.dev.Path(), os.O_WRONLY, 0); err == nil {
		_, err = f.WriteAt(make([]byte, 4096), 0)
		if f.Close(); err == nil {
			t.Error("written")
		}
	}
	command(t, "dd", "if="+r.dev.Path(), "of=/dev/null", "bs=1M")
}

func TestLimitsReachTheBlockLayer(t *testing.T) {
	limits := ramLimits(64 << 20)
	limits.BlockSize, limits.OptimalIO, limits.Rotational, limits.MaxTransfer = 4096, 65536, true, 256<<10
	r := serve(t, limits, 2)
	for attr, want := range map[string]string{
		"queue/logical_block_size":  "4096",
		"queue/physical_block_size": "4096",
		"queue/optimal_io_size":     "65536",
		"queue/minimum_io_size":     "4096",
		"queue/rotational":          "1",
		"queue/max_hw_sectors_kb":   "256",
		"queue/discard_granularity": "4096",
		"queue/discard_max_bytes":   strconv.Itoa(1 << 30),
		"size":                      strconv.Itoa(64 << 11),
	} {
		if got := sysfs(t, r.dev.Path(), attr); got != want {
			t.Errorf("%s is %s, want %s", attr, got, want)
		}
	}
	if n := len(glob(t, "/sys/block/"+filepath.Base(r.dev.Path())+"/mq/*")); n != r.dev.Queues() || n != min(2, runtime.NumCPU()) {
		t.Errorf("%d hardware queues, the device says %d", n, r.dev.Queues())
	}
	command(t, "fio", "--name=4k", "--filename="+r.dev.Path(), "--direct=1", "--rw=randwrite", "--bsrange=4k-512k", "--iodepth=32",
		"--ioengine=io_uring", "--size=32M", "--verify=crc32c", "--verify_fatal=1", "--minimal")
}

func TestAnErrorReachesTheCallerAndOnlyHim(t *testing.T) {
	r := serve(t, ramLimits(16<<20), 1)
	f, err := os.OpenFile(r.dev.Path(), os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf, err := anonymous(4096)
	if err != nil {
		t.Fatal(err)
	}
	for errno, want := range map[unix.Errno]unix.Errno{unix.ENOSPC: unix.ENOSPC, unix.ETIMEDOUT: unix.ETIMEDOUT, unix.EPIPE: unix.EIO} {
		r.dev.Fail(errno)
		if _, err := f.WriteAt(buf, 0); !errors.Is(err, want) {
			t.Errorf("%v became %v", errno, err)
		}
	}
	r.dev.Fail(0)
	if _, err := f.WriteAt(buf, 0); err != nil {
		t.Error(err)
	}
}

func TestAHundredCyclesLeaveNothing(t *testing.T) {
	inLab(t)
	limits := ramLimits(8 << 20)
	limits.Depth, limits.MaxTransfer = 16, 64<<10
	r, err := newRig(limits, 2, lane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	cycle := func() {
		d, err := r.control.Create(within(t, 20*time.Second), r.config(limits))
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(d.Path(), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("dirty"), 4096); err != nil { // for Stop to write back
			t.Fatal(err)
		}
		f.Close()
		if err := d.Stop(within(t, 20*time.Second)); err != nil {
			t.Fatal(err)
		}
		select {
		case <-d.Lost():
		default:
			t.Error("stopped, and Lost is open")
		}
		mustBeGone(t, d.Path())
	}
	cycle()
	before := resources(t)
	start := time.Now()
	for range 100 {
		cycle()
	}
	t.Logf("%v a cycle", time.Since(start)/100)
	time.Sleep(100 * time.Millisecond)
	after := resources(t)
	for what, n := range after {
		// Threads and goroutines come and go by ones; a leak would be a hundred.
		if slack := map[string]int{"threads": 8, "goroutines": 3}[what]; n > before[what]+slack {
			t.Errorf("%s: %d, were %d", what, n, before[what])
		}
	}
	if left := glob(t, "/dev/ublk[bc]*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func resources(t *testing.T) map[string]int {
	t.Helper()
	return map[string]int{
		"files":      len(glob(t, "/proc/self/fd/*")),
		"threads":    len(glob(t, "/proc/self/task/*")),
		"goroutines": runtime.NumGoroutine(),
		"mappings":   strings.Count(readFile(t, "/proc/self/maps"), "ublkc"),
	}
}

func TestStopUnderLoadFinishes(t *testing.T) {
	r := serve(t, ramLimits(64<<20), 2)
	fio := exec.Command("fio", "--name=load", "--allow_file_create=0", "--filename="+r.dev.Path(), "--direct=1", "--rw=randrw", "--bs=4k", "--iodepth=32",
		"--numjobs=2", "--ioengine=io_uring", "--size=16M", "--time_based", "--runtime=60", "--minimal")
	if err := fio.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fio.Process.Kill(); _ = fio.Wait() }()
	waitFor(t, "load", func() bool { return r.dev.Stats().Ops[0] > 500 })
	start := time.Now()
	if err := r.dev.Stop(within(t, 30*time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Logf("stopped within %v", time.Since(start))
	mustBeGone(t, r.dev.Path())
}

func TestStopOfAHangingDeviceWaitsForItsUnitAndNoLonger(t *testing.T) {
	r := serve(t, ramLimits(64<<20), 1)
	if err := r.lanes[0].Do(t.Context(), func() { r.queues[0].hang = true }); err != nil {
		t.Fatal(err)
	}
	reader := exec.Command("dd", "if="+r.dev.Path(), "of=/dev/null", "bs=4k", "count=1", "skip=77", "iflag=direct")
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a request in flight", func() bool { return r.dev.Stats().InFlight > 0 })
	err := r.dev.Stop(within(t, 300*time.Millisecond))
	if err == nil || !strings.Contains(err.Error(), "in flight") {
		t.Fatalf("Stop with a request in flight: %v", err)
	}
	r.dev.Fail(unix.EIO)
	if err := r.lanes[0].Do(t.Context(), func() { r.queues[0].release(unix.EIO) }); err != nil {
		t.Fatal(err)
	}
	if err := r.dev.Stop(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if reader.Wait() == nil {
		t.Error("the read succeeded")
	}
}

func TestASlowDeviceIsCreatedAndStopped(t *testing.T) {
	inLab(t)
	limits := ramLimits(8 << 20)
	limits.Depth, limits.MaxTransfer = 16, 64<<10
	r, err := newRig(limits, 1, lane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	r.queues[0].delay = 20 * time.Millisecond // the partition scan takes its time
	d, err := r.control.Create(within(t, 20*time.Second), r.config(limits))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Stop(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	mustBeGone(t, d.Path())
}

func TestTryStopLeavesADeviceInUse(t *testing.T) {
	r := serve(t, ramLimits(64<<20), 1)
	command(t, "mkfs.ext4", "-q", r.dev.Path())
	dir := t.TempDir()
	command(t, "mount", r.dev.Path(), dir)
	if err := r.dev.TryStop(within(t, 10*time.Second)); !errors.Is(err, ublk.ErrBusy) {
		t.Errorf("TryStop of a mounted device: %v", err)
	}
	command(t, "umount", dir)
	if err := r.dev.TryStop(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	mustBeGone(t, r.dev.Path())
}

func TestTryStopSeesAnOpenDevice(t *testing.T) {
	r := serve(t, ramLimits(64<<20), 1)
	flags := os.O_RDONLY
	if r.control.Features()&(1<<17) == 0 { // UBLK_F_SAFE_STOP_DEV: without it only exclusive users are seen
		flags |= unix.O_EXCL
	}
	f, err := os.OpenFile(r.dev.Path(), flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.dev.TryStop(within(t, 10*time.Second)); !errors.Is(err, ublk.ErrBusy) {
		t.Errorf("TryStop of an open device: %v", err)
	}
	f.Close()
	waitFor(t, "nobody else has it open", func() bool { // udev may be looking
		err := r.dev.TryStop(within(t, 10*time.Second))
		if err != nil && !errors.Is(err, ublk.ErrBusy) {
			t.Fatal(err)
		}
		return err == nil
	})
}

func TestAKilledServerLeavesNoDevice(t *testing.T) {
	kill, path, _ := server(t, "ISERBLK_LAB_SERVE=2")
	reader := exec.Command("fio", "--name=load", "--allow_file_create=0", "--filename="+path, "--direct=1", "--rw=randread", "--bs=4k", "--iodepth=16",
		"--ioengine=io_uring", "--size=16M", "--time_based", "--runtime=60", "--minimal")
	var report bytes.Buffer
	reader.Stdout, reader.Stderr = &report, &report
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	stat := "/sys/block/" + filepath.Base(path) + "/stat"
	waitFor(t, "load", func() bool { return readCount(stat) > 200 })
	kill()
	ended := make(chan error, 1)
	go func() { ended <- reader.Wait() }()
	select {
	case err := <-ended: // its I/O fails: nobody hangs, and nobody is served by the dead
		if err == nil {
			t.Errorf("the reader met no error:\n%s", report.String())
		}
	case <-time.After(20 * time.Second):
		before := readCount(stat)
		time.Sleep(time.Second)
		t.Errorf("the reader goes on: %d reads in the last second, %s", readCount(stat)-before, stuck())
		_ = reader.Process.Kill()
	}
	waitFor(t, path+" gone", func() bool { _, err := os.Stat(path); return os.IsNotExist(err) })
	c, err := ublk.Open(within(t, 10*time.Second), ublk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Reap(within(t, 10*time.Second)); n != 1 || err != nil {
		t.Errorf("reaped %d: %v", n, err)
	}
	mustBeGone(t, path)
}

func TestADeviceThatSomebodyElseDeletesIsLost(t *testing.T) {
	r := serve(t, ramLimits(16<<20), 1)
	other, err := ublk.Open(within(t, 10*time.Second), ublk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := ublk.StopByID(within(t, 10*time.Second), other, r.dev.ID()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.dev.Lost():
	case <-time.After(10 * time.Second):
		t.Fatal("nobody told")
	}
	if !errors.Is(r.dev.Err(), ublk.ErrStopped) {
		t.Errorf("error %v", r.dev.Err())
	}
}

func TestResizeIsSeenByTheKernel(t *testing.T) {
	r := serve(t, ramLimits(64<<20), 1)
	err := r.dev.Resize(within(t, 10*time.Second), 32<<20)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := sysfs(t, r.dev.Path(), "size"); got != strconv.Itoa(32<<11) {
		t.Errorf("size %s", got)
	}
}

func TestAnIdleDeviceCostsNothing(t *testing.T) {
	r := serve(t, ramLimits(16<<20), 2)
	command(t, "dd", "if="+r.dev.Path(), "of=/dev/null", "bs=4k", "count=100", "iflag=direct")
	time.Sleep(500 * time.Millisecond) // udev has looked, the runtime has settled
	runtime.GC()
	used := func() (sum time.Duration) {
		for _, l := range r.lanes {
			if err := l.Do(t.Context(), func() {
				var u unix.Rusage
				_ = unix.Getrusage(unix.RUSAGE_THREAD, &u)
				sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
			}); err != nil {
				t.Fatal(err)
			}
		}
		return sum
	}
	before := used()
	time.Sleep(3 * time.Second)
	if n := used() - before; n > 15*time.Millisecond {
		t.Errorf("%v of CPU in 3 s", n)
	}
}

// readCount is how many reads the kernel has completed on a device, from its stat file.
func readCount(stat string) int {
	b, _ := os.ReadFile(stat)
	n, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	count, _ := strconv.Atoi(n)
	return count
}

// stuck shows where the kernel's sleepers that cannot be interrupted are.
func stuck() string {
	var b strings.Builder
	tasks, _ := filepath.Glob("/proc/[0-9]*/task/*")
	for _, task := range tasks {
		status, _ := os.ReadFile(task + "/stat")
		if !strings.Contains(string(status), ") D ") {
			continue
		}
		stack, _ := os.ReadFile(task + "/stack")
		fmt.Fprintf(&b, "\n%.40s\n%s", status, stack)
	}
	return b.String()
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
