/* The host's side of the differential harness, and what makes and judges cases. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
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
	u64 home_fs;        /* thread pointer: nothing may use it while a case is loaded */
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

static void load_segments(u64 fs, u64 gs)
{
	u32 ds = T_DS;

	__asm__ volatile("mov %0, %%ds\n mov %0, %%es\n mov %0, %%fs\n mov %0, %%gs\n wrfsbase %1\n wrgsbase %2"
			 : : "r"(ds), "r"(fs), "r"(gs));
}

static void enter(ucontext_t *uc)
{
	greg_t *g = uc->uc_mcontext.gregs;
	const struct insn_state *s = &host.c->before;

	memcpy(host.home, g, sizeof(host.home));
	for (unsigned i = 0; i < 16; i++)
		g[greg_of[i]] = (greg_t)s->gpr[i];
	g[REG_RIP] = (greg_t)s->rip;
	g[REG_EFL] = (greg_t)(s->rflags | FL_IF | FL_ONE);
	g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xffffll) | (host.c->compat ? T_CS32 : T_CS64);
	host.running = true;
	__asm__ volatile("rdfsbase %0" : "=r"(host.home_fs));
	load_segments(s->fs_base, s->gs_base);
}

static void save_segments(struct insn_state *s, u64 home_fs)
{
	__asm__ volatile("mov %%es, %0" : "=r"(s->sel[SEG_ES]));
	__asm__ volatile("mov %%ds, %0" : "=r"(s->sel[SEG_DS]));
	__asm__ volatile("mov %%fs, %0" : "=r"(s->sel[SEG_FS]));
	__asm__ volatile("mov %%gs, %0" : "=r"(s->sel[SEG_GS]));
	__asm__ volatile("rdfsbase %0" : "=r"(s->fs_base));
	__asm__ volatile("rdgsbase %0" : "=r"(s->gs_base));
	__asm__ volatile("mov %0, %%fs\n mov %0, %%gs\n wrfsbase %1" : : "r"(0), "r"(home_fs));
}

static void leave(ucontext_t *uc, int sig)
{
	greg_t *g = uc->uc_mcontext.gregs;
	struct insn_result *r = host.r;

	save_segments(&r->after, host.home_fs);
	for (unsigned i = 0; i < 16; i++)
		r->after.gpr[i] = (u64)g[greg_of[i]];
	r->after.rip = (u64)g[REG_RIP];
	r->after.rflags = (u64)g[REG_EFL];
	r->after.sel[SEG_CS] = (u16)g[REG_CSGSFS];
	r->after.sel[SEG_SS] = (u16)((u64)g[REG_CSGSFS] >> 48);
	r->vector = (int)g[REG_TRAPNO];
	r->error = (u32)g[REG_ERR];
	r->cr2 = (u64)g[REG_CR2];
	if (sig == SIGTRAP && r->vector == 3) {
		r->after.rip--;
		r->vector = -1;
	}
	if (host.c->count > 1 && r->after.rip == host.c->before.rip + host.c->len)
		r->vector = -1;
	if (host.c->count <= 1 && r->after.rip != host.c->before.rip)
		r->vector = -1; /* it branched to where nothing is: itself it completed */
	memcpy(g, host.home, sizeof(host.home));
	host.running = false;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	if (!host.running && sig == SIGUSR1) {
		enter(context);
	} else if (host.running) {
		leave(context, sig);
	} else if (!guest_signal(sig, context)) {
		signal(sig, SIG_DFL);
	}
}

void harness_run_host(const struct insn_case *c, struct insn_result *r)
{
	u8 *code = (u8 *)T_CODE_VA;

	memset(code, c->count > 1 ? 0xf4 : 0xcc, PAGE_SIZE); /* programs see the same as in the guest */
	memcpy(code + c->at, c->bytes, c->len);
	memset(r, 0, sizeof(*r));
	host.c = c;
	host.r = r;
	syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1);
}

/* The guest, the program, linked at 4 MiB, and its heap, which the kernel places at random. */
static bool in_own(u64 a)
{
	extern u8 _end[];
	u64 heap = (u64)sbrk(0), margin = 0x200000;

	if ((a >= T_CODE_VA && a < T_CODE_VA + T_CODE_SIZE) || (a >= T_DATA_VA && a < T_DATA_VA + T_DATA_SIZE))
		return false;
	if ((a >= ENG_CODE_RX && a < ENG_CODE_RW + ENG_CODE_SIZE) || a >= ENG_VCPU_LOW)
		return a < ENG_TOP;
	if ((a >= ENG_VM_BASE && a < ENG_ATTR_BASE + ENG_ATTR_SIZE) || (a >= ENG_RAM_BASE && a < ENG_RAM_BASE + BIT64(30)))
		return true;
	/* this program's image, and its heap */
	return (a >= 0x3ff000 && a < (u64)_end + 2 * PAGE_SIZE) || (a >= heap - margin && a < heap + margin);
}

bool harness_unsafe(const struct insn_result *g)
{
	return g->wrote_code || in_own(g->after.rip) || (g->vector == 14 && in_own(g->cr2));
}

static bool host_init(void)
{
	static const int signals[] = {SIGUSR1, SIGTRAP, SIGSEGV, SIGILL, SIGFPE, SIGBUS};
	static u8 stack[65536];
	stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE;

	if (!(getauxval(AT_HWCAP2) & 2)) /* FSGSBASE */
		return false;
	if (mmap((void *)T_CODE_VA, T_CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, flags, -1, 0) != (void *)T_CODE_VA ||
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
		printf("harness: no FSGSBASE, or its addresses are taken\n");
		return false;
	}
	return true;
}

/* ---- making cases ---- */

u64 test_interesting(u64 *rnd)
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

static enum insn_mode code_mode(const struct insn_case *c)
{
	return c->compat ? INSN_MODE_32 : INSN_MODE_64;
}

static void decode_again(struct insn_case *c)
{
	insn_decode(c->bytes, c->len, code_mode(c), &c->in);
}

static u64 segment_base(const struct insn_case *c)
{
	return c->in.mem.seg == SEG_FS ? c->before.fs_base : c->in.mem.seg == SEG_GS ? c->before.gs_base : 0;
}

static void put_disp32(struct insn_case *c, s32 disp)
{
	memcpy(c->bytes + c->in.disp_off, &disp, 4);
	decode_again(c);
}

/* Lets [base + index * scale + disp] be the address wanted, by the base, or the displacement where there is none. */
static void aim(struct insn_case *c, u64 *rnd)
{
	const struct insn_mem *m = &c->in.mem;
	u64 want = data_address(rnd) - segment_base(c), index = 0;

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
static u64 branch_target(u64 *rnd, bool compat)
{
	u64 r = test_random(rnd);

	switch (r & 3) {
	case 0:
		return compat ? 0x40000000 | r >> 40 : r << 16 | 1ull << 62;
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

static u64 operand_offset(const struct insn *in, const struct insn_state *s)
{
	const struct insn_mem *m = &in->mem;
	u64 a = (u64)m->disp;

	if (m->rip_relative)
		a += s->rip + in->len;
	else if (m->base != INSN_NO_REG)
		a += s->gpr[m->base];
	if (m->index != INSN_NO_REG)
		a += s->gpr[m->index] * m->scale;
	return in->adsize == 8 ? a : in->adsize == 4 ? (u32)a : (u16)a;
}

static u64 operand_address(const struct insn_case *c)
{
	u64 a = operand_offset(&c->in, &c->before) + segment_base(c);

	return c->compat ? (u32)a : a;
}

static u16 test_selector(u64 *rnd)
{
	static const u16 selectors[] = {0,    1,    3,    0x2b, 0x2b, 0x2b, 0x28, 0x2a,  0x33,
					0x23, 0x20, 0x10, 0x18, 0x1b, 8,    0x2c, 0xfff8};

	return selectors[test_random(rnd) % ARRAY_SIZE(selectors)];
}

/* A selector where the instruction takes one from. */
static void prepare_selector(struct insn_case *c, u64 *rnd)
{
	const struct insn *in = &c->in;
	u16 sel = test_selector(rnd);
	u64 a = 0;

	switch (in->id) {
	case INSN_POP_SREG:
		put_both(c->before.gpr[R_SP], sel | test_random(rnd) << 16);
		return;
	case INSN_LES:
	case INSN_LDS:
	case INSN_LSS:
	case INSN_LFS:
	case INSN_LGS:
		a = operand_address(c);
		put_both(a, test_random(rnd));
		put_both(a + in->opsize, sel | test_random(rnd) << 16);
		return;
	case INSN_MOV_SREG:
		if (in->op[0].kind != OPK_SREG)
			return;
		break;
	case INSN_LAR:
	case INSN_LSL:
	case INSN_VERR:
	case INSN_VERW:
		break;
	default:
		return;
	}
	a = in->nops > 1 ? 1 : 0;
	if (in->op[a].kind == OPK_GPR)
		c->before.gpr[in->op[a].reg] = sel | (test_random(rnd) << 16 & (c->compat ? 0xffff0000 : ~0ull));
	else
		put_both(operand_address(c), sel | test_random(rnd) << 16);
}

static void prepare_branch(struct insn_case *c, u64 *rnd)
{
	const struct insn *in = &c->in;
	u64 target = branch_target(rnd, c->compat);
	s32 rel = (s32)(test_random(rnd) & 0xff) + 16;

	if (in->op[0].kind == OPK_REL && in->imm_len > 1) {
		memcpy(c->bytes + in->imm_off, &rel, in->imm_len);
		decode_again(c);
	} else if (in->id == INSN_RET) {
		put_both(c->before.gpr[R_SP], target);
	} else if (in->op[0].kind == OPK_GPR) {
		c->before.gpr[in->op[0].reg] = target;
	} else if (in->op[0].kind == OPK_MEM) {
		put_both(operand_address(c), target);
	}
}

static void prepare_state(struct insn_case *c, u64 *rnd)
{
	u64 r = test_random(rnd);

	for (unsigned i = 0; i < 16; i++)
		c->before.gpr[i] = test_interesting(rnd) & (c->compat ? 0xffffffff : ~0ull);
	for (unsigned i = 8; i < 16 && c->compat; i++)
		c->before.gpr[i] = 0;
	c->before.gpr[R_SP] = data_address(rnd);
	c->before.rflags = (r & (FL_ARITH | (r >> 40 & 7 ? 0 : FL_DF))) | FL_ONE;
	c->before.fs_base = data_address(rnd) - (r >> 20 & 1 ? 0 : r >> 21 & 1 ? 0x800 : 0x80000000);
	c->before.gs_base = data_address(rnd) + (r >> 22 & 1 ? 0 : 0x7fff0000);
	c->at = 64 + (unsigned)(r >> 32) % 512;
	c->before.rip = T_CODE_VA + c->at;
}

static void prepare_string(struct insn_case *c, u64 *rnd)
{
	c->before.gpr[R_SI] = data_address(rnd) - segment_base(c);
	c->before.gpr[R_DI] = data_address(rnd);
	c->before.gpr[R_CX] = test_random(rnd) % 40;
	if (c->in.id == INSN_XLAT)
		c->before.gpr[R_BX] = data_address(rnd) - segment_base(c);
}

static void trim(struct insn_case *c)
{
	for (unsigned i = 0; i < 16 && c->compat; i++)
		c->before.gpr[i] = (u32)c->before.gpr[i];
}

static void prepare_enter(struct insn_case *c, u64 r)
{
	c->before.gpr[R_BP] = r >> 58 ? T_DATA_VA + 300 + (r >> 8) % (T_DATA_SIZE - 400) : r;
	c->before.gpr[R_SP] = T_DATA_VA + (r >> 32) % (T_DATA_SIZE + 64);
	if (r & 7)
		c->bytes[c->in.imm_off + 1] &= 3;
	decode_again(c);
}

static void prepare(struct insn_case *c, u64 *rnd)
{
	u64 r = test_random(rnd);

	if (c->in.desc->attr & IA_STRING || c->in.id == INSN_XLAT) {
		prepare_string(c, rnd);
		return;
	}
	if ((c->in.id == INSN_DIV || c->in.id == INSN_IDIV) && r & 1)
		c->before.gpr[R_DX] = r & 2 ? 0 : (u64)-1;
	for (unsigned i = 0; i < c->in.nops; i++)
		if (c->in.op[i].kind == OPK_MEM)
			aim(c, rnd);
	if (c->in.desc->attr & IA_BRANCH)
		prepare_branch(c, rnd);
	prepare_selector(c, rnd);
	if (c->in.id == INSN_ENTER)
		prepare_enter(c, r);
	if (c->in.id == INSN_INTO) /* the guest has no IDT */
		c->before.rflags &= ~(u64)FL_OF;
	if (c->in.id == INSN_BOUND && r & 3)
		c->before.gpr[c->in.op[0].reg] = r & 4 ? 0 : r >> 50;
	/* a bit offset in a register reaches far beyond the operand */
	if (c->in.id >= INSN_BT && c->in.id <= INSN_BTC && c->in.op[0].kind == OPK_MEM && c->in.op[1].kind == OPK_GPR &&
	    c->in.op[1].reg != c->in.mem.base && c->in.op[1].reg != c->in.mem.index)
		c->before.gpr[c->in.op[1].reg] = (u64)((s64)(test_random(rnd) % 2048) - 1024);
	if (c->in.id == INSN_LEAVE)
		c->before.gpr[R_BP] = r >> 60 ? data_address(rnd) : test_random(rnd) | 1ull << 62;
}

void harness_prepare(struct insn_case *c, u64 *rnd)
{
	prepare_state(c, rnd);
	prepare(c, rnd);
	trim(c);
}

static unsigned random_bytes(u8 *p, u64 *rnd, bool compat)
{
	static const u8 prefixes[] = {0x66, 0x66, 0x66, 0xf2, 0xf3, 0xf3, 0xf0, 0x67,
				      0x64, 0x65, 0x66, 0x67, 0xf2, 0x2e, 0x26, 0x36};
	u64 r = test_random(rnd);
	unsigned n = 0;

	if ((r & 3) == 0)
		p[n++] = prefixes[r >> 8 & 15];
	if ((r >> 12 & 15) == 0)
		p[n++] = prefixes[r >> 17 & 15];
	if (r >> 20 & 1 && !compat)
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
		if (n && (p[n - 1] & 0xf0) == 0x40 && !compat)
			n--;
		p[n++] = 0xc4;
		p[n++] = (r >> 33 & 0xe0) | (compat ? 0xc0 : 0) | (1 + (r >> 40) % 3);
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
	bool compat = c->compat;

	memset(c, 0, offsetof(struct insn_case, prog));
	memset(&c->before, 0, sizeof(c->before));
	c->compat = compat;
	c->count = 1;
	do {
		random_bytes(c->bytes, rnd, compat);
		c->len = insn_decode(c->bytes, 15, code_mode(c), &c->in) == INSN_OK ? c->in.len : 0;
	} while (!c->len || !want(&c->in) || branches_home(c) || unaimable(&c->in));
	harness_prepare(c, rnd);
}

/* ---- judging ---- */

static const u64 judged = FL_ARITH | FL_DF;

u64 harness_flag_mask(const struct insn_case *c, const struct insn_result *r)
{
	if (c->count <= 1)
		return r->vector >= 0 ? 0 : judged & ~(u64)c->in.desc->flags_undef;
	for (unsigned i = 0; i < c->count; i++) {
		const struct insn_desc *d = c->prog[i].in.desc;

		if (c->before.rip + c->prog[i].off != r->after.rip)
			continue;
		/* it faulted: of an instruction that repeats, or divides, some flags may be there already */
		return judged & ~(c->prog[i].undefined | d->flags_undef | (d->attr & IA_STRING ? d->flags_written : 0));
	}
	return judged & ~c->prog[c->count].undefined;
}

static void report_insn(const struct insn *in, u64 rip, const u8 *bytes)
{
	char text[100];

	insn_format(in, rip, text, sizeof(text));
	printf("\n%llx %s  [", (unsigned long long)rip, text);
	for (unsigned i = 0; i < in->len; i++)
		printf("%s%02x", i ? " " : "", bytes[i]);
	printf("]");
}

static void report_bytes(const struct insn_case *c)
{
	if (c->count <= 1)
		report_insn(&c->in, c->before.rip, c->bytes);
	for (unsigned i = 0; c->count > 1 && i < c->count; i++)
		report_insn(&c->prog[i].in, c->before.rip + c->prog[i].off, c->bytes + c->prog[i].off);
	printf(" %s flags %03llx fs %llx gs %llx\n", c->compat ? "32" : "64", (unsigned long long)c->before.rflags,
	       (unsigned long long)c->before.fs_base, (unsigned long long)c->before.gs_base);
}

static void report_result(const char *who, const struct insn_result *r)
{
	const u16 *s = r->after.sel;

	printf("  %-6s vector %d error %x cr2 %llx rip %llx flags %03llx sel %x %x %x %x %x %x\n", who, r->vector, r->error,
	       (unsigned long long)r->cr2, (unsigned long long)r->after.rip, (unsigned long long)r->after.rflags & 0xfff,
	       s[0], s[1], s[2], s[3], s[4], s[5]);
}

static bool same_fault(const struct insn_result *a, const struct insn_result *b)
{
	if (a->vector != b->vector)
		return false;
	if (a->vector >= 10 && a->vector <= 13 && a->error != b->error)
		return false;
	if (a->vector != 14)
		return true;
	/* the host kernel has pages in the upper half, the guest none */
	return a->cr2 == b->cr2 && (a->error == b->error || a->cr2 >> 63);
}

/* What lies above the 32 bits of compatibility mode is nobody's. */
static bool same_gpr(const struct insn_case *c, unsigned i, u64 a, u64 b)
{
	return c->compat ? i >= 8 || (u32)a == (u32)b : a == b;
}

static bool same_state(const struct insn_case *c, const struct insn_state *a, const struct insn_state *b)
{
	bool bases = c->in.id == INSN_WRFSBASE || c->in.id == INSN_WRGSBASE;

	for (unsigned i = 0; i < 16; i++)
		if (!same_gpr(c, i, a->gpr[i], b->gpr[i]))
			return false;
	if (bases && (a->fs_base != b->fs_base || a->gs_base != b->gs_base))
		return false;
	for (unsigned i = 0; i < 6; i++) /* the host's IRET clears the RPL of null selectors */
		if ((a->sel[i] & (a->sel[i] < 4 ? 0 : ~0u)) != (b->sel[i] & (b->sel[i] < 4 ? 0 : ~0u)))
			return false;
	return a->rip == b->rip;
}

/*
 * A far pointer around the 4 GiB end of a segment: whether that is one access, which faults, or two, of which neither does, is
 * the processor's choice (AMD: two).
 */
static bool far_pointer_wraps(const struct insn_case *c, const struct insn_result *g)
{
	const struct insn *in = &c->in;

	for (unsigned i = 0; c->count > 1 && i < c->count; i++)
		if (c->before.rip + c->prog[i].off == g->after.rip)
			in = &c->prog[i].in;
	if (!c->compat || (g->vector != 12 && g->vector != 13)) /* #SS, #GP */
		return false;
	switch (in->id) {
	case INSN_LDS:
	case INSN_LES:
	case INSN_LFS:
	case INSN_LGS:
	case INSN_LSS:
		return operand_offset(in, &g->after) + in->opsize + 2 > BIT64(32);
	default:
		return false;
	}
}

bool harness_compare(const struct insn_case *c, const struct insn_result *h, const struct insn_result *g, u64 flags)
{
	bool regs = same_state(c, &h->after, &g->after);
	bool fl = !((h->after.rflags ^ g->after.rflags) & flags);
	bool mem = !memcmp(harness_host_data(), harness_guest_data(), T_DATA_SIZE);

	if (regs && fl && mem && same_fault(h, g))
		return true;
	if (mem && far_pointer_wraps(c, g))
		return true;
	report_bytes(c);
	report_result("host", h);
	report_result("interp", g);
	for (unsigned i = 0; i < 16; i++)
		if (!same_gpr(c, i, h->after.gpr[i], g->after.gpr[i]))
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
