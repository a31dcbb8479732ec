package session

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

// model plays a target that answers in any order, moves its window as it likes and aborts what it is asked to, with a
// datamover that runs out of slots. It knows what the nexus may do.
type model struct {
	*rig
	jobs    []*modelJob // in the order of submission
	next    int         // the job that must be sent next
	nextSN  pdu.CmdSN
	highest pdu.CmdSN // the last CmdSN that was ever allowed
	tasks   map[pdu.ITT]*modelJob
	aborts  map[pdu.ITT]pdu.ITT // of a request to the task that it names
	done    int
	mayEnd  bool
}

type modelJob struct {
	job
	ended bool
	want  error
	m     *model
}

const modelSlots = 5

func newModel(t *rapid.T) *model {
	m := &model{tasks: map[pdu.ITT]*modelJob{}, aborts: map[pdu.ITT]pdu.ITT{}, nextSN: rigCmdSN, mayEnd: true}
	m.rig = newRig(t, func(d *fakeDM, p *Params, _ *Negotiated) { d.max, p.NOPInterval = modelSlots, -1 })
	m.n.maxCmdSN = rigCmdSN + 3
	m.max, m.highest = rigCmdSN+3, rigCmdSN+3
	m.dm.onSend = func(s *message) { m.onSend(t, s) }
	return m
}

// onSend is the target's view of what is sent.
func (m *model) onSend(t *rapid.T, s *message) {
	switch s.opcode() {
	case pdu.OpSCSICommand:
		m.onCommand(t, s)
	case pdu.OpTMFRequest:
		ref := pdu.TMFRequest(s.bhs[:]).RefTaskTag()
		if _, taken := m.aborts[s.itt()]; taken {
			t.Fatalf("tag %#x is in use", uint32(s.itt()))
		}
		m.aborts[s.itt()] = ref
	}
}

func (m *model) onCommand(t *rapid.T, s *message) {
	c := pdu.SCSICommand(s.bhs[:])
	j := m.jobs[m.next]
	switch {
	case c.CmdSN() != m.nextSN:
		t.Fatalf("CmdSN %d, want %d", c.CmdSN(), m.nextSN)
	case m.highest.Less(c.CmdSN()):
		t.Fatalf("CmdSN %d is outside the window, which ends at %d", c.CmdSN(), m.highest)
	case c.LUN() != j.LUN:
		t.Fatalf("LUN %v was sent, %v is next", c.LUN(), j.LUN)
	case m.tasks[c.ITT()] != nil:
		t.Fatalf("tag %#x is in use", uint32(c.ITT()))
	case len(m.tasks) == modelSlots:
		t.Fatalf("more than %d commands", modelSlots)
	}
	for _, ref := range m.aborts {
		if ref == c.ITT() {
			t.Fatalf("tag %#x is being aborted", uint32(ref))
		}
	}
	m.tasks[c.ITT()] = j
	m.next++
	m.nextSN++
}

// CommandDone checks that a command ends once, when it may, as the target said.
func (j *modelJob) CommandDone(*Command) {
	switch {
	case j.ended:
		j.m.t.Errorf("a command ended twice")
	case !j.m.mayEnd:
		j.m.t.Errorf("a command ended before the drain")
	case j.Err != j.want:
		j.m.t.Errorf("a command ended with %v, want %v", j.Err, j.want)
	}
	j.ended = true
	j.m.done++
}

func (m *model) submit(t *rapid.T) {
	dir := Direction(rapid.IntRange(0, 2).Draw(t, "direction"))
	j := &modelJob{job: *newJob(dir, 512), m: m, want: ErrNexusLost}
	j.Done = j
	j.LUN, _ = scsi.LUNFromInt(len(m.jobs) % 100)
	m.jobs = append(m.jobs, j)
	m.n.Submit(&j.Command)
}

func (m *model) anyTask(t *rapid.T) (pdu.ITT, *modelJob) {
	for _, j := range m.jobs[:m.next] {
		if !j.ended && m.tasks[j.itt] == j && rapid.IntRange(0, 2).Draw(t, "this one") == 0 {
			return j.itt, j
		}
	}
	return 0, nil
}

func (m *model) answer(t *rapid.T) {
	itt, j := m.anyTask(t)
	if j == nil {
		return
	}
	delete(m.tasks, itt)
	j.want = nil
	m.advance(t)
	m.good(itt)
	m.n.Poll()
	if !j.ended {
		t.Fatal("the answer ended nothing")
	}
}

func (m *model) overdue(t *rapid.T) {
	_, j := m.anyTask(t)
	if j == nil || j.disowned { // which ends the connection
		return
	}
	j.deadline = time.Now().Add(-time.Second)
	m.n.Tick(time.Now())
}

func (m *model) answerAbort(t *rapid.T) {
	for itt, ref := range m.aborts {
		delete(m.aborts, itt)
		code := rapid.SampledFrom([]pdu.TMResponse{pdu.TMComplete, pdu.TMNoTask}).Draw(t, "outcome")
		if j := m.tasks[ref]; j != nil && code == pdu.TMComplete { // else its answer still comes
			delete(m.tasks, ref)
			j.want = ErrAborted
		}
		m.tmResponse(itt, code)
		m.n.Poll()
		return
	}
}

// advance moves the window, sometimes on, sometimes back, which counts for nothing.
func (m *model) advance(t *rapid.T) {
	m.max = m.highest.Add(uint32(rapid.IntRange(0, 4).Draw(t, "window")))
	m.highest = m.max
	if rapid.Bool().Draw(t, "late news") {
		m.max -= 2
	}
}

func (m *model) news(t *rapid.T) {
	m.advance(t)
	m.dm.deliver(pdu.NOPInFields{ITT: pdu.ReservedITT, TTT: pdu.ReservedTTT, ExpCmdSN: m.n.cmdSN, MaxCmdSN: m.max})
	m.n.Poll()
}

func (m *model) slots(t *rapid.T) { m.dm.commandSlots = rapid.IntRange(-1, 2).Draw(t, "slots") }

func (m *model) check(t *rapid.T) {
	if m.n.Cause() != nil {
		if errors.Is(m.n.Cause(), ErrAbortBudget) {
			t.Skip("as many aborts as a connection takes")
		}
		t.Fatalf("lost: %v", m.n.Cause())
	}
	if s := m.n.Stats(); int(s.Commands) != m.next+len(m.dm.queued)-m.controlsQueued() {
		t.Fatalf("%d commands were sent, the target got %d", s.Commands, m.next)
	}
}

func (m *model) controlsQueued() (n int) {
	for i := range m.dm.queued {
		if m.dm.queued[i].opcode() != pdu.OpSCSICommand {
			n++
		}
	}
	return n
}

// finish cuts the connection: everything must come back, once, and not before the drain.
func (m *model) finish(t *rapid.T) {
	m.mayEnd = false
	m.n.ConnectionLost(errCable)
	m.n.Poll()
	m.mayEnd, m.dm.drained = true, true
	m.n.Poll()
	if m.done != len(m.jobs) || len(m.n.free) > modelSlots {
		t.Fatalf("%d of %d commands came back", m.done, len(m.jobs))
	}
}

func TestANexusKeepsItsPromisesWhateverTheOrderOfEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		t.Repeat(map[string]func(*rapid.T){
			"":            m.check,
			"submit":      m.submit,
			"submit more": m.submit,
			"flush":       func(*rapid.T) { m.n.Flush() },
			"turn":        func(*rapid.T) { m.turn() },
			"answer":      m.answer,
			"answer more": m.answer,
			"overdue":     m.overdue,
			"abort":       m.answerAbort,
			"news":        m.news,
			"slots":       m.slots,
		})
		m.finish(t)
	})
}
