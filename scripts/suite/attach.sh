#!/bin/bash
# Attach, list and detach: what scripts rely on, and what a worker at rest costs.
# kernels: trixie-backports bookworm-backports
# timeout: 240
shopt -s extglob
source "$(dirname "$0")/lib.sh"

host
lab_lio_ram ram0 64 serial=suite-one
lab_lio_ram ram1 32
lab_lio_target portal=$PORTAL lun=ram0 lun=ram1
url=iser://$PORTAL/$LAB_IQN

bin/iserblk version | grep -q . || fail "no version"
bin/iserblk discover "$PORTAL" >/run/lab/discovered
grep -qF "$LAB_IQN" /run/lab/discovered || fail "discover does not show $LAB_IQN: $(</run/lab/discovered)"
bin/iserblk discover -o json "$PORTAL" | jq -e '.version >= 1' >/dev/null
ok "discover: $(</run/lab/discovered)"

bin/iserblk luns "$url" >/run/lab/luns
expect "disks in: $(</run/lab/luns)" "$(grep -c RAMDISK-MCP /run/lab/luns)" 2
bin/iserblk luns "$url" -o json | jq -e '.version >= 1' >/dev/null
nothing_left
target_empty "$LAB_IQN"
ok "luns, which leaves no session behind"

device=$(attach "$LAB_IQN/0")
[[ $device == /dev/ublkb+([0-9]) && -b $device ]] || fail "attach printed '$device'"
expect "size" "$(blockdev --getsize64 "$device")" $((64 << 20))
expect "block size" "$(blockdev --getss "$device")" 512
expect "read-only" "$(blockdev --getro "$device")" 0
lab_pattern "$device" 4 attach
lab_pattern_check "$device" 4 attach
ok "attach: $device"

second=$(attach "$LAB_IQN/1")
expect "workers" "$(worker_pids | wc -l)" 1
expect "size" "$(blockdev --getsize64 "$second")" $((32 << 20))
bin/iserblk list >/run/lab/list
for each in "$device" "$second"; do grep -qF "$each" /run/lab/list || fail "list: $(</run/lab/list)"; done
for verb in list status doctor; do
	bin/iserblk "$verb" -o json | jq -e '.version >= 1' >/dev/null || fail "$verb -o json"
	bin/iserblk "$verb" | grep -q . || fail "$verb prints nothing"
done
for verb in status paths; do
	bin/iserblk "$verb" "$device" -o json | jq -e '.version >= 1' >/dev/null || fail "$verb $device -o json"
	bin/iserblk "$verb" "$device" | grep -q . || fail "$verb $device prints nothing"
done
ok "a second LUN joins the worker; list, status, paths, doctor"

# Memory: what the worker has of its own, which leaves out RssShmem, the arena
# that the RDMA device and the worker share.
pid=$(worker_pids)
own=$(awk '/^Rss(Anon|File):/ { sum += $2 } END { print sum }' "/proc/$pid/status")
((own <= 64 * 1024)) || fail "the worker has $own KiB of its own: $(grep -E '^(Vm|Rss)' "/proc/$pid/status")"
ok "worker: $own KiB of its own"
grep VmRSS "/proc/$pid/status"

# At rest it sleeps: the quietest of three spells, since the collector of a young process has its own times.
ticks() { awk '{ print $14 + $15 }' "/proc/$pid/stat"; }
least=999
for spell in 1 2 3; do
	before=$(ticks)
	sleep 5
	used=$(($(ticks) - before))
	((used >= least)) || least=$used
done
((least <= 2)) || fail "an idle worker used $least ticks in 5 s, the least of $spell spells"
ok "worker: $least ticks in 5 idle seconds"

detach "$second"
[[ ! -e $second ]] || fail "$second is still there"
lab_pattern_check "$device" 4 attach

mkfs.ext4 -q "$device"
mkdir -p /run/lab/mnt
mount "$device" /run/lab/mnt
refuse 28 "$device" bin/iserblk detach "$device"
umount /run/lab/mnt
exec 7<"$device"
refuse 28 "$device" bin/iserblk detach "$device"
exec 7<&-
ok "detach refuses a device that is mounted or open"

exec 7<"$device"
bin/iserblk detach --force "$device"
exec 7<&-
nothing_left
target_empty "$LAB_IQN"
ok "detach --force takes it away; nothing is left"

bin/iserblk list >/run/lab/list
lab_not grep -q ublkb /run/lab/list
lab_dmesg_check
