#!/bin/bash
# Proves in a guest that the lab has what its scripts count on:
#   scripts/lab run [--kernel K] -- scripts/lab.d/selftest.sh
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
source "$(dirname "$0")/guest.sh"

step() { echo "ok: $*"; }

# use_disk DEV: data arrives and comes back, by dd and by fio.
use_disk() {
	lab_pattern "$1" 8 one
	lab_pattern_check "$1" 8 one
	fio --name=verify --filename="$1" --direct=1 --ioengine=io_uring --rw=randwrite --bs=4k \
		--size=4M --iodepth=8 --verify=crc32c --do_verify=1 --minimal >/dev/null
}

modules() {
	local wanted=(nbd rdma_rxe ib_uverbs rdma_ucm ib_isert ib_iser iscsi_target_mod target_core_file
		target_core_iblock sd_mod ext4 xfs veth sch_netem dm_mod dm_delay brd)
	[[ $(uname -r) == 6.1.* ]] || wanted+=(ublk_drv)
	modprobe -a "${wanted[@]}"
	step "modules on $(uname -r)"
}

lio() {
	local disk
	lab_link d0 10.0.0.1
	lab_lio_ram ram0 64 serial=lab-one
	lab_lio_file file0 64 block_size=4096 emulate_tpu=1 emulate_write_cache=1
	lab_lio_target portal=10.0.0.1 lun=ram0 lun=file0
	mapfile -t disks < <(lab_ib_iser_login 10.0.0.1)
	((${#disks[@]} == 2))
	step "LIO over iSER: ${disks[*]}"
	for disk in "${disks[@]}"; do use_disk "$disk"; done
	[[ $(blockdev --getss "${disks[1]}") == 4096 ]]
	sg_unmap --force --lba=0 --num=256 "${disks[1]}"
	lab_not lab_pattern_check "${disks[1]}" 8 one 2>/dev/null
	step "data, 4096 byte blocks, unmap"
	[[ -n $(lab_lio_sessions) ]]
	lab_ib_iser_logout
	lab_lio_remove
	lab_lio_drop file0
}

chap() {
	local iqn=iqn.2026-01.lab.iserblk:chap auth=(node.session.auth.authmethod=CHAP
		node.session.auth.username=joe node.session.auth.password=secretsecret1
		node.session.auth.username_in=lio node.session.auth.password_in=secretsecret2)
	lab_lio_target "$iqn" portal=10.0.0.1 lun=ram0 chap=joe:secretsecret1 mutual=lio:secretsecret2
	lab_ib_iser_login "$iqn" 10.0.0.1 "${auth[@]}" >/dev/null
	lab_ib_iser_logout "$iqn"
	lab_lio_remove "$iqn"
	lab_lio_target "$iqn" portal=10.0.0.1 lun=ram0
	lab_lio_acl "$iqn" "$(lab_initiator_name)" chap=joe:secretsecret1 mutual=lio:secretsecret2 ro=0
	lab_ib_iser_login "$iqn" 10.0.0.1 "${auth[@]}" >/run/disk
	[[ $(blockdev --getro "$(</run/disk)") == 1 ]]
	lab_ib_iser_logout "$iqn"
	lab_lio_remove "$iqn"
	step "CHAP both ways, named initiators, write protection"
}

slow() {
	local dev
	lab_ramdisks 1 32
	dev=$(lab_delay slow /dev/ram0 50)
	lab_lio_block block0 "$dev"
	lab_lio_target portal=10.0.0.1 lun=block0
	dev=$(lab_ib_iser_login 10.0.0.1)
	local start=${EPOCHREALTIME/./}
	dd if="$dev" of=/dev/null bs=4k count=10 iflag=direct status=none
	((${EPOCHREALTIME/./} - start > 450000))
	step "a slow disk: 10 reads took $(((${EPOCHREALTIME/./} - start) / 1000)) ms"
}

yank() {
	lab_yank d0
	lab_not lab_rdma_active rxe_d0
	lab_plug d0
	lab_until 5 lab_rdma_active rxe_d0
	dd if="$(lab_ib_iser_disks)" of=/dev/null bs=4k count=10 iflag=direct status=none
	lab_lio_stop
	lab_lio_start
	lab_until 30 dd if="$(lab_ib_iser_disks)" of=/dev/null bs=4k count=1 iflag=direct
	lab_ib_iser_logout
	lab_lio_remove
	step "a yanked and plugged cable, a stopped and started target"
}

tgt() {
	local disk
	lab_tgt_start
	lab_tgt_disk 64 "$(lab_initiator_name)"
	disk=$(lab_ib_iser_login 10.0.0.1)
	use_disk "$disk"
	lab_ib_iser_logout
	lab_tgt_kill
	step "tgt over iSER"
}

hosts() {
	lab_host_link h0 far 10.1.0.1 10.1.0.2
	rping -s -a 10.1.0.1 -C 3 >/dev/null 2>&1 &
	sleep 1
	ip netns exec far rping -c -a 10.1.0.1 -C 3 >/dev/null 2>&1
	wait $!
	step "RDMA between two hosts"
	lab_blackhole -n far h0p on
	lab_not ip netns exec far busybox ping -c1 -W1 10.1.0.1 >/dev/null
	lab_blackhole -n far h0p off
	lab_netem -n far h0p delay 30ms
	ip netns exec far busybox ping -c1 -W1 10.1.0.1 >/dev/null
	lab_netem -n far h0p off
	step "a black hole, and netem"
}

modules
lio
chap
slow
yank
tgt
! lab_has_netns || hosts
lab_dmesg_check
step "a quiet kernel"
