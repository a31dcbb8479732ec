package lane

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// mailbox holds messages for the lane. The lane looks at full every turn for free; a poster rings the eventfd only
// when the lane sleeps or is about to.
type mailbox struct {
	full     atomic.Bool
	sleeping atomic.Bool

	mu     sync.Mutex
	queue  []func()
	closed bool
	fd     int

	// The lane's own.
	spare []func() // the queue's other buffer
	count [8]byte  // what was read from the eventfd
}

func (m *mailbox) post(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.queue = append(m.queue, f)
	m.full.Store(true)
	if m.sleeping.Load() {
		m.ring()
	}
}

// knock is what is written to the eventfd: any number but zero, in either byte order.
var knock = []byte{0: 1, 7: 1}

// ring wakes the lane. It runs under mu so that the eventfd cannot be closed meanwhile.
func (m *mailbox) ring() {
	for {
		if _, err := unix.Write(m.fd, knock); err != unix.EINTR {
			return // EAGAIN: the counter is full, so it is readable anyway
		}
	}
}

// take empties the mailbox. The slice is valid until the next take.
func (m *mailbox) take() []func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.full.Store(false)
	got := m.queue
	m.queue, m.spare = m.spare[:0], got
	return got
}

// sleep says that the lane is about to wait; false when there is mail.
func (m *mailbox) sleep() bool {
	m.sleeping.Store(true)
	if !m.full.Load() {
		return true
	}
	m.sleeping.Store(false)
	return false
}

func (m *mailbox) wake() { m.sleeping.Store(false) }

// close drops what is still there and everything that comes.
func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed, m.queue = true, nil
}

// handleMailCQE empties the eventfd and, if the kernel ended the watch, makes a new one.
func (l *Lane) handleMailCQE(flags uint32) {
	_, _ = unix.Read(l.eventFD, l.mail.count[:])
	if flags&cqeMore == 0 {
		l.engine.watch(l.eventFD, mailData)
	}
}
