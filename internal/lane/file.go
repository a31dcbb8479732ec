package lane

import "golang.org/x/sys/unix"

// FileHandler is told when a File becomes ready.
type FileHandler interface {
	// FileReady gets poll events (POLLIN, POLLOUT, POLLRDHUP, POLLHUP, POLLERR) on the lane. Reading is edge
	// triggered: after POLLIN the handler reads until there is nothing left, or comes back to it by itself.
	FileReady(events uint32)
}

// File has a FileHandler told of one non-blocking file's readiness. It belongs to its lane, like everything that
// serves it.
type File struct {
	lane    *Lane
	fd      int
	base    uint64
	handler FileHandler
	reading bool // the kernel watches for reading
	writing bool // the kernel watches for writing
	ending  int  // requests to end a watch that are on their way
	gone    bool
}

// The lower half of a File's user data says which of its requests has completed.
const (
	fileReads  = 0
	fileWrites = 1
	fileEnds   = 2 // is added to the number of the watch that was to end

	fileEvents = unix.POLLIN | unix.POLLRDHUP
)

// Watch has h told from now on when fd can be read or was hung up. fd must stay open until Close.
func (l *Lane) Watch(fd int, h FileHandler) *File {
	f := &File{lane: l, fd: fd, handler: h}
	f.base = l.Register(f)
	f.watch()
	return f
}

// AwaitWriting has the handler told once when the file takes data again (POLLOUT).
func (f *File) AwaitWriting() {
	if !f.writing && !f.gone {
		f.writing = true
		f.lane.engine.watchWriting(f)
	}
}

// Close ends the watches; the handler hears nothing more. The kernel may hold on to the file a moment longer, so whoever
// closes a socket shuts it down first.
func (f *File) Close() {
	if !f.gone {
		f.gone = true
		f.lane.engine.unwatchFile(f)
	}
}

func (f *File) watch() {
	if !f.gone {
		f.reading = true
		f.lane.engine.watchFile(f)
	}
}

// over frees the user data once no completion can come any more.
func (f *File) over() {
	if f.gone && !f.reading && !f.writing && f.ending == 0 {
		f.lane.Unregister(f.base)
	}
}

// HandleCQE passes events on and keeps the watch for reading alive.
func (f *File) HandleCQE(low uint32, res int32, flags uint32) {
	switch {
	case low >= fileEnds:
		f.ended(low-fileEnds, res)
		return
	case low == fileWrites:
		f.writing = false
	case flags&cqeMore == 0:
		f.reading = false
	case f.writing && res&unix.POLLOUT != 0: // epoll, which has one watch for both
		f.writing = false
		f.lane.engine.unwatchWriting(f)
	}
	switch {
	case f.gone:
		f.over()
		return
	case res < 0:
		f.lane.AfterFunc(retryWatch, f.again)
		return
	case !f.reading:
		f.watch()
	}
	f.handler.FileReady(uint32(res))
}

// ended takes the answer to a request to end a watch. One that is just being told of something does not end: it is asked
// again.
func (f *File) ended(watch uint32, res int32) {
	f.ending--
	if res == -int32(unix.EALREADY) {
		f.lane.engine.(*ringEngine).end(f, watch)
		return
	}
	f.over()
}

// again looks for itself, after the kernel could not tell.
func (f *File) again() {
	if f.gone {
		return
	}
	if !f.reading {
		f.watch()
	}
	f.handler.FileReady(unix.POLLIN | unix.POLLOUT)
}

func (e *ringEngine) watchFile(f *File) {
	e.lane.SQE().PrepPollAddMultishot(f.fd, fileEvents, f.base+fileReads)
}

func (e *ringEngine) watchWriting(f *File) {
	e.lane.SQE().PrepPollAdd(f.fd, unix.POLLOUT, f.base+fileWrites)
}

func (e *ringEngine) unwatchWriting(*File) {} // it was for once

func (e *ringEngine) unwatchFile(f *File) {
	if f.reading {
		e.end(f, fileReads)
	}
	if f.writing {
		e.end(f, fileWrites)
	}
	must(e.ring.Submit())
	f.over()
}

func (e *ringEngine) end(f *File, watch uint32) {
	f.ending++
	e.lane.SQE().PrepPollRemove(f.base+uint64(watch), f.base+uint64(watch)+fileEnds)
}

func (e *epollEngine) watchFile(f *File) {
	must(e.control(unix.EPOLL_CTL_ADD, f.fd, fileEvents, f.base))
}

func (e *epollEngine) watchWriting(f *File) {
	must(e.control(unix.EPOLL_CTL_MOD, f.fd, fileEvents|unix.POLLOUT, f.base))
}

func (e *epollEngine) unwatchWriting(f *File) {
	must(e.control(unix.EPOLL_CTL_MOD, f.fd, fileEvents, f.base))
}

func (e *epollEngine) unwatchFile(f *File) {
	_ = unix.EpollCtl(e.fd, unix.EPOLL_CTL_DEL, f.fd, nil)
	f.reading, f.writing = false, false
	f.over()
}
