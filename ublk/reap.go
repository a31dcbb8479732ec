package ublk

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
)

// Reap deletes what is left of the devices of processes of this program that died. Their block devices are gone by
// themselves; the character devices would stay for ever and count against limits. It says how many it deleted.
func (c *Control) Reap(ctx context.Context) (int, error) {
	ids, err := devices()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, id := range ids {
		ok, err := c.reapOne(ctx, id)
		if err != nil {
			return n, &Error{Op: "delete orphan", Dev: blockPath(id), Err: err}
		}
		if ok {
			n++
		}
	}
	return n, nil
}

const charClass = "/sys/class/ublk-char"

// devices are the numbers of all that the kernel has, whoever made them.
func devices() ([]uint32, error) {
	nodes, err := filepath.Glob(charClass + "/ublkc*")
	if err != nil {
		return nil, &Error{Op: "list devices", Err: err}
	}
	var ids []uint32
	for _, node := range nodes {
		if id, err := strconv.ParseUint(strings.TrimPrefix(filepath.Base(node), "ublkc"), 10, 32); err == nil {
			ids = append(ids, uint32(id))
		}
	}
	return ids, nil
}

func (c *Control) reapOne(ctx context.Context, id uint32) (bool, error) {
	info, err := c.info(ctx, id)
	switch {
	case isGone(err):
		return false, nil
	case err != nil:
		return false, err
	case info.state != stateDead || !orphan(info.ublksrvFlags):
		return false, nil
	}
	d := &Device{control: c, id: id, mark: info.ublksrvFlags}
	if err := d.remove(ctx); err != nil && !isGone(err) {
		return false, err
	}
	return true, nil
}
