package rdmacore

import (
	"context"
	"errors"
	"syscall"
	"time"
)

// How long Dial waits for a neighbour's address. The kernel asks the neighbour three times, a second apart, and then
// counts it as failed. Nothing asks any more then until somebody wants the address anew, which whoever waits for it
// already does not do (drivers/infiniband/core/addr.c: dst_fetch_ha, process_one_req): it would wait its time out though
// the neighbour is back. So the question is put again and again. No more goes out for that: the kernel keeps its pace.
const (
	addrTime = 2 * time.Second
	askTime  = 100 * time.Millisecond // of one question
)

// How long Dial waits for the answer to a connection request. The kernel sends one that was lost, or whose answer was, again
// after 4.1 s (CMA_CM_RESPONSE_TIMEOUT in drivers/infiniband/core/cma.c) and would go on for 69 s (CMA_MAX_CM_RETRIES): this is
// good for one loss in either direction. It must not be given up for another sooner: tgt is ended by a request
// that is taken back before it has come to it.
const connectTime = 10 * time.Second

// whileUnresolved repeats ask, which waits for a neighbour's address for askTime.
func whileUnresolved(ctx context.Context, ask func() error) error {
	for end := time.Now().Add(addrTime); ; {
		err := ask()
		again := errors.Is(err, syscall.ETIMEDOUT) && ctx.Err() == nil && time.Now().Before(end)
		if !again {
			return err
		}
	}
}
