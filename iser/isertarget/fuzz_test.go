package isertarget_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"

	"iserblk/iser/isertarget"
	"iserblk/session/pdu"
	"iserblk/verbs"
)

// script is an initiator that says what it was told to, and hangs up. It is also the listener that it comes through.
type script struct {
	messages [][]byte
	answers  int
	met      bool
	gone     chan struct{}
}

func (s *script) Accept(ctx context.Context) (verbs.Peer, error) {
	if !s.met {
		s.met = true
		return (*scriptPeer)(s), nil
	}
	<-ctx.Done()
	return nil, ctx.Err()
}
func (*script) Addr() netip.AddrPort { return portalAddr }
func (*script) Close() error         { return nil }

type scriptPeer script

func (p *scriptPeer) Recv(_ context.Context, buf []byte) (int, error) {
	if len(p.messages) == 0 {
		return 0, io.EOF
	}
	m := p.messages[0]
	p.messages = p.messages[1:]
	return copy(buf, m), nil
}

var errTooLong = errors.New("longer than the initiator's memory")

func (p *scriptPeer) Send(m []byte) error {
	p.answers++
	if len(m) > messageMax {
		return errTooLong
	}
	return nil
}

func (p *scriptPeer) RDMAWrite(_ uint32, _ uint64, b []byte) error { return p.move(b) }
func (p *scriptPeer) RDMARead(_ uint32, _ uint64, b []byte) error  { return p.move(b) }
func (p *scriptPeer) move(b []byte) error {
	if len(b) > 1<<20 {
		return errTooLong
	}
	return nil
}

func (p *scriptPeer) Close() error {
	select {
	case <-p.gone:
		return net.ErrClosed
	default:
		close(p.gone)
		return nil
	}
}
func (*scriptPeer) PrivateData() []byte        { return nil }
func (*scriptPeer) LocalAddr() netip.AddrPort  { return portalAddr }
func (*scriptPeer) RemoteAddr() netip.AddrPort { return portalAddr }

const messageMax = 76 + 8192 + 4

// loginMessage goes to the full-feature phase at once.
func loginMessage(name string) []byte {
	text := pdu.AppendKey(pdu.AppendKey(nil, "InitiatorName", "iqn.2026-01.test:fuzz"), "TargetName", name)
	var bhs [pdu.BHSLen]byte
	pdu.LoginRequestFields{
		Transit: true, CSG: pdu.StageOperational, NSG: pdu.StageFullFeature, DataLen: len(text), CmdSN: 1,
	}.Encode(bhs[:])
	return isertarget.NewMessage(bhs[:], text)
}

func commandMessage(op byte, write bool, edtl uint32) []byte {
	var bhs [pdu.BHSLen]byte
	f := pdu.SCSICommandFields{Final: true, Read: !write, Write: write, EDTL: edtl, CmdSN: 1, ITT: 7}
	f.CDB = [16]byte{op, 0, 0, 0, 0, 0, 0, 0, 24}
	f.Encode(bhs[:])
	m := isertarget.NewMessage(bhs[:], nil)
	if write {
		m[0] |= 0x08
	} else {
		m[0] |= 0x04
	}
	return m
}

// FuzzInitiator sends a target anything, before and after a login. Whatever comes, the target neither fails nor moves more
// than was asked for, and lets go of the connection in the end.
func FuzzInitiator(f *testing.F) {
	f.Add(true, loginMessage("iqn.other"), []byte(nil))
	for _, op := range []byte{0x00, 0x12, 0x28, 0x5e, 0x88, 0x9e, 0xa0, 0xa3} {
		f.Add(true, commandMessage(op, false, 512), []byte(nil))
	}
	for _, op := range []byte{0x2a, 0x41, 0x42, 0x5f, 0x8a, 0x93} {
		f.Add(true, commandMessage(op, true, 512), commandMessage(op, true, 1<<31))
	}
	f.Add(false, make([]byte, 76), make([]byte, 9000))
	f.Fuzz(func(t *testing.T, login bool, first, second []byte) {
		target := isertarget.New(isertarget.Options{ALUA: true})
		target.AddDisk(0, isertarget.DiskOptions{Blocks: 64, WriteCache: true})
		s := &script{gone: make(chan struct{})}
		if login {
			s.messages = append(s.messages, loginMessage(target.Name()))
		}
		s.messages = append(s.messages, first, second)
		target.Serve(s, 1)
		<-s.gone
		target.Close()
		if login && s.answers == 0 {
			t.Error("the login was not answered")
		}
	})
}
