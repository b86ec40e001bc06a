/*
 * The engine's seccomp filter: what a thread that guest code can attack may ask of the host. Anything else ends it with SIGSYS, and is what
 * stops user code in a cell, which has this filter too. No open, no network beyond the socket it has, no exec, no tracing of others than its
 * own children, no executable mapping but by a cell's stub: futexes, memory of fds it was given, eventfds, timers, threads, cells.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/layout.h"
#include "engine/lib/lib.h"
#include "engine/main.h"

static const u16 allowed[] = {
	SYS_wait4, SYS_futex, SYS_futex_waitv, SYS_read, SYS_write, SYS_pwrite64, SYS_recvmsg, SYS_sendmsg, SYS_epoll_wait, SYS_epoll_pwait,
	SYS_epoll_ctl, SYS_close, SYS_munmap, SYS_madvise, SYS_clock_gettime, SYS_timer_create, SYS_timer_settime,
	SYS_timer_delete, SYS_timerfd_settime, SYS_rt_sigreturn, SYS_rt_sigprocmask, SYS_rt_sigaction, SYS_prlimit64, SYS_exit, SYS_exit_group, SYS_gettid,
	SYS_getpid, SYS_set_robust_list, SYS_rseq, SYS_brk, SYS_memfd_create, SYS_ftruncate, SYS_fstat, SYS_newfstatat,
	SYS_sched_yield, SYS_tgkill, SYS_restart_syscall, SYS_ppoll, SYS_poll, SYS_fcntl, SYS_lseek, SYS_sigaltstack, SYS_arch_prctl,
	SYS_close_range, SYS_getcpu, SYS_sched_getaffinity, SYS_getrandom,
};

/* What a vCPU may do to processes that it has made, and they to themselves: cell/process.c. It can attach to no other. */
static const u16 requests[] = {PTRACE_TRACEME, PTRACE_CONT, PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_SETOPTIONS, PTRACE_GETSIGINFO,
			       PTRACE_GETREGSET, PTRACE_SETREGSET};
static const u16 own[] = {0}; /* the calling thread */
static const u16 prctls[] = {PR_SET_PDEATHSIG, PR_SET_TSC, PR_SET_SECCOMP, PR_SET_NAME};


#define LOAD(field)   BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ARG_LO(n)     BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[n]))
#define JEQ(k, t, f)  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, t, f)
#define JSET(k, t, f) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, k, t, f)
#define RET(k)        BPF_STMT(BPF_RET | BPF_K, k)

/* With the number loaded: call nr is allowed if its first argument is one of these. */
static unsigned allow_first(struct sock_filter *f, u32 nr, const u16 *values, u8 count)
{
	unsigned n = 0;

	f[n++] = (struct sock_filter)JEQ(nr, 0, (u8)(count + 3));
	f[n++] = (struct sock_filter)ARG_LO(0);
	for (u8 i = 0; i < count; i++)
		f[n++] = (struct sock_filter)JEQ(values[i], (u8)(count - i), 0);
	f[n++] = (struct sock_filter)RET(SECCOMP_RET_TRAP);
	f[n++] = (struct sock_filter)RET(SECCOMP_RET_ALLOW);
	return n;
}

/* Never executable, but where a cell's stub maps guest memory, and then not writable. */
static unsigned allow_mappings(struct sock_filter *f)
{
	unsigned n = 0;

	f[n++] = (struct sock_filter)JEQ(SYS_mmap, 1, 0);
	f[n++] = (struct sock_filter)JEQ(SYS_mprotect, 0, 10);
	f[n++] = (struct sock_filter)ARG_LO(2);
	f[n++] = (struct sock_filter)JSET(PROT_EXEC, 0, 6);
	f[n++] = (struct sock_filter)JEQ(PROT_READ | PROT_EXEC, 0, 6);
	f[n++] = (struct sock_filter)LOAD(instruction_pointer);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, (u32)PAGE_MASK);
	f[n++] = (struct sock_filter)JEQ((u32)ENG_CELL_STUB, 0, 3);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4);
	f[n++] = (struct sock_filter)JEQ((u32)(ENG_CELL_STUB >> 32), 0, 1);
	f[n++] = (struct sock_filter)RET(SECCOMP_RET_ALLOW);
	f[n++] = (struct sock_filter)RET(SECCOMP_RET_TRAP);
	return n;
}

void sandbox_enter(void)
{
	struct sock_filter f[ARRAY_SIZE(allowed) * 2 + ARRAY_SIZE(requests) + ARRAY_SIZE(prctls) + 56];
	unsigned n = 0;
	struct sock_fprog prog;

	f[n++] = (struct sock_filter)LOAD(arch);
	f[n++] = (struct sock_filter)JEQ(AUDIT_ARCH_X86_64, 1, 0);
	f[n++] = (struct sock_filter)RET(SECCOMP_RET_TRAP);
	f[n++] = (struct sock_filter)LOAD(nr);
	n += allow_first(f + n, SYS_ptrace, requests, ARRAY_SIZE(requests)); /* first: they are many */
	for (unsigned i = 0; i < ARRAY_SIZE(allowed); i++) {
		f[n++] = (struct sock_filter)JEQ(allowed[i], 0, 1);
		f[n++] = (struct sock_filter)RET(SECCOMP_RET_ALLOW);
	}
	n += allow_mappings(f + n);
	n += allow_first(f + n, SYS_sched_setaffinity, own, ARRAY_SIZE(own));
	n += allow_first(f + n, SYS_prctl, prctls, ARRAY_SIZE(prctls));
	/* threads, and processes that share nothing; clone3's flags are in memory: glibc falls back to clone */
	f[n++] = (struct sock_filter)JEQ(SYS_clone3, 0, 1);
	f[n++] = (struct sock_filter)RET(SECCOMP_RET_ERRNO | ENOSYS);
	f[n++] = (struct sock_filter)JEQ(SYS_clone, 0, 4);
	f[n++] = (struct sock_filter)ARG_LO(0);
	f[n++] = (struct sock_filter)JEQ(SIGCHLD, 1, 0);
	f[n++] = (struct sock_filter)JSET(CLONE_THREAD, 0, 1);
	f[n++] = (struct sock_filter)RET(SECCOMP_RET_ALLOW);
	f[n++] = (struct sock_filter)RET(SECCOMP_RET_TRAP);
	prog = (struct sock_fprog){.len = (u16)n, .filter = f};
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
		eng_panic("doppel-engine: cannot enter the sandbox: %d (seccomp is needed)", errno);
}
