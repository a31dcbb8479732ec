package session

import (
	"fmt"
	"time"

	"iserblk/session/pdu"
)

// maxText bounds what a target may answer to one Text Request or in one login stage, over all its parts.
const maxText = 256 << 10

// text sends a Text Request (RFC 7143 11.10) and calls done with the whole answer, on the driver's goroutine. It
// fetches the rest of an answer that comes in parts.
func (n *Nexus) text(text []byte, done func(data []byte, err error)) {
	if n.state != stateUp {
		done(nil, ErrNexusLost)
		return
	}
	k, itt := n.claim(controlText)
	if k == nil {
		done(nil, ErrNoSlot)
		return
	}
	k.text = done
	if err := n.sendText(k, itt, pdu.ReservedTTT, text); err != nil {
		k.release()
		done(nil, err)
	}
}

func (n *Nexus) sendText(k *control, itt pdu.ITT, ttt pdu.TTT, text []byte) error {
	k.deadline = time.Now().Add(n.params.AbortTimeout)
	pdu.TextRequestFields{
		Immediate: true, Final: true, DataLen: len(text), ITT: itt, TTT: ttt,
		CmdSN: n.cmdSN, ExpStatSN: n.expStatSN,
	}.Encode(n.bhs[:])
	return n.sendControl(text)
}

func (n *Nexus) handleText(r pdu.TextResponse, data []byte) error {
	if err := r.Validate(len(data)); err != nil {
		return protocolError(err)
	}
	k, err := n.answered(controlText, r.ITT())
	if err != nil {
		return err
	}
	if err := n.sequence(pdu.BHS(r)); err != nil {
		return err
	}
	k.answer = append(k.answer, data[:r.DataSegmentLength()]...)
	switch {
	case len(k.answer) > maxText:
		return fmt.Errorf("%w: text of more than %d bytes", ErrProtocol, maxText)
	case !r.Final():
		// An empty request fetches the next part (RFC 7143 6.2), under the same tag.
		return n.sendText(k, r.ITT(), r.TTT(), nil)
	}
	done, answer := k.text, k.answer
	k.release()
	done(answer, nil)
	return nil
}
