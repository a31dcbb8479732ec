package lane

import "iserblk/internal/uring"

const cqeMore = uring.CQEMore

// CQEHandler takes the completions of the requests it made.
type CQEHandler interface {
	// HandleCQE gets the lower half of the user data, the result (a negative errno on failure) and the flags.
	HandleCQE(low uint32, res int32, flags uint32)
}

// The user data of a request is its handler's number in the upper half and the handler's own in the lower. Number 0
// is the lane's own.
const (
	mailData   = 0
	timersData = 1
	napsData   = 2

	firstID = 1
)

// Register routes the completions of requests whose user data is base+low, low below 1<<32, to h.
func (l *Lane) Register(h CQEHandler) (base uint64) {
	if n := len(l.free); n > 0 {
		id := l.free[n-1]
		l.free = l.free[:n-1]
		l.handlers[id] = h
		return uint64(id) << 32
	}
	for len(l.handlers) < firstID {
		l.handlers = append(l.handlers, nil)
	}
	l.handlers = append(l.handlers, h)
	return uint64(len(l.handlers)-1) << 32
}

// Unregister frees base for others. Every request made with it must have completed.
func (l *Lane) Unregister(base uint64) {
	id := uint32(base >> 32)
	l.handlers[id] = nil
	l.free = append(l.free, id)
}

// dispatch hands a completion to its handler.
func (l *Lane) dispatch(c uring.CQE) {
	id := uint32(c.UserData >> 32)
	switch {
	case id == mailData:
		l.handleMailCQE(c.Flags)
	case id < uint32(len(l.handlers)) && l.handlers[id] != nil:
		l.handlers[id].HandleCQE(uint32(c.UserData), c.Res, c.Flags)
	}
}
