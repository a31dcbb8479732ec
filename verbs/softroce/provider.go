package softroce

import (
	"context"
	"net"
	"net/netip"
	"sync"

	"iserblk/verbs"
)

var (
	_ verbs.Provider = (*Provider)(nil)
	_ verbs.Acceptor = (*Provider)(nil)
)

// Provider makes connections over UDP. Its connections share one lobby a local address. Make it with New.
type Provider struct {
	guid uint64

	mu        sync.Mutex
	endpoints map[netip.Addr]*endpoint
	links     *linkWatch // while there are endpoints
}

// New makes a Provider. It needs nothing and opens nothing yet.
func New() *Provider {
	return &Provider{guid: random64(), endpoints: make(map[netip.Addr]*endpoint)}
}

// Name is "softroce".
func (*Provider) Name() string { return "softroce" }

// Devices lists the network devices with an address: each can be used.
func (*Provider) Devices(context.Context) ([]verbs.DeviceInfo, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, &verbs.OpError{Op: "list network devices", Err: err}
	}
	var devices []verbs.DeviceInfo
	for _, i := range all {
		if a := firstAddr(i); a.IsValid() {
			r := route{local: a, mtu: i.MTU, device: i.Name}
			info := r.info(r.pathMTU())
			info.Active = i.Flags&net.FlagUp != 0 && i.Flags&net.FlagRunning != 0
			devices = append(devices, info)
		}
	}
	return devices, nil
}

// firstAddr is the first address of an interface that is not of its link alone.
func firstAddr(i net.Interface) netip.Addr {
	addrs, _ := i.Addrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			return p.Addr().Unmap()
		}
	}
	return netip.Addr{}
}

// info describes the port that a connection uses.
func (r *route) info(mtu int) verbs.DeviceInfo {
	return verbs.DeviceInfo{
		Name: "soft_" + r.device, Port: 1, NetDev: r.device, Addr: r.local, LinkLayer: "Ethernet", Active: true, PathMTU: mtu,
	}
}

// acquire gives the endpoint of a local address to one more user.
func (p *Provider) acquire(r route) (*endpoint, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.endpoints[r.local]; e != nil {
		e.users.Add(1)
		return e, nil
	}
	e, err := openEndpoint(p, r)
	if err != nil {
		return nil, err
	}
	e.users.Add(1)
	p.endpoints[r.local] = e
	if p.links == nil {
		p.links, _ = watchLinks(p.linkChanged) // without it nobody is told of a link, which retries find out as well
	}
	return e, nil
}

// release takes a user away.
func (p *Provider) release(e *endpoint) {
	e.users.Add(-1)
	p.settled(e)
}

// settled closes an endpoint that nobody uses, once its last connections are taken down.
func (p *Provider) settled(e *endpoint) {
	p.mu.Lock()
	if e.users.Load() > 0 || p.endpoints[e.local] != e || !e.idle() {
		p.mu.Unlock()
		return
	}
	delete(p.endpoints, e.local)
	e.close()
	links := p.links
	if len(p.endpoints) > 0 {
		links = nil
	} else {
		p.links = nil
	}
	p.mu.Unlock()
	if links != nil {
		go links.close() // this may be its own goroutine
	}
}

func (e *endpoint) idle() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.manager.Len() == 0
}

// linkChanged tells the connections over a network device what has become of it.
func (p *Provider) linkChanged(index int, s linkState) {
	kind := map[linkState]verbs.EventKind{
		linkDown: verbs.EventPortDown, linkUp: verbs.EventPortUp, linkGone: verbs.EventDeviceGone,
	}[s]
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.endpoints {
		if e.route.index == index {
			e.linkChanged(kind)
		}
	}
}

// linkChanged passes on what has changed: the kernel repeats itself.
func (e *endpoint) linkChanged(kind verbs.EventKind) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.link == kind || e.link == 0 && kind == verbs.EventPortUp {
		return
	}
	e.link = kind
	for _, c := range e.byQPN {
		c.events.post(kind, nil)
	}
}
