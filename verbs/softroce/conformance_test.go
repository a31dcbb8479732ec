package softroce_test

import (
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"iserblk/verbs/conformance"
	"iserblk/verbs/softroce"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	p := softroce.New()
	conformance.Run(t, conformance.Bed{
		Provider: p, Acceptor: p, Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.7"), netip.IPv6Loopback()},
	})
}
