#!/bin/bash
# ublk devices over a disk in memory: data, flags, limits, life and death. Where
# the kernel has no ublk, the error that says so.
# kernels: trixie-backports bookworm-backports bookworm
# timeout: 300
# binaries: ./ublk
set -euo pipefail
source "$(dirname "$0")/../lab.d/guest.sh"

export ISERBLK_LAB=1
if [[ $(uname -r) == 6.1.* ]]; then
	ISERBLK_LAB_NO_UBLK=1 bin/ublk.test -test.v -test.run '^TestSupportedTellsTheTruth$'
	exit
fi
bin/ublk.test -test.v -test.timeout 280s
[[ -z $(compgen -G '/dev/ublk[bc]*') ]] || lab_fail "left: $(echo /dev/ublk[bc]*)"
lab_dmesg_check
