package softroce

import (
	"sync"

	"iserblk/verbs"
)

// eventRoom is more than there are kinds of events.
const eventRoom = 16

// eventQueue hands events to one reader and never blocks a writer. When the reader is slow, the oldest are dropped.
type eventQueue struct {
	mu     sync.Mutex
	closed bool
	ch     chan verbs.Event
}

func newEventQueue() *eventQueue { return &eventQueue{ch: make(chan verbs.Event, eventRoom)} }

func (q *eventQueue) post(kind verbs.EventKind, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	if len(q.ch) == cap(q.ch) {
		select {
		case <-q.ch:
		default: // the reader was faster
		}
	}
	q.ch <- verbs.Event{Kind: kind, Err: err} // there is room, and only post fills the channel
}

func (q *eventQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		close(q.ch)
	}
}
