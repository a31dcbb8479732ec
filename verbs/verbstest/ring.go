package verbstest

// ring is a queue of bounded length that never allocates after newRing.
type ring[T any] struct {
	buf     []T
	head, n int
}

func newRing[T any](size int) ring[T] { return ring[T]{buf: make([]T, size)} }

// push adds the zero or old content of one more slot and returns it to be filled in. The ring must not be full.
func (r *ring[T]) push() *T {
	slot := &r.buf[(r.head+r.n)%len(r.buf)]
	r.n++
	return slot
}

// pop takes the oldest element. It stays valid until a later push reuses its slot. The ring must not be empty.
func (r *ring[T]) pop() *T {
	slot := &r.buf[r.head]
	r.head = (r.head + 1) % len(r.buf)
	r.n--
	return slot
}
