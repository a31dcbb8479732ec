package nbd

// The lists of a hub that a connection may be in, in each at most once.
const (
	listReady = iota
	listHungry
	listDirty
	listCount
)

// connLinks are a connection's places in them.
type connLinks [listCount]struct {
	next *Conn
	in   bool
}

// connList is a FIFO of connections.
type connList struct {
	kind       int
	head, tail *Conn
	n          int
}

// push appends c if it is not there already.
func (l *connList) push(c *Conn) {
	if c.links[l.kind].in {
		return
	}
	c.links[l.kind].in, c.links[l.kind].next = true, nil
	if l.head == nil {
		l.head = c
	} else {
		l.tail.links[l.kind].next = c
	}
	l.tail = c
	l.n++
}

// pop takes the oldest, nil when there is none.
func (l *connList) pop() *Conn {
	c := l.head
	if c == nil {
		return nil
	}
	l.head = c.links[l.kind].next
	c.links[l.kind].in, c.links[l.kind].next = false, nil
	l.n--
	return c
}
