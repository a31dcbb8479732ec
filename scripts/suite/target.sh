#!/bin/bash
# Our own target, judged by initiators that are not ours: the kernel's ib_iser finds it, logs in with CHAP, and uses its
# disks; then iserblk does the same, over the same device.
# kernels: trixie-backports bookworm-backports
# timeout: 240
# shellcheck disable=SC2119 # the helpers' defaults
source "$(dirname "$0")/lib.sh"

iqn=iqn.2026-01.test.isertarget:disk
bin=${ISERBLK_BIN:-bin}

# serve OPTION... starts the target and waits until it takes connections.
serve() {
	"$bin/isertargetd" --provider rdmacore --listen "$PORTAL:3260" --name "$iqn" "$@" >/run/lab/isertargetd.log 2>&1 &
	target=$!
	lab_until 10 grep -q '^ready' /run/lab/isertargetd.log || fail "no target: $(</run/lab/isertargetd.log)"
}

# unserve ends it, and fails if an initiator did what the protocol forbids.
unserve() {
	kill -TERM "$target"
	wait "$target" || fail "the target ended with $?: $(</run/lab/isertargetd.log)"
	without '^violation' cat /run/lab/isertargetd.log
}

# judge DEVICE... runs checksummed I/O, a filesystem and the pages that the kernel asks for.
judge() {
	local device
	for device; do
		verify "$device" 1 --size=2M
		verify "$device" 32 --size=16M
		blkdiscard -z --offset 1M --length 1M "$device"
		cmp -n $((1 << 20)) -i $((1 << 20)):0 "$device" /dev/zero || fail "zeroes on $device"
	done
}

host
echo "InitiatorName=$NAME" >/etc/iscsi/initiatorname.iscsi

serve --luns 2 --file /run/lab/disk.img --size 32 --write-cache --chap initiator:not-a-real-secret
lab_iscsid
iscsiadm -m discovery -t sendtargets -p "$PORTAL" -I iser >/run/lab/found
grep -q "$PORTAL:3260,1 $iqn" /run/lab/found || fail "discovery found $(</run/lab/found)"
ok "the kernel's initiator discovers the target"

mapfile -t disks < <(lab_ib_iser_login "$iqn" "$PORTAL" node.session.auth.authmethod=CHAP \
	node.session.auth.username=initiator node.session.auth.password=not-a-real-secret)
expect "disks" "${#disks[@]}" 2
expect "write cache" "$(cat "/sys/block/${disks[0]##*/}"/device/scsi_disk/*/cache_type)" "write back"
judge "${disks[@]}"
mkfs.ext4 -q "${disks[1]}"
e2fsck -fn "${disks[1]}" >/dev/null || fail "e2fsck"
lab_pattern "${disks[0]}" 8 kernel
blockdev --flushbufs "${disks[0]}"
cmp -n $((8 << 20)) /run/lab/disk.img <(lab_stream 8 kernel) || fail "the file behind the target differs"
ok "the kernel's initiator: CHAP, two disks, immediate data, no error"
lab_ib_iser_logout "$iqn"
unserve

serve --size 32 --no-immediate-data --block-size 4096 --sense 96 --workers 1 # ib_iser has room for 126
mapfile -t disks < <(lab_ib_iser_login "$iqn" "$PORTAL" node.session.auth.authmethod=None)
judge "${disks[0]}"
lab_ib_iser_logout "$iqn"
ok "the kernel's initiator: no immediate data, 4096-byte blocks"

mapfile -t devices < <("$bin/iserblk" attach "iser://$PORTAL/$iqn")
judge "${devices[0]}"
"$bin/iserblk" detach "${devices[0]}"
nothing_left
ok "iserblk, by rdma-core at both ends"
unserve
lab_dmesg_check
