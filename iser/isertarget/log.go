package isertarget

import (
	"slices"

	"iserblk/session/pdu"
)

// Record is one request in the order of arrival.
type Record struct {
	Op      pdu.Opcode
	Command Command  // valid for OpSCSICommand
	Task    Function // valid for OpTMFRequest
	Conn    int
}

// Log is every request since the last ResetLog, of all connections.
func (t *Target) Log() []Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Record(nil), t.log...)
}

// Commands is the Log's SCSI commands with one of the operation codes, all without any.
func (t *Target) Commands(ops ...byte) []Command {
	var out []Command
	for _, r := range t.Log() {
		if r.Op == pdu.OpSCSICommand && (len(ops) == 0 || slices.Contains(ops, r.Command.Op())) {
			out = append(out, r.Command)
		}
	}
	return out
}

// ResetLog empties the Log.
func (t *Target) ResetLog() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log = nil
}

func (t *Target) record(r Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.opt.NoLog {
		t.log = append(t.log, r)
	}
}
