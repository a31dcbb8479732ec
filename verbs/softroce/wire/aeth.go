package wire

import "time"

// Syndrome is what an acknowledgement says (IBTA 9.7.5.1.1).
type Syndrome uint8

// The syndromes in use. NoCredits is the field of a plain ACK of a responder that does not count credits.
const (
	AckNoCredits       Syndrome = 0x1f
	rnrNak             Syndrome = 0x20
	NakSequence        Syndrome = 0x60 // a packet is missing: go back to the PSN of this NAK
	NakInvalidRequest  Syndrome = 0x61
	NakRemoteAccess    Syndrome = 0x62
	NakRemoteOperation Syndrome = 0x63

	syndromeKind  = 0x60
	syndromeValue = 0x1f
)

// RNRNak is a receiver-not-ready NAK with a timer code.
func RNRNak(code uint8) Syndrome { return rnrNak | Syndrome(code&syndromeValue) }

// IsAck tells a plain acknowledgement.
func (s Syndrome) IsAck() bool { return s&0x80 == 0 && s&syndromeKind == 0 }

// IsRNR tells a receiver-not-ready NAK.
func (s Syndrome) IsRNR() bool { return s&0x80 == 0 && s&syndromeKind == rnrNak }

// IsNak tells any other NAK.
func (s Syndrome) IsNak() bool { return s&0x80 == 0 && s&syndromeKind == NakSequence }

// rnrTimers are in units of 10 µs (IBTA table 45).
var rnrTimers = [32]uint32{
	65536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192,
	256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152,
}

// RNRDelay is how long a receiver-not-ready NAK asks to wait.
func (s Syndrome) RNRDelay() time.Duration {
	return time.Duration(rnrTimers[s&syndromeValue]) * 10 * time.Microsecond
}

// RNRCode is the shortest timer code that is at least d, the longest where there is none.
func RNRCode(d time.Duration) uint8 {
	for code := uint8(1); code < 32; code++ {
		if RNRNak(code).RNRDelay() >= d {
			return code
		}
	}
	return 0
}
