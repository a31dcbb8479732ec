package rdmacore

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"iserblk/verbs"
)

var errStale = fmt.Errorf("wrapped: %w", &verbs.RejectError{Reason: staleReason})

// attempts counts calls that end with the given errors, the last one again and again.
func attempts(n *int, errs ...error) func() error {
	return func() error {
		err := errs[min(*n, len(errs)-1)]
		*n++
		return err
	}
}

func TestAStaleConnectionIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, begin := 0, time.Now()
		if err := whileStale(t.Context(), attempts(&n, errStale, errStale, nil)); err != nil || n != 3 {
			t.Errorf("%d attempts: %v", n, err)
		}
		if took := time.Since(begin); took != 300*time.Millisecond {
			t.Errorf("after %v", took)
		}
	})
}

func TestAStaleConnectionIsGivenUpInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		if err := whileStale(t.Context(), attempts(&n, errStale)); !errors.Is(err, verbs.ErrRejected) || n != 5 {
			t.Errorf("%d attempts: %v", n, err)
		}
		n = 0
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		defer cancel()
		if err := whileStale(ctx, attempts(&n, errStale)); !errors.Is(err, verbs.ErrRejected) || n != 2 {
			t.Errorf("%d attempts: %v", n, err)
		}
	})
}

func TestOtherErrorsAreNotTriedAgain(t *testing.T) {
	n := 0
	if err := whileStale(t.Context(), attempts(&n, &verbs.RejectError{Reason: 28})); err == nil || n != 1 {
		t.Errorf("%d attempts: %v", n, err)
	}
}
