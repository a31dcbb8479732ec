package worker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"iserblk/verbs"
	"iserblk/verbs/rdmacore"
	"iserblk/verbs/softroce"
)

// Providers are the words for Spec.Provider, the default one first.
var Providers = []string{"auto", "rdmacore", softRoCE}

// softRoCE is the provider in pure Go.
const softRoCE = "softroce"

// newProvider is the one place where a provider is chosen.
func newProvider(name string) (verbs.Provider, error) {
	switch name {
	case "", "auto":
		return newAuto(), nil
	case "rdmacore":
		return rdmacore.New()
	case softRoCE:
		return softroce.New(), nil
	}
	return nil, fmt.Errorf("RDMA provider %q: %w; there are auto, rdmacore and softroce", name, ErrUnsupported)
}

// Devices lists the RDMA devices that the provider sees (Backend.Devices).
func Devices(ctx context.Context, provider string) ([]verbs.DeviceInfo, error) {
	p, err := newProvider(provider)
	if err != nil {
		return nil, err
	}
	return p.Devices(ctx)
}

// ChooseProvider says which provider would make a connection to dst, leaving by src if that is valid, and why.
func ChooseProvider(name string, src, dst netip.Addr) (provider, why string, err error) {
	p, err := newProvider(name)
	if err != nil {
		return "", "", err
	}
	if a, ok := p.(*auto); ok {
		p, why = a.choose(src, dst)
		return p.Name(), why, nil
	}
	return p.Name(), "asked for", nil
}

// describeProvider is a provider's name, with the reason where there was a choice.
func describeProvider(p verbs.Provider) (name, why string) {
	a, ok := p.(*auto)
	if !ok {
		return p.Name(), ""
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.chosen == nil {
		return a.Name(), ""
	}
	return a.chosen.Name(), a.why
}

// auto uses rdma-core where an RDMA device owns the route, else pure Go. The first connection that comes up settles it for
// the life of the process: a device that is away for a moment is waited for.
type auto struct {
	soft    *softroce.Provider
	library func() (verbs.Provider, error)
	route   func(src, dst netip.Addr) (rdmacore.Route, error)

	mu     sync.Mutex
	chosen verbs.Provider
	why    string
}

var _ verbs.PortWatcher = (*auto)(nil)

func newAuto() *auto {
	return &auto{
		soft: softroce.New(), route: rdmacore.RouteTo,
		library: func() (verbs.Provider, error) { return rdmacore.New() },
	}
}

// Name is "auto" and says nothing about what was chosen: see describeProvider.
func (*auto) Name() string { return "auto" }

// Devices lists the RDMA devices, and where there are none, the network devices that pure Go may use.
func (a *auto) Devices(ctx context.Context) ([]verbs.DeviceInfo, error) {
	if p, err := a.library(); err == nil {
		if all, err := p.Devices(ctx); err != nil || len(all) > 0 {
			return all, err
		}
	}
	return a.soft.Devices(ctx)
}

// Dial connects by the provider that the route calls for.
func (a *auto) Dial(ctx context.Context, attr verbs.DialAttr) (verbs.Conn, error) {
	a.mu.Lock()
	p := a.chosen
	a.mu.Unlock()
	if p != nil {
		return p.Dial(ctx, attr)
	}
	p, why := a.choose(attr.Src, attr.Dst.Addr())
	c, err := p.Dial(ctx, attr)
	if err != nil {
		return nil, explainChoice(err, p, why)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.chosen == nil {
		a.chosen, a.why = p, why
	}
	return c, nil
}

// ActivePorts are those of the provider that was chosen, none before that.
func (a *auto) ActivePorts() []string {
	a.mu.Lock()
	p := a.chosen
	a.mu.Unlock()
	if w, ok := p.(verbs.PortWatcher); ok {
		return w.ActivePorts()
	}
	return nil
}

// Listen takes connections by the provider that the address calls for.
func (a *auto) Listen(ctx context.Context, attr verbs.ListenAttr) (verbs.Listener, error) {
	p, _ := a.choose(attr.Addr.Addr(), attr.Addr.Addr())
	if l, ok := p.(verbs.Acceptor); ok {
		return l.Listen(ctx, attr)
	}
	return nil, fmt.Errorf("RDMA provider %s: %w: it takes no connections", p.Name(), ErrUnsupported)
}

// choose picks the provider for a route, and says why.
func (a *auto) choose(src, dst netip.Addr) (verbs.Provider, string) {
	r, err := a.route(src, dst)
	switch {
	case err != nil:
		return a.soft, fmt.Sprintf("there is no route to %s", dst)
	case r.Device.Name == "":
		return a.soft, fmt.Sprintf("no RDMA device on %s, which leads to %s", r.NetDev, dst)
	}
	p, err := a.library()
	if err != nil {
		return a.soft, fmt.Sprintf("%s is there, but rdma-core cannot be used: %v", r.Device.Name, err)
	}
	return p, fmt.Sprintf("RDMA device %s on %s", r.Device.Name, r.NetDev)
}

// explainChoice adds to an error of the pure Go provider why no device was used, since that may be what is to be mended.
func explainChoice(err error, p verbs.Provider, why string) error {
	op := new(verbs.OpError)
	if p.Name() != softRoCE || !errors.As(err, &op) {
		return err
	}
	out := *op
	if out.Hint != "" {
		out.Hint += "; "
	}
	out.Hint += "softroce was used: " + why
	return &out
}
