package rdmacore

import (
	"errors"
	"fmt"
	"math/bits"
	"time"

	"iserblk/verbs"
)

// checkAttr refuses what no device could do.
func checkAttr(a verbs.DialAttr) error {
	switch {
	case a.Arena == nil:
		return errors.New("no arena")
	case len(a.PrivateData) > 56:
		return fmt.Errorf("%d bytes of private data, at most 56 fit", len(a.PrivateData))
	case a.RetryCount > 6:
		return fmt.Errorf("retry count %d, at most 6: rxe takes 7 as for ever", a.RetryCount)
	case a.RNRRetry > 7:
		return fmt.Errorf("RNR retry count %d, at most 7", a.RNRRetry)
	case a.SendDepth < 1 || a.RecvDepth < 1 || len(a.Recvs) > a.RecvDepth:
		return fmt.Errorf("send depth %d, receive depth %d for %d first receives",
			a.SendDepth, a.RecvDepth, len(a.Recvs))
	}
	return nil
}

// ackTimeoutCode is the least n with 4.096 µs·2^n >= d, at most 31 (IBTA volume 1, 9.7.6.1.3).
func ackTimeoutCode(d time.Duration) uint8 {
	const unit = 4096 * time.Nanosecond
	units := (d + unit - 1) / unit
	if units <= 1 {
		return 0
	}
	return uint8(min(bits.Len64(uint64(units-1)), 31))
}
