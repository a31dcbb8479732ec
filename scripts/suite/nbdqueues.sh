#!/bin/bash
# /dev/nbdN with two queues, and so two sockets, attached from a network namespace where
# RDMA devices can live in one: data, and a worker that is killed. The kernel sends again what was in flight when its own timeout is over, which is longer than
# any request can take here.
# kernels: trixie-backports bookworm
# timeout: 180
source "$(dirname "$0")/lib.sh"

if lab_has_netns; then two_hosts; else any_host; fi
lab_lio_file file0 64 emulate_tpu=1 emulate_write_cache=1
lab_lio_target portal="$PORTAL" lun=file0
options=(--frontend nbd --queues 2 --no-path-timeout 1s --command-timeout 2s)
device=$(attach "$LAB_IQN/0" "${options[@]}")
expect "queues" "$(find "/sys/block/${device#/dev/}/mq" -mindepth 1 -maxdepth 1 | wc -l)" 2
verify "$device" 32 --size=8M --numjobs=2 --offset_increment=16M --ioengine=libaio
ok "two queues, no error"

bin/hammer -time 120s -offset $((32 << 20)) -settle 3s "$device" >/run/lab/hammer & load=$!
sleep 2
kill -9 "$(worker_pids)"
sleep 1
expect "the device" "$(attach "$LAB_IQN/0" "${options[@]}")" "$device"
# Requests that were not with the dead worker go on at once.
dd if="$device" of=/dev/null bs=4k count=16 iflag=direct status=none
sleep 40
kill -TERM $load
wait $load || fail "hammer: $(</run/lab/hammer)"
ok "worker killed and replaced: nothing lost; $(</run/lab/hammer)"

detach "$device"
nothing_left
target_empty "$LAB_IQN"
lab_dmesg_check
