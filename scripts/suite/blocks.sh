#!/bin/bash
# Blocks of 4096 bytes, and LUNs that may not be written.
# kernels: trixie-backports
# timeout: 240
source "$(dirname "$0")/lib.sh"

host
lab_lio_file big 64 block_size=4096 emulate_tpu=1 emulate_write_cache=1
lab_lio_target portal=$PORTAL lun=big
device=$(attach "$LAB_IQN")
expect "logical block" "$(blockdev --getss "$device")" 4096
expect "size" "$(blockdev --getsize64 "$device")" $((64 << 20))
lab_not dd if=/dev/zero of="$device" bs=512 count=1 oflag=direct status=none 2>/dev/null
verify "$device" 1 --size=8M
verify "$device" 32 --size=32M
mkfs.ext4 -q "$device"
e2fsck -fn "$device" >/dev/null
detach "$device"
ok "4096-byte blocks"
lab_lio_remove

# A LUN that the target write-protects.
iqn=iqn.2026-01.lab.iserblk:protected
lab_lio_ram ram0 32
lab_lio_target "$iqn" portal=$PORTAL lun=ram0
device=$(attach "$iqn")
lab_pattern "$device" 4 before
detach "$device"
lab_lio_remove "$iqn"
lab_lio_target "$iqn" portal=$PORTAL lun=ram0
lab_lio_acl "$iqn" "$NAME" ro=0
device=$(attach "$iqn")
expect "getro" "$(blockdev --getro "$device")" 1
lab_not lab_pattern "$device" 1 after 2>/dev/null
lab_not blkdiscard -f -z "$device" 2>/dev/null
lab_pattern_check "$device" 4 before
detach "$device"
ok "a write-protected LUN is read-only, and unharmed"

nothing_left
lab_dmesg_check
