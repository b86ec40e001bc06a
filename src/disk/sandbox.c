/*
 * The seccomp filter of a disk's process, which parses what a hostile guest and hostile images say. It can read and write the
 * descriptors it has, and nothing else: no opening, no sockets, no processes, no executable memory; it has no capabilities. Its
 * io_uring takes only the operations that disk_aio.c uses, for what goes through it no filter sees.
 */
#include "disk/disk.h"

#include <linux/capability.h>
#include <malloc.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const int allowed[] = {
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(preadv), SCMP_SYS(preadv2),
	SCMP_SYS(pwritev), SCMP_SYS(pwritev2), SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(fallocate), SCMP_SYS(io_uring_enter),
	SCMP_SYS(lseek), SCMP_SYS(fstat), SCMP_SYS(close), SCMP_SYS(fcntl),
	SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_ctl),
	SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(timerfd_settime),
	SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(futex), SCMP_SYS(sched_yield),
	SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep),
	SCMP_SYS(restart_syscall), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
	SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getrandom), SCMP_SYS(exit), SCMP_SYS(exit_group),
};

/* Async-signal-safe. The call was not made; the signal, now with its default action, kills when the handler returns. */
static void on_sigsys(int sig, siginfo_t *si, void *context)
{
	static const char text[] = "doppel: disk: forbidden system call ";
	char line[sizeof(text) + 16], digits[12];
	size_t n = sizeof(text) - 1, nd = 0;

	memcpy(line, text, n);
	for (unsigned v = (unsigned)si->si_syscall; nd == 0 || v; v /= 10)
		digits[nd++] = (char)('0' + v % 10);
	while (nd)
		line[n++] = digits[--nd];
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, n) < 0)
		n = 0;
	signal(SIGSYS, SIG_DFL);
	raise(SIGSYS);
}

static void drop_capabilities(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	const struct __user_cap_data_struct none[2] = {{0}};

	syscall(SYS_capset, &h, none); /* giving up is always allowed */
}

static int fill(scmp_filter_ctx f)
{
	int ret = 0;

	for (u32 i = 0; i < ARRAY_SIZE(allowed) && !ret; i++)
		ret = seccomp_rule_add(f, SCMP_ACT_ALLOW, allowed[i], 0);
	if (!ret)
		ret = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (!ret)
		ret = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (!ret)
		ret = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_EQ, (u64)getpid(), 0));
	return ret;
}

int sandbox_enter(void)
{
	struct sigaction sa = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};
	scmp_filter_ctx f = NULL;
	int ret = 0;

	drop_capabilities();
	mallopt(M_ARENA_MAX, 1); /* a second arena counts the processors, in /sys */
#if defined(__SANITIZE_ADDRESS__)
	return 0; /* the sanitizers' own calls know no bounds */
#endif
	f = seccomp_init(SCMP_ACT_TRAP);
	if (!f)
		return -ENOMEM;
	seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree, not a chain */
	ret = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!ret)
		ret = seccomp_attr_set(f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (!ret)
		ret = fill(f);
	if (!ret && sigaction(SIGSYS, &sa, NULL) < 0)
		ret = -errno;
	if (!ret)
		ret = seccomp_load(f);
	seccomp_release(f);
	return ret;
}
