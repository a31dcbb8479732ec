package nbd

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// Bounds of a handshake. Whoever goes beyond them is told, as long as that is cheap, and else hung up on.
const (
	mostOptions    = 128     // that a client may send
	mostOptionData = 1 << 16 // that one of them may have
	mostIgnored    = 1 << 20 // that is read to be dropped
)

var (
	// errGoodbye: the client ended the handshake as it may.
	errGoodbye = errors.New("the client left during the handshake")
	// errTransmit ends the options: what follows are requests.
	errTransmit = errors.New("transmission")
)

// handshake is a server's side of the negotiation with one client (proto "Newstyle negotiation").
type handshake struct {
	exp  *Export
	conn net.Conn
	tls  *tls.Config // not nil: nothing but optStartTLS before TLS

	secure   bool
	fixed    bool // the client knows other options than optExportName
	noZeroes bool
	form     Replies
	status   bool // base:allocation was selected
	hub      *hub // that the client has a ticket for
	out      []byte
}

// negotiate talks with the client until it wants to transmit, for which it then has a ticket of h.hub. Deadlines are for the caller to set.
func (h *handshake) negotiate(ctx context.Context) error {
	if err := h.greet(); err != nil {
		return err
	}
	for range mostOptions {
		err := h.option(ctx)
		if errors.Is(err, errTransmit) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: more than %d options", ErrProtocol, mostOptions)
}

func (h *handshake) greet() error {
	b := binary.BigEndian.AppendUint64(nil, magicServer)
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint16(b, flagFixedNewstyle|flagNoZeroes)
	if _, err := h.conn.Write(b); err != nil {
		return err
	}
	answer, err := h.read(clientFlagsLen)
	if err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(answer)
	if flags&^(flagFixedNewstyle|flagNoZeroes) != 0 {
		return fmt.Errorf("%w: client flags %#x", ErrProtocol, flags)
	}
	h.fixed, h.noZeroes = flags&flagFixedNewstyle != 0, flags&flagNoZeroes != 0
	return nil
}

// read reads exactly n bytes: what comes after the last option is not ours.
func (h *handshake) read(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(h.conn, b)
	if errors.Is(err, io.EOF) {
		err = errGoodbye
	}
	return b, err
}

// option answers one option.
func (h *handshake) option(ctx context.Context) error {
	b, err := h.read(optionLen)
	if err != nil {
		return err
	}
	o, n := option(binary.BigEndian.Uint32(b[8:])), binary.BigEndian.Uint32(b[12:])
	if binary.BigEndian.Uint64(b) != magicOption {
		return fmt.Errorf("%w: no option where one should be", ErrProtocol)
	}
	if !h.fixed && o != optExportName {
		return fmt.Errorf("%w: option %d without the fixed newstyle", ErrProtocol, o)
	}
	if n > mostOptionData {
		return h.tooBig(o, n)
	}
	data, err := h.read(int(n))
	if err != nil {
		return err
	}
	return h.answer(ctx, o, data)
}

// tooBig drops the data of an option of absurd size.
func (h *handshake) tooBig(o option, n uint32) error {
	if n > mostIgnored || o == optExportName {
		return fmt.Errorf("%w: option %d with %d bytes", ErrProtocol, o, n)
	}
	if _, err := io.CopyN(io.Discard, h.conn, int64(n)); err != nil {
		return err
	}
	return h.refuse(o, repErrTooBig, fmt.Sprintf("%d bytes of data", n))
}

func (h *handshake) answer(ctx context.Context, o option, data []byte) error {
	if h.tls != nil && !h.secure {
		return h.answerInsecure(ctx, o, data)
	}
	switch o {
	case optExportName:
		return h.exportName(string(data))
	case optAbort:
		return h.abort()
	case optStartTLS:
		return h.startTLS(ctx, data)
	case optList:
		return h.bare(o, data, h.list)
	case optInfo, optGo:
		return h.info(o, data)
	case optStructuredReply:
		return h.bare(o, data, h.structured)
	case optExtendedHeaders:
		return h.bare(o, data, h.extended)
	case optListMetaContext, optSetMetaContext:
		return h.context(o, data)
	}
	return h.refuse(o, repErrUnsup, "unknown option")
}

// answerInsecure is what a client gets that has to use TLS and does not yet (proto "FORCEDTLS mode").
func (h *handshake) answerInsecure(ctx context.Context, o option, data []byte) error {
	switch o {
	case optExportName:
		return fmt.Errorf("%w: an export without TLS", ErrProtocol)
	case optAbort:
		return h.abort()
	case optStartTLS:
		return h.startTLS(ctx, data)
	}
	return h.refuse(o, repErrTLSReqd, "this server wants TLS")
}

// bare has f answer an option that must have no data.
func (h *handshake) bare(o option, data []byte, f func() error) error {
	if len(data) > 0 {
		return h.refuse(o, repErrInvalid, "this option has no data")
	}
	return f()
}

// reply queues a reply. send sends what is queued.
func (h *handshake) reply(o option, t replyType, data []byte) {
	h.out = appendOptionReply(h.out, o, t, data)
}

func (h *handshake) send() error {
	_, err := h.conn.Write(h.out)
	h.out = h.out[:0]
	return err
}

func (h *handshake) acknowledge(o option) error {
	h.reply(o, repAck, nil)
	return h.send()
}

func (h *handshake) refuse(o option, t replyType, why string) error {
	h.reply(o, t, []byte(why))
	return h.send()
}

func (h *handshake) abort() error {
	_ = h.acknowledge(optAbort) // the client may be gone already
	return errGoodbye
}

// startTLS goes on over TLS, having forgotten everything.
func (h *handshake) startTLS(ctx context.Context, data []byte) error {
	switch {
	case len(data) > 0:
		return h.refuse(optStartTLS, repErrInvalid, "this option has no data")
	case h.tls == nil:
		return h.refuse(optStartTLS, repErrPolicy, "there is no TLS here")
	case h.secure:
		return h.refuse(optStartTLS, repErrInvalid, "TLS is on already")
	}
	if err := h.acknowledge(optStartTLS); err != nil {
		return err
	}
	c := tls.Server(h.conn, h.tls)
	if err := c.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	h.conn, h.secure, h.form, h.status = c, true, Simple, false
	return nil
}
