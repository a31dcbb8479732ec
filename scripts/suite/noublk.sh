#!/bin/bash
# A kernel without ublk: attach says so before it touches the target.
# kernels: bookworm
# timeout: 120
source "$(dirname "$0")/lib.sh"

modprobe -q ublk_drv && fail "this kernel has ublk"
lab_link d0 $PORTAL
lab_lio_ram ram0 16
lab_lio_target portal=$PORTAL lun=ram0
refuse 12 'ublk' bin/iserblk attach "iser://$PORTAL/$LAB_IQN/0"
nothing_left
target_empty "$LAB_IQN"
ok "no ublk"

# What needs no device works.
bin/iserblk discover $PORTAL | grep -qF "$LAB_IQN" || fail "discover"
bin/iserblk luns "iser://$PORTAL/$LAB_IQN" | grep -q RAMDISK || fail "luns"
bin/iserblk doctor >/run/lab/doctor || true
grep -q ublk /run/lab/doctor || fail "doctor says nothing about ublk: $(</run/lab/doctor)"
ok "discover, luns and doctor all the same"
