#!/bin/bash
# The guest's half of scripts/demo.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/../lab.d/guest.sh"

PATH=$PWD/bin:$PATH
bold='' dim='' green='' plain=''
if [[ -n ${LAB_COLOR:-} ]]; then bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' plain=$'\e[0m'; fi

tell() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
done_() { printf '  %sok%s\n' "$green" "$plain"; }

# show COMMAND... prints a command as one would type it, runs it, and indents what it says.
show() {
	printf '  %s$ %s%s\n' "$dim" "$*" "$plain"
	"$@" 2>&1 | sed 's/^/    /'
	done_
}

tell "1. A target: Linux's own (LIO), a 256 MiB disk in a file, on soft RoCE at 10.0.0.1"
lab_link d0 10.0.0.1
lab_lio_file demo 256 emulate_tpu=1 emulate_write_cache=1
lab_lio_target iqn.2026-01.lab.iserblk:demo portal=10.0.0.1 lun=demo
modprobe ublk_drv
show rdma link show rxe_d0/1
url=iser://10.0.0.1/iqn.2026-01.lab.iserblk:demo

tell "2. What is there?"
show iserblk discover 10.0.0.1
show iserblk luns "$url"

tell "3. Make it a local disk"
printf '  %s$ iserblk attach %s/0%s\n' "$dim" "$url" "$plain"
disk=$(iserblk attach "$url/0")
echo "    $disk"
done_
show iserblk list
show iserblk paths "$disk"

tell "4. Use it like any other"
show mkfs.ext4 -q "$disk"
mkdir -p /mnt
show mount "$disk" /mnt
show df -h /mnt

tell "5. Write at random, read back, compare checksums"
printf '  %s$ fio --rw=randrw --bsrange=4k-256k --iodepth=16 --verify=crc32c ...%s\n' "$dim" "$plain"
fio --name=demo --directory=/mnt --size=48M --rw=randrw --bsrange=4k-256k --iodepth=16 --ioengine=io_uring --direct=1 \
	--verify=crc32c --verify_fatal=1 --do_verify=1 --eta=always --eta-newline=2 --output=/run/lab/fio \
	2>&1 | tr '\r' '\n' | sed -uE -n 's/^Jobs: [^]]*\]\[([0-9.]+%|-)\](.*)\[eta.*/    \1 \2/p' || lab_fail "fio"
sed -nE 's/^ *(READ|WRITE): bw=([^ ]+).*io=([^ ]+).*/    \1: \3, \2/p' /run/lab/fio
grep -q 'err= 0' /run/lab/fio
done_

tell "6. Pull the target's plug for three seconds, in the middle of writing"
printf '  %s$ dd if=/dev/urandom of=/mnt/film bs=1M count=48 oflag=direct &%s\n' "$dim" "$plain"
head -c 48M /dev/urandom >/run/lab/film
dd if=/run/lab/film of=/mnt/film bs=1M oflag=direct status=none &
writer=$!
sleep 0.3
lab_lio_stop iqn.2026-01.lab.iserblk:demo
echo "    the target is gone: I/O waits"
sleep 1
iserblk list | sed 's/^/    /'
sleep 2
lab_lio_start iqn.2026-01.lab.iserblk:demo
wait $writer
echo "    the target is back: I/O went on"
echo 3 >/proc/sys/vm/drop_caches
show cmp /run/lab/film /mnt/film

tell "7. Put everything away"
show umount /mnt
show e2fsck -fn "$disk"
show iserblk detach "$disk"
[[ ! -e $disk ]]
lab_not pgrep -x iserblk
printf '\n%sThat is all: no device, no process and no session is left.%s\n' "$bold" "$plain"
