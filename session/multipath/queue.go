package multipath

import (
	"slices"
	"syscall"
	"time"

	"iserblk/internal/block"
	"iserblk/session"
	"iserblk/session/scsi"
)

// Queue is one lane's way into a unit. It implements block.Queue; everything in it happens on the lane.
type Queue struct {
	unit *Unit
	path *Path
	ops  []op // by tag

	params session.Buffer // one UNMAP parameter list a tag, paramSize bytes each
	zeroes session.Buffer // one zero block, the data of WRITE SAME

	parked   opList // wait for the path
	delayed  opList // wait for retryTimer: the target is busy
	backoff  time.Duration
	waiting  bool // retryTimer runs
	resubmit func()
	hazard   bool // counted in unit.hazards
	stats    QueueStats
}

// QueueStats counts what the block layer never sees. Read it on the lane.
type QueueStats struct {
	Retries uint64 // commands sent again: UNIT ATTENTION, BUSY, short transfers, aborts
	Replays uint64 // requests handed on after a lost nexus
	Errors  uint64 // requests that ended with an error
	Parked  uint64 // requests waiting for a path now
}

func (s *QueueStats) add(o QueueStats) {
	s.Retries += o.Retries
	s.Replays += o.Replays
	s.Errors += o.Errors
}

// Memory is what a Queue needs besides its requests' data, in registered memory: Params holds ParamSize bytes for
// each tag, Zeroes one logical block of zeroes.
type Memory struct{ Params, Zeroes session.Buffer }

// ParamSize is the room for one UNMAP parameter list with a single descriptor (SBC-4 5.35), with its alignment.
const ParamSize = 32

const (
	retryMin = 10 * time.Millisecond
	retryMax = 500 * time.Millisecond
	// maxTries ends the retries that cost no time: a target that says UNIT ATTENTION without end.
	maxTries = 64
	// maxShort ends the retries of a transfer that always comes short.
	maxShort = 4
)

// AddQueue gives u a queue on p. It must be called for every path before the unit is served, on no lane.
func (u *Unit) AddQueue(p *Path, m Memory) *Queue {
	q := &Queue{unit: u, path: p, params: m.Params, zeroes: m.Zeroes, backoff: retryMin}
	q.resubmit = q.submitDelayed
	q.ops = make([]op, u.limits.Depth)
	for i := range q.ops {
		o := &q.ops[i]
		o.q = q
		o.cmd.LUN = u.lun
		o.cmd.Done = o
	}
	u.queues = append(u.queues, q)
	return q
}

// Submit starts r (block.Queue).
func (q *Queue) Submit(r *block.Request) {
	o := &q.ops[r.Tag]
	o.req, o.tries, o.short, o.since, o.unfenced = r, 0, 0, time.Time{}, false
	if errno := o.build(); errno != 0 {
		q.finish(o, errno)
		return
	}
	q.start(o)
}

// start sends o by the path, or parks it while that cannot be.
func (q *Queue) start(o *op) {
	switch {
	case q.refuses(o):
		q.finish(o, syscall.EIO)
	case q.blocks(o):
		q.park(o)
	default:
		o.unfenced = false // a nexus is put in charge only after the one before it was fenced
		q.path.nexus.Submit(&o.cmd)
	}
}

// blocks tells whether o has to wait: there is no path, or what answers at the unit's LUN is not the unit, or it is a
// write and an old one was given up that may still be carried out and undo it.
func (q *Queue) blocks(o *op) bool {
	return q.path.nexus == nil || q.unit.State() != UnitServing || q.unit.hazards.Load() > 0 && o.changes()
}

// refuses tells whether o need not wait, because it would in vain.
func (q *Queue) refuses(o *op) bool {
	return q.unit.State() == UnitFailing || q.path.failing && q.blocks(o)
}

// park has o wait, unless it has done that for long enough: a request that ends every nexus must not go round for ever.
func (q *Queue) park(o *op) {
	if o.impatient(0) {
		q.finish(o, syscall.EIO)
		return
	}
	q.parked.push(o)
	q.path.expireLater()
}

// finish gives o's request back.
func (q *Queue) finish(o *op, errno syscall.Errno) {
	if errno != 0 {
		q.stats.Errors++
		if o.unfenced {
			q.abandon()
		}
	}
	r := o.req
	o.req = nil
	r.Sink.Done(r, errno)
}

// abandon notes that a write was given up while a dead nexus of this path may still have it carried out. Whoever is
// told of the error may write the same blocks again, by any lane, so none of them sends a write before the path's next
// nexus has fenced the dead one.
func (q *Queue) abandon() {
	if !q.hazard {
		q.hazard = true
		q.unit.hazards.Add(1)
	}
}

// fenced ends that: the path's dead nexuses cannot change the unit any more.
func (q *Queue) fenced() {
	if !q.hazard || q.unit.State() == UnitQuarantined { // then the fence was that of another unit
		return
	}
	q.hazard = false
	if q.unit.hazards.Add(-1) == 0 {
		q.unit.release()
	}
}

// retry lets what is parked try again, after something that it may have waited for.
func (q *Queue) retry() {
	switch {
	case q.path.nexus == nil:
	case q.hazard: // the nexus came while another unit answered, and fenced that one
		q.path.recheck(errUnfenced)
	default:
		q.path.failing = false
		q.resume()
	}
}

// resume hands the parked requests on: the path is up and fenced.
func (q *Queue) resume() {
	for o := q.parked.takeAll(); o != nil; {
		next := o.next
		o.next = nil
		q.stats.Replays++
		q.start(o)
		o = next
	}
}

// failParked ends the parked and delayed requests that need not wait any more.
func (q *Queue) failParked() {
	for _, l := range [...]*opList{&q.parked, &q.delayed} {
		for o := l.takeAll(); o != nil; {
			next := o.next
			if q.refuses(o) {
				o.next = nil
				q.finish(o, syscall.EIO)
			} else {
				l.push(o)
			}
			o = next
		}
	}
}

// idle: no request is with the unit.
func (q *Queue) idle() bool {
	return !slices.ContainsFunc(q.ops, func(o op) bool { return o.req != nil })
}

// delay has o sent again after a pause that doubles while the target stays busy.
func (q *Queue) delay(o *op) {
	q.delayed.push(o)
	if q.waiting {
		return
	}
	q.waiting = true
	q.path.cfg.Lane.AfterFunc(q.backoff, q.resubmit)
	q.backoff = min(2*q.backoff, retryMax)
}

func (q *Queue) submitDelayed() {
	q.waiting = false
	for o := q.delayed.takeAll(); o != nil; {
		next := o.next
		o.next = nil
		q.stats.Retries++
		q.start(o)
		o = next
	}
}

// opList is a FIFO of ops, linked through op.next.
type opList struct {
	head, tail *op
	n          int
}

func (l *opList) push(o *op) {
	o.next = nil
	if l.head == nil {
		l.head = o
	} else {
		l.tail.next = o
	}
	l.tail = o
	l.n++
}

func (l *opList) takeAll() *op {
	h := l.head
	*l = opList{}
	return h
}

// noteSense tells the control side about a sense code that changes what is known about the unit.
func (q *Queue) noteSense(s scsi.Sense) { q.path.note(Notice{LUN: q.unit.lun, Sense: s}) }
