# What the tests of the command share. Arguments: doppel, the guest (tests/cli/guest.S). Sets $doppel, $guest, $tmp.
set -u
doppel=$1 guest=$2
tmp=$(mktemp -d /tmp/doppel-cli.XXXXXX)
chmod 755 "$tmp"
mkdir -m 700 "$tmp/run"
export XDG_RUNTIME_DIR=$tmp/run XDG_CACHE_HOME=$tmp/cache
passed=0 failed=0 skipped=0

finish() {
	local n
	for n in $("$doppel" ps 2>/dev/null | awk 'NR > 1 { print $1 }'); do "$doppel" stop --kill "$n"; done
	mountpoint -q "$tmp/full" 2>/dev/null && umount "$tmp/full"
	rm -rf "$tmp"
}
trap finish EXIT
ok() { passed=$((passed + 1)); }
not_ok() { failed=$((failed + 1)); echo "not ok: $*"; }
skip() { skipped=$((skipped + 1)); echo "skipped: $*"; }
check() { local what=$1; shift; if "$@"; then ok; else not_ok "$what"; fi; }
# talk VM INPUT PATTERN: what its console says, until the pattern has come
talk() {
	local i pid
	rm -f "$tmp/in"; mkfifo "$tmp/in"
	exec 9<>"$tmp/in"
	"$doppel" console "$1" <"$tmp/in" >"$tmp/said" 9>&- &
	pid=$!
	printf %s "$2" >&9
	for i in $(seq 300); do grep -q -- "$3" "$tmp/said" && break; sleep 0.1; done
	kill $pid; wait $pid 2>/dev/null
	exec 9>&-
	cat "$tmp/said"
}
summary() {
	echo "$passed passed, $failed failed, $skipped skipped"
	[ $failed = 0 ]
}

# Processes, ours by the runtime directory in their environment; files; sockets.
processes() { grep -lzsxF "XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR" /proc/[0-9]*/environ 2>/dev/null | while read -r f; do
	p=${f#/proc/}; p=${p%/environ}
	case $(cat "/proc/$p/comm" 2>/dev/null) in doppel*) echo "$p" ;; esac
done; }
engines() { local p; for p in $(processes); do [ "$(cat "/proc/$p/comm" 2>/dev/null)" = doppel-engine ] && echo "$p"; done; }
files_left() { ls -A "$XDG_RUNTIME_DIR/doppel" 2>/dev/null; }
# An engine notices the end of its VM by itself; it has ten seconds, on a busy machine.
nothing_left() {
	local i
	for i in $(seq 200); do
		[ -z "$(files_left)$(processes)" ] && return 0
		sleep 0.05
	done
	echo "left: $(files_left) $(processes)"
	return 1
}
