#!/bin/bash
# Translator and interpreter in lock-step through the boot of a Debian kernel, one vCPU. SOAK_KERNEL and SOAK_INITRD as in soak.sh. Takes
# one to five minutes.
set -u
doppel=${DOPPEL:-$(dirname "${DOPPEL_ENGINE:-build/doppel-engine}")/doppel}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
read -r kernel initrd < <("$(dirname "$0")/guest.sh" "$tmp")
if [ -z "$initrd" ]; then
	echo "no kernel, or no busybox and cpio for an initramfs"
	echo "0 passed, 0 failed, 1 skipped"
	exit 0
fi
timeout 1200 "$doppel" run -q --engine check --kernel "$kernel" --initrd "$initrd" --memory 256M \
	--append 'console=ttyS0 reboot=t panic=-1 nowatchdog rcupdate.rcu_cpu_stall_suppress=1 bench=none' >"$tmp/log" 2>&1 </dev/null
if grep -aq GUEST-DONE "$tmp/log"; then
	echo "1 passed, 0 failed"
else
	tail -n 60 "$tmp/log"
	echo "0 passed, 1 failed"
	exit 1
fi
