/*
 * Signals of the engine: the vCPU's timer, floating-point exceptions of guest instructions run on the host, and real faults,
 * which end the engine with one line.
 */
#include <signal.h>
#include <ucontext.h>

#include "engine/cell/cell.h"
#include "engine/cpu/fpu.h"
#include "engine/irqchip/timer.h"
#include "engine/lib/lib.h"
#include "engine/main.h"
#include "engine/translate/tr.h"
#include "engine/vm.h"
#include "kvm/chan.h"

/* The vCPU whose thread this is, told by where the handler's stack lies. (The interrupted stack pointer may be the guest's.) */
static struct vcpu *this_vcpu(void)
{
	u64 n = eng_vcpu_at((u64)__builtin_frame_address(0));

	return n < ENG_MAX_VCPUS ? (struct vcpu *)(eng_vcpu_base((unsigned)n) + ENG_VCPU_STATE) : NULL;
}

static void on_timer(int sig, siginfo_t *si, void *ctx)
{
	struct vcpu *cpu = this_vcpu();

	(void)sig;
	cell_signal((u64 *)&((ucontext_t *)ctx)->uc_mcontext.gregs[REG_RIP]);
	if (!cpu || si->si_code != SI_TIMER)
		return;
	__atomic_fetch_or(&cpu->chan->attention, ATT_TIMER, __ATOMIC_SEQ_CST);
	__atomic_store_n(&cpu->chan->calm, 0, __ATOMIC_SEQ_CST);
}

static _Noreturn void die(const char *what, const siginfo_t *si, const ucontext_t *uc)
{
	const struct vcpu *cpu = this_vcpu();

	eng_panic("doppel-engine: %s at %lx, address %lx, guest rip %lx%s", what,
		  (u64)uc->uc_mcontext.gregs[REG_RIP], (u64)si->si_addr, cpu ? cpu->rip : 0,
		  (u64)si->si_addr >= ENG_RAM_BASE && (u64)si->si_addr < ENG_TOP
		      ? " (guest memory is gone: was its file cut short?)"
		      : "");
}

static void on_fault(int sig, siginfo_t *si, void *ctx)
{
	struct vcpu *cpu = this_vcpu();

	if (sig == SIGFPE && cpu && vec_handle_sigfpe(cpu, ctx))
		return;
	if (sig == SIGBUS && window_fault(the_vm(), (u64)si->si_addr))
		return;
	if ((sig == SIGFPE || sig == SIGSEGV || sig == SIGBUS) && tr_handle_fault(cpu, ctx))
		return;
	die(sig == SIGSEGV ? "SIGSEGV" : sig == SIGBUS ? "SIGBUS" : sig == SIGILL ? "SIGILL" : "SIGFPE", si, ctx);
}

void signals_init(void)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
	struct sigaction sa = {.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};

	sa.sa_sigaction = on_fault;
	for (unsigned i = 0; i < ARRAY_SIZE(faults); i++)
		sigaction(faults[i], &sa, NULL);
	sa.sa_sigaction = on_timer;
	sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
	sigaction(ENG_SIG_TIMER, &sa, NULL);
	/* the terminal's signals are for the VMM: the engine ends when the VMM does */
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGTSTP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
}
