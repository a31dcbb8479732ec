#!/bin/bash
# A /dev/ublkbN that outlives its worker: the next one takes it over, whatever has
# happened to the network meanwhile, and nothing is lost, nor comes back from the dead.
# kernels: trixie-backports bookworm-backports
# timeout: 300
source "$(dirname "$0")/lib.sh"

readonly MNT=/run/lab/mnt
readonly RESENT=2 # seconds, see killed
readonly HOLD=(--dead-timeout -1s --no-path-timeout 60s)

gone() { [[ ! -e $1 ]]; }
recovered() { "${IN[@]}" "$ISERBLK" recover | head -1; }

if [[ $(uname -r) == 6.* ]]; then host; else two_hosts; fi # soft RoCE knows one namespace only, before 7.0
modprobe ext4
lab_lio_file file0 320 emulate_tpu=1 emulate_write_cache=1
lab_lio_ram ram0 32
lab_lio_target portal=$PORTAL lun=file0 lun=ram0

refuse 7 'for ever' "$ISERBLK" attach --frontend ublk --dead-timeout 5s "iser://$PORTAL/$LAB_IQN"
refuse 7 'shared' "$ISERBLK" attach --shared-memory /dev/shm/x --dead-timeout -1s "iser://$PORTAL/$LAB_IQN"

device=$(attach "$LAB_IQN/0" "${HOLD[@]}" --queues 2)
second=$(attach "$LAB_IQN/1" --dead-timeout -1s)
[[ $device == /dev/ublkb* && $second == /dev/ublkb* ]] || fail "attach printed '$device' and '$second'"
lab_pattern "$second" 4 second

killed attach "$LAB_IQN/0"
"$ISERBLK" list | grep -q "^$second .*live" || fail "the other LUN: $("$ISERBLK" list)"
lab_pattern_check "$second" 4 second
killed recovered
expect "queues" "$("$ISERBLK" status "$device" -o json | jq '[.. | .queues? | numbers] | max')" 2


# The network is gone when the worker dies, and what it had sent may be anywhere.
pulled() {
	plug
	recovered
}
if ((${#IN[@]})); then
	{ sleep 1.5 && unplug; } &
	killed pulled
fi

mkfs.ext4 -q "$device"
mkdir -p "$MNT"
mount "$device" "$MNT"
bin/fsx -size $((1 << 20)) -ops 1000 "$MNT/fsx" & load=$!
for _ in 1 2 3; do
	sleep 1
	kill -9 "$(worker_pids)"
	expect "recovered" "$("${IN[@]}" "$ISERBLK" recover | wc -l)" 2
done
wait $load || fail "fsx"
kill -9 "$(worker_pids)"
lab_until 5 no_process
refuse 28 "$device" "$ISERBLK" detach "$device"
"${IN[@]}" "$ISERBLK" recover >/dev/null
umount "$MNT"
e2fsck -fn "$device" >/run/lab/fsck 2>&1 || { cat /run/lab/fsck >&2; fail "ext4 is not clean"; }
ok "ext4 stays mounted over four deaths, and is clean"

# Without a new worker the device can be taken away, requests or not; the other one goes on waiting.
kill -9 "$(worker_pids)"
dd if="$device" of=/dev/null bs=4k count=1 iflag=direct status=none 2>/dev/null & reader=$!
sleep 1
kill -0 $reader || fail "the reader did not wait"
timeout 30 "$ISERBLK" detach --force "$device" || fail "detach --force of a parked device"
lab_not wait $reader
[[ ! -e $device ]] || fail "$device is still there"
"$ISERBLK" list | grep -q "^$second .*parked" || fail "the other LUN: $("$ISERBLK" list)"
"${IN[@]}" "$ISERBLK" recover >/dev/null
lab_pattern_check "$second" 4 second
detach "$second"
nothing_left
ok "a parked device is taken away by force"

# One that nobody asked to be kept dies with its worker, and at once.
device=$(attach "$LAB_IQN/0")
kill -9 "$(worker_pids)"
lab_until 10 gone "$device" || fail "$device outlives its worker"
"$ISERBLK" list >/dev/null # whoever looks tidies up
"$ISERBLK" detach "$device" 2>/dev/null || true
nothing_left
ok "a device dies with its worker unless it was to be kept"
lab_dmesg_check
