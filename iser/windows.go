package iser

import (
	"iserblk/session/pdu"
	"iserblk/verbs"
)

// windows are the buffers that are open to the target for one command each, where the transport can do that. A window
// closes with the command's answer or abort, before anybody hears of it, or else when its place is taken by another command.
type windows struct {
	exposer verbs.Exposer // nil where keys open whole regions
	keys    []uint32      // by the low bits of the command's ITT, 0 where none is open
}

// place is that of a task: two commands that are unanswered differ in the low half of their ITTs.
func place(itt pdu.ITT) int { return int(uint16(itt)) }

// open gives the key for mem alone.
func (w *windows) open(itt pdu.ITT, mem []byte, targetWrites bool) uint32 {
	w.close(itt)
	for place(itt) >= len(w.keys) {
		w.keys = append(w.keys, 0)
	}
	key := w.exposer.Expose(mem, targetWrites)
	w.keys[place(itt)] = key
	return key
}

// close closes what is open for a task, if anything is.
func (w *windows) close(itt pdu.ITT) {
	if i := place(itt); i < len(w.keys) && w.keys[i] != 0 {
		w.exposer.Unexpose(w.keys[i])
		w.keys[i] = 0
	}
}
