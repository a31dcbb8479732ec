package nbdkernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"iserblk/internal/block"
)

// State is what sysfs tells of a device that is in use.
type State struct {
	Index  int
	Cookie string // BACKEND_IDENTIFIER, "" when it was made without
	Size   uint64 // bytes
	PID    int    // of the process that made it
}

func (c *Control) file(index int, name string) string {
	return filepath.Join(c.sysfs, "block", fmt.Sprintf("nbd%d", index), name)
}

func (c *Control) read(index int, name string) string {
	text, _ := os.ReadFile(c.file(index, name))
	return strings.TrimSpace(string(text))
}

// Lookup says what a device is in use for; ErrGone when it is not in use.
func (c *Control) Lookup(index int) (State, error) { return lookup(c.sysfs, index) }

func lookup(sysfs string, index int) (State, error) {
	c := Control{sysfs: sysfs}
	pid, err := strconv.Atoi(c.read(index, "pid"))
	if err != nil {
		return State{}, ErrGone
	}
	sectors, _ := strconv.ParseUint(c.read(index, "size"), 10, 64)
	return State{Index: index, Cookie: c.read(index, "backend"), Size: sectors << 9, PID: pid}, nil
}

// Held lists the devices whose cookie starts with prefix. It needs no rights.
func Held(prefix string) []State { return held("/sys", prefix) }

func held(sysfs, prefix string) []State {
	dirs, _ := filepath.Glob(filepath.Join(sysfs, "block/nbd*"))
	var all []State
	for _, dir := range dirs {
		index, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), "nbd"))
		if err != nil {
			continue
		}
		if s, err := lookup(sysfs, index); err == nil && strings.HasPrefix(s.Cookie, prefix) {
			all = append(all, s)
		}
	}
	return all
}

// own fails unless the device is the one that was made with this cookie.
func (c *Control) own(index int, cookie string) error {
	s, err := c.Lookup(index)
	if err == nil && s.Cookie != cookie {
		err = ErrGone
	}
	return err
}

// tune sets what netlink has no attribute for. Before it, requests are of 128 KiB at most, which is slow and not
// wrong; a value that is refused stays as it was.
func (c *Control) tune(index int, cfg *Config) {
	l := &cfg.Limits
	kib := uint64(l.MaxTransfer >> 10)
	if most, err := strconv.ParseUint(c.read(index, "queue/max_hw_sectors_kb"), 10, 64); err == nil {
		kib = min(kib, most)
	}
	c.write(index, "queue/scheduler", "none")
	c.write(index, "queue/max_sectors_kb", strconv.FormatUint(kib, 10))
	if depth, err := strconv.Atoi(c.read(index, "queue/nr_requests")); err == nil && depth > int(l.Depth) {
		c.write(index, "queue/nr_requests", strconv.Itoa(int(l.Depth)))
	}
	if l.MaxDiscard > 0 {
		n := min(l.MaxDiscard, maxRange)
		c.write(index, "queue/discard_max_bytes", strconv.FormatUint(n-n%uint64(l.BlockSize), 10))
	}
	if cfg.RequestTimeout <= 0 {
		c.write(index, "queue/io_timeout", strconv.FormatInt(tick.Milliseconds(), 10))
	}
}

// untune gives the next user of the device number the kernel's own request timeout, which a disconnection leaves as it
// was set.
func (c *Control) untune(index int) { c.write(index, "queue/io_timeout", "30000") }

func (c *Control) write(index int, name, value string) {
	_ = os.WriteFile(c.file(index, name), []byte(value), 0)
}

// nodeReady waits until the device's node leads to it.
func (c *Control) nodeReady(ctx context.Context, index int) error {
	return retry(ctx, nodePatience, func() error {
		number, err := c.number(path(index))
		if err == nil && number != c.read(index, "dev") {
			err = fmt.Errorf("%s is not block device %s", path(index), c.read(index, "dev"))
		}
		return err
	})
}

func deviceNumber(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fmt.Errorf("%s is no block device", path)
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

func path(index int) string { return fmt.Sprintf("/dev/nbd%d", index) }

// Index is the N of "/dev/nbdN".
func Index(path string) (int, error) {
	n, ok := strings.CutPrefix(path, "/dev/nbd")
	index, err := strconv.Atoi(n)
	if !ok || err != nil || index < 0 {
		return 0, errors.New(path + " is no /dev/nbdN")
	}
	return index, nil
}

// sameShape tells whether a device fits what is to serve it from now on: a smaller one would lose data unseen, a larger
// one is made to fit afterwards.
func sameShape(s State, block string, l *block.Limits) error {
	switch {
	case block != strconv.FormatUint(uint64(l.BlockSize), 10):
		return fmt.Errorf("the device has blocks of %s bytes, the unit has blocks of %d", block, l.BlockSize)
	case s.Size > l.Size:
		return fmt.Errorf("the device has %d bytes, the unit has %d", s.Size, l.Size)
	}
	return nil
}
