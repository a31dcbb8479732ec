package rdmacore

import (
	"sync"

	"iserblk/verbs"
)

// eventRoom is more than the pending events that coalesce leaves.
const eventRoom = 16

// eventQueue hands events to one reader and never blocks a writer. When the reader is slow, of every kind the newest
// event stays, port down and port up being one kind.
type eventQueue struct {
	mu     sync.Mutex
	closed bool
	ch     chan verbs.Event
}

func newEventQueue() *eventQueue { return &eventQueue{ch: make(chan verbs.Event, eventRoom)} }

func (q *eventQueue) post(ev verbs.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	if len(q.ch) == cap(q.ch) {
		q.coalesce()
	}
	q.ch <- ev // there is room, and only post fills the channel
}

// coalesce leaves the newest event of every kind, in order.
func (q *eventQueue) coalesce() {
	pending := q.drain()
	for i, ev := range pending {
		if !supersededIn(pending[i+1:], ev.Kind) {
			q.ch <- ev
		}
	}
}

func (q *eventQueue) drain() []verbs.Event {
	var pending []verbs.Event
	for {
		select {
		case ev := <-q.ch:
			pending = append(pending, ev)
		default:
			return pending
		}
	}
}

func supersededIn(later []verbs.Event, kind verbs.EventKind) bool {
	for _, ev := range later {
		if slot(ev.Kind) == slot(kind) {
			return true
		}
	}
	return false
}

// slot is the kind, with both states of a port as one.
func slot(k verbs.EventKind) verbs.EventKind {
	if k == verbs.EventPortUp {
		return verbs.EventPortDown
	}
	return k
}

func (q *eventQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		close(q.ch)
	}
}
