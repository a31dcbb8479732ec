package ublk

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"iserblk/internal/block"
	"iserblk/internal/lane"
)

// Buffer is the memory of one tag.
type Buffer struct {
	Mem    []byte // at least Limits.MaxTransfer bytes outside the Go heap
	Region uint32 // the region of the arena that Mem lies in, for block.Request
}

// QueueConfig is one hardware queue.
type QueueConfig struct {
	Lane    *lane.Lane  // serves the queue; it must outlive the device
	Unit    block.Queue // takes the requests, on that lane
	Buffers []Buffer    // one a tag: Limits.Depth of them
}

// Config says what device to make.
type Config struct {
	Limits block.Limits
	// Queues are the hardware queues. The kernel takes no more than there are CPUs; those beyond stay unused.
	Queues []QueueConfig
	// Share, when there is one, is called before the device starts to have memory registered that clients of the
	// device may have as well (Linux 7.1): a request whose buffer lies in it is passed on with that very memory, and nothing
	// is copied. The memory may be registered with devices of RDMA only afterwards, so that these find the same pages. It has to stay
	// mapped until the device is gone.
	Share func(register func(Buffer) error) error
	// Owner, when it is not "", lets the device outlive this process: its requests, those on the way included, wait for a
	// Recover by another process of the same owner. It does not go with Share.
	Owner string
	// NoPartScan leaves the partition table unread, where the kernel can (Linux 7.0).
	NoPartScan bool
}

// Device is one /dev/ublkbN. Its methods are safe for concurrent use.
type Device struct {
	control *Control
	granted int // queues that the kernel made
	id      uint32
	mark    uint64 // what the kernel keeps for us, see mark
	path    string
	limits  block.Limits
	size    atomic.Uint64
	fail    atomic.Int32
	mute    atomic.Bool // requests get no answer
	fd      int         // of /dev/ublkcN, -1 when not open
	queues  []*queue
	maps    [][]byte
	shared  []Buffer // by the kernel's number of them
	events  events

	turn   chan struct{} // held by who starts, stops or resizes
	start  *call
	stop   *call
	delete *call
	gone   bool // deleted: nothing left to do
}

// Path is the block device, such as /dev/ublkb0.
func (d *Device) Path() string { return d.path }

// ID is the N of /dev/ublkbN.
func (d *Device) ID() int { return int(d.id) }

// Queues is how many hardware queues the device has got.
func (d *Device) Queues() int { return len(d.queues) }

// Size is the device's in bytes as the kernel knows it.
func (d *Device) Size() uint64 { return d.size.Load() }

// WriteCache says whether the kernel flushes the device.
func (d *Device) WriteCache() bool { return d.limits.WriteCache }

// Shares says whether there is memory that clients share with this process.
func (d *Device) Shares() bool { return len(d.shared) > 0 }

// Lost is closed when the device can serve no more although nobody called Stop, or because somebody did: Err says
// which.
func (d *Device) Lost() <-chan struct{} { return d.events.lost }

// Err is why Lost was closed: ErrStopped, or the kernel's refusal of an I/O command.
func (d *Device) Err() error { return d.events.error() }

// Fail has every request that comes from now on answered with errno, unseen by the logical unit; 0 ends that. Requests that
// the logical unit has already are its own to finish. Stop waits for all of them, so a device whose remote is gone
// takes this first.
func (d *Device) Fail(errno syscall.Errno) { d.fail.Store(int32(errno)) }

// Stats sums up what the queues have done. It takes no lock and disturbs no lane.
func (d *Device) Stats() Stats {
	var s Stats
	for _, q := range d.queues {
		q.stats.addTo(&s)
	}
	return s
}

// events tells the outside what the lanes see of the device's life.
type events struct {
	queues atomic.Int32 // still in service
	lost   chan struct{}
	once   sync.Once
	err    error // valid after lost is closed
}

func (e *events) end(err error) {
	e.once.Do(func() {
		e.err = err
		close(e.lost)
	})
}

// queueDone says that one queue is out of service.
func (e *events) queueDone() {
	if e.queues.Add(-1) == 0 {
		e.end(ErrStopped)
	}
}

// refused says that the kernel did not take an I/O command.
func (e *events) refused(errno syscall.Errno) {
	e.end(fmt.Errorf("the kernel refused an I/O command: %w", errno))
}

func (e *events) error() error {
	select {
	case <-e.lost:
		return e.err
	default:
		return nil
	}
}

// newQueues lays out the queues that the kernel granted and maps their descriptors.
func (d *Device) newQueues(configs []QueueConfig) error {
	for i, qc := range configs {
		mem, err := mapDescs(d.fd, uint16(i), int(d.limits.Depth))
		if err != nil {
			return fmt.Errorf("map descriptors of queue %d: %w", i, err)
		}
		d.maps = append(d.maps, mem)
		q := &queue{
			lane: qc.Lane, ring: qc.Lane, unit: qc.Unit, fd: d.fd, id: uint16(i),
			descs:  unsafe.Slice((*ioDesc)(unsafe.Pointer(&mem[0])), d.limits.Depth),
			shared: d.shared, limits: &d.limits, size: &d.size, fail: &d.fail, mute: &d.mute, events: &d.events,
		}
		q.init(qc.Buffers)
		d.queues = append(d.queues, q)
	}
	d.events.queues.Store(int32(len(d.queues)))
	return nil
}
