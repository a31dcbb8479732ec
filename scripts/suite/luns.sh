#!/bin/bash
# Eight LUNs of one target: one attach, one worker, eight devices that are not mixed up.
# kernels: trixie-backports
# timeout: 240
source "$(dirname "$0")/lib.sh"

host
luns=()
for i in 0 1 2 3 4 5 6 7; do
	lab_lio_ram "ram$i" $((16 + i))
	luns+=("lun=ram$i")
done
lab_lio_target portal=$PORTAL "${luns[@]}"

mapfile -t devices < <(attach "$LAB_IQN")
expect "devices" "${#devices[@]}" 8
[[ $PEER != iserblk ]] || expect "workers" "$(worker_pids | wc -l)" 1
for i in "${!devices[@]}"; do
	expect "size of LUN $i" "$(blockdev --getsize64 "${devices[i]}")" $(((16 + i) << 20))
done
ok "one line a LUN, in the order of the LUNs"

for i in "${!devices[@]}"; do lab_pattern "${devices[i]}" 8 "lun$i" & pids[i]=$!; done
for pid in "${pids[@]}"; do wait "$pid" || fail "writing to all at once"; done
for i in "${!devices[@]}"; do lab_pattern_check "${devices[i]}" 8 "lun$i"; done
ok "eight patterns, written at once"

jobs=()
for device in "${devices[@]}"; do jobs+=(--name="${device##*/}" --filename="$device"); done
fio --direct=1 --ioengine=io_uring --iodepth=16 --rw=randrw --bsrange=512-128k --size=4M --serialize_overlap=1 \
	--verify=crc32c --verify_fatal=1 --do_verify=1 --output=/run/lab/fio "${jobs[@]}" ||
	{ cat /run/lab/fio >&2; fail "fio on eight devices"; }
ok "eight devices under load"

if [[ $PEER == iserblk ]]; then
	detach "${devices[3]}"
	expect "workers" "$(worker_pids | wc -l)" 1
	again=$(attach "$LAB_IQN/3")
	expect "size" "$(blockdev --getsize64 "$again")" $((19 << 20))
	devices[3]=$again
	ok "one goes and comes back while the others stay"
fi
detach "${devices[@]}"
nothing_left
target_empty "$LAB_IQN"
lab_dmesg_check
