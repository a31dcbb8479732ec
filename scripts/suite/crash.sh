#!/bin/bash
# A worker that dies together with its network leaves sessions at the target. The
# next one ends each of them, also those that it has no use for itself.
# kernels: trixie-backports
# timeout: 150
source "$(dirname "$0")/lib.sh"

sessions() { lab_lio_sessions | wc -l; }
none_kept() { (($(kept) == 0)); }
kept() { find /var/lib/iserblk -name "$LAB_IQN.sessions" | wc -l; }

two_hosts
lab_lio_ram ram0 16
lab_lio_target portal=$PORTAL lun=ram0
device=$(attach "$LAB_IQN/0" --queues 2)
lab_pattern "$device" 4 crash
expect "sessions of two queues" "$(sessions)" 2
unplug
sleep 1
pkill -KILL -x iserblk
lab_until 10 no_process
# Else the kernel goes on telling the target that the connections are gone.
ip netns exec far rdma link delete rxe_h1
plug
ip netns exec far rdma link add rxe_h1 type rxe netdev h1
lab_until 10 neighbours
expect "sessions of the dead worker" "$(sessions)" 2
bin/iserblk detach --force "$LAB_IQN"
expect "notes of its sessions" "$(kept)" 1

device=$(attach "$LAB_IQN/0" --queues 1)
expect "sessions of one queue" "$(sessions)" 1
lab_pattern_check "$device" 4 crash
grep 'may have left' "$RUN/$LAB_IQN.log" || fail "it found nothing to end"
detach "$device"
target_empty "$LAB_IQN"
lab_until 10 none_kept # the worker has its end still to come when detach returns

device=$(attach "$LAB_IQN/0")
! grep 'may have left' "$RUN/$LAB_IQN.log" || fail "a clean end is taken for a crash"
detach "$device"
nothing_left
ok "every session of a dead worker is ended, whatever the next one needs"
lab_dmesg_check
