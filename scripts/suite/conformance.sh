#!/bin/bash
# One table for every front end: what a LUN is and does is the same through /dev/ublkbN,
# /dev/nbdN and an exported socket. One client, qemu-io, which takes all of them.
# kernels: trixie-backports bookworm
# timeout: 240
# shellcheck disable=SC2119 # the helpers' defaults
source "$(dirname "$0")/lib.sh"

readonly MIB=$((1 << 20))
work=/run/lab/conformance # of one front end

# io [OPTION...] COMMAND... runs qemu-io's commands on $device; its errors are ours.
io() {
	local options=() commands=()
	while [[ $1 == -* ]]; do options+=("$1"); shift; done
	for command; do commands+=(-c "$command"); done
	timeout 60 qemu-io -f raw -n "${options[@]}" "${commands[@]}" "$device" >"$work" 2>&1 && ! grep -qiE 'failed|error' "$work"
}
must() { io "$@" || fail "$front: $*: $(<"$work")"; }
cannot() { ! io "$@" || fail "$front: $* is taken: $(<"$work")"; }

# asked PATTERN looks for a command that reached the target since commands_start.
asked() { commands | grep -qE -- "$1" || { commands >&2; fail "$front: no command like '$1'"; }; }

# grows SIZE is true once whoever opens the device sees so many bytes.
grows() { io length && [[ $(bytes) == "$1" ]]; }
bytes() { timeout 60 qemu-img info --output=json -f raw "$device" | jq '."virtual-size"'; }

# ---- the table -------------------------------------------------------------------

sizes() {
	expect "$front: size" "$(bytes)" $((32 * MIB))
	must 'write -P 0x11 33550336 4k' 'read -P 0x11 33550336 4k' # the last page
	cannot 'write -P 0x12 33554432 4k'                          # and what is behind it
	must 'write -P 0x13 0 512' 'read -P 0x13 0 512'
}
alignment() {
	must 'write -P 0x20 0 64k' 'write -P 0x21 512 1536' 'read -P 0x20 0 512' 'read -P 0x21 512 1536' 'read -P 0x20 2048 63488'
	must 'write -P 0x22 1048064 1049600' 'read -P 0x22 1048064 1049600' # more than one request, across pages
	must 'write -P 0x23 4M 8M' 'read -P 0x23 4M 8M'
}
flush_and_fua() {
	commands_start
	must 'write -P 0x30 0 4k' 'flush'
	asked '^0 [0-9]+ (35|91)'
	commands_start
	must 'write -f -P 0x31 8k 4k'
	# A client may flush instead, which is as good.
	asked '^0 (4096 (2a|8a) [0-9a-f][89a-f]|[0-9]+ (35|91))'
}
discard() {
	must 'write -P 0x40 8M 4M' 'discard 9M 1M' 'read -P 0x40 8M 1M' 'read -P 0 9M 1M' 'read -P 0x40 10M 2M'
}
zeroes() {
	must 'write -P 0x50 12M 4M' 'write -z 13M 1M' 'read -P 0x50 12M 1M' 'read -P 0 13M 1M' 'read -P 0x50 14M 2M'
	must 'write -z -u 14M 1M' 'read -P 0 13M 2M' 'write -z 12582912 512' 'read -P 0 12M 512' 'read -P 0x50 12583424 1023k'
}
errors() {
	device=$bad
	must 'read 0 1M' 'read 9M 1M'
	cannot 'read 8M 4k'
	cannot 'write -P 1 8M 4k'
	must 'read 8392704 4k' # right behind it
	device=$good
}
read_only() {
	device=$ro
	must -r 'read 0 4k'
	cannot 'write -P 1 0 4k'
	device=$good
}
resize() {
	device=$bad
	must 'read 16773120 4k'
	cannot 'read 20M 4k'
	table_bad 24
	dmsetup suspend --noudevsync bad
	dmsetup resume --noudevsync bad
	lab_lio_stop
	lab_lio_start # a login has every size looked at again
	lab_until 30 grows $((24 * MIB)) || fail "$front: has not grown: $(bytes)"
	must 'read 20M 4k'
	device=$good
}
detach_under_load() {
	timeout 60 qemu-img bench -f raw -n -t none -c 1000000 -d 8 -w -s 4k "$device" >"$work" 2>&1 & local load=$!
	sleep 2
	refuse 28 "${device##*=}" "$ISERBLK" detach "$device"
	timeout 20 "$ISERBLK" detach --force "$device" || fail "$front: detach --force"
	lab_not wait $load
}

# ---- the ground -------------------------------------------------------------------

# table_bad MEGABYTES gives the disk bad so much, of which a page at 8 MiB is unreadable.
table_bad() {
	local all=$(($1 * 2048)) verb=create
	! dmsetup info bad >/dev/null 2>&1 || verb=load
	dmsetup $verb --noudevsync bad <<-TABLE
		0 16384 linear /dev/ram0 0
		16384 8 error
		16392 $((all - 16392)) linear /dev/ram0 16392
	TABLE
}

any_host
lab_ramdisks 1 32
modprobe dm_mod
lab_lio_load
fronts=(nbd export)
! modprobe -q ublk_drv || fronts=(ublk "${fronts[@]}")

for front in "${fronts[@]}"; do
	# The export does without io_uring.
	[[ $front != export || ! -e /proc/sys/kernel/io_uring_disabled ]] || sysctl -q kernel.io_uring_disabled=2
	table_bad 16
	dmsetup mknodes bad
	lab_lio_file good 32 emulate_tpu=1 emulate_write_cache=1 emulate_fua_write=1 unmap_zeroes_data=1
	lab_lio_block bad /dev/mapper/bad
	lab_lio_ram ro 16
	lab_lio_target portal="$PORTAL" lun=good lun=bad lun=ro
	good=$(attach "$LAB_IQN/0" --frontend "$front")
	bad=$(attach "$LAB_IQN/1" --frontend "$front")
	ro=$(attach "$LAB_IQN/2" --frontend "$front" --read-only)
	device=$good
	for check in sizes alignment flush_and_fua discard zeroes errors read_only resize detach_under_load; do
		[[ $front-$check-$(uname -r) != ublk-resize-6.* ]] || continue # UPDATE_SIZE comes with 6.16
		"$check"
		ok "$front: ${check//_/ }"
	done
	detach "$bad" "$ro"
	nothing_left
	target_empty "$LAB_IQN"
	lab_lio_remove
	for store in good bad ro; do lab_lio_drop "$store"; done
	dmsetup remove --noudevsync bad
done
lab_dmesg_check
