/*
 * The engine's seccomp filter: what a thread that guest code can attack may ask of the host. No open, no network beyond the
 * socket it has, no exec, no new executable mapping: futexes, memory of fds it was given, eventfds, timers, threads.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/lib/lib.h"
#include "engine/main.h"

static const u16 allowed[] = {
	SYS_futex, SYS_futex_waitv, SYS_read, SYS_write, SYS_pwrite64, SYS_recvmsg, SYS_sendmsg, SYS_epoll_wait, SYS_epoll_pwait,
	SYS_epoll_ctl, SYS_close, SYS_munmap, SYS_madvise, SYS_clock_gettime, SYS_timer_create, SYS_timer_settime,
	SYS_timer_delete, SYS_timerfd_settime, SYS_rt_sigreturn, SYS_rt_sigprocmask, SYS_rt_sigaction, SYS_prlimit64, SYS_exit, SYS_exit_group, SYS_gettid,
	SYS_getpid, SYS_set_robust_list, SYS_rseq, SYS_brk, SYS_memfd_create, SYS_ftruncate, SYS_fstat, SYS_newfstatat,
	SYS_sched_yield, SYS_tgkill, SYS_restart_syscall, SYS_ppoll, SYS_poll, SYS_fcntl, SYS_lseek, SYS_sigaltstack, SYS_arch_prctl,
};

#define LOAD(field)   BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ARG_LO(n)     BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[n]))
#define JEQ(k, t, f)  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, t, f)
#define JSET(k, t, f) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, k, t, f)
#define RET(k)        BPF_STMT(BPF_RET | BPF_K, k)

void sandbox_enter(void)
{
	struct sock_filter f[ARRAY_SIZE(allowed) * 2 + 32];
	unsigned n = 0;
	struct sock_fprog prog;

	f[n++] = (struct sock_filter)LOAD(arch);
	f[n++] = (struct sock_filter)JEQ(AUDIT_ARCH_X86_64, 1, 0);
	f[n++] = (struct sock_filter)RET(SECCOMP_RET_KILL_PROCESS);
	f[n++] = (struct sock_filter)LOAD(nr);
	for (unsigned i = 0; i < ARRAY_SIZE(allowed); i++) {
		f[n++] = (struct sock_filter)JEQ(allowed[i], 0, 1);
		f[n++] = (struct sock_filter)RET(SECCOMP_RET_ALLOW);
	}
	/* mappings: never executable */
	f[n++] = (struct sock_filter)JEQ(SYS_mmap, 1, 0);
	f[n++] = (struct sock_filter)JEQ(SYS_mprotect, 0, 4);
	f[n++] = (struct sock_filter)ARG_LO(2);
	f[n++] = (struct sock_filter)JSET(PROT_EXEC, 0, 1);
	f[n++] = (struct sock_filter)RET(SECCOMP_RET_KILL_PROCESS);
	f[n++] = (struct sock_filter)RET(SECCOMP_RET_ALLOW);
	/* threads, not processes; clone3's flags are in memory: glibc falls back to clone */
	f[n++] = (struct sock_filter)JEQ(SYS_clone3, 0, 1);
	f[n++] = (struct sock_filter)RET(SECCOMP_RET_ERRNO | ENOSYS);
	f[n++] = (struct sock_filter)JEQ(SYS_clone, 0, 3);
	f[n++] = (struct sock_filter)ARG_LO(0);
	f[n++] = (struct sock_filter)JSET(CLONE_THREAD, 0, 1);
	f[n++] = (struct sock_filter)RET(SECCOMP_RET_ALLOW);
	f[n++] = (struct sock_filter)RET(SECCOMP_RET_KILL_PROCESS);
	prog = (struct sock_fprog){.len = (u16)n, .filter = f};
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
		eng_panic("doppel-engine: cannot enter the sandbox: %d (seccomp is needed)", errno);
}
