package ublk

import (
	"context"
	"fmt"
	"os"
)

// tune takes the I/O scheduler away, as the kernel does by itself for disks with several queues: the target orders
// requests better, and mq-deadline sends each one through another task. It is a wish: /sys may be read-only in a
// container, and an administrator may choose another scheduler at any time. The write waits for requests in flight,
// those of a partition scan for instance, so it may outlast ctx.
func (d *Device) tune(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = os.WriteFile(fmt.Sprintf("/sys/block/ublkb%d/queue/scheduler", d.id), []byte("none"), 0)
	}()
	select {
	case <-done:
	case <-d.events.lost:
	case <-ctx.Done():
	}
}
