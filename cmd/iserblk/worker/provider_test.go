package worker

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"iserblk/verbs"
	"iserblk/verbs/rdmacore"
)

var (
	hereAddr  = netip.MustParseAddr("10.0.0.2")
	thereAddr = netip.MustParseAddr("10.0.0.1")
)

// device is a provider of which only the name and Dial's outcome matter.
type deviceProvider struct {
	verbs.Provider
	dials int
}

func (*deviceProvider) Name() string { return "rdmacore" }

func (d *deviceProvider) Dial(context.Context, verbs.DialAttr) (verbs.Conn, error) {
	d.dials++
	return nil, nil
}

func (d *deviceProvider) ActivePorts() []string { return []string{"rxe7/1"} }

func routeWith(device string) func(src, dst netip.Addr) (rdmacore.Route, error) {
	return func(_, _ netip.Addr) (rdmacore.Route, error) {
		return rdmacore.Route{Src: hereAddr, NetDev: "eth7", Device: verbs.DeviceInfo{Name: device}}, nil
	}
}

func TestTheRouteChoosesTheProvider(t *testing.T) {
	library := func() (verbs.Provider, error) { return &deviceProvider{}, nil }
	broken := func() (verbs.Provider, error) { return nil, verbs.ErrNoProvider }
	for name, row := range map[string]struct {
		a    *auto
		want string
		why  string
	}{
		"a device on the route":   {&auto{route: routeWith("rxe7"), library: library}, "rdmacore", "rxe7"},
		"no device on the route":  {&auto{route: routeWith(""), library: library}, "softroce", "no RDMA device on eth7"},
		"a device and no library": {&auto{route: routeWith("rxe7"), library: broken}, "softroce", verbs.ErrNoProvider.Error()},
		"no route": {&auto{library: library, route: func(_, _ netip.Addr) (rdmacore.Route, error) {
			return rdmacore.Route{}, errors.New("unreachable")
		}}, "softroce", "no route"},
	} {
		a := row.a
		a.soft = newAuto().soft
		p, why := a.choose(netip.Addr{}, thereAddr)
		if p.Name() != row.want || !strings.Contains(why, row.why) {
			t.Errorf("%s: %s because %q", name, p.Name(), why)
		}
	}
}

func TestTheFirstConnectionSettlesTheProvider(t *testing.T) {
	d := &deviceProvider{}
	a := newAuto()
	a.library = func() (verbs.Provider, error) { return d, nil }
	a.route = routeWith("rxe7")
	if name, why := describeProvider(a); name != "auto" || why != "" {
		t.Error(name, why)
	}
	attr := verbs.DialAttr{Dst: netip.AddrPortFrom(thereAddr, 3260)}
	if _, err := a.Dial(t.Context(), attr); err != nil {
		t.Fatal(err)
	}
	a.route = routeWith("") // the device is away for a moment
	if _, err := a.Dial(t.Context(), attr); err != nil || d.dials != 2 {
		t.Error(err, d.dials)
	}
	if name, why := describeProvider(a); name != "rdmacore" || !strings.Contains(why, "rxe7") {
		t.Error(name, why)
	}
}

func TestThePortsOfTheProviderThatWasChosenAreWatched(t *testing.T) {
	a := newAuto()
	a.library = func() (verbs.Provider, error) { return &deviceProvider{}, nil }
	a.route = routeWith("rxe7")
	d := newDialer(Spec{}, a, nil, nil)
	if ports := d.activePorts(); ports != nil {
		t.Errorf("%v before there was a choice", ports)
	}
	if _, err := a.Dial(t.Context(), verbs.DialAttr{Dst: netip.AddrPortFrom(thereAddr, 3260)}); err != nil {
		t.Fatal(err)
	}
	if ports := d.activePorts(); !slices.Equal(ports, []string{"rxe7/1"}) {
		t.Errorf("%v", ports)
	}
}

func TestAFailureOfSoftroceSaysWhyNoDeviceWasUsed(t *testing.T) {
	a := newAuto()
	a.route = routeWith("")
	_, err := a.Dial(t.Context(), verbs.DialAttr{Dst: netip.AddrPortFrom(thereAddr, 3260)})
	if err == nil || !strings.Contains(err.Error(), "no RDMA device on eth7") {
		t.Error(err)
	}
}

func TestProvidersHaveNames(t *testing.T) {
	for _, name := range []string{"", "auto", "softroce"} {
		if _, err := newProvider(name); err != nil {
			t.Error(name, err)
		}
	}
	if _, err := newProvider("carrier-pigeon"); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
}
