package lane

import (
	"runtime"
	"sync"
	"time"
)

// reserved counts the running lanes that may take a processor of the Go scheduler for themselves.
var reserved struct {
	sync.Mutex
	lanes int
}

// reserveProcessor has the scheduler keep two processors beyond those that lanes hold while they spin or nap, so that
// control work never waits for them.
func reserveProcessor() {
	reserved.Lock()
	defer reserved.Unlock()
	reserved.lanes++
	if want := reserved.lanes + 2; runtime.GOMAXPROCS(0) < want {
		runtime.GOMAXPROCS(want)
	}
}

// returnProcessor ends that for one lane. The processors stay: unused ones cost nothing.
func returnProcessor() {
	reserved.Lock()
	defer reserved.Unlock()
	reserved.lanes--
}

// slice is how long a lane keeps its processor. The scheduler's monitor takes it from whoever has it for 10 ms, with a
// signal or from under a call into C, and then wakes every 20 us for a while to see whether it has to do so again.
const slice = 8 * time.Millisecond

// tenure is the time for which the lane has had its processor.
type tenure struct {
	since   instant
	renewed int // times
}

// over says whether the lane had better give the processor up by itself.
func (t *tenure) over(now instant) bool { return now.sub(t.since) > slice }

// renew gives the processor up and takes one again. Another thread has to wake up for that, and then this one: the time
// for it is when there is nothing to do but wait for answers.
func (t *tenure) renew() {
	runtime.Gosched()
	t.since = clock()
	t.renewed++
}
