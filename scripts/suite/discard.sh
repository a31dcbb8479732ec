#!/bin/bash
# Discard and write-zeroes: what they name reads as zeroes, and nothing else does.
# kernels: trixie-backports bookworm-backports
# timeout: 240
source "$(dirname "$0")/lib.sh"

readonly MIB=8
image=/run/lab/image # what the device has to hold

# reset fills device and image with the same pattern.
reset() {
	lab_stream $MIB "$RANDOM" >"$image"
	dd if="$image" of="$device" bs=1M oflag=direct status=none
}

# zeroed OFFSET LENGTH says that exactly this has become zeroes since the last look.
zeroed() {
	dd if=/dev/zero of="$image" bs=512 seek=$(($1 / 512)) count=$(($2 / 512)) conv=notrunc status=none
	cmp "$image" <(dd if="$device" bs=1M count=$MIB iflag=direct status=none) ||
		fail "$device, $3 of $2 bytes at $1: not these and only these are zero"
}

# wipe OFFSET LENGTH by every way there is.
wipe() {
	blkdiscard -z -o "$1" -l "$2" "$device" || fail "blkdiscard -z"
	zeroed "$1" "$2" "write-zeroes"
}
trim() {
	blkdiscard -o "$1" -l "$2" "$device" || fail "blkdiscard"
	zeroed "$1" "$2" "discard"
}

host
lab_lio_file thin 64 emulate_tpu=1 emulate_write_cache=1 unmap_zeroes_data=1
lab_lio_file thin4k 64 block_size=4096 emulate_tpu=1 unmap_zeroes_data=1
lab_lio_ram plain 64
lab_lio_target portal=$PORTAL lun=thin lun=thin4k lun=plain
mapfile -t devices < <(attach "$LAB_IQN")

for device in "${devices[@]:0:2}"; do
	block=$(blockdev --getss "$device")
	grain=$(<"/sys/block/${device#/dev/}/queue/discard_granularity")
	((grain > 0)) || fail "$device has no discard"
	reset
	wipe 0 "$block"
	wipe $((1 << 20)) $((1 << 20))
	wipe $(((2 << 20) + block)) $((5 * block))
	wipe $((MIB * (1 << 20) - block)) "$block"
	reset
	trim 0 $((grain > 4096 ? grain : 4096))
	trim $((1 << 20)) $((1 << 20))
	trim $(((3 << 20) + grain)) $((3 * grain))
	ok "$device: blocks of $block, grain $grain"
done

# All of a device at once, the pieces being for the driver to make.
device=${devices[0]}
reset
blkdiscard "$device"
cmp -n $((64 << 20)) "$device" /dev/zero || fail "the whole of $device discarded is not zero"
reset
blkdiscard -z "$device"
cmp -n $((64 << 20)) "$device" /dev/zero || fail "the whole of $device zeroed is not zero"
ok "$device: whole"

# A LUN without UNMAP has no discard, and zeroes arrive all the same.
device=${devices[2]}
expect "discard_max_bytes of $device" "$(<"/sys/block/${device#/dev/}/queue/discard_max_bytes")" 0
lab_not blkdiscard "$device" 2>/dev/null
reset
wipe $((1 << 20)) $((2 << 20))
ok "$device: no discard, zeroes by other means"

detach "${devices[@]}"
nothing_left
lab_dmesg_check
