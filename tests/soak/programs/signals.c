/* Signals from faults, and ptrace: what a translator must report exactly. Prints sums that do not depend on addresses. */
#define _GNU_SOURCE
#include <fenv.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef __x86_64__
#define SET_TF(how) __asm__ volatile("pushfq; pop %%rax; " how ", %%eax; push %%rax; popfq" : : : "rax", "memory", "cc")
#else
#define SET_TF(how) __asm__ volatile("pushf; pop %%eax; " how ", %%eax; push %%eax; popf" : : : "eax", "memory", "cc")
#endif

static sigjmp_buf back;
static volatile long count[65];
static char *page;

static void on_signal(int sig, siginfo_t *si, void *ctx)
{
	ucontext_t *uc = ctx;

	count[sig]++;
	if (sig == SIGSEGV && (char *)si->si_addr >= page && (char *)si->si_addr < page + 4096) {
		mprotect(page, 4096, PROT_READ | PROT_WRITE);
		return;
	}
	if (sig == SIGTRAP) /* single step: off after 1000 */
		uc->uc_mcontext.gregs[REG_EFL] &= count[SIGTRAP] >= 1000 ? ~0x100l : ~0l;
	else
		siglongjmp(back, sig);
}

static void faults(void)
{
	volatile int zero = 0, one = 1;
	volatile double d = 0;

	for (volatile int i = 0; i < 2000; i++) {
		int sig = sigsetjmp(back, 1);

		if (sig)
			continue;
		switch (i % 5) {
		case 0:
			*(volatile int *)8 = 1;
			break;
		case 1:
			one = one / zero;
			break;
		case 2:
			__asm__ volatile("ud2");
			break;
		case 3:
			feenableexcept(FE_DIVBYZERO);
			d = 1.0 / d;
			break;
		case 4:
			((volatile void (*)(void))(long)0x10)();
			break;
		}
	}
	fedisableexcept(FE_ALL_EXCEPT);
	for (int i = 0; i < 2000; i++) {
		mprotect(page, 4096, PROT_NONE);
		page[i]++;
	}
}

static void step_self(void)
{
	long sum = 0;

	SET_TF("or $0x100");
	for (int i = 0; i < 5000; i++)
		sum += i * 3;
	SET_TF("and $~0x100");
	printf("stepped, sum %ld\n", sum);
}

static void trace_child(void)
{
	int status, steps = 0;
	pid_t pid = fork();

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		_exit(42);
	}
	waitpid(pid, &status, 0);
	while (WIFSTOPPED(status) && steps < 100000) {
		struct user_regs_struct r;

		ptrace(PTRACE_GETREGS, pid, 0, &r);
		ptrace(PTRACE_SINGLESTEP, pid, 0, 0);
		waitpid(pid, &status, 0);
		steps++;
	}
	printf("traced child: exit %d, %s\n", WEXITSTATUS(status), steps > 5 && steps < 2000 ? "some steps" : "odd");
}

int main(void)
{
	static const int sigs[] = {SIGSEGV, SIGFPE, SIGILL, SIGBUS, SIGTRAP};
	struct sigaction sa = {.sa_flags = SA_SIGINFO};
	long sum = 0;

	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sa.sa_sigaction = on_signal;
	for (unsigned i = 0; i < sizeof(sigs) / sizeof(sigs[0]); i++)
		sigaction(sigs[i], &sa, NULL);
	faults();
	for (int i = 0; i < 4096; i++)
		sum += page[i];
	printf("segv %ld fpe %ld ill %ld, page sum %ld\n", count[SIGSEGV], count[SIGFPE], count[SIGILL], sum);
	step_self();
	trace_child();
	return 0;
}
