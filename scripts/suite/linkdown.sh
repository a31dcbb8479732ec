#!/bin/bash
# The network interface is shut under a writer and opened again: whatever the
# connection manager sends meanwhile would end soft RoCE on it for good.
# kernels: trixie-backports
# timeout: 200
source "$(dirname "$0")/lib.sh"

live() { bin/iserblk status "$device" -o json | jq -e '[.. | .state? | strings] | all(. == "live")'; }
gsi() { ip netns exec far rdma resource show qp link rxe_h1 | grep 'lqpn 1 '; }

# shut DEV SECONDS shuts the interface; meanwhile a command that dials does no harm either.
shut() {
	ip -n far link set "$1" down
	sleep "$2"
	"${IN[@]}" bin/iserblk discover --provider rdmacore --timeout 5s "$PORTAL" 2>/run/lab/stderr && fail "discovered by an interface that is shut"
	grep -q "rxe_$1 port 1 on $1" /run/lab/stderr || fail "it does not say which port: $(</run/lab/stderr)"
	ip -n far link set "$1" up
}

two_hosts
lab_lio_file file0 64
lab_lio_target portal=$PORTAL lun=file0
device=$(attach "$LAB_IQN/0")
for idle in no yes; do
	bin/hammer -time 60s -settle 3s "$device" >/run/lab/hammer & load=$!
	sleep 2
	if [[ $idle == yes ]]; then
		kill -STOP $load # the connection is lost by silence, or not at all
		sleep 0.5
	fi
	shut h1 3
	kill -CONT $load
	sleep 4
	kill -TERM $load
	wait $load || fail "hammer: $(</run/lab/hammer)"
	lab_until 10 live || fail "not live again: $(bin/iserblk status "$device")"
	gsi | grep -q 'state RTS' || fail "rxe has lost its queue pair 1: $(gsi)"
	waited=$(jq .longest /run/lab/hammer)
	[[ $idle == yes ]] || ((waited >= 2500 && waited < 8000)) || fail "the longest request took $waited ms"
	ok "shut for 3 s, idle: $idle: no error, nothing lost, the longest request took $waited ms; $(gsi)"
done

# A worker that ends while the interface is shut does so soon.
bin/iserblk status "$device" >/dev/null
ip -n far link set h1 down
start=$SECONDS
bin/iserblk detach --force "$device"
((SECONDS - start < 15)) || fail "detach --force took $((SECONDS - start)) s"
nothing_left
lab_dmesg_check
