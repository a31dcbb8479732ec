#!/bin/bash
# Clients' own memory (UBLK_F_SHMEM_ZC): what lies in a shared file is moved in
# place, all else is copied as ever, and neither failover nor a dead worker puts
# a byte where it does not belong.
# kernels: trixie-backports bookworm-backports
# timeout: 300
source "$(dirname "$0")/lib.sh"

readonly FILE=/dev/shm/buffers
loads=()
live() { bin/iserblk status "$1" -o json | jq -e '[.. | .state? | strings] | all(. == "live")' >/dev/null; }

# count NAME DEVICE prints a counter of the device: zeroCopy, or transfers for reads and writes.
count() {
	bin/iserblk status "$2" -o json | jq ".targets[0].devices[0].counters | .transfers = .reads + .writes | .$1"
}

# moved DEVICE COMMAND... prints how many transfers COMMAND has made, and how many of them in place.
moved() {
	local all inplace
	all=$(count transfers "$1") inplace=$(count zeroCopy "$1")
	"${@:2}" >&2
	echo "$(($(count transfers "$1") - all)) $(($(count zeroCopy "$1") - inplace))"
}

# in_place DEVICE COMMAND... fails unless all that COMMAND moves is moved in place; copied, unless nothing is.
in_place() {
	local all inplace
	read -r all inplace <<<"$(moved "$@")"
	((all > 0 && inplace == all)) || fail "$inplace of $all transfers in place: ${*:2}"
	ok "$1: all $all transfers in place: ${*:2:1} ${*:3:2}"
}
copied() {
	local all inplace
	read -r all inplace <<<"$(moved "$@")"
	((all > 0 && inplace == 0)) || fail "$inplace of $all transfers in place: ${*:2}"
}

# quiet DEVICE waits until udev has read what it wants to.
quiet() { udevadm settle 2>/dev/null || sleep 0.5; }

if [[ $(uname -r) == 6.* ]]; then
	host
	lab_lio_ram ram0 64
	lab_lio_target portal=$PORTAL lun=ram0
	truncate -s 64M $FILE
	refuse 27 'Linux 7.1' bin/iserblk attach --shared-memory $FILE "iser://$PORTAL/$LAB_IQN/0"
	nothing_left
	ok "this kernel shares no memory, and attach says so"
	exit
fi

two_hosts
lab_lio_ram ram0 64
lab_lio_file file0 64 emulate_write_cache=1
lab_lio_target portal=$PORTAL lun=ram0 lun=file0
url=iser://$PORTAL/$LAB_IQN

# ---- bad use ---------------------------------------------------------------------
attach=("${IN[@]}" bin/iserblk attach)
refuse 7 "truncate -s 64M $FILE" "${attach[@]}" --shared-memory $FILE "$url/0"
truncate -s 5000 $FILE
refuse 7 'multiple of its page of 4096' "${attach[@]}" --shared-memory $FILE "$url/0"
truncate -s 64M $FILE
refuse 7 'tmpfs or hugetlbfs' "${attach[@]}" --shared-memory /proc/sys/kernel/hostname "$url/0"
refuse 7 'frontend ublk' "${attach[@]}" --shared-memory $FILE --frontend nbd "$url/0"
ln $FILE ${FILE}2
refuse 7 'buffers2 twice' "${attach[@]}" --shared-memory $FILE,${FILE}2 "$url/0"
rm ${FILE}2
truncate -s 5G /dev/shm/large
refuse 7 '4 GiB at most' "${attach[@]}" --shared-memory /dev/shm/large "$url/0"
rm /dev/shm/large
refuse 7 'twice' "${attach[@]}" --shared-memory $FILE,$FILE "$url/0"
nothing_left
ok "bad use"

# ---- the same data, moved in place and copied -------------------------------------
mapfile -t devices < <(attach "$LAB_IQN" --shared-memory $FILE)
expect "devices" "${#devices[@]}" 2
for device in "${devices[@]}"; do
	quiet
	expect "merges of $device" "$(<"/sys/block/${device##*/}/queue/nomerges")" 2
	in_place "$device" verify "$device" 1 --size=2M --mem=mmapshared:$FILE
	in_place "$device" verify "$device" 32 --size=24M --mem=mmapshared:$FILE
	copied "$device" verify "$device" 32 --size=8M
	in_place "$device" bin/hammer -time 2s -bs 4608 -depth 16 -offset 512 -shared $FILE "$device"
done

# Written in place, read by copy, and the other way round.
dd if="${devices[0]}" of=/run/lab/copy bs=1M count=4 iflag=direct status=none
fio --name=r --filename="${devices[0]}" --direct=1 --rw=write --bs=64k --size=4M --ioengine=io_uring --iodepth=8 \
	--mem=mmapshared:$FILE --buffer_pattern=0x5a --output=/run/lab/fio
cmp -n $((4 << 20)) "${devices[0]}" <(tr '\0' Z </dev/zero | head -c $((4 << 20))) || fail "not what was written in place"
ok "one device both ways"

bin/hammer -time 4s -bs 8192 -depth 8 -shared $FILE "${devices[0]}" >/dev/null & load=$!
bin/hammer -time 4s -bs 8192 -depth 8 -offset $((16 << 20)) "${devices[0]}" >/dev/null || fail "hammer in its own memory"
wait $load || fail "hammer in shared memory"
ok "clients of both kinds beside each other"

# ---- the path is lost ----------------------------------------------------------------
device=${devices[1]}
inplace=$(count zeroCopy "$device")
bin/hammer -time 60s -settle 2s -bs 16384 -depth 16 -shared $FILE "$device" >/run/lab/hammer & load=$!
for _ in 1 2; do
	sleep 2
	unplug
	sleep 2
	plug
done
sleep 3
kill -TERM $load
wait $load || fail "hammer: $(</run/lab/hammer)"
lab_until 10 live "$device" || fail "not live again: $(bin/iserblk status "$device")"
((inplace + 100 < $(count zeroCopy "$device"))) || fail "nothing was moved in place"
(($(bin/iserblk status "$device" -o json | jq '.targets[0].paths[0].counters.losses') >= 1)) || fail "the path was never lost"
ok "the cable out, twice: nothing lost, $(jq -c . /run/lab/hammer)"

# ---- memory that is cut off under way is the client's loss, and nobody else's ---------
bin/hammer -time 4s -bs 8192 -depth 8 "$device" >/dev/null & load=$!
losses=$(bin/iserblk status -o json | jq '.targets[0].paths[0].counters.losses')
fallocate --punch-hole --offset 0 --length 32M $FILE
copied "$device" fio --name=p --filename="$device" --direct=1 --rw=randread --bs=16k --size=4M --offset=32M --ioengine=io_uring \
	--iodepth=4 --mem=mmapshared:$FILE --output=/run/lab/fio || true
truncate -s 0 $FILE
wait $load || fail "hammer beside a client that cuts its memory off"
# The next connection cannot know what is not there any more; everybody else goes on.
for device in "${devices[@]}"; do
	bin/hammer -time 5s -bs 8192 -depth 4 "$device" >/run/lab/hammer."${device##*/}" & loads+=($!)
done
sleep 1
unplug
sleep 1.5
plug
for load in "${loads[@]}"; do wait "$load" || fail "hammer after a path was lost: $(cat /run/lab/hammer.*)"; done
(($(bin/iserblk status -o json | jq '.targets[0].paths[0].counters.losses') > losses)) || fail "the path was not lost again"
grep -q 'shared memory was cut off' "$RUN"/*.log || fail "the log does not tell of the memory that is gone"
ok "a hole in the file, and the file cut off, and a new connection: all others go on"
detach "${devices[@]}"
rm $FILE
nothing_left
target_empty "$LAB_IQN"

# ---- huge pages, and what each attachment takes is given back -------------------------
sysctl -q vm.nr_hugepages=16
mkdir -p /run/huge
mount -t hugetlbfs none /run/huge
fallocate -l 16M /run/huge/buffers
keep=$(attach "$LAB_IQN/1")
for _ in $(seq 12); do
	device=$(attach "$LAB_IQN/0" --shared-memory /run/huge/buffers)
	in_place "$device" fio --name=h --filename="$device" --direct=1 --rw=randrw --bs=128k --size=8M --ioengine=io_uring --iodepth=8 \
		--mem=mmaphuge:/run/huge/buffers --verify=crc32c --verify_fatal=1 --output=/run/lab/fio >/run/lab/ok
	detach "$device"
done
ok "huge pages, 12 times attached: $(</run/lab/ok)"
rm /run/huge/buffers
lab_until 5 test "$(awk '/HugePages_Free/ { print $2 }' /proc/meminfo)" == 16 || fail "huge pages are still held: $(grep Huge /proc/meminfo)"
detach "$keep"
nothing_left

# ---- the worker dies with requests in clients' memory ----------------------------------
truncate -s 16M $FILE
for _ in 1 2 3; do
	device=$(attach "$LAB_IQN/1" --shared-memory $FILE)
	quiet
	bin/hammer -time 4s -reads 100 -bs 131072 -depth 16 -blocks 32 -errors -watch 500ms -shared $FILE "$device" 2>/run/lab/stderr >/run/lab/hammer & load=$!
	sleep 2
	kill -KILL "$(worker_pids)"
	wait $load || true # the device is gone: its last look fails
	! grep 'then its buffer was written' /run/lab/stderr || fail "a dead worker's request has written to its client's memory"
	(($(jq .errors /run/lab/hammer) > 0)) || fail "the kill has failed no request: $(</run/lab/hammer)"
	bin/iserblk list >/dev/null
	bin/iserblk detach --force "$device" 2>/dev/null || true
done
nothing_left
ok "a worker killed under load, three times: no buffer written afterwards"
lab_dmesg_check
