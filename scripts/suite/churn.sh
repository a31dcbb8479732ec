#!/bin/bash
# A hundred times (or LAB_TIMES) attached and detached, nothing is left behind.
# kernels: trixie-backports
# timeout: 500
source "$(dirname "$0")/lib.sh"

readonly TIMES=${LAB_TIMES:-100}

host
lab_lio_ram ram0 16
lab_lio_ram ram1 16
lab_lio_target portal=$PORTAL lun=ram0 lun=ram1

started=$SECONDS
for ((i = 1; i <= TIMES; i++)); do
	device=$(attach "$LAB_IQN/0") || fail "attach $i"
	dd if="$device" of=/dev/null bs=64k count=4 iflag=direct status=none
	detach "$device" || fail "detach $i"
	((i % 20)) || { nothing_left; echo "# $i times, $((SECONDS - started)) s"; }
done
nothing_left
target_empty "$LAB_IQN"
ok "$TIMES times: no device, QP, process or file left"

# The same inside one worker, which LUN 0 keeps alive: it has to give back what it takes.
keep=$(attach "$LAB_IQN/0")
pid=$(worker_pids)
have() { echo "$(find "/proc/$pid/fd" -mindepth 1 | wc -l) files, $(rdma resource show qp | grep -c 'comm iserblk') QPs, $(find "/proc/$pid/task" -mindepth 1 -maxdepth 1 | wc -l) threads"; }
rss() { awk '/^RssAnon:/ { print $2 }' "/proc/$pid/status"; }
for ((i = 1; i <= 25; i++)); do
	device=$(attach "$LAB_IQN/1") || fail "attach $i beside another"
	detach "$device" || fail "detach $i beside another"
	((i != 5)) || { before=$(have) memory=$(rss); }
done
after=$(have)
expect "files and QPs of the worker after 25 attachments" "${after%, *}" "${before%, *}"
grown=$(($(rss) - memory))
((grown < 8192)) || fail "the worker grew by $grown KiB in 20 attachments"
detach "$keep"
nothing_left
target_empty "$LAB_IQN"
ok "25 times inside one worker: $after, $grown KiB more"
lab_dmesg_check
