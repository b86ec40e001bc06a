/*
 * The host's side: entered and left by signals. The handler of SIGUSR1 loads the state, vector registers included, and the fault at the
 * end brings it back.
 */
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "engine/cpu/fpu.h"
#include "tests/insn/three.h"

#define SEL_CS32 0x23
#define SEL_CS64 0x33
#define SEL_DS   0x2b

static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static struct {
	const struct program *p;
	const struct state *s;
	struct result *r;
	greg_t home[NGREG];
	u64 home_fs;
	volatile bool running;
	volatile unsigned ticks; /* since the case began */
} host;

static struct xsave_area *frame_of(ucontext_t *uc)
{
	return (struct xsave_area *)(void *)uc->uc_mcontext.fpregs;
}

static void enter(ucontext_t *uc)
{
	greg_t *g = uc->uc_mcontext.gregs;
	struct xsave_area *x = frame_of(uc);
	u32 ds = SEL_DS;

	memcpy(host.home, g, sizeof(host.home));
	for (unsigned i = 0; i < 16; i++)
		g[greg_of[i]] = (greg_t)host.s->gpr[i];
	g[REG_RIP] = (greg_t)host.s->rip;
	g[REG_EFL] = (greg_t)(host.s->rflags | FL_IF | FL_ONE);
	g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xffffll) | (world_facts[host.p->world].mode64 ? SEL_CS64 : SEL_CS32);
	memcpy(x->fx.xmm, host.s->vec.xmm, sizeof(x->fx.xmm));
	memcpy(x->ymm_high, host.s->vec.ymm_high, sizeof(x->ymm_high));
	x->fx.mxcsr = host.s->vec.mxcsr;
	x->xstate_bv |= XS_SSE | XS_AVX;
	host.running = true;
	__asm__ volatile("rdfsbase %0" : "=r"(host.home_fs));
	__asm__ volatile("mov %0, %%ds\n mov %0, %%es\n mov %0, %%fs\n mov %0, %%gs\n wrfsbase %1\n wrgsbase %2"
			 : : "r"(ds), "r"(host.s->fs_base), "r"(host.s->gs_base));
}

static void leave(ucontext_t *uc)
{
	greg_t *g = uc->uc_mcontext.gregs;
	struct xsave_area *x = frame_of(uc);
	struct result *r = host.r;

	__asm__ volatile("mov %0, %%fs\n mov %0, %%gs\n wrfsbase %1" : : "r"(0), "r"(host.home_fs));
	for (unsigned i = 0; i < 16; i++)
		r->after.gpr[i] = (u64)g[greg_of[i]];
	r->after.rip = (u64)g[REG_RIP];
	r->after.rflags = (u64)g[REG_EFL];
	memset(&r->after.vec, 0, sizeof(r->after.vec));
	if (x->xstate_bv & XS_SSE)
		memcpy(r->after.vec.xmm, x->fx.xmm, sizeof(x->fx.xmm));
	if (x->xstate_bv & XS_AVX)
		memcpy(r->after.vec.ymm_high, x->ymm_high, sizeof(x->ymm_high));
	r->after.vec.mxcsr = x->fx.mxcsr;
	x->fx.mxcsr = MXCSR_DEFAULT;
	x->xstate_bv &= ~(u64)XS_AVX;
	r->vector = (int)g[REG_TRAPNO];
	r->error = (u32)g[REG_ERR];
	r->cr2 = (u64)g[REG_CR2];
	memcpy(g, host.home, sizeof(host.home));
	host.running = false;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)info;
	if (!host.running && sig == SIGUSR1)
		enter(context);
	else if (host.running)
		leave(context);
	else if (!three_guest_signal(sig, context))
		signal(sig, SIG_DFL);
}

/* A case that does not end: on the host it is broken off, in the guest the loop is asked to stop. */
static void on_tick(int sig, siginfo_t *info, void *context)
{
	u64 home = 0;

	(void)sig;
	(void)info;
	if (host.running) {
		if (++host.ticks > 3) {
			host.r->late = true;
			leave(context);
		}
		return;
	}
	(void)home;
	three_guest_expire();
}

void three_run_host(const struct program *p, const struct state *s, const struct memory *m, struct result *r)
{
	u8 *code = (u8 *)W_CODE_VA;

	if (memcmp(code + p->at, p->bytes, p->len) != 0 || code[p->at + p->len] != W_FILL) {
		memset(code, W_FILL, W_CODE_SIZE);
		memcpy(code + p->at, p->bytes, p->len);
	}
	memcpy((u8 *)W_DATA_VA, m->data, W_DATA_RW);
	memcpy((u8 *)W_COUNT_VA, m->count, W_COUNT_SIZE);
	r->late = false;
	host.p = p;
	host.s = s;
	host.r = r;
	host.ticks = 0;
	syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1);
	memcpy(r->mem.data, (u8 *)W_DATA_VA, W_DATA_SIZE);
	memcpy(r->mem.count, (u8 *)W_COUNT_VA, W_COUNT_SIZE);
	if (r->vector == 6 && r->after.rip == s->rip + p->len)
		r->vector = -1;
}

/* The guest, the program, linked at 4 MiB, and its heap, which the kernel places at random; the kernel's mappings at the top. */
bool three_in_own(u64 a)
{
	u64 heap = (u64)sbrk(0), margin = 0x400000;

	if ((a >= W_CODE_VA && a < W_CODE_VA + W_CODE_SIZE) || (a >= W_DATA_VA && a < W_DATA_VA + W_DATA_SIZE))
		return false;
	if (a >= ENG_CODE_RX && a < ENG_CODE_RW + ENG_CODE_SIZE)
		return true;
	if (a >= ENG_STACK_BASE && a < BIT64(47))
		return true;
	return (a >= 0x3ff000 && a < 0x400000 + margin) || (a >= heap - margin && a < heap + margin);
}

static bool map(u64 at, u64 size, int prot)
{
	return mmap((void *)at, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE, -1, 0) == (void *)at;
}

bool three_host_init(const struct memory *m)
{
	static const int signals[] = {SIGUSR1, SIGTRAP, SIGSEGV, SIGILL, SIGFPE, SIGBUS};
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	struct itimerval tick = {.it_interval.tv_usec = 50000, .it_value.tv_usec = 50000};

	if (!(getauxval(AT_HWCAP2) & 2)) /* FSGSBASE */
		return false;
	if (!map(W_CODE_VA, W_CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC) || !map(W_DATA_VA, W_DATA_SIZE, PROT_READ | PROT_WRITE) ||
	    !map(W_COUNT_VA, PAGE_SIZE, PROT_READ | PROT_WRITE))
		return false;
	memcpy((u8 *)W_DATA_VA, m->data, W_DATA_SIZE);
	if (mprotect((void *)(W_DATA_VA + W_DATA_RW), PAGE_SIZE, PROT_READ) < 0)
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
		if (sigaction(signals[i], &sa, NULL) < 0)
			return false;
	sa.sa_sigaction = on_tick;
	sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
	return sigaction(SIGALRM, &sa, NULL) == 0 && setitimer(ITIMER_REAL, &tick, NULL) == 0;
}
