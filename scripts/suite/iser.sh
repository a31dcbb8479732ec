#!/bin/bash
# The session over iSER as such, without block devices: every size of data, a full
# window, and aborts under load, against LIO and tgt.
# kernels: trixie-backports bookworm-backports
# timeout: 300
# binaries: ./iser
# shellcheck disable=SC2119 # the helpers' defaults
source "$(dirname "$0")/lib.sh"

# live IQN [LUN]
live() {
	ISERBLK_LIVE_PORTAL=$PORTAL:3260 ISERBLK_LIVE_TARGET=$1 ISERBLK_LIVE_LUN=${2:-0} \
		bin/iser.test -test.run '^TestLive' -test.v -test.timeout 140s -test.count=1 >/run/lab/live || return
	grep -E '^(---|    live_test.go.*(logged|drained|commands))' /run/lab/live
	lab_not grep -q -- '--- SKIP' /run/lab/live
}

# failed IQN ends the script with what live has left.
failed() { cat /run/lab/live >&2; fail "against $1"; }

lab_link d0 $PORTAL
lab_lio_ram ram0 16
lab_lio_target portal=$PORTAL lun=ram0
live "$LAB_IQN" || failed "$LAB_IQN"
target_empty "$LAB_IQN"
ok "LIO"
lab_lio_remove

for try in 1 2 3 4 5; do
	tgt
	lab_tgt_disk 16 iqn.2026-01.test:live
	! live "$LAB_IQN" 1 || break
	# Debian's tgtd crashes on a login now and then: that is no verdict about us.
	[[ -z $(pidof tgtd || true) && $try != 5 ]] || failed "tgt"
	echo "# tgtd crashed, attempt $try"
	lab_tgt_kill
done
ok "tgt"
no_qp || fail "QPs left: $(rdma resource show qp)"
lab_dmesg_check
