package session

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"iserblk/session/chap"
	"iserblk/session/pdu"
)

// Text keys of a login (RFC 7143 13, RFC 7145 6).
const (
	keyInitiatorName  = "InitiatorName"
	keySessionType    = "SessionType"
	keyTargetName     = "TargetName"
	keyTargetAlias    = "TargetAlias"
	keyTargetAddress  = "TargetAddress"
	keyPortalGroupTag = "TargetPortalGroupTag"
	keyAuthMethod     = chap.KeyAuthMethod
	keyRDMAExtensions = "RDMAExtensions"
	keyInitiatorRecv  = "InitiatorRecvDataSegmentLength"
	keyTargetRecv     = "TargetRecvDataSegmentLength"
	keyMaxRecv        = "MaxRecvDataSegmentLength"
	keyHeaderDigest   = "HeaderDigest"
	keyDataDigest     = "DataDigest"
	keyInitialR2T     = "InitialR2T"
	keyImmediateData  = "ImmediateData"
	keyFirstBurst     = "FirstBurstLength"
	keyMaxBurst       = "MaxBurstLength"
	keyMaxR2T         = "MaxOutstandingR2T"
	keyMaxConnections = "MaxConnections"
	keyTime2Wait      = "DefaultTime2Wait"
	keyTime2Retain    = "DefaultTime2Retain"
	keyRecoveryLevel  = "ErrorRecoveryLevel"
	keyPDUInOrder     = "DataPDUInOrder"
	keySeqInOrder     = "DataSequenceInOrder"
)

// Bounds of RFC 7143 13, in bytes and in seconds.
const (
	minBurst    = 512
	maxBurst    = 1<<24 - 1
	maxSeconds  = 3600
	ourTimeWait = 2
	ourRetain   = 0 // ERL 0: no task survives its connection
)

// operationalKeys are the offers of the operational stage. Digests are None on a transport with a CRC of its own; a
// normal session over iSER takes the segment lengths of RFC 7145 6.4 in place of MaxRecvDataSegmentLength.
func operationalKeys(p *Params) pdu.Text {
	t := pdu.Text{{Key: keyHeaderDigest, Value: pdu.ValueNone}, {Key: keyDataDigest, Value: pdu.ValueNone}}
	if p.Discovery {
		return append(t, number(keyMaxRecv, maxData))
	}
	return append(t,
		pdu.Pair{Key: keyRDMAExtensions, Value: pdu.ValueYes},
		number(keyInitiatorRecv, maxData),
		number(keyTargetRecv, maxData),
		pdu.Pair{Key: keyInitialR2T, Value: pdu.ValueYes},
		pdu.Pair{Key: keyImmediateData, Value: pdu.Bool(!p.NoImmediateData)},
		number(keyFirstBurst, p.FirstBurst),
		number(keyMaxBurst, p.MaxBurst),
		number(keyMaxR2T, 1),
		number(keyMaxConnections, 1),
		number(keyTime2Wait, ourTimeWait),
		number(keyTime2Retain, ourRetain),
		number(keyRecoveryLevel, 0),
		pdu.Pair{Key: keyPDUInOrder, Value: pdu.ValueYes},
		pdu.Pair{Key: keySeqInOrder, Value: pdu.ValueYes},
	)
}

func number(key string, n uint32) pdu.Pair {
	return pdu.Pair{Key: key, Value: strconv.FormatUint(uint64(n), 10)}
}

// offered is what holds when the target says nothing about our offers: for ImmediateData that is No, so that nothing
// is sent unasked.
func offered(p *Params) Negotiated {
	return Negotiated{
		FirstBurstLength:               p.FirstBurst,
		MaxBurstLength:                 p.MaxBurst,
		InitiatorRecvDataSegmentLength: maxData,
		TargetRecvDataSegmentLength:    maxData,
		MaxRecvDataSegmentLength:       maxData,
		TargetPortalGroupTag:           -1,
		DefaultTime2Wait:               ourTimeWait * time.Second,
	}
}

// refusals are values by which a target declines an offer without ending the login.
func refused(v string) bool {
	return v == pdu.ValueReject || v == pdu.ValueIrrelevant || v == pdu.ValueNotUnderstood
}

// take applies one key of the target's to g. It returns what has to be answered: "" for our own offers and for
// declarations.
func (g *Negotiated) take(p *Params, key, value string) (answer string, err error) {
	switch key {
	case keyHeaderDigest, keyDataDigest, keyRDMAExtensions, keyRecoveryLevel, keyMaxConnections:
		return "", mustBe(p, key, value)
	case keyImmediateData:
		return "", g.takeImmediate(p, value)
	case keyFirstBurst:
		return "", lower(&g.FirstBurstLength, key, value, minBurst)
	case keyMaxBurst:
		return "", lower(&g.MaxBurstLength, key, value, minBurst)
	case keyInitiatorRecv:
		return "", lower(&g.InitiatorRecvDataSegmentLength, key, value, minBurst)
	case keyTargetRecv:
		return "", lower(&g.TargetRecvDataSegmentLength, key, value, minBurst)
	case keyMaxRecv:
		return "", declared(&g.MaxRecvDataSegmentLength, key, value)
	case keyTime2Wait:
		return "", seconds(&g.DefaultTime2Wait, key, value)
	case keyTime2Retain:
		return "", seconds(&g.DefaultTime2Retain, key, value)
	case keyPortalGroupTag:
		return "", g.takeGroup(value)
	case keyTargetAlias:
		g.TargetAlias = value
		return "", nil
	}
	return answerTo(key, value), nil
}

// answerTo is for keys that mean nothing to this initiator.
func answerTo(key, value string) string {
	switch key {
	case keyInitialR2T, keyMaxR2T, keyPDUInOrder, keySeqInOrder, // ours: any answer will do, since we never use them
		keyAuthMethod, chap.KeyAlgorithm, chap.KeyIdentifier, chap.KeyChallenge, chap.KeyName, chap.KeyResponse,
		keyTargetAddress, keyTargetName, keyInitiatorName, keySessionType, "InitiatorAlias",
		"MaxOutstandingUnexpectedPDUs", "MaxAHSLength": // declarations (RFC 7145 6.7, 6.8)
		return ""
	case "iSERHelloRequired", "TaggedBufferForSolicitedDataOnly", "IFMarker", "OFMarker":
		return pdu.ValueNo
	}
	if refused(value) {
		return ""
	}
	return pdu.ValueNotUnderstood
}

// mustBe checks the offers that leave no choice.
func mustBe(p *Params, key, value string) error {
	want := map[string]string{
		keyHeaderDigest: pdu.ValueNone, keyDataDigest: pdu.ValueNone, keyRDMAExtensions: pdu.ValueYes,
		keyRecoveryLevel: "0", keyMaxConnections: "1",
	}[key]
	switch {
	case value == want:
		return nil
	case refused(value) && key != keyRDMAExtensions:
		return nil // its default holds, which is what we want
	case key == keyRDMAExtensions && p.Discovery:
		return nil
	}
	return fmt.Errorf("%w: target wants %s=%s, not %s", ErrNegotiation, key, printable(value), want)
}

func (g *Negotiated) takeImmediate(p *Params, value string) error {
	if refused(value) {
		return nil
	}
	yes, err := pdu.ParseBool(value)
	if err != nil {
		return protocolError(err)
	}
	g.ImmediateData = yes && !p.NoImmediateData
	return nil
}

func (g *Negotiated) takeGroup(value string) error {
	n, err := pdu.ParseNumber(value)
	if err != nil || n > 1<<16-1 {
		return fmt.Errorf("%w: %s=%s", ErrProtocol, keyPortalGroupTag, printable(value))
	}
	g.TargetPortalGroupTag = int(n)
	return nil
}

// lower is the result function "minimum": the target's value counts where it is smaller.
func lower(v *uint32, key, value string, least uint64) error {
	if refused(value) {
		return nil
	}
	n, err := pdu.ParseNumber(value)
	if err != nil || n < least || n > maxBurst {
		return fmt.Errorf("%w: %s=%s", ErrProtocol, key, printable(value))
	}
	*v = min(*v, uint32(n))
	return nil
}

func declared(v *uint32, key, value string) error {
	*v = maxBurst
	return lower(v, key, value, minBurst)
}

func seconds(d *time.Duration, key, value string) error {
	if refused(value) {
		return nil
	}
	n, err := pdu.ParseNumber(value)
	if err != nil || n > maxSeconds {
		return fmt.Errorf("%w: %s=%s", ErrProtocol, key, printable(value))
	}
	*d = time.Duration(n) * time.Second
	return nil
}

// printable makes a value from the wire fit for a message.
func printable(v string) string {
	const limit = 64
	return strings.Trim(strconv.Quote(v[:min(len(v), limit)]), `"`)
}
