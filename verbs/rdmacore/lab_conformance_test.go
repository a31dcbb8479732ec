//go:build cgo && linux

package rdmacore

import (
	"net/netip"
	"testing"

	"iserblk/verbs/conformance"
)

func TestConformance(t *testing.T) {
	needLab(t)
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	conformance.Run(t, conformance.Bed{Provider: p, Acceptor: p, Addrs: []netip.Addr{labHost, labHost6}})
}
