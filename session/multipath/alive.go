package multipath

import "context"

// WhileAlive calls f with a context that ends when lost reports the end of the connection that f uses: a target that
// hangs up sends no answer to what f waits for. The error is the loss's where there was one, since then f's result does
// not count any more, and f's else. A loss that WhileAlive has seen is not seen by the next reader of lost.
func WhileAlive(ctx context.Context, lost <-chan error, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over, seen := make(chan struct{}), make(chan error, 1)
	go func() {
		seen <- watch(lost, over, cancel)
	}()
	err := f(ctx)
	close(over)
	if loss := <-seen; loss != nil {
		return loss
	}
	return err
}

// watch waits for a loss, which it hands to cancel, or for over.
func watch(lost <-chan error, over <-chan struct{}, cancel context.CancelCauseFunc) error {
	select {
	case err := <-lost: // nil when it was closed: no loss will be reported any more
		if err != nil {
			cancel(err)
		}
		return err
	case <-over:
		return nil
	}
}
