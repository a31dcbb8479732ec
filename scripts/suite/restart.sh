#!/bin/bash
# The target goes away and comes back, and so does the cable: I/O waits, goes on,
# and nothing is lost.
# kernels: trixie-backports
# timeout: 400
# shellcheck disable=SC2119 # the helpers' defaults
source "$(dirname "$0")/lib.sh"

# under LABEL DEVICE FAULT...: FAULT runs while the device is hammered and verified.
under() {
	local label=$1 device=$2 load fio
	shift 2
	bin/hammer -time 120s -offset $((48 << 20)) -settle 3s "$device" >/run/lab/hammer & load=$!
	fio --name=verify --filename="$device" --direct=1 --ioengine=io_uring --iodepth=16 --rw=randwrite \
		--bsrange=4k-64k --size=16M --rate_iops=,200 --verify=crc32c --verify_fatal=1 --do_verify=1 \
		--output-format=json --output=/run/lab/fio & fio=$!
	sleep 2
	"$@" || fail "$label: the fault itself"
	sleep 3
	kill -TERM $load
	wait $load || fail "$label: hammer: $(</run/lab/hammer)"
	wait $fio || { cat /run/lab/fio >&2; fail "$label: fio"; }
	jq -e '[.jobs[] | .error, .total_err] | add == 0' <(sed -n '/^{/,$p' /run/lab/fio) >/dev/null || { cat /run/lab/fio >&2; fail "$label: fio"; }
	((waited=$(jq .longest /run/lab/hammer))) || fail "$label: hammer has no longest"
	ok "$label: no error, nothing lost; the longest request took $waited ms; $(</run/lab/hammer)"
}

live() { bin/iserblk status "$device" -o json | jq -e '[.. | .state? | strings] | all(. == "live")'; }

# stalled MS: the fault must have been felt, else nothing was tested.
stalled() { ((waited >= $1)) || fail "the longest request took $waited ms: the fault missed"; }

lio_restart() {
	for _ in 1 2; do
		lab_lio_stop
		sleep 3
		lab_lio_start
		sleep 4
	done
}
replug() {
	unplug
	sleep 3
	plug
	sleep 3
}
tgt_restart() {
	lab_tgt_kill
	sleep 2
	tgt
	lab_tgt_disk 64 "$NAME"
	sleep 3
}
tgt_freeze() {
	lab_tgt_freeze
	sleep 4
	lab_tgt_thaw
	sleep 2
}

two_hosts
lab_lio_file file0 64 emulate_write_cache=1
lab_lio_target portal=$PORTAL lun=file0
device=$(attach "$LAB_IQN/0")
under "LIO stopped and started twice" "$device" lio_restart
stalled 2500
under "the cable pulled for 3 s" "$device" replug
stalled 2000
lab_until 10 live || fail "not live again: $(bin/iserblk status "$device")"
detach "$device"
target_empty "$LAB_IQN"
lab_lio_remove

tgt
lab_tgt_disk 64 "$NAME"
device=$(attach "$LAB_IQN")
under "tgt killed and started again" "$device" tgt_restart
stalled 1500
under "tgt frozen for 4 s" "$device" tgt_freeze
stalled 2500
detach "$device"
nothing_left
lab_dmesg_check
