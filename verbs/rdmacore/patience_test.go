package rdmacore

import (
	"context"
	"errors"
	"fmt"
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
