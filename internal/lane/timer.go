package lane

import (
	"container/heap"
	"time"
)

// Timer is a call that AfterFunc has scheduled.
type Timer struct {
	lane  *Lane
	when  instant
	f     func()
	index int // in the heap, negative when not there
}

// AfterFunc has f run on the lane after d. It is for control, not for every I/O.
func (l *Lane) AfterFunc(d time.Duration, f func()) *Timer {
	t := &Timer{lane: l, when: clock().add(d), f: f}
	heap.Push(&l.timers, t)
	return t
}

// Stop keeps the timer from firing; false when it fired or was stopped before.
func (t *Timer) Stop() bool {
	if t.index < 0 {
		return false
	}
	heap.Remove(&t.lane.timers, t.index)
	return true
}

// fire runs the timers that are due at now.
func (l *Lane) fire(now instant) int {
	n := 0
	for ; len(l.timers) > 0 && l.timers[0].when <= now; n++ {
		heap.Pop(&l.timers).(*Timer).f()
	}
	return n
}

// untilTimer is how long from now the lane may sleep.
func (l *Lane) untilTimer(now instant) time.Duration {
	if len(l.timers) == 0 {
		return forever
	}
	return l.timers[0].when.sub(now)
}

// timerHeap is a container/heap by time.
type timerHeap []*Timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].when < h[j].when }

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is called by container/heap.
func (h *timerHeap) Push(x any) {
	t := x.(*Timer)
	t.index = len(*h)
	*h = append(*h, t)
}

// Pop is called by container/heap.
func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	t.index = -1
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return t
}
