package verbs

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

func TestAStatusNamesItselfAndItsNumber(t *testing.T) {
	for status, want := range map[Status]string{
		StatusSuccess:      "success (WC status 0)",
		StatusFlushed:      "work request flushed (WC status 5)",
		StatusRemAccessErr: "remote access error (WC status 10)",
		StatusRNRRetryExc:  "receiver-not-ready retries exceeded (WC status 13)",
		21:                 "general error (WC status 21)",
		99:                 "WC status 99",
	} {
		if got := status.Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if !strings.Contains(StatusRetryExc.Error(), "does not answer") {
		t.Error(StatusRetryExc)
	}
}

func TestAnOpErrorSaysWhatWhereWhyAndWhatNext(t *testing.T) {
	err := &OpError{Op: "connect to", Peer: "10.0.0.1:3260", Hint: "try again", Err: syscall.EIO}
	if got := err.Error(); got != "connect to 10.0.0.1:3260: input/output error; try again" {
		t.Error(got)
	}
	if got := (&OpError{Op: "poll", Err: syscall.EIO}).Error(); got != "poll: input/output error" {
		t.Error(got)
	}
	if !errors.Is(err, syscall.EIO) {
		t.Error("the cause does not show")
	}
}

func TestARejectIsRecognisedAndExplained(t *testing.T) {
	for reason, want := range map[int]string{8: "nothing listens", 10: "stale", 28: "by the target", 3: "reason 3"} {
		err := error(&OpError{Op: "connect to", Err: fmt.Errorf("wrapped: %w", &RejectError{Reason: reason})})
		var reject *RejectError
		if !errors.Is(err, ErrRejected) || !errors.As(err, &reject) || reject.Reason != reason {
			t.Errorf("%v", err)
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if errors.Is(&RejectError{}, ErrTimeout) {
		t.Error("a reject is no timeout")
	}
}
