#!/bin/bash
# Bad use: one line that says what to do, the right exit status, nothing left.
# kernels: trixie-backports
# timeout: 240
source "$(dirname "$0")/lib.sh"

host
lab_lio_ram ram0 16
lab_lio_target portal=$PORTAL lun=ram0
url=iser://$PORTAL/$LAB_IQN

# An address that nobody has: packets go nowhere.
ip route add 10.9.9.0/24 dev d0
ip neighbour add 10.9.9.9 lladdr 02:00:00:00:00:99 dev d0
start=$SECONDS
refuse 8 '10\.9\.9\.9' bin/iserblk attach "iser://10.9.9.9/$LAB_IQN/0"
((SECONDS - start < 30)) || fail "an unreachable portal took $((SECONDS - start)) s"
refuse 8 '10\.9\.9\.9' bin/iserblk discover 10.9.9.9
ok "a portal that does not answer"

refuse 4 '3261' bin/iserblk attach "iser://$PORTAL:3261/$LAB_IQN/0"
ok "a port where nobody listens"

refuse 21 'nosuch' bin/iserblk attach "iser://$PORTAL/iqn.2026-01.lab.iserblk:nosuch/0"
refuse 21 'LUN 7' bin/iserblk attach "$url/7"
refuse 21 . bin/iserblk detach /dev/ublkb7
refuse 21 . bin/iserblk status /dev/ublkb7
ok "no such target, LUN, device"

refuse 7 . bin/iserblk attach "$LAB_IQN"
refuse 7 . bin/iserblk attach "iser://$PORTAL/not-a-name/0"
refuse 7 . bin/iserblk attach "$url/x"
refuse 7 . bin/iserblk attach
refuse 7 . bin/iserblk attach "$url/0" --no-such-option
refuse 7 . bin/iserblk attach "$url/0" --queues many
refuse 7 . bin/iserblk frobnicate
refuse 7 . bin/iserblk detach
ok "input that makes no sense"

# The binary is where another user can reach it, with directories that are theirs.
install -m 755 bin/iserblk /run/lab/iserblk
install -d -o nobody -m 700 /run/lab/nobody
nobody=(setpriv --reuid nobody --regid nogroup --clear-groups /run/lab/iserblk)
refuse 13 . "${nobody[@]}" attach "$url/0"
refuse 13 . "${nobody[@]}" --run-dir /run/lab/nobody/run --state-dir /run/lab/nobody/state attach "$url/0"
ok "no permission"

refuse 12 'memlock|ulimit|LimitMEMLOCK' setpriv --bounding-set -ipc_lock,-sys_resource --inh-caps -ipc_lock,-sys_resource \
	bash -c "ulimit -l 64 && exec $PWD/bin/iserblk attach $url/0"
ok "too little memory may be locked"

device=$(attach "$LAB_IQN/0")
refuse 15 "$device|LUN 0" bin/iserblk attach "$url/0"
refuse 15 . bin/iserblk attach "$url/0" --depth 8
lab_pattern "$device" 2 still
lab_pattern_check "$device" 2 still
ok "attached already, and none the worse for it"
detach "$device"

rdma link delete rxe_d0
refuse 12 'rdma link add|modprobe' bin/iserblk attach "$url/0" --provider rdmacore
refuse 4 'softroce was used: no RDMA device' bin/iserblk attach "$url/0" # nothing takes RoCE packets here now
ok "no RDMA device for the route"

nothing_left
lab_dmesg_check
