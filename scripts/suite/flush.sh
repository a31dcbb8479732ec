#!/bin/bash
# Flush and FUA reach the target as such, and only where it has a volatile cache.
# kernels: trixie-backports bookworm-backports
# timeout: 240
source "$(dirname "$0")/lib.sh"

# How commands are written by commands(): "LUN LENGTH CDB"; byte 1 bit 3 of a WRITE is FUA.
readonly WRITE='(2a|8a|aa)' FLUSH='(35|91)' FUA='[0-9a-f][89a-f]' NO_FUA='[0-9a-f][0-7]'

# seen WHAT COUNT PATTERN looks for COUNT commands.
seen() {
	local n
	n=$(commands | grep -cE "$3" || true)
	((n == $2)) || { commands >&2; fail "$1: $n commands like '$3', not $2"; }
}
flushed() { commands | grep -qE "^$1 [0-9]+ $FLUSH"; }
write() { dd if=/dev/zero of="$1" bs=4k count=1 seek=5 status=none "${@:2}"; }

host
lab_lio_file cached 64 emulate_write_cache=1 emulate_fua_write=1
lab_lio_file nofua 64 emulate_write_cache=1 emulate_fua_write=0
lab_lio_ram through 64
lab_lio_target portal=$PORTAL lun=cached lun=nofua lun=through
mapfile -t devices < <(attach "$LAB_IQN")

cache() { echo "$(<"/sys/block/${1#/dev/}/queue/write_cache") $(<"/sys/block/${1#/dev/}/queue/fua")"; }
expect "cache of LUN 0" "$(cache "${devices[0]}")" "write back 1"
expect "cache of LUN 1" "$(cache "${devices[1]}")" "write back 0"
expect "cache of LUN 2" "$(cache "${devices[2]}")" "write through 0"
ok "the cache of each LUN is known"

commands_start
write "${devices[0]}" oflag=direct
seen "a plain write" 1 "^0 4096 $WRITE $NO_FUA"
seen "a plain write" 0 "^0 [0-9]+ $FLUSH"

commands_start
write "${devices[0]}" oflag=direct,dsync
seen "a synchronous write" 1 "^0 4096 $WRITE $FUA"
ok "FUA reaches the target"

commands_start
write "${devices[0]}" conv=fsync
seen "a flush" 1 "^0 [0-9]+ $FLUSH"
seen "a write before it" 1 "^0 4096 $WRITE $NO_FUA"
# The flush comes last: it covers what was written before it.
commands | grep '^0 ' | tail -n 1 | grep -qE "^0 [0-9]+ $FLUSH" || fail "the flush is not the last command"
ok "a flush reaches the target, after the write"

commands_start
write "${devices[1]}" oflag=direct,dsync
seen "FUA on a LUN that has none" 0 "^1 [0-9]+ $WRITE $FUA"
flushed 1 || fail "no flush instead of FUA"
ok "without FUA, a flush takes its place"

commands_start
write "${devices[2]}" oflag=direct,dsync
write "${devices[2]}" conv=fsync
seen "writes on a LUN without a cache" 2 "^2 4096 $WRITE $NO_FUA"
seen "flushes of a LUN without a cache" 0 "^2 [0-9]+ $FLUSH"
ok "a LUN without a cache is not flushed"

detach "${devices[@]}"
nothing_left
lab_dmesg_check
