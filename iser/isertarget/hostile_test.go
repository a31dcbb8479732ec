package isertarget_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"iserblk/iser"
	"iserblk/iser/isertarget"
	"iserblk/session"
	"iserblk/session/pdu"
	"iserblk/session/scsi"
	"iserblk/verbs"
)

// lie makes a Message hook that replaces every SCSI Response.
func lie(change func(msg []byte) [][]byte) isertarget.Hooks {
	return isertarget.Hooks{Message: func(m isertarget.Message) [][]byte {
		if m.Opcode() != pdu.OpSCSIResponse {
			return [][]byte{m.Bytes}
		}
		return change(m.Bytes)
	}}
}

// set is a copy of msg with bytes from off on replaced.
func set(msg []byte, off int, b ...byte) []byte {
	msg = slices.Clone(msg)
	copy(msg[off:], b)
	return msg
}

func one(msg []byte) [][]byte { return [][]byte{msg} }

const bhsAt = 28

func TestALyingTargetLosesItsConnectionWithANamedError(t *testing.T) {
	checkCondition := func(sense ...byte) func([]byte) [][]byte {
		return func(m []byte) [][]byte {
			m = append(set(m, bhsAt+3, byte(scsi.StatusCheckCondition)), sense...)
			pdu.BHS(m[bhsAt : bhsAt+48]).SetDataSegmentLength(len(sense))
			return one(m)
		}
	}
	opcode := func(op pdu.Opcode) func([]byte) [][]byte {
		return func(m []byte) [][]byte { return one(set(m, bhsAt, byte(op))) }
	}
	for name, c := range map[string]struct {
		change func([]byte) [][]byte
		want   error
	}{
		"truncated":                   {func(m []byte) [][]byte { return one(m[:60]) }, iser.ErrTruncated},
		"empty":                       {func([]byte) [][]byte { return one(nil) }, iser.ErrTruncated},
		"oversized":                   {func([]byte) [][]byte { return one(make([]byte, 9000)) }, verbs.StatusLocLenErr},
		"hello":                       {func(m []byte) [][]byte { return one(set(m, 0, 0x20)) }, iser.ErrHello},
		"data length too long":        {func(m []byte) [][]byte { return one(set(m, bhsAt+7, 200)) }, iser.ErrDataLength},
		"data that is not announced":  {func(m []byte) [][]byte { return one(append(m, 1, 2, 3, 4)) }, iser.ErrDataLength},
		"additional header":           {func(m []byte) [][]byte { return one(set(m, bhsAt+4, 2)) }, iser.ErrAHS},
		"tag that was never used":     {func(m []byte) [][]byte { return one(set(m, bhsAt+16, 0, 0, 0, 99)) }, session.ErrUnknownTask},
		"tag of another generation":   {func(m []byte) [][]byte { return one(set(m, bhsAt+16, 0x77)) }, session.ErrUnknownTask},
		"reserved tag":                {func(m []byte) [][]byte { return one(set(m, bhsAt+16, 255, 255, 255, 255)) }, session.ErrProtocol},
		"answer given twice":          {func(m []byte) [][]byte { return [][]byte{m, m} }, session.ErrUnknownTask},
		"status number from nowhere":  {func(m []byte) [][]byte { return one(set(m, bhsAt+24, 0x40)) }, session.ErrStatSN},
		"residual above the length":   {func(m []byte) [][]byte { return one(set(set(m, bhsAt+1, 0x82), bhsAt+44, 0x7f)) }, session.ErrResidual},
		"overflow and underflow":      {func(m []byte) [][]byte { return one(set(m, bhsAt+1, 0x86)) }, session.ErrProtocol},
		"bidirectional residual":      {func(m []byte) [][]byte { return one(set(m, bhsAt+1, 0x88)) }, session.ErrResidual},
		"unknown response code":       {func(m []byte) [][]byte { return one(set(m, bhsAt+2, 0x42)) }, session.ErrProtocol},
		"sense longer than its data":  {checkCondition(0, 200, 0x70, 0, 3), session.ErrSense},
		"sense of one byte":           {checkCondition(9), session.ErrSense},
		"sense of unknown format":     {checkCondition(0, 4, 0x12, 0, 0, 0), session.ErrSense},
		"data-in":                     {opcode(pdu.OpDataIn), session.ErrUnexpectedPDU},
		"r2t":                         {opcode(pdu.OpR2T), session.ErrUnexpectedPDU},
		"login response":              {opcode(pdu.OpLoginResponse), session.ErrUnexpectedPDU},
		"request of an initiator":     {opcode(pdu.OpSCSICommand), session.ErrUnexpectedPDU},
		"unknown opcode":              {opcode(0x2a), session.ErrUnexpectedPDU},
		"task answered as a function": {opcode(pdu.OpTMFResponse), session.ErrUnknownTask},
		"text nobody asked for":       {opcode(pdu.OpTextResponse), session.ErrProtocol},
		"logout nobody asked for":     {opcode(pdu.OpLogoutResponse), session.ErrUnknownTask},
		"reject":                      {opcode(pdu.OpReject), session.ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{})
			n := b.login()
			b.target.SetHooks(lie(c.change))
			err := b.attempt(n)
			if !errors.Is(err, c.want) && !errors.Is(n.Cause(), c.want) {
				t.Fatalf("error is %v, cause %v, want %v", err, n.Cause(), c.want)
			}
		})
	}
}

// attempt reads until the nexus has noticed what is wrong, and returns the error.
func (b *bed) attempt(n *session.Nexus) error {
	b.t.Helper()
	for range 3 {
		if err := session.Do(b.ctx(), n, read(b, 0, 4096)); err != nil {
			return err
		}
	}
	return nil
}

func TestShortReadSaysHowMuchIsMissing(t *testing.T) {
	b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{})
	n := b.login()
	c := read(b, 0, 512)
	c.Buf = b.buf(0, 4096)
	b.do(n, c)
	if c.Status != scsi.StatusGood || c.Short != 4096-512 {
		t.Errorf("status %v, %d bytes short", c.Status, c.Short)
	}
}

func TestPaddedResponsesAreTaken(t *testing.T) {
	b := newBed(t, isertarget.Options{PadResponses: true}, isertarget.DiskOptions{})
	n := b.login()
	sense := scsi.Sense{Key: scsi.KeyMediumError, ASC: 0x11}
	b.target.SetHooks(isertarget.Hooks{Command: func(isertarget.Command) isertarget.Action { return isertarget.Check(sense) }})
	c := read(b, 0, 512)
	b.do(n, c)
	if c.Status != scsi.StatusCheckCondition || c.Sense != sense {
		t.Errorf("%v, %v", c.Status, c.Sense)
	}
}

// Whatever bytes a response consists of, the command ends: well, only when the response says so in an acceptable way,
// or by the loss of the nexus. It never panics and never touches what lies beside the buffer.
func TestNoResponseWhateverItsBytesMakesAReadLie(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{})
		defer b.target.Close()
		n := b.login()
		want := pattern(4096, 9)
		b.disk.WriteAt(0, want)
		edits := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) [2]int {
			return [2]int{rapid.IntRange(0, 75).Draw(rt, "offset"), rapid.IntRange(0, 255).Draw(rt, "value")}
		}), 1, 4).Draw(rt, "edits")
		keep := rapid.IntRange(0, 80).Draw(rt, "length")
		b.target.SetHooks(lie(func(m []byte) [][]byte {
			for _, e := range edits {
				m[e[0]] = byte(e[1])
			}
			return one(append(m, make([]byte, 4)...)[:keep])
		}))
		guard := b.buf(4096, 4096).Mem
		clear(guard)
		c := read(b, 0, 4096)
		c.Expiry = 20 * time.Millisecond
		if session.Do(b.ctx(), n, c) == nil && c.Status == scsi.StatusGood {
			if got := c.Buf.Mem[:4096-int(c.Short)]; !bytes.Equal(got, want[:len(got)]) {
				rt.Error("a read ended well with other bytes than the target has")
			}
		}
		if slices.Max(guard) != 0 {
			rt.Error("bytes beside the buffer were changed")
		}
		n.Abandon()
	})
}
