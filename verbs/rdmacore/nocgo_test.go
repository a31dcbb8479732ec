//go:build !cgo || !linux

package rdmacore

import (
	"context"
	"errors"
	"testing"

	"iserblk/verbs"
)

func TestWithoutCgoThereIsNoProvider(t *testing.T) {
	p, err := New()
	if p != nil || !errors.Is(err, verbs.ErrNoProvider) {
		t.Error(p, err)
	}
	if _, err := (&Provider{}).Dial(context.Background(), verbs.DialAttr{}); !errors.Is(err, verbs.ErrNoProvider) {
		t.Error(err)
	}
}
