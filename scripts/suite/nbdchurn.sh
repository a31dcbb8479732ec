#!/bin/bash
# A hundred /dev/nbdN attached and detached, nothing is left behind.
# kernels: bookworm trixie-backports bookworm-backports
# timeout: 240
source "$(dirname "$0")/lib.sh"

readonly TIMES=${LAB_TIMES:-100}

any_host
lab_lio_ram ram0 16
lab_lio_target portal=$PORTAL lun=ram0

started=$SECONDS
for ((i = 1; i <= TIMES; i++)); do
	device=$(attach "$LAB_IQN/0" --frontend nbd) || fail "attach $i"
	dd if="$device" of=/dev/null bs=64k count=4 iflag=direct status=none
	detach "$device" || fail "detach $i"
	((i % 20)) || { nothing_left; echo "# $i times, $((SECONDS - started)) s"; }
done
nothing_left
target_empty "$LAB_IQN"
expect "NBD devices, which the module makes 16 of" "$(find /sys/block -maxdepth 1 -name 'nbd*' | wc -l)" 16
ok "$TIMES times in $((SECONDS - started)) s: no device, QP, process or file left"
lab_dmesg_check
