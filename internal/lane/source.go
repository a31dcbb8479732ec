package lane

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Source is something the lane serves every turn: a nexus over its datamover. All calls come from the lane.
type Source interface {
	// Poll handles what has completed and says how much that was. It never blocks.
	Poll() int
	// Flush rings one doorbell for what was queued this turn.
	Flush()
	// Arm asks for a wake-up on Fd. It is true when work came meanwhile: the lane polls once more before it sleeps. It
	// is called before a sleep, and not again before Fd became readable: until then the Source stays armed.
	Arm() (ready bool)
	// Fd becomes readable when an armed Source has work. It must not change and stay open until Remove returned;
	// negative means none.
	Fd() int
	// Busy: remote I/O is outstanding, so spinning for a bounded time may pay.
	Busy() bool
}

// retryWatch is the pause before a watch that the kernel refused (no memory) is tried again.
const retryWatch = 10 * time.Millisecond

// watch is the kernel's eye on a Source's Fd.
type watch struct {
	lane   *Lane
	source Source
	base   uint64
	fd     int
	live   bool // the kernel watches
	armed  bool // so does the Source, and Fd has been silent since
	gone   bool // the Source was removed
	ending bool // the kernel was asked to watch no more
}

// watchEnds is the lower half of the user data of a request to end a watch.
const watchEnds = 1

// Add has the lane serve s from this turn on.
func (l *Lane) Add(s Source) {
	w := &watch{lane: l, source: s, fd: s.Fd()}
	l.watches = append(l.watches, w)
	if w.fd >= 0 {
		w.base = l.Register(w)
		w.arm()
	}
}

// Remove ends that. The kernel lets go of the Source's Fd soon. Unknown Sources are ignored.
func (l *Lane) Remove(s Source) {
	i := slices.IndexFunc(l.watches, func(w *watch) bool { return w != nil && w.source == s })
	if i < 0 {
		return
	}
	w := l.watches[i]
	l.watches[i], l.holes = nil, true
	w.gone = true
	if w.fd < 0 {
		return
	}
	w.ending = w.live && l.engine.unwatch(w.fd, w.base)
	w.live = w.ending
	w.over()
}

// over frees the user data once no completion can come any more.
func (w *watch) over() {
	if !w.live && !w.ending {
		w.lane.Unregister(w.base)
	}
}

// ended takes the answer to unwatch. A watch that is just being told of something does not end: it is asked again.
func (w *watch) ended(res int32) {
	w.ending = res == -int32(unix.EALREADY) && w.lane.engine.unwatch(w.fd, w.base)
	w.over()
}

func (w *watch) arm() {
	if !w.gone {
		w.live = true
		w.lane.engine.watch(w.fd, w.base)
	}
}

// HandleCQE learns that Fd is readable, and keeps the watch alive.
func (w *watch) HandleCQE(low uint32, res int32, flags uint32) {
	if low == watchEnds {
		w.ended(res)
		return
	}
	w.armed = false
	if flags&cqeMore != 0 {
		return
	}
	w.live = false
	switch {
	case w.gone:
		w.over()
	case res < 0:
		w.lane.AfterFunc(retryWatch, w.arm)
	default:
		w.arm()
	}
}

// pollAll lets every Source handle its completions and then ring its doorbell. Sources may be added and removed
// meanwhile.
func (l *Lane) pollAll() int {
	n := 0
	for i := 0; i < len(l.watches); i++ {
		if w := l.watches[i]; w != nil {
			n += w.source.Poll()
		}
	}
	for i := 0; i < len(l.watches); i++ {
		if w := l.watches[i]; w != nil {
			w.source.Flush()
		}
	}
	if l.holes {
		l.watches = slices.DeleteFunc(l.watches, func(w *watch) bool { return w == nil })
		l.holes = false
	}
	return n
}

// armAll prepares for sleep; false when a Source got work meanwhile.
func (l *Lane) armAll() bool {
	idle := true
	for _, w := range l.watches {
		if w == nil || w.armed && w.live {
			continue
		}
		w.armed = w.fd >= 0
		if w.source.Arm() {
			idle = false
		}
	}
	return idle
}

// busy says whether spinning may pay.
func (l *Lane) busy() bool {
	for _, w := range l.watches {
		if w != nil && w.source.Busy() {
			return true
		}
	}
	return false
}
