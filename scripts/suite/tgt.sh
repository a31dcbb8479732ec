#!/bin/bash
# tgt: another target, with other habits. No immediate data, 512 KiB at most,
# initiators let in by name, LUN 0 a controller, pings of its own every 5 s.
# kernels: trixie-backports bookworm-backports
# timeout: 300
# shellcheck disable=SC2119 # the helpers' defaults
source "$(dirname "$0")/lib.sh"

# another TARGET... : tgtd afresh, since Debian's is known to crash when many have come and gone.
another() {
	lab_tgt_kill
	tgt
	lab_tgt_disk "$@"
}

# survivor TARGETS COMMAND...: device is what COMMAND attaches of the TARGETS. Debian's tgtd crashes on a login now and
# then, when that overtakes its own notice of what it has sent: no verdict about us.
survivor() {
	local try
	for try in 1 2 3; do
		"$1"
		if device=$("${@:2}"); then return; fi
		sleep 1
		[[ -z $(pidof tgtd || true) ]] || fail "${*:2}, with a tgtd that lives"
		echo "# tgtd crashed, attempt $try"
	done
	fail "tgtd crashed at every attempt: ${*:2}"
}
big() { another iqn.2026-01.lab.iserblk:big 32 "$NAME" block_size=4096; }
locked() {
	another iqn.2026-01.lab.iserblk:chap 16 "$NAME" chap=joe:suite-secret-of-ours
	lab_tgt_disk iqn.2026-01.lab.iserblk:other 16 iqn.2026-01.lab.iserblk:someone
}

host
tgt
lab_tgt_disk 64 "$NAME"

if [[ $PEER == iserblk ]]; then
	bin/iserblk discover $PORTAL >/run/lab/discovered
	grep -qF "$LAB_IQN" /run/lab/discovered || fail "discover does not show $LAB_IQN: $(</run/lab/discovered)"
	ok "discover"
fi
device=$(attach "$LAB_IQN")
[[ -b $device ]] || fail "the one disk among tgt's LUNs: '$device'"
expect "size" "$(blockdev --getsize64 "$device")" $((64 << 20))
verify "$device" 1 --size=4M
verify "$device" 32 --size=32M
verify "$device" 128 --size=24M
bin/hammer -time 3s -bs 4608 -depth 16 -offset 512 "$device" || fail "hammer"
ok "depth 1, 32 and 128, no error"

mkfs.ext4 -q "$device"
mkdir -p /run/lab/mnt
mount "$device" /run/lab/mnt
bin/fsx -ops 1500 /run/lab/mnt/fsx || fail "fsx"
umount /run/lab/mnt
e2fsck -fn "$device" >/dev/null || fail "ext4 is not clean"
ok "ext4"

# Idle for longer than tgt's ping interval: its pings must not cost the connection.
sleep 12
lab_pattern "$device" 8 tgt
lab_pattern_check "$device" 8 tgt
if [[ $PEER == iserblk ]]; then
	lost=$(bin/iserblk paths "$device" -o json | jq '[.. | .losses? | numbers] | add')
	expect "connections lost" "$lost" 0
fi
ok "idle, pinged, and well"
detach "$device"

survivor big attach iqn.2026-01.lab.iserblk:big
expect "logical block" "$(blockdev --getss "$device")" 4096
verify "$device" 32 --size=16M
detach "$device"
ok "4096-byte blocks"

# One that is slow to answer: a request taken back before it has come to it would be its end.
if [[ $PEER == iserblk ]]; then
	for pause in 1.5 5; do
		another "$LAB_IQN" 16 "$NAME"
		tgtd=$(pgrep -x tgtd)
		kill -STOP "$tgtd"
		{ sleep "$pause" && kill -CONT "$tgtd"; } &
		bin/iserblk discover $PORTAL >/run/lab/discovered || fail "discover, tgtd stopped for $pause s"
		kill -0 "$tgtd" || fail "tgtd stopped for $pause s is no more"
	done
	ok "a tgtd that is slow to answer"
fi

if [[ $PEER == iserblk ]]; then
	umask 077
	echo suite-secret-of-ours >/run/lab/ours
	survivor locked attach iqn.2026-01.lab.iserblk:chap --chap-user joe --chap-secret-file /run/lab/ours --chap-algorithms md5
	lab_pattern "$device" 2 chap
	lab_pattern_check "$device" 2 chap
	detach "$device"
	refuse 24 . bin/iserblk attach iser://$PORTAL/iqn.2026-01.lab.iserblk:chap
	ok "CHAP"
	refuse 21 . bin/iserblk attach iser://$PORTAL/iqn.2026-01.lab.iserblk:other
	ok "a target that does not let us in is not found"
fi
nothing_left
lab_dmesg_check
