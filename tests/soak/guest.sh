# Sourced: SOAK_KERNEL and SOAK_INITRD, if not given, become a Debian kernel and an initramfs with tests/soak/init in $tmp. Ends the
# script, as skipped, where there are none.
soak_guest()
{
	local from
	from=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
	[ -n "${SOAK_KERNEL:-}" ] || SOAK_KERNEL=$("$from/../../tools/get-kernel" 2>/dev/null)
	if [ -z "${SOAK_INITRD:-}" ] && command -v busybox cpio >/dev/null; then
		mkdir -p "$tmp/root/bin" "$tmp/root/dev" "$tmp/root/proc"
		cp "$(command -v busybox)" "$tmp/root/bin/busybox"
		cp "$from/init" "$tmp/root/init"
		(cd "$tmp/root" && find . | cpio -o -H newc --quiet) >"$tmp/initrd"
		SOAK_INITRD=$tmp/initrd
	fi
	kernel=$SOAK_KERNEL initrd=${SOAK_INITRD:-}
	[ -r "$kernel" ] && [ -r "$initrd" ] && return
	echo "no kernel, or no busybox and cpio for an initramfs"
	echo "0 passed, 0 failed, 1 skipped"
	exit 0
}
