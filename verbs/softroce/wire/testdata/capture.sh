#!/bin/bash
# Captures what two kernel soft RoCE devices say to each other: connection management, SEND, RDMA READ and WRITE of one
# and of many packets, acknowledgements, and NAKs when packets are lost; over IPv4 with a path MTU of 256 and over IPv6.
# It runs in a lab guest and leaves rxe-v4.pcap and rxe-v6.pcap in $LAB_OUT:
#
#   LAB_OUT=/tmp/out scripts/lab run -- verbs/softroce/wire/testdata/capture.sh
#
# rxe.hex has one packet a line: pcap2hex rxe-v4.pcap rxe-v6.pcap
set -euo pipefail
cd "$(dirname "$0")/../../../.."
# shellcheck source=../../../../scripts/lab.d/guest.sh
source scripts/lab.d/guest.sh

mkdir -p /run/lab
lab_host_link h0 far 10.6.0.1 10.6.0.2
far=(ip netns exec far)

capture() { # FILE: begins, and waits until it has begun
	dumpcap -q -P -i h0 -f 'udp port 4791' -w "/run/$1.pcap" 2>"/run/$1.log" &
	DUMPCAP=$!
	lab_until 10 grep -q '^File:' "/run/$1.log"
}
captured() { # FILE
	sleep 1
	kill -INT "$DUMPCAP"
	wait "$DUMPCAP" || true
	cp "/run/$1.pcap" "$LAB_OUT/"
}
serve() { "$@" >/dev/null 2>&1 & SERVER=$!; sleep 1; }
served() { wait "$SERVER" || true; }

ip link set h0 mtu 500
ip -n far link set h0p mtu 500
sleep 1
capture rxe-v4
serve timeout 20 rping -s -a 10.6.0.1 -S 700 -C 2
"${far[@]}" timeout 20 rping -c -a 10.6.0.1 -S 700 -C 2
served
serve timeout 20 ucmatose -S 600 -C 3
"${far[@]}" timeout 20 ucmatose -s 10.6.0.1 -S 600 -C 3 >/dev/null
served
lab_netem -n far h0p loss 25%
serve timeout 20 ucmatose -S 250 -C 24
"${far[@]}" timeout 20 ucmatose -s 10.6.0.1 -S 250 -C 24 >/dev/null || true
kill "$SERVER" 2>/dev/null || true
served
lab_netem -n far h0p off
captured rxe-v4

ip link set h0 mtu 1500
ip -n far link set h0p mtu 1500
ip -6 address add fd06::1/64 dev h0 nodad
ip -6 -n far address add fd06::2/64 dev h0p nodad
sleep 1
capture rxe-v6
serve timeout 20 rping -s -a fd06::1 -S 1100 -C 1
"${far[@]}" timeout 20 rping -c -a fd06::1 -S 1100 -C 1
served
captured rxe-v6
