#!/bin/bash
# guest.sh DIRECTORY: prints what boots in a soak, the kernel's file and the initramfs': SOAK_KERNEL and SOAK_INITRD, if given, else a
# Debian kernel and an initramfs with tests/soak/init, made in the directory. Fails where there are none.
set -u
dir=$1 here=$(cd "$(dirname "$0")" && pwd)
kernel=${SOAK_KERNEL:-$("$here/../../tools/get-kernel" 2>/dev/null)} initrd=${SOAK_INITRD:-}
if [ -z "$initrd" ] && command -v busybox >/dev/null && command -v cpio >/dev/null; then
	mkdir -p "$dir/root/bin" "$dir/root/dev" "$dir/root/proc"
	cp "$(command -v busybox)" "$dir/root/bin/busybox"
	cp "$here/init" "$dir/root/init"
	initrd=$dir/initrd
	(cd "$dir/root" && find . | cpio -o -H newc --quiet) >"$initrd"
fi
[ -r "$kernel" ] && [ -r "$initrd" ] && echo "$kernel $initrd"
