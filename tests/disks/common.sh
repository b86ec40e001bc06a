# What the disk tests share. Argument: doppel, the guest program. Sets $doppel, $tool, $kernel, $tmp, $tmp/initrd.
set -u
doppel=$1 tool=$2
here=$(dirname "$0")
tmp=$(mktemp -d "${TEST_DIR:-/tmp}/doppel-disks.XXXXXX")
mkdir -m 700 "$tmp/run"
export XDG_RUNTIME_DIR=$tmp/run
passed=0 failed=0 skipped=0
finish() { mountpoint -q "$tmp/full" 2>/dev/null && umount "$tmp/full"; rm -rf "$tmp"; }
trap finish EXIT
check() { local what=$1; shift; if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "not ok: $what"; fi; }
skip_all() { echo "skipped: $*"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
skip() { skipped=$((skipped + 1)); echo "skipped: $*"; }

kernel=$(tools/get-kernel 2>/dev/null) || skip_all "no Debian kernel to be had"
busybox=$(ls /bin/busybox /usr/bin/busybox 2>/dev/null | head -n1)
[ -n "$busybox" ] || skip_all "no busybox"
command -v cpio >/dev/null || skip_all "no cpio"
command -v qemu-img >/dev/null || skip_all "no qemu-img"
mkdir -p "$tmp/root/bin" "$tmp/root/modules" "$tmp/root/dev"
cp "$busybox" "$tmp/root/bin/busybox"
cp "$here/init" "$tmp/root/init"
cp "$tool" "$tmp/root/guest"
cp "${kernel%/*}"/modules/*.ko "$tmp/root/modules/"
(cd "$tmp/root" && find . | cpio -o -H newc --quiet) >"$tmp/initrd"

# boot "WORDS FOR THE GUEST" OPTIONS...: console into $tmp/log; $status
boot() {
	local words=$1; shift
	timeout 60 "$doppel" run -q --kernel "$kernel" --initrd "$tmp/initrd" --append "console=ttyS0 quiet $words" "$@" \
		</dev/null >"$tmp/log" 2>&1
	status=$?
}
has() { grep -qa -- "$1" "$tmp/log"; }
summary() { echo "$passed passed, $failed failed, $skipped skipped"; [ $failed = 0 ]; }
