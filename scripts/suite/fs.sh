#!/bin/bash
# Filesystems: made, used hard, unmounted and found clean, with data that is right.
# kernels: trixie-backports
# timeout: 400
source "$(dirname "$0")/lib.sh"

readonly MNT=/run/lab/mnt

# tree writes many small files, renames and deletes some, and notes their sums.
tree() {
	local i
	mkdir -p "$MNT/tree"
	for ((i = 0; i < 60; i++)); do
		head -c $((1 + RANDOM * 3)) /dev/urandom >"$MNT/tree/$i"
	done
	for ((i = 0; i < 60; i += 3)); do mv "$MNT/tree/$i" "$MNT/tree/moved-$i"; done
	for ((i = 1; i < 60; i += 6)); do rm "$MNT/tree/$i"; done
	(cd "$MNT/tree" && sha256sum ./*) >/run/lab/sums
}

# work DEVICE loads the mounted filesystem from several sides at once.
work() {
	local pids=() pid
	bin/fsx -size $((1 << 20)) -ops 1500 "$MNT/fsx" & pids+=($!)
	bin/fsx -size $((1 << 20)) -ops 400 -direct "$MNT/fsx-direct" & pids+=($!)
	fio --name=files --directory="$MNT" --size=8M --nrfiles=4 --rw=randrw --bsrange=1k-64k --ioengine=io_uring \
		--iodepth=8 --verify=crc32c --verify_fatal=1 --do_verify=1 --fsync=32 --randrepeat=0 --output=/run/lab/fio & pids+=($!)
	tree
	for pid in "${pids[@]}"; do wait "$pid" || fail "the load on $1"; done
}

# judge DEVICE MOUNT_OPTIONS MKFS...: the filesystem's own checker has the last word.
judge() {
	local device=$1 options=$2 kind=${3#mkfs.}
	shift 2
	"$@" "$device" >/dev/null
	mkdir -p "$MNT"
	mount -o "$options" "$device" "$MNT"
	work "$device"
	sync
	echo 3 >/proc/sys/vm/drop_caches
	(cd "$MNT/tree" && sha256sum --quiet -c /run/lab/sums) || fail "files on $kind"
	umount "$MNT"
	echo 3 >/proc/sys/vm/drop_caches
	case $kind in
	ext4) e2fsck -fn "$device" >/run/lab/fsck 2>&1 ;;
	xfs) xfs_repair -n "$device" >/run/lab/fsck 2>&1 ;;
	esac || { cat /run/lab/fsck >&2; fail "$kind on $device is not clean"; }
	mount "$device" "$MNT"
	(cd "$MNT/tree" && sha256sum --quiet -c /run/lab/sums) || fail "files on $kind, mounted again"
	fstrim "$MNT" 2>/dev/null || [[ $options != *discard* ]] || fail "fstrim on $kind"
	(cd "$MNT/tree" && sha256sum --quiet -c /run/lab/sums) || fail "files on $kind after fstrim"
	umount "$MNT"
	ok "$kind on $device ($options)"
}

host
modprobe -a ext4 xfs
lab_lio_ram ram0 64
lab_lio_file file0 320 emulate_tpu=1 emulate_write_cache=1
lab_lio_target portal=$PORTAL lun=ram0 lun=file0
mapfile -t devices < <(attach "$LAB_IQN")

judge "${devices[0]}" rw mkfs.ext4 -q
judge "${devices[1]}" discard mkfs.ext4 -q
judge "${devices[1]}" discard mkfs.xfs -q -f

detach "${devices[@]}"
nothing_left
lab_dmesg_check
