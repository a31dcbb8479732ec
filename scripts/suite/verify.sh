#!/bin/bash
# Data comes back as it was written: LUNs in memory and in a file, every queue
# depth, I/Os from one block to 1 MiB.
# kernels: trixie-backports bookworm-backports
# timeout: 300
source "$(dirname "$0")/lib.sh"

host
lab_lio_ram ram0 64
lab_lio_file file0 64 emulate_tpu=1 emulate_write_cache=1
lab_lio_target portal=$PORTAL lun=ram0 lun=file0
mapfile -t devices < <(attach "$LAB_IQN")
expect "devices" "${#devices[@]}" 2

for device in "${devices[@]}"; do
	verify "$device" 1 --size=4M
	verify "$device" 32 --size=32M
	verify "$device" 128 --size=24M
	# The same few blocks again and again, of a size that fits no page.
	bin/hammer -time 3s -bs 4608 -depth 16 -offset 512 "$device" || fail "hammer on $device"
	ok "$device: depth 1, 32 and 128, no error"
done

# Every block of a request has to come from its own place: two devices, two patterns.
lab_pattern "${devices[0]}" 16 one &
lab_pattern "${devices[1]}" 16 two
wait $!
lab_pattern_check "${devices[0]}" 16 one
lab_pattern_check "${devices[1]}" 16 two
ok "two devices at once"

# The target holds what we think it holds.
cmp -n $((16 << 20)) /run/lab/file0.img <(lab_stream 16 two) || fail "the file behind the target differs"
ok "the file behind the target is the same"

detach "${devices[@]}"
nothing_left
target_empty "$LAB_IQN"
lab_dmesg_check
