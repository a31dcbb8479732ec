package ublk

import (
	"context"
	"fmt"
	"os"
)

// tune takes the I/O scheduler away, as the kernel does by itself for disks with several queues: the target orders
// requests better, and mq-deadline sends each one through another task. Where memory is shared it also keeps the kernel from
// merging requests: two buffers in one request are not one piece of memory, and would be copied. It is all a wish: /sys may be
// read-only in a container, and an administrator may choose otherwise at any time. The writes wait for requests in
// flight, those of a partition scan for instance, so they may outlast ctx.
func (d *Device) tune(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.set("scheduler", "none")
		if len(d.shared) > 0 {
			d.set("nomerges", "2")
		}
	}()
	select {
	case <-done:
	case <-d.events.lost:
	case <-ctx.Done():
	}
}

// set changes an attribute of the device's request queue.
func (d *Device) set(attribute, value string) {
	_ = os.WriteFile(fmt.Sprintf("/sys/block/ublkb%d/queue/%s", d.id, attribute), []byte(value), 0)
}
