package rdmacore

import (
	"context"
	"errors"
	"time"

	"iserblk/verbs"
)

const (
	staleReason  = 10 // IBTA reject reason "stale connection": the target remembers a connection of ours that died
	staleRetries = 4
	staleWait    = 100 * time.Millisecond // before the first retry, twice as long before each further one
)

// whileStale repeats attempt, which must use a new identifier each time, while the target takes it for an old
// connection. It returns the last attempt's error.
func whileStale(ctx context.Context, attempt func() error) error {
	for try := 0; ; try++ {
		err := attempt()
		var reject *verbs.RejectError
		stale := errors.As(err, &reject) && reject.Reason == staleReason
		if !stale || try == staleRetries || !sleep(ctx, staleWait<<try) {
			return err
		}
	}
}

// sleep waits for d and says whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
