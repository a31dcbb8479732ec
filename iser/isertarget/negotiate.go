package isertarget

import (
	"strconv"

	"iserblk/session/pdu"
)

// negotiate answers the operational keys of a request (RFC 7143 13, RFC 7145 6).
func (c *Conn) negotiate(b []byte, keys pdu.Text) []byte {
	for key, value := range keys.All() {
		if answer, ok := c.answerKey(key, value); ok {
			b = pdu.AppendKey(b, key, answer)
		}
	}
	return b
}

// answerKey is the answer to one key; declarations get none.
func (c *Conn) answerKey(key, value string) (string, bool) {
	o := c.t.opt
	switch key {
	case "InitiatorName", "InitiatorAlias", "SessionType", "TargetName", "MaxOutstandingUnexpectedPDUs",
		"MaxRecvDataSegmentLength", "MaxAHSLength":
		return "", false
	case "HeaderDigest", "DataDigest":
		return pdu.ValueNone, true
	case "InitialR2T", "DataPDUInOrder", "DataSequenceInOrder":
		return pdu.ValueYes, true
	case "RDMAExtensions":
		return value, true
	case "ImmediateData":
		return pdu.Bool(value == pdu.ValueYes && !o.NoImmediateData), true
	case "IFMarker", "OFMarker", "iSERHelloRequired":
		return pdu.ValueNo, true
	case "MaxConnections", "MaxOutstandingR2T":
		return "1", true
	case "ErrorRecoveryLevel":
		return "0", true
	}
	return c.answerNumber(key, value)
}

// answerNumber is for keys whose result is the smaller offer, or the larger where that is the rule.
func (c *Conn) answerNumber(key, value string) (string, bool) {
	o := c.t.opt
	mine, known := map[string]int{
		"FirstBurstLength": o.FirstBurst, "MaxBurstLength": o.MaxBurst,
		"TargetRecvDataSegmentLength": o.RecvSegment, "InitiatorRecvDataSegmentLength": 262144,
		"DefaultTime2Wait": 2, "DefaultTime2Retain": 20,
	}[key]
	if !known {
		return pdu.ValueNotUnderstood, true
	}
	theirs, err := pdu.ParseNumber(value)
	if err != nil {
		c.t.violate("login: %s=%s is no number", key, value)
		return pdu.ValueReject, true
	}
	if key == "DefaultTime2Wait" {
		return strconv.Itoa(max(mine, int(theirs))), true
	}
	return strconv.Itoa(min(mine, int(theirs))), true
}
