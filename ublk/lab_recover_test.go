package ublk_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"iserblk/internal/block"
	"iserblk/internal/lane"
	"iserblk/ublk"
)

const labOwner = "the lab's"

// ownedServer serves a disk that outlives it.
func ownedServer(t *testing.T) (kill func(), left ublk.Left, disk string) {
	t.Helper()
	inLab(t)
	disk = filepath.Join("/dev/shm", "iserblk-"+strconv.Itoa(os.Getpid())+t.Name())
	t.Cleanup(func() { _ = os.Remove(disk) })
	kill, path, cookie := server(t, "ISERBLK_LAB_SERVE=2", "ISERBLK_LAB_OWNER="+labOwner, "ISERBLK_LAB_DISK="+disk)
	id, err := strconv.Atoi(strings.TrimPrefix(path, "/dev/ublkb"))
	if err != nil || cookie == "" {
		t.Fatal(path, cookie, err)
	}
	return kill, ublk.Left{ID: id, Cookie: cookie}, disk
}

// successor has everything to serve what is left but the device.
func successor(t *testing.T, disk string, queues int) *rig {
	t.Helper()
	r, err := newRig(ramLimits(labDiskSize), queues, lane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	if err := r.onFile(disk); err != nil {
		t.Fatal(err)
	}
	return r
}

// load writes and verifies a device until its job is done.
func load(t *testing.T, path string) (wait func() error) {
	t.Helper()
	fio := exec.Command("fio", "--name=load", "--allow_file_create=0", "--filename="+path, "--direct=1", "--rw=randwrite",
		"--bsrange=4k-64k", "--iodepth=16", "--ioengine=io_uring", "--size=10M", "--rate_iops=,400", "--verify=crc32c",
		"--verify_fatal=1", "--do_verify=1")
	var report bytes.Buffer
	fio.Stdout, fio.Stderr = &report, &report
	if err := fio.Start(); err != nil {
		t.Fatal(err)
	}
	stat := "/sys/block/" + filepath.Base(path) + "/stat"
	writes := func() int {
		b, _ := os.ReadFile(stat)
		n, _ := strconv.Atoi(strings.Fields(string(b) + " 0 0 0 0 0")[4])
		return n
	}
	waitFor(t, "load", func() bool { return writes() > 100 })
	return func() error {
		err := fio.Wait()
		if err != nil {
			t.Log(report.String())
		}
		return err
	}
}

func TestADeviceWithAnOwnerOutlivesItsServer(t *testing.T) {
	kill, left, disk := ownedServer(t)
	wait := load(t, left.Path())
	all, err := ublk.Owned(t.Context(), labOwner)
	if err != nil || len(all) != 1 || all[0] != left {
		t.Errorf("owned: %v, %v", all, err)
	}
	kill()
	r := successor(t, disk, 2)
	if held, err := r.control.Held(within(t, 20*time.Second), left); err != nil || !held {
		t.Fatalf("held: %v, %v", held, err)
	}
	if held, err := r.control.Held(t.Context(), ublk.Left{ID: left.ID, Cookie: "69720"}); err != nil || held {
		t.Errorf("by another cookie: %v, %v", held, err)
	}
	for name, change := range map[string]func(*block.Limits){
		"smaller disk":  func(l *block.Limits) { l.Size /= 2 },
		"other blocks":  func(l *block.Limits) { l.BlockSize = 4096 },
		"small buffers": func(l *block.Limits) { l.MaxTransfer /= 2 },
	} {
		limits := ramLimits(labDiskSize)
		change(&limits)
		if _, err := r.control.Recover(within(t, 20*time.Second), left, r.config(limits)); err == nil {
			t.Fatalf("%s: recovered", name)
		}
	}
	if r.dev, err = r.control.Recover(within(t, 20*time.Second), left, r.config(ramLimits(labDiskSize))); err != nil {
		t.Fatal(err)
	}
	if r.dev.Path() != left.Path() || r.dev.Cookie() != left.Cookie {
		t.Errorf("%s %s, not %v", r.dev.Path(), r.dev.Cookie(), left)
	}
	if err := wait(); err != nil {
		t.Errorf("load: %v", err)
	}
	command(t, "blkdiscard", "-o", "65536", "-l", "131072", r.dev.Path())
	if err := r.dev.Stop(within(t, 30*time.Second)); err != nil {
		t.Error(err)
	}
	mustBeGone(t, r.dev.Path())
}

func TestTheEndOfAWaitingDeviceFailsWhatWaits(t *testing.T) {
	kill, left, _ := ownedServer(t)
	wait := load(t, left.Path())
	kill()
	c, err := ublk.Open(within(t, 10*time.Second), ublk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ended := make(chan error, 1)
	go func() { ended <- wait() }()
	select {
	case err := <-ended:
		t.Errorf("the load did not wait: %v", err)
	case <-time.After(2 * time.Second):
	}
	if err := c.Discard(within(t, 30*time.Second), left); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the load met no error")
		}
	case <-time.After(20 * time.Second):
		t.Errorf("the load goes on: %s", stuck())
	}
	mustBeGone(t, left.Path())
	if err := c.Discard(within(t, 30*time.Second), left); err != nil {
		t.Errorf("once more: %v", err)
	}
}
