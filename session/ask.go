package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"iserblk/session/scsi"
)

// Bounds of a prober's patience.
const (
	// maxAttentions is how many times one command is repeated at once: a unit has a few UNIT ATTENTIONs pending.
	maxAttentions = 32
	// readyPatience is how long a unit may be getting ready or be busy.
	readyPatience = 20 * time.Second
	readyPause    = 100 * time.Millisecond
)

// StatusError is a command that a unit ended with another status than GOOD.
type StatusError struct {
	Op     string // "INQUIRY"
	Status scsi.Status
	Sense  scsi.Sense // for CHECK CONDITION
}

// Error says which command, and what the unit thinks of it.
func (e *StatusError) Error() string {
	if e.Status == scsi.StatusCheckCondition {
		return fmt.Sprintf("%s: %v", e.Op, e.Sense)
	}
	return fmt.Sprintf("%s: %v", e.Op, e.Status)
}

// Is matches ErrNoUnit when that is what the sense says.
func (e *StatusError) Is(target error) bool {
	return target == ErrNoUnit && scsi.Classify(e.Status, e.Sense) == scsi.ActionNoLUN
}

// unsupported: the unit does not know the command or the page.
func unsupported(err error) bool {
	var s *StatusError
	return errors.As(err, &s) && scsi.Classify(s.Status, s.Sense) == scsi.ActionUnsupported
}

// prober asks one unit one thing after the other.
type prober struct {
	ctx   context.Context
	by    Carrier
	buf   Buffer
	cmd   Command
	pages map[uint8]bool // of vital product data
}

// Carrier carries single commands to a target, for those who ask it something.
type Carrier interface {
	// Carry submits c and waits for its end, which it returns as c.Err, made an *Error. After it no buffer can be
	// touched, also when ctx has ended first.
	Carry(ctx context.Context, c *Command) error
	// Rest waits for d, keeping the nexus alive meanwhile.
	Rest(ctx context.Context, d time.Duration) error
	// Target is the target's name.
	Target() string
}

// driven is a nexus that no lane has: it is driven on the goroutine that asks.
type driven struct{ *Nexus }

func (d driven) Carry(ctx context.Context, c *Command) error { return Do(ctx, d.Nexus, c) }

func (d driven) Rest(ctx context.Context, t time.Duration) error {
	until := time.Now().Add(t)
	return drive(ctx, d.Nexus, func() bool { return !time.Now().Before(until) })
}

func newProber(ctx context.Context, by Carrier, lun scsi.LUN, buf Buffer) *prober {
	const most = 1<<16 - 1 // of an INQUIRY's allocation length
	buf.Mem = buf.Mem[:min(len(buf.Mem), most)]
	return &prober{ctx: ctx, by: by, buf: buf, cmd: Command{LUN: lun}, pages: map[uint8]bool{}}
}

func (p *prober) fail(op string, err error) error {
	return &Error{Op: fmt.Sprintf("%s LUN %v of", op, p.cmd.LUN), Target: p.by.Target(), Err: err}
}

// run sends the command whose CDB was set, to read size bytes, until the unit has carried it out. It returns what
// was transferred, which may be less; it is valid until the next run.
func (p *prober) run(op string, size int) ([]byte, error) {
	if size > len(p.buf.Mem) {
		return nil, fmt.Errorf("%s: scratch memory of %d bytes, need %d", op, len(p.buf.Mem), size)
	}
	p.cmd.Dir, p.cmd.Buf = NoData, Buffer{}
	if size > 0 {
		p.cmd.Dir, p.cmd.Buf = In, Buffer{Mem: p.buf.Mem[:size], Region: p.buf.Region}
	}
	since := time.Now()
	for attentions := 0; ; {
		clear(p.cmd.Buf.Mem) // a target that moves less than it says must not make us read what was there before
		if err := p.by.Carry(p.ctx, &p.cmd); err != nil {
			return nil, err
		}
		failed := &StatusError{Op: op, Status: p.cmd.Status, Sense: p.cmd.Sense}
		switch scsi.Classify(p.cmd.Status, p.cmd.Sense) {
		case scsi.ActionOK:
			return p.cmd.Buf.Mem[:size-int(p.cmd.Short)], nil
		case scsi.ActionRetry, scsi.ActionDeferred, scsi.ActionCapacityChanged, scsi.ActionLUNsChanged,
			scsi.ActionInquiryChanged, scsi.ActionALUAChanged:
			if attentions++; attentions > maxAttentions {
				return nil, failed
			}
		case scsi.ActionRetryAfterDelay:
			if time.Since(since) > readyPatience {
				return nil, failed
			}
			if err := p.by.Rest(p.ctx, readyPause); err != nil {
				return nil, errors.Join(failed, err)
			}
		default:
			return nil, failed
		}
	}
}

// page reads a page of vital product data, nil when the unit knows no such pages.
func (p *prober) page(code uint8) ([]byte, error) {
	const usual = 1024
	size := min(usual, len(p.buf.Mem))
	for {
		scsi.InquiryVPD(&p.cmd.CDB, code, uint16(size))
		data, err := p.run(fmt.Sprintf("INQUIRY page %#02x", code), size)
		if unsupported(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		whole, err := scsi.VPDLength(data)
		if err != nil || whole <= size || size == len(p.buf.Mem) {
			return data, err
		}
		size = min(whole, len(p.buf.Mem))
	}
}

// into makes a parser write its result to dst.
func into[T any](dst *T, parse func([]byte) (T, error)) func([]byte) error {
	return func(b []byte) (err error) {
		*dst, err = parse(b)
		return err
	}
}

// parsePage reads a page that the unit has.
func (p *prober) parsePage(code uint8, parse func([]byte) error) error {
	if !p.pages[code] {
		return nil
	}
	data, err := p.page(code)
	if err != nil || data == nil {
		return err
	}
	return parse(data)
}
