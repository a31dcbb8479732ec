package session

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"iserblk/session/pdu"
)

// Portal is one way to a target, as SendTargets reports it (RFC 7143 4.3, appendix C).
type Portal struct {
	TargetName string
	// Address is "host:port", IPv6 in brackets; "" means the portal that was asked.
	Address string
	// Group is the target portal group tag: sessions can be reinstated through any portal of one group. -1: not said.
	Group int
}

// Discover asks the portal behind dm for all its targets, one Portal for each way to each, and logs out. dm stays the
// caller's to close. p.Discovery is set for it. Its errors are those of Login.
func Discover(ctx context.Context, dm Datamover, p Params) ([]Portal, error) {
	p.Discovery, p.TargetName = true, ""
	n, err := Login(ctx, dm, p)
	if err != nil {
		return nil, err
	}
	portals, err := n.sendTargets(ctx)
	if err != nil {
		n.ConnectionLost(err)
		return nil, err
	}
	// What was asked for is there. A target that will not say goodbye loses the connection all the same.
	_ = Logout(ctx, n)
	return portals, nil
}

func (n *Nexus) sendTargets(ctx context.Context) ([]Portal, error) {
	var answer []byte
	err := n.await(ctx, "discover targets", func(done func(error)) {
		n.text(pdu.AppendKey(nil, "SendTargets", "All"), func(data []byte, err error) {
			answer = data
			done(err)
		})
	})
	if err != nil {
		return nil, err
	}
	portals, err := parseTargets(answer)
	if err != nil {
		return nil, &Error{Op: "discover targets", Err: err}
	}
	return portals, nil
}

// parseTargets reads the answer to SendTargets: each TargetName is followed by its addresses, or by none when the
// portal that was asked is its only one.
func parseTargets(data []byte) ([]Portal, error) {
	text, err := pdu.ParseText(data)
	if err != nil {
		return nil, protocolError(err)
	}
	var list []Portal
	name, addressed := "", true
	for key, value := range text.All() {
		switch key {
		case keyTargetName:
			if !addressed {
				list = append(list, Portal{TargetName: name, Group: -1})
			}
			if err := checkName("target name", value); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
			}
			name, addressed = value, false
		case keyTargetAddress:
			p, err := parseAddress(value)
			if err != nil || name == "" {
				return nil, fmt.Errorf("%w: stray or malformed %s=%s", ErrProtocol, key, printable(value))
			}
			p.TargetName, addressed = name, true
			list = append(list, p)
		}
	}
	if !addressed {
		list = append(list, Portal{TargetName: name, Group: -1})
	}
	return list, nil
}

// defaultPort is iSCSI's (RFC 7143 13.8).
const defaultPort = ":3260"

// parseAddress reads "host[:port][,group]" (RFC 7143 13.8).
func parseAddress(v string) (Portal, error) {
	address, tag, tagged := strings.Cut(v, ",")
	p := Portal{Address: address, Group: -1}
	if tagged {
		group, err := strconv.ParseUint(tag, 10, 16)
		if err != nil {
			return p, fmt.Errorf("portal group tag %q: %w", printable(tag), err)
		}
		p.Group = int(group)
	}
	host := strings.TrimSuffix(address, "]")
	if address == "" || strings.ContainsAny(address, " \t\r\n/") {
		return p, fmt.Errorf("address %q", printable(address))
	}
	if host != address || !strings.Contains(address, ":") {
		p.Address += defaultPort
	}
	return p, nil
}
