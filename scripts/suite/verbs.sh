#!/bin/bash
# RDMA through rdma-core: connections, memory keys, events, limits, and every way of not connecting.
# kernels: trixie-backports bookworm-backports
# timeout: 240
# binaries: ./verbs/rdmacore
set -euo pipefail
# shellcheck source=../lab.d/guest.sh
source "$(dirname "$0")/../lab.d/guest.sh"

# A target on this host's one working port, reached over IPv4 and IPv6.
lab_link d0 10.0.0.1
sysctl -qw net.ipv6.conf.d0.keep_addr_on_down=1 # the tests shut it
ip -6 address add fd00::1/64 dev d0 nodad
lab_lio_ram ram0 8
lab_lio_target portal=10.0.0.1 lun=ram0

# A host that has the link and the address but no RDMA: it never answers.
ip netns add dark
ip link add x0 mtu 4200 type veth peer name x0p mtu 4200 netns dark
ip address add 10.9.0.1/24 dev x0
ip -n dark address add 10.9.0.2/24 dev x0p
ip -n dark link set x0p up
ip link set x0 up
lab_rxe rxe_x0 x0

# A link without an RDMA device, with a host at its other end, and one whose device comes and goes.
ip link add plain0 type veth peer name plain0p netns dark
ip address add 10.8.0.1/24 dev plain0
ip -n dark address add 10.8.0.2/24 dev plain0p
ip -n dark link set plain0p up
ip link set plain0 up
ip link add gone0 type veth peer name gone0p
ip address add 10.7.0.1/24 dev gone0
ip link set gone0p up
ip link set gone0 up

# A second host with RDMA, where the kernel can have one.
if lab_has_netns; then
	modprobe sch_netem
	lab_host_link h0 far 10.6.0.1 10.6.0.2
fi

lab_until 5 busybox ping -c1 -W1 10.8.0.2
lab_until 5 busybox ping -c1 -W1 10.9.0.2

ISERBLK_LAB=1 bin/rdmacore.test -test.v -test.timeout=200s -test.count=1
lab_dmesg_check
