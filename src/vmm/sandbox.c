/*
 * The seccomp filter of a VM's process, which parses what a hostile guest writes: rings, requests, registers. It cannot open a file,
 * make a socket, start a process or thread, nor get executable memory; the descriptors it has are all it will have, besides
 * control clients that connect.
 */
#include <errno.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <malloc.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
#include "base/term.h"
#include "kvm/chan.h"
#include "vmm/sandbox.h"

static const int allowed[] = {
	/* descriptors that are there */
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(close), SCMP_SYS(fcntl), SCMP_SYS(lseek),
	SCMP_SYS(fstat), SCMP_SYS(newfstatat),
	SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_ctl),
	SCMP_SYS(eventfd2), SCMP_SYS(timerfd_settime), SCMP_SYS(timerfd_gettime),
	/* control clients, the engine's socket */
	SCMP_SYS(accept4), SCMP_SYS(recvmsg), SCMP_SYS(sendmsg), SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(shutdown),
	/* networks */
	SCMP_SYS(recvmmsg), SCMP_SYS(sendmmsg),
	/* the kernel's file, read again at a reset; disks are other processes' */
	SCMP_SYS(pread64), SCMP_SYS(pwrite64),
	/* memory; the dirty log comes in a memfd */
	SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(memfd_create),
	SCMP_SYS(sysinfo), /* qsort asks how much there is */
	/* threads that are there (their first steps may come after this), time, signals */
	SCMP_SYS(set_robust_list), SCMP_SYS(rseq),
	SCMP_SYS(futex), SCMP_SYS(sched_yield), SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep),
	SCMP_SYS(restart_syscall), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
	SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getrandom),
	/* the end: the engine is reaped, the VM's runtime files go */
	SCMP_SYS(wait4), SCMP_SYS(unlink), SCMP_SYS(rmdir), SCMP_SYS(exit), SCMP_SYS(exit_group),
};

/* With one argument masked. */
static const struct {
	int nr;
	unsigned arg;
	u64 mask, value;
	bool kvm_device; /* only with /dev/kvm */
} conditional[] = {
	{SCMP_SYS(mmap), 2, PROT_EXEC, 0, false},
	{SCMP_SYS(mprotect), 2, PROT_EXEC, 0, false},
	{SCMP_SYS(prctl), 0, UINT32_MAX, PR_SET_NAME, false},
	/* a terminal's modes; not TIOCSTI, which types into it */
	{SCMP_SYS(ioctl), 1, UINT32_MAX, TCGETS, false},
	{SCMP_SYS(ioctl), 1, UINT32_MAX, TCSETS, false},
	{SCMP_SYS(ioctl), 1, UINT32_MAX, TIOCGWINSZ, false},
	/* a tap device that it has: what the guest's driver understands, how many queues it uses */
	{SCMP_SYS(ioctl), 1, UINT32_MAX, TUNSETOFFLOAD, false},
	{SCMP_SYS(ioctl), 1, UINT32_MAX, TUNSETQUEUE, false},
	{SCMP_SYS(ioctl), 1, 0xff00, KVMIO << 8, true},
};

/* Async-signal-safe. The call was not made; the signal, now with its default action, kills when the handler returns. */
static void on_sigsys(int sig, siginfo_t *si, void *context)
{
	static const char text[] = "doppel: sandbox: forbidden system call ";
	char line[sizeof(text) + 16], digits[12];
	size_t n = sizeof(text) - 1, nd = 0;

	memcpy(line, text, n);
	for (unsigned v = (unsigned)si->si_syscall; nd == 0 || v; v /= 10)
		digits[nd++] = (char)('0' + v % 10);
	while (nd)
		line[n++] = digits[--nd];
	line[n++] = '\n';
	term_restore();
	if (write(STDERR_FILENO, line, n) < 0)
		n = 0;
	signal(SIGSYS, SIG_DFL);
	raise(SIGSYS);
}

static int fill(scmp_filter_ctx f, bool kvm_device, int engine_pid)
{
	int ret = 0;

	for (u32 i = 0; i < ARRAY_SIZE(allowed) && !ret; i++)
		ret = seccomp_rule_add(f, SCMP_ACT_ALLOW, allowed[i], 0);
	for (u32 i = 0; i < ARRAY_SIZE(conditional) && !ret; i++)
		if (kvm_device || !conditional[i].kvm_device)
			ret = seccomp_rule_add(f, SCMP_ACT_ALLOW, conditional[i].nr, 1,
					       SCMP_CMP(conditional[i].arg, SCMP_CMP_MASKED_EQ, conditional[i].mask,
							conditional[i].value));
	/* signals go to threads of this process, and to vCPUs that wait for user code (kvm/channel.c) */
	if (!ret && engine_pid > 0)
		ret = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 2, SCMP_A0(SCMP_CMP_EQ, (u64)engine_pid, 0),
				       SCMP_A2(SCMP_CMP_EQ, (u64)CHAN_KICK_SIGNAL, 0));
	if (!ret)
		ret = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_EQ, (u64)getpid(), 0));
	return ret;
}

int sandbox_enter(bool kvm_device, int engine_pid, struct err *e)
{
	struct sigaction sa = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};
	scmp_filter_ctx f = NULL;
	int ret = 0;

	/* With many threads malloc counts the processors, in /sys, to bound its arenas; and one per vCPU would only cost memory. */
	mallopt(M_ARENA_MAX, 2);
#if defined(__SANITIZE_ADDRESS__)
	return 0; /* the sanitizers' own calls know no bounds */
#endif
	tzset(); /* the C library reads a file for the clock's first conversion, even to UTC */
	f = seccomp_init(SCMP_ACT_TRAP);
	if (!f)
		return err_set(e, ENOMEM, "sandbox: no memory");
	seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree, not a chain */
	ret = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!ret)
		ret = seccomp_attr_set(f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (!ret)
		ret = fill(f, kvm_device, engine_pid);
	if (!ret && sigaction(SIGSYS, &sa, NULL) < 0)
		ret = -errno;
	if (!ret)
		ret = seccomp_load(f);
	seccomp_release(f);
	return ret ? err_set(e, -ret, "sandbox: cannot be entered: %s (the kernel needs seccomp filters)", strerror(-ret)) : 0;
}
