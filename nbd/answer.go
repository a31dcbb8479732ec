package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// What the options say about the export.

// known tells whether name is the export's. No name means it, too.
func (e *Export) known(name string) bool { return name == "" || name == e.name }

func (h *handshake) rules() *rules {
	return &rules{limits: &h.exp.limits, payload: h.exp.payload, form: h.form}
}

// exportName ends the options the old way, in which nothing can be refused but by hanging up.
func (h *handshake) exportName(name string) error {
	if h.form == Extended {
		return fmt.Errorf("%w: extended headers and the old way to an export", ErrProtocol)
	}
	if !h.exp.known(name) {
		return fmt.Errorf("client asks for export %q", name)
	}
	var err error
	if h.hub, err = h.exp.reserve(-1); err != nil {
		return err
	}
	h.out = binary.BigEndian.AppendUint64(h.out, h.exp.size.Load())
	h.out = binary.BigEndian.AppendUint16(h.out, h.rules().flags())
	if !h.noZeroes {
		h.out = append(h.out, make([]byte, exportReplyZero)...)
	}
	if err := h.send(); err != nil {
		return err
	}
	return errTransmit
}

func (h *handshake) list() error {
	h.reply(optList, repServer, append(appendString(nil, h.exp.name), h.exp.description...))
	return h.acknowledge(optList)
}

func (h *handshake) structured() error {
	if h.form == Extended {
		return h.refuse(optStructuredReply, repErrExtHdrReqd, "extended headers are on already")
	}
	h.form = Structured
	return h.acknowledge(optStructuredReply)
}

func (h *handshake) extended() error {
	if h.form == Extended {
		return h.refuse(optExtendedHeaders, repErrInvalid, "extended headers are on already")
	}
	h.form = Extended
	return h.acknowledge(optExtendedHeaders)
}

// context lists or selects metadata contexts. Whatever was selected before is not any more.
func (h *handshake) context(o option, data []byte) error {
	set := o == optSetMetaContext
	if set {
		h.status = false
	}
	r, err := parseContextRequest(data)
	switch {
	case err != nil:
		return h.refuse(o, repErrInvalid, err.Error())
	case h.form == Simple:
		return h.refuse(o, repErrInvalid, "this takes structured replies")
	case !h.exp.known(r.name):
		return h.refuse(o, repErrUnknown, "there is no such export")
	}
	if r.selects(!set) {
		id := uint32(0) // means nothing in a list
		if set {
			h.status, id = true, contextID
		}
		h.reply(o, repMetaContext, append(binary.BigEndian.AppendUint32(nil, id), contextName...))
	}
	return h.acknowledge(o)
}

// info tells about the export, and for optGo ends the options.
func (h *handshake) info(o option, data []byte) error {
	r, err := parseInfoRequest(data)
	switch {
	case err != nil:
		return h.refuse(o, repErrInvalid, err.Error())
	case !h.exp.known(r.name):
		return h.refuse(o, repErrUnknown, "there is no such export")
	}
	if o == optGo {
		switch h.hub, err = h.exp.reserve(-1); {
		case errors.Is(err, ErrTooMany):
			return h.refuse(o, repErrPolicy, err.Error())
		case err != nil:
			return h.refuse(o, repErrShutdown, err.Error())
		}
	}
	h.describe(o, r.want)
	if err := h.acknowledge(o); err != nil {
		return err
	}
	if o == optGo {
		return errTransmit
	}
	return nil
}

// describe queues what there is to know: size, flags and block sizes always, names to those who ask.
func (h *handshake) describe(o option, want []infoType) {
	b := binary.BigEndian.AppendUint16(nil, uint16(infoExport))
	b = binary.BigEndian.AppendUint64(b, h.exp.size.Load())
	h.reply(o, repInfo, binary.BigEndian.AppendUint16(b, h.rules().flags()))

	minimum, preferred, maximum := h.rules().blockSizes()
	b = binary.BigEndian.AppendUint16(nil, uint16(infoBlockSize))
	b = binary.BigEndian.AppendUint32(b, minimum)
	b = binary.BigEndian.AppendUint32(b, preferred)
	h.reply(o, repInfo, binary.BigEndian.AppendUint32(b, maximum))

	h.describeText(o, want, infoName, h.exp.name)
	h.describeText(o, want, infoDescription, h.exp.description)
}

func (h *handshake) describeText(o option, want []infoType, t infoType, text string) {
	if slices.Contains(want, t) && text != "" {
		h.reply(o, repInfo, append(binary.BigEndian.AppendUint16(nil, uint16(t)), text...))
	}
}
