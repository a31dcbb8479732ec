#!/bin/bash
# A kernel without ublk: attach takes NBD, and says what there is when it may not.
# kernels: bookworm
# timeout: 120
shopt -s extglob
source "$(dirname "$0")/lib.sh"

modprobe -q ublk_drv && fail "this kernel has ublk"
any_host
lab_lio_ram ram0 16
lab_lio_target portal="$PORTAL" lun=ram0
refuse 12 'ublk' "$ISERBLK" attach --frontend ublk "iser://$PORTAL/$LAB_IQN/0"
nothing_left
target_empty "$LAB_IQN"
ok "no ublk"

! lsmod | grep -q '^nbd ' || fail "nbd is loaded already"
refuse 12 'frontend export' "$ISERBLK" attach --no-modprobe "iser://$PORTAL/$LAB_IQN/0"
lab_not grep -q '^nbd ' /proc/modules
nothing_left
target_empty "$LAB_IQN"
ok "no module is loaded where that is forbidden, and the export is offered"

# What needs no device works.
"$ISERBLK" discover "$PORTAL" | grep -qF "$LAB_IQN" || fail "discover"
"$ISERBLK" luns "iser://$PORTAL/$LAB_IQN" | grep -q RAMDISK || fail "luns"
"$ISERBLK" doctor >/run/lab/doctor || true
grep -q '^warn .*ublk.*/dev/nbdN' /run/lab/doctor || fail "doctor says nothing about NBD: $(</run/lab/doctor)"
ok "discover, luns and doctor"

device=$(attach "$LAB_IQN/0")
[[ $device == /dev/nbd+([0-9]) ]] || fail "attach made $device"
lab_pattern "$device" 8 nbd
lab_pattern_check "$device" 8 nbd
detach "$device"
nothing_left
target_empty "$LAB_IQN"
ok "attach takes $device"
lab_dmesg_check
