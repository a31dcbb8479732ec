package rdmacore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"iserblk/verbs"
)

// neighbour is one that comes onto the link after a time, to a kernel that has given it up: only a question that is
// put after that is answered.
func neighbour(after time.Duration, asked *int) (ask func() error) {
	there := time.Now().Add(after)
	return func() error {
		*asked++
		if !time.Now().Before(there) {
			return nil
		}
		time.Sleep(askTime)
		return fmt.Errorf("address error: %w", syscall.ETIMEDOUT)
	}
}

func TestANeighbourThatComesBackIsFoundSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, begin := 0, time.Now()
		if err := whileUnresolved(t.Context(), neighbour(950*time.Millisecond, &asked)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 950*time.Millisecond+askTime {
			t.Errorf("after %v", took)
		}
	})
}

func TestANeighbourThatDoesNotAnswerIsGivenUpInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, begin := 0, time.Now()
		if err := whileUnresolved(t.Context(), neighbour(time.Hour, &asked)); !errors.Is(err, syscall.ETIMEDOUT) {
			t.Error(err)
		}
		if took := time.Since(begin); took != addrTime {
			t.Errorf("after %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*askTime/2)
		defer cancel()
		asked = 0
		if err := whileUnresolved(ctx, neighbour(time.Hour, &asked)); err == nil || asked != 2 {
			t.Errorf("asked %d times: %v", asked, err)
		}
	})
}

func TestAnAddressThatCannotBeResolvedIsAskedForOnce(t *testing.T) {
	for _, want := range []error{syscall.ENETUNREACH, verbs.ErrPortDown, verbs.ErrTimeout, nil} {
		asked := 0
		err := whileUnresolved(t.Context(), func() error { asked++; return want })
		if !errors.Is(err, want) || asked != 1 {
			t.Errorf("asked %d times: %v", asked, err)
		}
	}
}

// lossy is a link that loses everything until a time; answer is what comes then.
func lossy(until time.Duration, answer error, waits *[]time.Duration) func(time.Duration) (bool, error) {
	there := time.Now().Add(until)
	return func(patience time.Duration) (bool, error) {
		*waits = append(*waits, patience)
		if !time.Now().Before(there) {
			return true, answer
		}
		time.Sleep(patience)
		return true, verbs.ErrTimeout
	}
}

func TestALostConnectionRequestIsFollowedByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waits []time.Duration
		begin := time.Now()
		if err := whileUnanswered(t.Context(), lossy(1500*time.Millisecond, nil, &waits)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 2*requestTime {
			t.Errorf("after %v", took)
		}
	})
}

func TestAPeerThatIsSlowToAnswerGetsItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waits []time.Duration
		begin := time.Now()
		if err := whileUnanswered(t.Context(), lossy(time.Hour, nil, &waits)); !errors.Is(err, verbs.ErrTimeout) {
			t.Error(err)
		}
		if !slices.Equal(waits, []time.Duration{requestTime, requestTime, requestTime, lastRequestTime}) {
			t.Errorf("waited for %v", waits)
		}
		if took := time.Since(begin); took != connectTime {
			t.Errorf("after %v", took)
		}
	})
}

func TestOnlyARequestWithoutAnAnswerIsFollowedByAnother(t *testing.T) {
	var waits []time.Duration
	reject := &verbs.RejectError{Reason: 8}
	if err := whileUnanswered(t.Context(), lossy(0, reject, &waits)); !errors.Is(err, verbs.ErrRejected) || len(waits) != 1 {
		t.Errorf("%d requests: %v", len(waits), err)
	}
	n := 0
	err := whileUnanswered(t.Context(), func(time.Duration) (bool, error) { n++; return false, verbs.ErrTimeout })
	if !errors.Is(err, verbs.ErrTimeout) || n != 1 {
		t.Errorf("an address that does not resolve: %d attempts: %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n = 0
	err = whileUnanswered(ctx, func(time.Duration) (bool, error) { n++; cancel(); return true, verbs.ErrTimeout })
	if err == nil || n != 1 {
		t.Errorf("nobody waits any more: %d attempts: %v", n, err)
	}
}
