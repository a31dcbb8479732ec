#!/bin/bash
# /dev/nbdN: what it is made of, data, filesystems, and a worker that is killed: the next
# one takes the device over, and nothing is lost.
# kernels: bookworm trixie-backports bookworm-backports
# timeout: 240
shopt -s extglob
source "$(dirname "$0")/lib.sh"

readonly MNT=/run/lab/mnt
readonly RESENT=7 # seconds, see killed
readonly NBD=(--frontend nbd --no-path-timeout 20s)

queue() { cat "/sys/block/${1#/dev/}/queue/$2"; }

# judge DEVICE MKFS...: made, used, unmounted, and clean for its own checker.
judge() {
	local device=$1 kind=${2#mkfs.}
	shift
	"$@" "$device" >/dev/null
	mkdir -p "$MNT"
	mount "$device" "$MNT"
	bin/fsx -size $((1 << 20)) -ops 200 "$MNT/fsx" || fail "fsx on $kind"
	fio --name=files --directory="$MNT" --size=4M --nrfiles=2 --rw=randrw --bsrange=1k-64k --ioengine=psync \
		--verify=crc32c --verify_fatal=1 --do_verify=1 --fsync=32 --output=/run/lab/fio || { cat /run/lab/fio >&2; fail "fio on $kind"; }
	umount "$MNT"
	echo 3 >/proc/sys/vm/drop_caches
	case $kind in
	ext4) e2fsck -fn "$device" >/run/lab/fsck 2>&1 ;;
	xfs) xfs_repair -n "$device" >/run/lab/fsck 2>&1 ;;
	esac || { cat /run/lab/fsck >&2; fail "$kind on $device is not clean"; }
	ok "$kind on $device"
}

any_host
modprobe -a ext4 xfs
lab_lio_file file0 320 emulate_tpu=1 emulate_write_cache=1
lab_lio_ram ram0 32
lab_lio_target portal=$PORTAL lun=file0 lun=ram0

device=$(attach "$LAB_IQN/0" "${NBD[@]}")
[[ $device == /dev/nbd+([0-9]) && -b $device ]] || fail "attach printed '$device'"
expect "size" "$(blockdev --getsize64 "$device")" $((320 << 20))
expect "cache" "$(queue "$device" write_cache) $(queue "$device" fua)" "write back 1"
expect "largest request" "$(queue "$device" max_sectors_kb)" 512
((0 < $(queue "$device" discard_max_bytes))) || fail "no discard"
through=$(attach "$LAB_IQN/1" "${NBD[@]}")
expect "cache of a LUN that has none" "$(queue "$through" write_cache)" "write through"
"$ISERBLK" list -o json | jq -e --arg d "$device" '.devices[] | select(.path == $d) | .frontend == "nbd"' >/dev/null || fail "list"
"$ISERBLK" status "$device" | grep -q 'nbd, 1 queues' || fail "status: $("$ISERBLK" status "$device")"
ok "$device and $through: as their LUNs are"

verify "$device" 1 --size=1M --ioengine=libaio
verify "$device" 32 --size=8M --ioengine=libaio
verify "$through" 128 --size=8M --ioengine=libaio
ok "depth 1, 32 and 128, no error"

judge "$device" mkfs.ext4 -q
judge "$device" mkfs.xfs -q -f

mount "$device" "$MNT"
refuse 28 "$device" "$ISERBLK" detach "$device"
umount "$MNT"
exec 7<"$through"
refuse 28 "$through" "$ISERBLK" detach "$through"
exec 7<&-
"$ISERBLK" detach "$through"
ok "detach refuses a device that is mounted or open"

killed attach "$LAB_IQN/0" "${NBD[@]}"
killed "$ISERBLK" recover
expect "a second LUN beside it" "$(attach "$LAB_IQN/1" "${NBD[@]}" | wc -l)" 1
"$ISERBLK" detach "$LAB_IQN/1"

# Without a new worker the device can be taken away, requests or not.
kill -9 "$(worker_pids)"
dd if="$device" of=/dev/null bs=4k count=1 iflag=direct status=none 2>/dev/null & reader=$!
sleep 1
timeout 20 "$ISERBLK" detach --force "$device" || fail "detach --force of a parked device"
lab_not wait $reader
nothing_left
ok "a parked device is taken away by force"

device=$(attach "$LAB_IQN/0" "${NBD[@]}")
fio --name=load --filename="$device" --direct=1 --ioengine=libaio --iodepth=16 --rw=randrw --bs=4k --size=16M \
	--time_based --runtime=30 --output=/run/lab/fio >/dev/null 2>&1 & load=$!
sleep 1
timeout 20 "$ISERBLK" detach --force "$device" || fail "detach --force under load"
lab_not wait $load
lab_until 5 no_session "$LAB_IQN" || fail "sessions left at $LAB_IQN"
nothing_left
ok "detach --force under load"
lab_dmesg_check
