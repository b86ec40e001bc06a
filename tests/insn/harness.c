/* The host's side of the differential harness, and what makes and judges cases. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/insn/harness_guest.h"

static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

/* What the signal handlers work on. */
static struct {
	const struct insn_case *c;
	struct insn_result *r;
	greg_t home[NGREG]; /* registers to return to */
	bool running;
} host;

u64 test_random(u64 *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}

u8 *harness_host_data(void)
{
	return (u8 *)T_DATA_VA;
}

/* ---- host execution ---- */

static void enter(ucontext_t *uc)
{
	greg_t *g = uc->uc_mcontext.gregs;

	memcpy(host.home, g, sizeof(host.home));
	for (unsigned i = 0; i < 16; i++)
		g[greg_of[i]] = (greg_t)host.c->before.gpr[i];
	g[REG_RIP] = (greg_t)host.c->before.rip;
	g[REG_EFL] = (greg_t)(host.c->before.rflags | FL_IF | FL_ONE);
	host.running = true;
}

static void leave(ucontext_t *uc, int sig)
{
	greg_t *g = uc->uc_mcontext.gregs;
	struct insn_result *r = host.r;

	for (unsigned i = 0; i < 16; i++)
		r->after.gpr[i] = (u64)g[greg_of[i]];
	r->after.rip = (u64)g[REG_RIP];
	r->after.rflags = (u64)g[REG_EFL];
	r->vector = (int)g[REG_TRAPNO];
	r->error = (u32)g[REG_ERR];
	r->cr2 = (u64)g[REG_CR2];
	if (sig == SIGTRAP && r->vector == 3) {
		r->after.rip--;
		r->vector = -1;
	}
	if (r->after.rip != host.c->before.rip) /* it branched to where nothing is: itself it completed */
		r->vector = -1;
	memcpy(g, host.home, sizeof(host.home));
	host.running = false;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	if (!host.running && sig == SIGUSR1) {
		enter(context);
	} else if (host.running) {
		leave(context, sig);
	} else {
		signal(sig, SIG_DFL);
	}
}

void harness_run_host(const struct insn_case *c, struct insn_result *r)
{
	u8 *code = (u8 *)T_CODE_VA;

	memset(code, 0xcc, PAGE_SIZE);
	memcpy(code + c->at, c->bytes, c->len);
	host.c = c;
	host.r = r;
	syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1);
}

static bool host_init(void)
{
	static const int signals[] = {SIGUSR1, SIGTRAP, SIGSEGV, SIGILL, SIGFPE, SIGBUS};
	static u8 stack[65536];
	stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE;

	if (mmap((void *)T_CODE_VA, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, flags, -1, 0) != (void *)T_CODE_VA ||
	    mmap((void *)T_DATA_VA, T_DATA_SIZE, PROT_READ | PROT_WRITE, flags, -1, 0) != (void *)T_DATA_VA ||
	    sigaltstack(&ss, NULL) < 0)
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
		if (sigaction(signals[i], &sa, NULL) < 0)
			return false;
	return true;
}

bool harness_init(void)
{
	if (!host_init() || !guest_init()) {
		printf("harness: cannot map its memory at fixed addresses\n");
		return false;
	}
	return true;
}

/* ---- making cases ---- */

static u64 interesting(u64 *rnd)
{
	static const u64 special[] = {0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000,
				      0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, ~0ull};
	u64 r = test_random(rnd);

	switch (r & 7) {
	case 0:
		return special[(r >> 8) % ARRAY_SIZE(special)];
	case 1:
		return r >> 8 & 0xff;
	case 2:
		return r >> 32;
	case 3:
		return (u64)(s64)(s32)(r >> 16);
	default:
		return test_random(rnd);
	}
}

static u64 data_address(u64 *rnd)
{
	u64 r = test_random(rnd);

	if (r % 64 == 0) /* across or beyond the ends */
		return T_DATA_VA + (r & 64 ? 0 : T_DATA_SIZE) - (r >> 8 & 15);
	if (r % 8 == 0) /* across an inner page boundary */
		return T_DATA_VA + PAGE_SIZE - (r >> 8 & 15);
	r = (r >> 8) % (T_DATA_SIZE - 128) + 64;
	return T_DATA_VA + (test_random(rnd) & 1 ? r & ~15ull : r);
}

static void put_disp32(struct insn_case *c, s32 disp)
{
	memcpy(c->bytes + c->in.disp_off, &disp, 4);
	insn_decode(c->bytes, c->len, INSN_MODE_64, &c->in);
}

/* Lets [base + index * scale + disp] be the address wanted, by the base, or the displacement where there is none. */
static void aim(struct insn_case *c, u64 *rnd)
{
	const struct insn_mem *m = &c->in.mem;
	u64 want = data_address(rnd), index = 0;

	if (m->index != INSN_NO_REG && !m->vsib) {
		if (m->index != R_SP)
			c->before.gpr[m->index] = test_random(rnd) % 64;
		index = c->before.gpr[m->index] * m->scale;
	}
	if (m->rip_relative) {
		put_disp32(c, (s32)(want - c->before.rip - c->len));
	} else if (m->base == INSN_NO_REG) {
		if (c->in.disp_len == 4)
			put_disp32(c, (s32)(want - index));
	} else if (m->base == m->index) {
		c->before.gpr[m->base] = (want - (u64)m->disp) / (1 + m->scale); /* near enough */
	} else {
		c->before.gpr[m->base] = want - (u64)m->disp - index;
	}
}

/* Where branches may go on the host: into the code page, far away, nowhere. Never into this program. */
static u64 branch_target(u64 *rnd)
{
	u64 r = test_random(rnd);

	switch (r & 3) {
	case 0:
		return r << 16 | 1ull << 62;
	case 1:
		return 0x10000000 + (r >> 8 & 0xffffff);
	default:
		return T_CODE_VA + 1024 + (r >> 8 & 1023);
	}
}

static void put_both(u64 a, u64 v)
{
	if (a < T_DATA_VA || a > T_DATA_VA + T_DATA_SIZE - 8)
		return;
	memcpy(harness_host_data() + (a - T_DATA_VA), &v, 8);
	memcpy(harness_guest_data() + (a - T_DATA_VA), &v, 8);
}

static void prepare_branch(struct insn_case *c, u64 *rnd)
{
	const struct insn *in = &c->in;
	u64 target = branch_target(rnd);
	s32 rel = (s32)(test_random(rnd) & 0xff) + 16;

	if (in->op[0].kind == OPK_REL && in->imm_len > 1) {
		memcpy(c->bytes + in->imm_off, &rel, in->imm_len);
		insn_decode(c->bytes, c->len, INSN_MODE_64, &c->in);
	} else if (in->id == INSN_RET) {
		put_both(c->before.gpr[R_SP], target);
	} else if (in->op[0].kind == OPK_GPR) {
		c->before.gpr[in->op[0].reg] = target;
	} else if (in->op[0].kind == OPK_MEM) {
		u64 index = in->mem.index == INSN_NO_REG ? 0 : c->before.gpr[in->mem.index] * in->mem.scale;
		u64 base = in->mem.rip_relative ? c->before.rip + c->len
			   : in->mem.base == INSN_NO_REG ? 0 : c->before.gpr[in->mem.base];
		u64 a = base + index + (u64)in->mem.disp;

		put_both(in->adsize == 4 ? (u32)a : a, target);
	}
}

void harness_prepare(struct insn_case *c, u64 *rnd)
{
	u64 r = test_random(rnd);

	for (unsigned i = 0; i < 16; i++)
		c->before.gpr[i] = interesting(rnd);
	c->before.gpr[R_SP] = data_address(rnd);
	c->before.rflags = (r & (FL_ARITH | (r >> 40 & 7 ? 0 : FL_DF))) | FL_ONE;
	c->at = 64 + (unsigned)(r >> 32) % 512;
	c->before.rip = T_CODE_VA + c->at;
	if (c->in.desc->attr & IA_STRING || c->in.id == INSN_XLAT) {
		c->before.gpr[R_SI] = data_address(rnd);
		c->before.gpr[R_DI] = data_address(rnd);
		c->before.gpr[R_CX] = test_random(rnd) % 40;
		if (c->in.id == INSN_XLAT)
			c->before.gpr[R_BX] = data_address(rnd);
		return;
	}
	if ((c->in.id == INSN_DIV || c->in.id == INSN_IDIV) && r & 1)
		c->before.gpr[R_DX] = r & 2 ? 0 : (u64)-1;
	for (unsigned i = 0; i < c->in.nops; i++)
		if (c->in.op[i].kind == OPK_MEM)
			aim(c, rnd);
	if (c->in.desc->attr & IA_BRANCH)
		prepare_branch(c, rnd);
	/* a bit offset in a register reaches far beyond the operand */
	if (c->in.id >= INSN_BT && c->in.id <= INSN_BTC && c->in.op[0].kind == OPK_MEM && c->in.op[1].kind == OPK_GPR &&
	    c->in.op[1].reg != c->in.mem.base && c->in.op[1].reg != c->in.mem.index)
		c->before.gpr[c->in.op[1].reg] = (u64)((s64)(test_random(rnd) % 2048) - 1024);
	if (c->in.id == INSN_LEAVE)
		c->before.gpr[R_BP] = r >> 60 ? data_address(rnd) : test_random(rnd) | 1ull << 62;
}

static unsigned random_bytes(u8 *p, u64 *rnd)
{
	static const u8 prefixes[] = {0x66, 0x66, 0x66, 0xf2, 0xf3, 0xf3, 0xf0, 0x67};
	u64 r = test_random(rnd);
	unsigned n = 0;

	if ((r & 3) == 0)
		p[n++] = prefixes[r >> 8 & 7];
	if ((r >> 12 & 31) == 0)
		p[n++] = prefixes[r >> 17 & 7];
	if (r >> 20 & 1)
		p[n++] = 0x40 | (r >> 24 & 15);
	switch (r >> 28 & 7) {
	case 0:
	case 1:
	case 2:
		p[n++] = 0x0f;
		break;
	case 3:
		p[n++] = 0x0f;
		p[n++] = r >> 32 & 1 ? 0x38 : 0x3a;
		break;
	case 4:
		if (n && (p[n - 1] & 0xf0) == 0x40)
			n--;
		p[n++] = 0xc4;
		p[n++] = (r >> 33 & 0xe0) | (1 + (r >> 40) % 3);
		break;
	default:
		break;
	}
	for (unsigned i = n; i < 16; i++)
		p[i] = (u8)test_random(rnd);
	return n;
}

/* A branch into its own bytes might never come back. */
static bool branches_home(const struct insn_case *c)
{
	s64 to = (s64)c->in.imm + c->len;

	return c->in.nops && c->in.op[0].kind == OPK_REL && to >= -16 && to < (s64)c->len;
}

/* A bit string whose offset is also its base may lie anywhere, this program's memory included. */
static bool unaimable(const struct insn *in)
{
	return in->id >= INSN_BT && in->id <= INSN_BTC && in->op[0].kind == OPK_MEM && in->op[1].kind == OPK_GPR &&
	       (in->op[1].reg == in->mem.base || in->op[1].reg == in->mem.index);
}

void harness_generate(struct insn_case *c, u64 *rnd, bool (*want)(const struct insn *in))
{
	memset(c, 0, sizeof(*c));
	do {
		random_bytes(c->bytes, rnd);
		c->len = insn_decode(c->bytes, 15, INSN_MODE_64, &c->in) == INSN_OK ? c->in.len : 0;
	} while (!c->len || !want(&c->in) || branches_home(c) || unaimable(&c->in));
	harness_prepare(c, rnd);
}

/* ---- judging ---- */

u64 harness_flag_mask(const struct insn *in)
{
	return (FL_ARITH | FL_DF) & ~(u64)in->desc->flags_undef;
}

static void report_bytes(const struct insn_case *c)
{
	char text[100];

	insn_format(&c->in, c->before.rip, text, sizeof(text));
	printf("\n%s  [", text);
	for (unsigned i = 0; i < c->len; i++)
		printf("%s%02x", i ? " " : "", c->bytes[i]);
	printf("] flags %03llx\n", (unsigned long long)c->before.rflags);
}

static void report_result(const char *who, const struct insn_result *r)
{
	printf("  %-6s vector %d error %x cr2 %llx rip %llx flags %03llx\n", who, r->vector, r->error,
	       (unsigned long long)r->cr2, (unsigned long long)r->after.rip, (unsigned long long)r->after.rflags & 0xfff);
}

static bool same_fault(const struct insn_result *a, const struct insn_result *b)
{
	if (a->vector != b->vector)
		return false;
	if (a->vector != 14)
		return true;
	/* the host kernel has pages in the upper half, the guest none */
	return a->cr2 == b->cr2 && (a->error == b->error || a->cr2 >> 63);
}

bool harness_compare(const struct insn_case *c, const struct insn_result *h, const struct insn_result *g, u64 flags)
{
	bool regs = !memcmp(h->after.gpr, g->after.gpr, sizeof(h->after.gpr)) && h->after.rip == g->after.rip;
	bool fl = h->vector >= 0 || !((h->after.rflags ^ g->after.rflags) & flags);
	bool mem = !memcmp(harness_host_data(), harness_guest_data(), T_DATA_SIZE);

	if (regs && fl && mem && same_fault(h, g))
		return true;
	report_bytes(c);
	report_result("host", h);
	report_result("interp", g);
	for (unsigned i = 0; i < 16; i++)
		if (h->after.gpr[i] != g->after.gpr[i])
			printf("  r%u: before %llx host %llx interp %llx\n", i, (unsigned long long)c->before.gpr[i],
			       (unsigned long long)h->after.gpr[i], (unsigned long long)g->after.gpr[i]);
	for (unsigned i = 0; i < T_DATA_SIZE; i++)
		if (harness_host_data()[i] != harness_guest_data()[i]) {
			printf("  memory at %llx: host %02x interp %02x\n", T_DATA_VA + i, harness_host_data()[i],
			       harness_guest_data()[i]);
			break;
		}
	memcpy(harness_guest_data(), harness_host_data(), T_DATA_SIZE);
	return false;
}
