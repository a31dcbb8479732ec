#!/bin/bash
# An initiator without any RDMA device, by RoCEv2 in pure Go, against LIO on kernel Soft-RoCE: I/O with checksums, also
# over a network that loses, doubles and overtakes packets, over IPv4 and IPv6, with CHAP, through a block device and
# an exported socket; and rping from rdma-core against either end of ours.
# kernels: trixie-backports bookworm-backports
# timeout: 240
source "$(dirname "$0")/lib.sh"

PING=${ISERBLK_SOFTRPING:-bin/softrping}
readonly FAR=10.0.0.2 PORTAL6=fd00::1 FAR6=fd00::2
IN=(ip netns exec far)

# Two hosts: the targets here, with RDMA; far has a network interface and nothing else.
mkdir -p /etc/iscsi
echo "InitiatorName=$NAME" >/etc/iscsi/initiatorname.iscsi
modprobe -a ublk_drv sch_netem
ip netns add far
ip -n far link set lo up
ip link add h0 mtu 4200 type veth peer name h1 mtu 4200 netns far
ip address add "$PORTAL/24" dev h0
ip address add "$PORTAL6/64" dev h0 nodad
ip -n far address add "$FAR/24" dev h1
ip -n far address add "$FAR6/64" dev h1 nodad
ip link set h0 up
ip -n far link set h1 up
lab_rxe rxe_h0 h0
lab_until 5 "${IN[@]}" busybox ping -c1 -W1 "$PORTAL"
! "${IN[@]}" rdma link show | grep -q 'netdev h1' || fail "far has an RDMA device"

# worse has both directions lose, double, delay and overtake; better ends that.
worse() {
	tc qdisc replace dev h0 root netem delay 200us reorder 2% loss 1% duplicate 1%
	"${IN[@]}" tc qdisc replace dev h1 root netem delay 200us reorder 2% loss 1% duplicate 1%
}
better() {
	tc qdisc del dev h0 root
	"${IN[@]}" tc qdisc del dev h1 root
}

# Soft-RoCE gives a connection up, and warns of itself, when packets of its own READ are overtaken by what follows; the
# initiator connects again.
dmesg() { command dmesg | grep -vE 'WARNING: .*rxe_completer\+'; }

# ---- rping, both ways ------------------------------------------------------------

rpings() {
	local at=$1 from=$2
	rping -s -a "$at" -p 7174 -S 60000 >/run/lab/rping 2>&1 &
	local server=$!
	"${IN[@]}" "$PING" -c "$3" -C 20 -S 60000 || fail "rping -s $at: $(</run/lab/rping)"
	kill "$server" 2>/dev/null || true
	wait "$server" 2>/dev/null || true
	"${IN[@]}" "$PING" -s "$4" >/run/lab/softrping 2>&1 &
	server=$!
	lab_until 5 grep -q ready /run/lab/softrping
	timeout 30 rping -c -a "$from" -p 7175 -C 20 -S 60000 -v -V >/run/lab/rping 2>&1 || fail "rping -c $from: $(</run/lab/rping) $(</run/lab/softrping)"
	wait "$server" || fail "softrping -s: $(</run/lab/softrping)"
}
rpings "$PORTAL" "$FAR" "$PORTAL:7174" "$FAR:7175"
rpings "$PORTAL6" "$FAR6" "[$PORTAL6]:7174" "[$FAR6]:7175"
ok "rping against both ends of ours, IPv4 and IPv6"

# ---- LIO -------------------------------------------------------------------------

lab_lio_ram ram0 64
lab_lio_target "portal=$PORTAL" "portal=[$PORTAL6]" lun=ram0
url=iser://$PORTAL/$LAB_IQN

"${IN[@]}" "$ISERBLK" discover "$PORTAL" | grep -qF "$LAB_IQN" || fail "discover"
device=$("${IN[@]}" "$ISERBLK" attach "$url/0")
"$ISERBLK" status "$device" >/run/lab/status
grep -Eq 'provider.*softroce.*no RDMA device on h1' /run/lab/status || fail "status: $(</run/lab/status)"
"${IN[@]}" "$ISERBLK" doctor "$PORTAL" >/run/lab/doctor || true
grep -q 'RDMA provider: softroce' /run/lab/doctor || fail "doctor: $(</run/lab/doctor)"
verify "$device" 1 --size=2M
verify "$device" 32 --size=24M
ok "$device over softroce: depth 1 and 32, no error"

worse
verify "$device" 16 --size=6M
better
verify "$device" 16 --size=4M
ok "loss, duplicates and overtaking: no error"
bin/hammer -time 4s -bs 4096 -depth 8 -offset 16777216 "$device" >/run/lab/hammer 2>&1 &
writer=$!
sleep 1
"${IN[@]}" ip link set h1 down
sleep 1
"${IN[@]}" ip link set h1 up
wait $writer || fail "hammer while the link was down: $(</run/lab/hammer)"
"${IN[@]}" ip -6 address replace "$FAR6/64" dev h1 nodad # went with the link
grep -q 'path is back' "$RUN"/*.log || fail "the link's fall was not noticed"
ok "the link down for a second under a writer: nothing lost"
lab_pattern "$device" 8 softroce
detach "$device"
lab_until 5 no_process

socket=$("${IN[@]}" "$ISERBLK" attach "iser://[$PORTAL6]/$LAB_IQN/0" --frontend export)
worse
# head ends nbdcopy when it has seen enough.
{ nbdcopy "nbd+unix:///?socket=${socket#*socket=}" - 2>/dev/null || true; } | head -c 8M >/run/lab/copy
cmp /run/lab/copy <(lab_stream 8 softroce) || fail "the export reads other bytes"
verify "nbd+unix:///?socket=${socket#*socket=}" 32 --offset=16M --size=8M
better
"$ISERBLK" detach "$socket"
ok "an exported socket, over IPv6: $socket"

chap=iqn.2026-01.lab.iserblk:chap
lab_lio_target "$chap" "portal=$PORTAL" lun=ram0 chap=joe:suite-secret-of-ours mutual=lio:suite-secret-of-theirs
device=$("${IN[@]}" env ISERBLK_CHAP_SECRET=suite-secret-of-ours ISERBLK_CHAP_TARGET_SECRET=suite-secret-of-theirs \
	"$ISERBLK" attach "iser://joe@$PORTAL/$chap/0" --chap-target-user lio --provider softroce)
lab_pattern_check "$device" 8 softroce
detach "$device"
ok "mutual CHAP"

nothing_left
target_empty "$LAB_IQN"
lab_dmesg_check
