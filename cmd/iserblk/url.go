package main

import (
	"context"
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"iserblk/cmd/iserblk/state"
)

// defaultPort is iSCSI's, for iSER too.
const defaultPort = 3260

// maxLUN is the largest LUN of the flat addressing method (SAM-5, 4.7.7.3), which is as far as targets go.
const maxLUN = 1<<14 - 1

// portal is where a target listens, as the user wrote it.
type portal struct {
	host string // name or address, without brackets
	port uint16
}

// String is the portal as it is written: "[fe80::1]:3260".
func (p portal) String() string {
	host := p.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(p.port))
}

// targetURL is a parsed iser://[USER@]PORTAL[,PORTAL...]/NAME[/LUN].
type targetURL struct {
	user    string
	portals []portal
	target  string
	lun     uint64
	hasLUN  bool
}

func parseURL(s string) (targetURL, error) {
	var u targetURL
	rest, ok := strings.CutPrefix(s, "iser://")
	if !ok {
		return u, badInput("%q is no target: write iser://PORTAL[,PORTAL...]/NAME[/LUN]", mask(s))
	}
	authority, path, _ := strings.Cut(rest, "/")
	if user, hosts, ok := cutLast(authority, "@"); ok {
		var err error
		if u.user, err = parseUser(user); err != nil {
			return u, err
		}
		authority = hosts
	}
	var err error
	if u.portals, err = parsePortals(authority); err != nil {
		return u, err
	}
	return u, u.parsePath(path)
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

// mask keeps what may be a password out of an error.
func mask(s string) string {
	if _, after, ok := cutLast(s, "@"); ok {
		return "...@" + after
	}
	return s
}

// parseUser refuses passwords: everyone on the machine can read a command line.
func parseUser(s string) (string, error) {
	if strings.ContainsAny(s, ":%") && strings.Contains(unescape(s), ":") {
		return "", badInput("a password in a URL can be read by every user of this machine; " +
			"give it with --chap-secret-file or ISERBLK_CHAP_SECRET")
	}
	user, err := url.PathUnescape(s)
	if err != nil || user == "" {
		return "", badInput("the user name before @ is empty or badly escaped")
	}
	return user, nil
}

func unescape(s string) string {
	if plain, err := url.PathUnescape(s); err == nil {
		return plain
	}
	return s
}

func (u *targetURL) parsePath(path string) error {
	name, lun, hasLUN := strings.Cut(path, "/")
	if name == "" {
		return badInput("no target name: write iser://PORTAL/NAME[/LUN]; iserblk discover PORTAL lists the names")
	}
	u.target = unescape(name)
	if err := state.CheckName(u.target); err != nil {
		return badInput("target name: %w", err)
	}
	if !hasLUN || lun == "" {
		return nil
	}
	n, err := strconv.ParseUint(lun, 10, 64)
	if err != nil || n > maxLUN {
		return badInput("LUN %q: want a decimal number up to %d", lun, maxLUN)
	}
	u.lun, u.hasLUN = n, true
	return nil
}

func parsePortals(list string) ([]portal, error) {
	var all []portal
	for s := range strings.SplitSeq(list, ",") {
		p, err := parsePortal(s)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// parsePortal takes HOST[:PORT], with an IPv6 address in brackets.
func parsePortal(s string) (portal, error) {
	host, port, hasPort := strings.Cut(s, ":")
	if strings.HasPrefix(s, "[") {
		var err error
		if host, port, hasPort, err = splitBrackets(s); err != nil {
			return portal{}, err
		}
	}
	p := portal{host, defaultPort}
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return p, badInput("portal %q: want a port from 1 to 65535; put an IPv6 address in brackets", s)
		}
		p.port = uint16(n)
	}
	return p, checkHost(s, p.host)
}

// splitBrackets takes "[ADDRESS]" or "[ADDRESS]:PORT" apart.
func splitBrackets(s string) (host, port string, hasPort bool, err error) {
	host, rest, closed := strings.Cut(s[1:], "]")
	if !closed {
		return "", "", false, badInput("portal %q: ] is missing", s)
	}
	if addr, err := netip.ParseAddr(host); err != nil || !addr.Is6() {
		return "", "", false, badInput("portal %q: what is in brackets is no IPv6 address", s)
	}
	if port, hasPort = strings.CutPrefix(rest, ":"); !hasPort && rest != "" {
		return "", "", false, badInput("portal %q: want a port after ]", s)
	}
	return host, port, hasPort, nil
}

func checkHost(portal, host string) error {
	switch {
	case host == "":
		return badInput("portal %q: no host", portal)
	case strings.ContainsFunc(host, notInHost):
		return badInput("portal %q: not a host name or address", portal)
	}
	return nil
}

func notInHost(r rune) bool {
	return r <= ' ' || r > '~' || strings.ContainsRune(`/@[]\"'?#<>{}|^`+"`", r)
}

// resolve turns portals into addresses. A name stands for all its addresses of one family, IPv4 if it has any. One
// name that is unknown does no harm while another portal is known.
func (p *program) resolve(ctx context.Context, portals []portal) ([]netip.AddrPort, error) {
	var all []netip.AddrPort
	var failed []error
	for _, portal := range portals {
		addrs, err := p.addresses(ctx, portal)
		if err != nil {
			failed = append(failed, err)
		}
		for _, a := range addrs {
			all = append(all, netip.AddrPortFrom(a, portal.port))
		}
	}
	if len(all) == 0 {
		return nil, errors.Join(failed...)
	}
	for _, err := range failed {
		p.note(oneLine(err))
	}
	return all, nil
}

func (p *program) addresses(ctx context.Context, portal portal) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(portal.host); err == nil {
		return []netip.Addr{addr.Unmap()}, nil
	}
	for _, network := range []string{"ip4", "ip6"} {
		addrs, err := p.lookup(ctx, network, portal.host)
		if len(addrs) > 0 {
			return addrs, nil
		}
		if err != nil && network == "ip6" {
			return nil, &resolveError{portal, err}
		}
	}
	return nil, &resolveError{portal, errors.New("the name has no address")}
}

// resolveError says which portal has no address.
type resolveError struct {
	portal portal
	err    error
}

// Error names the portal, the cause and the way out.
func (e *resolveError) Error() string {
	return "portal " + e.portal.String() + ": " + e.err.Error() + "; check the name or give an address"
}

// Unwrap is for errors.As.
func (e *resolveError) Unwrap() error { return e.err }
