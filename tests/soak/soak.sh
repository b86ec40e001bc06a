#!/bin/bash
# Whole VMs over and over, under time pressure: boots with many vCPUs, two VMs on one busy core, an idle guest's cost, and sudden
# deaths. About ten minutes with SOAK_ROUNDS=4; the time grows with it.
#
#   SOAK_KERNEL, SOAK_INITRD   what boots (default: Debian's cloud kernel, tests/soak/init). The initrd prints GUEST-UP, then with
#                              idle=SECONDS on the command line GUEST-IDLE and sleeps that long, runs the benchmarks that bench=
#                              names, prints GUEST-DONE and ends.
#   SOAK_ROUNDS                rounds (default 2)
#   SOAK_CPUS                  numbers of vCPUs (default "1 2 4 8")
# shellcheck disable=SC2046 # vm() prints words
set -u
rounds=${SOAK_ROUNDS:-2} cpus=${SOAK_CPUS:-1 2 4 8}
doppel=${DOPPEL:-$(dirname "${DOPPEL_ENGINE:-build/doppel-engine}")/doppel}
passed=0 failed=0
tmp=$(mktemp -d)
export XDG_RUNTIME_DIR=$tmp/run
mkdir -m 700 "$XDG_RUNTIME_DIR"
trap 'rm -rf "$tmp"' EXIT

read -r kernel initrd < <("$(dirname "$0")/guest.sh" "$tmp")
if [ -z "$initrd" ]; then
	echo "no kernel, or no busybox and cpio for an initramfs"
	echo "0 passed, 0 failed, 1 skipped"
	exit 0
fi

ok() { passed=$((passed + 1)); }
bad()
{
	failed=$((failed + 1))
	echo "FAILED: $1"
	[ -r "${2:-}" ] && tail -n 15 "$2"
}

# command line of a VM: vCPUs, words for the guest
vm() { echo "$doppel run --kernel $kernel --initrd $initrd --memory 512M --cpus $1 --append"; }
line() { echo "console=ttyS0 reboot=t panic=-1 $1"; }

complaints='rcu.*stall|clocksource.*unstable|Kernel panic|soft lockup|hard LOCKUP|BUG:|WARNING:|Oops|Call Trace|do_boot_cpu failed|skew|bogomips.*zero'
judge() # name, log: the guest came through, and had nothing to say against the machine
{
	if ! grep -aq GUEST-DONE "$2"; then
		bad "$1: did not come through" "$2"
	elif grep -aE "$complaints" "$2"; then
		bad "$1: complaints above" "$2"
	elif grep -aqE 'guestbench failed|wrong' "$2"; then
		bad "$1: wrong result" "$2"
	else
		ok
	fi
}

boots()
{
	local n b
	for n in $cpus; do
		timeout 120 $(vm "$n") "$(line bench=none)" >"$tmp/log" 2>&1 </dev/null
		judge "boot, $n vCPUs" "$tmp/log"
		grep -aq "guest cpus $n" "$tmp/log" && ok || bad "$n vCPUs: not all are up" "$tmp/log"
	done
	for b in cpu_qsort,sys thr,proc; do
		timeout 120 $(vm 4) "$(line "bench=$b scale=0.01")" >"$tmp/log" 2>&1 </dev/null
		judge "bench=$b" "$tmp/log"
	done
}

# Two VMs and a busy loop on one core
starved()
{
	local busy a b
	timeout 100 taskset -c 0 sh -c 'while :; do :; done' &
	busy=$!
	timeout 90 taskset -c 0 $(vm 2) "$(line bench=none)" >"$tmp/a" 2>&1 </dev/null &
	a=$!
	timeout 90 taskset -c 0 $(vm 2) "$(line bench=none)" >"$tmp/b" 2>&1 </dev/null &
	b=$!
	wait $a $b
	kill $busy
	wait $busy 2>/dev/null
	judge "first on a busy core" "$tmp/a"
	judge "second on a busy core" "$tmp/b"
}

ticks() { cat "/proc/$1/stat" "/proc/$2/stat" | awk '{n += $14 + $15} END {print n}'; }
# KiB of both processes without the guest's memory
resident() { cat "/proc/$1/smaps" "/proc/$2/smaps" | awk '/^[0-9a-f]+-/ {ram = /guest-ram/} /^Pss:/ && !ram {n += $2} END {print n}'; }

idle() # engine, KiB it may hold: the translator's caches, which --code-cache bounds, come on top
{
	local timed p e='' t0 t1 kib i
	timeout 60 $(vm 2) "$(line 'bench=none idle=16')" --engine "$1" >"$tmp/log" 2>&1 </dev/null &
	timed=$! p=$!
	for i in $(seq 100); do
		grep -aq GUEST-IDLE "$tmp/log" && break
		sleep 0.2
	done
	p=$(pgrep -P $p -x doppel) && e=$(pgrep -P "$p" doppel-engine)
	if [ -z "$e" ]; then
		wait "$timed"
		bad "idle guest, $1: it is not there, status $?" "$tmp/log"
		return
	fi
	sleep 3
	t0=$(ticks "$p" "$e")
	sleep 10
	t1=$(ticks "$p" "$e")
	kib=$(resident "$p" "$e")
	echo "idle, $1: $((t1 - t0)) ticks in 10 s, $kib KiB beside the guest's pages"
	[ $((t1 - t0)) -lt $(($(getconf CLK_TCK) / 10)) ] && ok || bad "an idle guest costs 1 % of a core or more"
	[ "$kib" -le "$2" ] && ok || bad "an idle guest holds more than $2 KiB"
	wait
	judge "idle guest" "$tmp/log"
}

alive() { [ -d "/proc/$1" ] && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }
pause() { sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"; }

start_victim() # sets p and e
{
	$(vm 2) "$(line 'bench=none idle=9')" >"$tmp/log" 2>"$tmp/err" </dev/null &
	p=$!
	pause "$1"
	e=$(pgrep -P $p doppel-engine)
}

deaths()
{
	local p e i
	for i in $(seq 8); do
		start_victim $((RANDOM % 1500))
		{ kill -9 $p; wait $p; } 2>/dev/null
		pause 100
		[ -n "$e" ] && alive "$e" && bad "the engine outlives doppel" || ok
	done
	"$doppel" ps >/dev/null # what the dead could not tidy
	[ -z "$(ls -A "$XDG_RUNTIME_DIR"/doppel)" ] && ok || bad "runtime files are left: $(ls "$XDG_RUNTIME_DIR"/doppel)"
	for _ in 1 2; do
		start_victim $((300 + RANDOM % 1500))
		{ kill -9 "$e"; wait $p; } 2>/dev/null
		[ $? = 125 ] && [ "$(grep -c 'killed by signal 9' "$tmp/err")" = 1 ] && [ "$(wc -l <"$tmp/err")" -le 2 ] && ok ||
			bad "death of the engine" "$tmp/err"
	done
}

for round in $(seq "$rounds"); do
	boots
	starved
	idle interp 24576
	idle translate 65536
	deaths
	echo "round $round: $SECONDS s, $passed passed, $failed failed"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
