/*
 * Differential test of vector and x87 instructions: random short programs run on the host CPU itself and
 * through vec_compile(); registers, flags, vector state, memory and faults must agree.
 *
 * The host side enters and leaves its program by signals: the handler sets, and reads, the whole machine
 * context.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include "engine/lib/lib.h"
#include "tests/insn/vec_test.h"

#define CODE      (ARENA + 0x4000000)
#define USER32_CS 0x23 /* of Linux */
#define USER_DS   0x2b
#define OWN_START                                                                                            \
	0x400000ull /* the test's own text, heap and stubs: a stray address hits them on the host side */
#define OWN_END         0x90000000ull
#define STEPS           3u
#define GPR_RFLAGS_KEPT (FL_ARITH | FL_DF)

static struct vcpu cpu __attribute__((aligned(64)));
static u8 memory_start[4 * PAGE_SIZE], memory_host[4 * PAGE_SIZE];
static struct {
	enum { PH_NONE, PH_ENTER, PH_RUN, PH_OURS } phase;
	greg_t saved[NGREG];
	u8 saved_fp[XSAVE_SIZE] __attribute__((aligned(64)));
	u64 gpr[16], rip, rflags;
	struct xsave_area xs __attribute__((aligned(64)));
	struct vec_outcome out;
} host;

static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

/* ---- random ---- */
static u64 seed, current;
static bool verbose, mode32;

static u64 rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1dull;
}

static u32 below(u32 n)
{
	return (u32)((rnd() >> 32) * n >> 32);
}

static bool chance(u32 percent)
{
	return below(100) < percent;
}

/* ---- the host side ---- */
static void enter_host(ucontext_t *uc)
{
	greg_t *r = uc->uc_mcontext.gregs;
	u8 *fp = (u8 *)uc->uc_mcontext.fpregs;

	memcpy(host.saved, r, sizeof(host.saved));
	memcpy(host.saved_fp, fp, XSAVE_SIZE);
	for (unsigned i = 0; i < 16; i++)
		r[greg_of[i]] = (greg_t)host.gpr[i];
	r[REG_RIP] = (greg_t)host.rip;
	if (mode32)
		r[REG_CSGSFS] = (r[REG_CSGSFS] & ~0xffffll) | USER32_CS;
	r[REG_EFL] = (greg_t)(host.rflags | FL_IF);
	memcpy(fp, &host.xs, 464); /* above: the kernel's words */
	memcpy(fp + XSAVE_LEGACY, &host.xs.xstate_bv, 8);
	memcpy(fp + XSAVE_AVX, host.xs.ymm_high, 256);
	host.phase = PH_RUN;
}

static void leave_host(ucontext_t *uc)
{
	greg_t *r = uc->uc_mcontext.gregs;
	u8 *fp = (u8 *)uc->uc_mcontext.fpregs;

	for (unsigned i = 0; i < 16; i++)
		host.gpr[i] = (u64)r[greg_of[i]];
	host.rip = (u64)r[REG_RIP];
	host.rflags = (u64)r[REG_EFL];
	memcpy(&host.xs, fp, XSAVE_SIZE);
	host.out = (struct vec_outcome){.vector = (unsigned)r[REG_TRAPNO], .error = (u32)r[REG_ERR]};
	if (host.out.vector == EXC_SS)
		host.out.vector = EXC_GP; /* the fakes know no stack segment */
	if (host.out.vector == EXC_PF && (s64)r[REG_CR2] < 0)
		host.out.error &= ~PF_P; /* the host kernel's half */
	if (host.out.vector == 3)
		host.out = (struct vec_outcome){.vector = NO_FAULT};
	else if (host.out.vector == EXC_PF)
		host.out.cr2 = (u64)r[REG_CR2];
	else
		host.out.error = 0;
	memcpy(r, host.saved, sizeof(host.saved));
	memcpy(fp, host.saved_fp, 464);
	memcpy(fp + XSAVE_LEGACY, host.saved_fp + XSAVE_LEGACY, 8);
	memcpy(fp + XSAVE_AVX, host.saved_fp + XSAVE_AVX, 256);
	host.phase = PH_NONE;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	if (host.phase == PH_ENTER)
		enter_host(uc);
	else if (host.phase == PH_RUN)
		leave_host(uc);
	else if (host.phase != PH_OURS || sig != SIGFPE || !vec_handle_sigfpe(&cpu, uc)) {
		printf("signal %d at %llx in the code under test, --seed %llu\n", sig,
		       (u64)uc->uc_mcontext.gregs[REG_RIP], current);
		fflush(stdout);
		_exit(1);
	}
}

static __attribute__((noinline)) void run_host(void)
{
	host.phase = PH_ENTER;
	__asm__ volatile("int3" : : : "memory");
}

/* ---- ours ---- */
static void h_end(struct vcpu *c, const struct iop *op) {}

static void h_ud(struct vcpu *c, const struct iop *op)
{
	cpu_raise(c, EXC_UD);
}

static __attribute__((noinline)) void run_ours(const struct iop *ops)
{
	u64 start = cpu.rip;

	vec_ours = (struct vec_outcome){.vector = NO_FAULT};
	vec_state(&cpu)->fcs = 0; /* as the host's 64-bit XRSTOR leaves them */
	vec_state(&cpu)->fds = 0;
	host.phase = PH_OURS;
	vcpu_fpu_load(&cpu);
	__builtin_setjmp(cpu.unwind);
	if (vec_ours.vector == NO_FAULT || vec_ours.vector == RESTART) {
		const struct iop *op = ops;

		for (u64 at = start; at != cpu.rip; at += op++->len)
			;
		vec_ours.vector = NO_FAULT;
		op->fn(&cpu, op);
	}
	vcpu_fpu_save(&cpu);
	host.phase = PH_NONE;
}

static void fill_op(const struct insn *in, struct iop *op)
{
	*op = (struct iop){.len = in->len,
			   .desc = in->desc,
			   .asize = in->adsize,
			   .seg = in->mem.seg,
			   .base = in->mem.rip_relative ? IOP_BASE_RIP : in->mem.base,
			   .index = in->mem.index,
			   .shift = in->mem.scale ? (u8)__builtin_ctz(in->mem.scale) : 0,
			   .disp = in->mem.disp + (in->mem.rip_relative ? in->len : 0),
			   .size = in->opsize};
	for (unsigned i = 0; i < in->nops; i++)
		if (in->op[i].kind == OPK_MEM)
			return;
	op->base = op->index = INSN_NO_REG;
}

/* ---- programs ---- */
static unsigned put_modrm(u8 *p)
{
	static const u8 bases[] = {3, 5, 6, 7}; /* rbx rbp rsi rdi, or r11 r13 r14 r15 */
	s32 disp = (s32)below(PAGE_SIZE * 2 + 1200) - (s32)PAGE_SIZE - 600;
	u8 reg = (u8)(below(8) << 3);
	unsigned n = 0;

	if (chance(40)) {
		p[0] = 0xc0 | reg | (u8)below(8);
		return 1;
	}
	if (chance(60))
		disp &= chance(50) ? ~63 : ~15;
	p[n++] = 0x80 | reg | 4;
	p[n - 1] = chance(50) ? p[n - 1] : (u8)(0x80 | reg | bases[below(4)]);
	if ((p[0] & 7) == 4)
		p[n++] = (u8)(below(4) << 6 | (chance(50) ? below(8) : 4) << 3 | bases[below(4)]);
	memcpy(p + n, &disp, 4);
	return n + 4;
}

static unsigned random_insn(u8 *p)
{
	static const u8 prefix[] = {0, 0x66, 0xf3, 0xf2};
	unsigned n = 0, kind = below(10);
	u8 map = (u8)(1 + below(3));

	if (kind < 2) { /* x87 */
		if (chance(5))
			p[n++] = 0x66;
		p[n++] = chance(3) ? 0x9b : (u8)(0xd8 + below(8));
		return n + put_modrm(p + n);
	}
	if (kind < 6) {
		u8 pp = prefix[below(4)];

		if (pp)
			p[n++] = pp;
		if (chance(50))
			p[n++] = 0x40 | (u8)below(16);
		p[n++] = 0x0f;
		if (map > 1)
			p[n++] = map == 2 ? 0x38 : 0x3a;
	} else if (map == 1 && chance(50)) {
		p[n++] = 0xc5;
		p[n++] = (u8)rnd();
	} else {
		p[n++] = 0xc4;
		p[n++] = (u8)(rnd() & 0xe0) | map;
		p[n++] = (u8)rnd();
	}
	p[n++] = map == 1 && kind < 6 && chance(5) ? (chance(50) ? 0xae : 0xc7) : (u8)rnd();
	n += put_modrm(p + n);
	p[n++] = (u8)rnd();
	return n;
}

static bool wanted(const struct insn *in)
{
	bool state = in->id >= INSN_FXSAVE && in->id <= INSN_STMXCSR;

	if (in->id == INSN_XSAVES || in->id == INSN_XRSTORS)
		return false; /* privileged: the host cannot show them here */
	return state || in->desc->cls == IC_X87 || in->desc->cls == IC_MMX || in->desc->cls == IC_SSE ||
	       in->desc->cls == IC_AVX;
}

static const int special_float[] = {0x3f800000, 0x7f800000, 0x7fc00000,
				    0x7f800001, 0x00000001, (int)0x80000000u};

static void random_bytes(u8 *p, unsigned n)
{
	for (unsigned i = 0; i < n; i += 8) {
		u64 v = rnd();

		if (chance(25))
			v = (u64)(s64)(s32)(below(400) - 200);
		else if (chance(15))
			v = (u64)(u32)special_float[below(6)] << (chance(50) ? 32 : 0) |
			    (chance(50) ? (u32)rnd() : 0);
		else if (chance(10))
			v = below(64) | (u64)below(64) << 32;
		else if (chance(20))
			v = (v & 0x800fffffffffffffull) | 0x3f00000000000000ull;
		memcpy(p + i, &v, 8);
	}
}

static void random_state(bool unmasked)
{
	struct xsave_area *xs = &host.xs;

	memset(xs, 0, sizeof(*xs));
	random_bytes(xs->fx.xmm[0], 256);
	random_bytes(xs->ymm_high[0], 256);
	for (unsigned i = 0; i < 8; i++) {
		u16 e = chance(70) ? (u16)(0x3fff - 40 + below(80)) : chance(30) ? 0x7fff : (u16)rnd();

		random_bytes(xs->fx.st[i], 8);
		xs->fx.st[i][7] |= chance(95) && e ? 0x80 : 0;
		e |= chance(50) ? 0x8000 : 0;
		memcpy(xs->fx.st[i] + 8, &e, 2);
	}
	xs->fx.fcw = (u16)(0x37f & ~(below(4) << 8)) | (u16)(below(4) << 10);
	xs->fx.mxcsr = MXCSR_DEFAULT | below(4) << 13 | (chance(20) ? 0x8040 & (u32)rnd() : 0) |
		       (chance(20) ? below(64) : 0);
	xs->fx.mxcsr |= chance(3) ? BIT(17) & vec_state(&cpu)->mxcsr_mask : 0;
	if (unmasked) {
		xs->fx.fcw &= ~(u16)below(64);
		xs->fx.mxcsr &= ~(below(64) << 7);
	}
	xs->fx.fsw = (u16)(below(8) << 11) | (u16)(rnd() & 0x4700);
	if (chance(20))
		xs->fx.fsw |= (u16)(rnd() & 0x7f);
	if (xs->fx.fsw & ~xs->fx.fcw & 0x3f) {
		xs->fx.fsw |= 0x8080;
		xs->fx.fip = CODE - 64;
		xs->fx.fdp = ARENA + 77;
		xs->fx.fop = 0x123;
	} else if (chance(30)) {
		xs->fx.fip = CODE - 99; /* gone where the host keeps pointers only with an exception */
		xs->fx.fdp = 777;
		xs->fx.fop = 0x321;
	}
	xs->fx.ftw = chance(50) ? (u8)rnd() : chance(70) ? (u8)(0xff >> below(8)) : 0;
	xs->xstate_bv = XS_X87 | XS_SSE | XS_AVX;
	host.rflags = FL_ONE | (rnd() & FL_ARITH);
}

static void random_memory(void)
{
	random_bytes((u8 *)ARENA + PAGE_SIZE, 2 * PAGE_SIZE);
	memcpy(memory_start, (u8 *)ARENA + PAGE_SIZE, 2 * PAGE_SIZE);
}

static u64 area_address(const struct insn *in, const u64 *gpr)
{
	u64 a = in->mem.disp + gpr[in->mem.base & 15];

	if (in->mem.index != INSN_NO_REG)
		a += gpr[in->mem.index & 15] * in->mem.scale;
	return mode32 ? (u32)a : a;
}

static bool area_in_arena(u64 a)
{
	return a >= ARENA + PAGE_SIZE && a + sizeof(struct xsave_area) <= ARENA + 3 * PAGE_SIZE;
}

/* Header and MXCSR that the state instructions will accept more often than not. */
static void prepare_area(const struct insn *in)
{
	u64 a = area_address(in, host.gpr);
	struct xsave_area *xs = (struct xsave_area *)a;

	if (!area_in_arena(a) || in->id < INSN_FXSAVE || in->id > INSN_STMXCSR || chance(10))
		return;
	if (in->id == INSN_LDMXCSR) {
		*(u32 *)a &= 0xffff;
		return;
	}
	memcpy(xs, &host.xs, XSAVE_LEGACY);
	random_bytes(xs->fx.xmm[0], 256);
	if (chance(90))
		memset(&xs->xstate_bv, 0, XSAVE_HEADER);
	xs->xstate_bv = below(8);
	if (chance(30))
		xs->xcomp_bv = BIT64(63) | below(8) | (chance(60) ? 7 : 0);
}

static void random_gprs(void)
{
	for (unsigned i = 0; i < 16; i++)
		host.gpr[i] = rnd();
	for (unsigned i = 3; i < 16; i += i == 7 ? 4 : i == 3 || i == 11 ? 2 : 1)
		host.gpr[i] = ARENA + 2 * PAGE_SIZE;
	host.gpr[R_AX] = chance(50) ? below(64) : rnd();
	host.gpr[R_CX] = below(32);
	host.gpr[R_DX] = chance(50) ? below(16) : rnd();
	host.gpr[R_12] = below(16);
	for (unsigned i = 0; i < 16 && mode32; i++)
		host.gpr[i] = host.gpr[i] == ARENA + 2 * PAGE_SIZE ? host.gpr[i] : host.gpr[i] & 0xffff;
}

/* ---- comparing ---- */
static void canonical(struct xsave_area *xs)
{
	bool es = xs->fx.fsw & 0x80;

	if (!(xs->xstate_bv & XS_X87)) {
		memset(xs, 0, 24);
		xs->fx.fcw = FCW_DEFAULT;
		memset(xs->fx.st, 0, 128);
		es = false;
	}
	if (!(xs->xstate_bv & XS_SSE))
		memset(xs->fx.xmm, 0, 256);
	if (!(xs->xstate_bv & XS_AVX))
		memset(xs->ymm_high, 0, 256);
	if (!es) { /* the host does not say */
		xs->fx.fop = 0;
		xs->fx.fip = 0;
		xs->fx.fdp = 0;
	}
	for (unsigned i = 0; i < 8; i++)
		memset(xs->fx.st[i] + 10, 0, 6);
	xs->fx.mxcsr_mask = 0;
	memset(xs->fx.unused, 0, sizeof(xs->fx.unused));
}

static int differs(const void *a, const void *b, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (((const u8 *)a)[i] != ((const u8 *)b)[i])
			return (int)i;
	return -1;
}

static const struct insn *insn_at_rip(const struct insn *in, unsigned steps)
{
	u64 at = CODE;

	for (unsigned i = 0; i < steps; at += in[i++].len)
		if (at == cpu.rip)
			return &in[i];
	return NULL;
}

/* Several accesses, in no order that is defined: any of them may have faulted. */
static bool faulted_in_many(const struct insn *in, unsigned steps)
{
	in = insn_at_rip(in, steps);
	return in && (in->mem.size > 64 || in->mem.size == 0 || in->id == INSN_FNSTENV || in->id == INSN_FLDENV ||
		      in->id == INSN_MASKMOVQ || in->id == INSN_MASKMOVDQU || in->id == INSN_MASKMOVPS ||
		      in->id == INSN_MASKMOVPD || in->id == INSN_PMASKMOVD || in->id == INSN_PMASKMOVQ);
}

static u64 host_xcr0(void)
{
	u32 lo, hi;

	__asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return lo | (u64)hi << 32;
}

/* XSAVE of components that guests have not: EDX:EAX is limited at the start, but an instruction before it may have changed that. */
static bool asks_for_more(const struct insn *in, unsigned steps)
{
	for (unsigned i = 1; i < steps; i++)
		if (in[i].id >= INSN_FXSAVE && in[i].id <= INSN_STMXCSR)
			return host.gpr[R_AX] & host_xcr0() & ~cpu.xcr0;
	return false;
}

/* XRSTOR of a component that the host has and our guests have not: #GP in a guest only. */
static bool beyond_guests(const struct insn *in, unsigned steps)
{
	u64 a = 0;

	in = insn_at_rip(in, steps);
	if (!in || in->id != INSN_XRSTOR || vec_ours.vector != EXC_GP)
		return false;
	a = area_address(in, cpu.gpr);
	return area_in_arena(a) && ((struct xsave_area *)a)->xstate_bv & host_xcr0() & ~cpu.xcr0;
}

static bool compare(const struct insn *in, unsigned steps)
{
	struct xsave_area *ours = (struct xsave_area *)cpu.xsave;
	bool same = true;
	int at = 0;
	u64 rip = host.rip - (host.out.vector == NO_FAULT);

#define SAME(what, a, b)                                                                                     \
	if ((u64)(a) != (u64)(b)) {                                                                          \
		printf("  %s: host %llx ours %llx\n", what, (u64)(a), (u64)(b));                             \
		same = false;                                                                                \
	}
	SAME("fault", host.out.vector, vec_ours.vector);
	SAME("error", host.out.error, vec_ours.error);
	if (!faulted_in_many(in, steps)) /* which of two pages, which byte: not defined there */
		SAME("cr2", host.out.cr2, vec_ours.cr2);
	SAME("rip", rip, cpu.rip);
	SAME("flags", host.rflags & GPR_RFLAGS_KEPT, cpu.rflags & GPR_RFLAGS_KEPT);
	for (unsigned i = 0; i < 16; i++)
		if (host.gpr[i] != cpu.gpr[i] && (!mode32 || (i < 8 && (u32)(host.gpr[i] ^ cpu.gpr[i])))) {
			printf("  r%u: host %llx ours %llx\n", i, host.gpr[i], cpu.gpr[i]);
			same = false;
		}
	canonical(&host.xs);
	canonical(ours);
	SAME("fcw", host.xs.fx.fcw, ours->fx.fcw);
	SAME("fsw", host.xs.fx.fsw, ours->fx.fsw);
	SAME("ftw", host.xs.fx.ftw, ours->fx.ftw);
	SAME("fop", host.xs.fx.fop, ours->fx.fop);
	SAME("fip", host.xs.fx.fip << 16, ours->fx.fip << 16); /* hosts differ in what they keep above */
	SAME("fdp", host.xs.fx.fdp << 16, ours->fx.fdp << 16);
	SAME("mxcsr", host.xs.fx.mxcsr, ours->fx.mxcsr);
	at = differs(host.xs.fx.st, ours->fx.st, 384);
	SAME("st/xmm at", at, -1);
	at = differs(host.xs.ymm_high, ours->ymm_high, 256);
	SAME("ymm at", at, -1);
	at = differs(memory_host, (u8 *)ARENA + PAGE_SIZE, 2 * PAGE_SIZE);
	SAME("memory at", at, -1);
	if (at >= 0)
		for (int i = at & ~15; i < (at & ~15) + 32; i++)
			printf("%s%02x/%02x", i & 15 ? " " : "\n    ", memory_host[i],
			       ((u8 *)ARENA)[PAGE_SIZE + i]);
	return same;
}

/* ---- one test ---- */
static unsigned generate(struct insn *in)
{
	unsigned steps = 1 + below(STEPS), len = 0;

	for (unsigned i = 0; i < steps;) {
		u8 bytes[24] = {0};

		random_insn(bytes);
		if (insn_decode(bytes, 15, mode32 ? INSN_MODE_32 : INSN_MODE_64, &in[i]) != INSN_OK ||
		    !wanted(&in[i]))
			continue;
		if (in[i].mem.seg == SEG_FS || in[i].mem.seg == SEG_GS || in[i].mem.rip_relative)
			continue;
		memcpy((u8 *)CODE + len, bytes, in[i].len);
		len += in[i++].len;
	}
	((u8 *)CODE)[len] = 0xcc;
	return steps;
}

static void load_ours(void)
{
	memcpy(cpu.gpr, host.gpr, sizeof(cpu.gpr));
	cpu.rip = host.rip;
	cpu.rflags = host.rflags;
	memcpy(cpu.xsave, &host.xs, XSAVE_SIZE);
	cpu.vm = chance(20) ? (struct vm *)1 : NULL;
	vec_leave_once = chance(30);
	for (unsigned p = 0; p < ARENA_PAGES; p++) {
		gva_t a = ARENA + p * PAGE_SIZE;
		struct tlb_entry *e = &cpu.tlb.e[MMU_USER][tlb_index(a)];
		bool hit = chance(60) && !cpu.vm;

		e->tag_r = hit && vec_page_rights(a) != PAGE_NONE ? a : TLB_INVALID_TAG;
		e->tag_w = hit && vec_page_rights(a) == PAGE_RW ? a : TLB_INVALID_TAG;
		e->addend = 0;
	}
}

static void print_program(u64 start, const struct insn *in, unsigned steps)
{
	printf("--seed %llu%s%s:", start, host.rflags & FL_AC ? " (AC)" : "", mode32 ? " 32-bit" : "");
	for (unsigned i = 0; i < steps; i++) {
		char text[128];

		insn_format(&in[i], CODE, text, sizeof(text));
		printf(" [%s |", text);
		for (unsigned j = 0; j < in[i].len; j++)
			printf(" %02x", in[i].bytes[j]);
		printf("]");
	}
	printf("\n");
}

/* Now and then there is no room for a new stub. */
static void stubs_full(bool full)
{
	static u32 used;
	u32 *word = (u32 *)(ENG_CODE_RW + STUB_TEXT) + 1; /* struct stub_table: used */

	if (full) {
		used = *word;
		*word = ~0u;
	} else {
		*word = used;
	}
}

static bool run_test(u64 start)
{
	bool full = false;
	struct insn in[STEPS];
	struct iop ops[STEPS + 1] = {0};
	unsigned steps = 0;
	bool ok = false;

	seed = current = start;
	mode32 = chance(30);
	cpu.mode.code = mode32 ? INSN_MODE_32 : INSN_MODE_64;
	cpu.mode.long64 = !mode32;
	cpu.seg[SEG_CS].sel = mode32 ? USER32_CS : 0x33;
	steps = generate(in);
	random_gprs();
	random_state(chance(25));
	random_memory();
	for (unsigned i = 0; i < steps; i++)
		prepare_area(&in[i]);
	memcpy(memory_start, (u8 *)ARENA + PAGE_SIZE, 2 * PAGE_SIZE);
	for (unsigned i = 0; i < steps; i++)
		if (in[i].id == INSN_XSAVE || in[i].id == INSN_XRSTOR || in[i].id == INSN_XSAVEC ||
		    in[i].id == INSN_XSAVEOPT)
			host.gpr[R_AX] &= 7, host.gpr[R_DX] = 0;
	if (chance(5))
		host.rflags |= FL_AC;
	host.rip = CODE;
	load_ours();
	full = chance(10);
	if (full)
		stubs_full(true);
	for (unsigned i = 0; i < steps; i++) {
		fill_op(&in[i], &ops[i]);
		if (!vec_compile(&cpu, &in[i], &ops[i])) {
			ops[i].fn = h_ud;
		}
	}
	if (full)
		stubs_full(false);
	ops[steps].fn = h_end;
	if (verbose)
		print_program(start, in, steps);
	run_host();
	memcpy(memory_host, (u8 *)ARENA + PAGE_SIZE, 2 * PAGE_SIZE);
	memcpy((u8 *)ARENA + PAGE_SIZE, memory_start, 2 * PAGE_SIZE);
	run_ours(ops);
	ok = (vec_ours.vector == EXC_PF && vec_ours.cr2 >= OWN_START && vec_ours.cr2 < OWN_END) ||
	     (vec_ours.vector == EXC_PF && mode32 && vec_ours.cr2 > 0xffffff00) || /* the fakes know no limit */
	     beyond_guests(in, steps) || compare(in, steps) || asks_for_more(in, steps);
	if (!ok)
		print_program(start, in, steps);
	return ok;
}

static void set_up(void)
{
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	static const int signals[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
	u16 ds = USER_DS;
	stack_t ss = {.ss_size = 65536, .ss_sp = malloc(65536)};

	if (stub_init() != 0 ||
	    mmap((void *)ARENA, ARENA_PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ||
	    mmap((void *)CODE, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
		puts("cannot map");
		exit(1);
	}
	memset((void *)(ARENA + PAGE_SIZE), 0x5a, 3 * PAGE_SIZE);
	mprotect((void *)ARENA, PAGE_SIZE, PROT_NONE);
	mprotect((void *)(ARENA + 3 * PAGE_SIZE), PAGE_SIZE, PROT_READ);
	mprotect((void *)(ARENA + 4 * PAGE_SIZE), PAGE_SIZE, PROT_NONE);
	__asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"(ds)); /* compatibility mode needs them */
	cpu.seg[SEG_DS].sel = cpu.seg[SEG_ES].sel = ds;
	sigaltstack(&ss, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &sa, NULL);
	memset(cpu.feature_bits, 0xff, sizeof(cpu.feature_bits));
	cpu.mode = (struct cpu_mode){.code = INSN_MODE_64,
				     .stack = 8,
				     .cpl = 3,
				     .pe = true,
				     .lma = true,
				     .long64 = true,
				     .fpu_ok = true,
				     .sse_ok = true,
				     .avx_ok = true,
				     .flat = true,
				     .mmu_idx = MMU_USER};
	for (unsigned i = 0; i < TLB_SIZE; i++) /* page 0 would match a tag of 0 */
		cpu.tlb.e[MMU_USER][i].tag_r = cpu.tlb.e[MMU_USER][i].tag_w = TLB_INVALID_TAG;
	cpu.cr0 = 0x80050033;
	cpu.cr4 = BIT(9) | BIT(10) | BIT(18);
	cpu.xcr0 = cpu.xcr0_supported = xstate_supported();
	cpu.seg[SEG_CS].sel = 0x33;
	cpu.seg[SEG_SS].sel = 0x2b;
}

/* The KVM structures: what goes in comes out, and what the host's XRSTOR would refuse is refused. */
static unsigned check_formats(void)
{
	static struct xsave_area area __attribute__((aligned(64))), back __attribute__((aligned(64)));
	struct kvm_fpu fpu, fpu2;
	unsigned bad = 0;

	random_state(true);
	area = host.xs;
	area.fx.mxcsr_mask = 0;
	bad += xsave_set(&cpu, &area, sizeof(area)) != 0;
	vcpu_fpu_load(&cpu);
	vcpu_fpu_save(&cpu);
	xsave_get(&cpu, &back, sizeof(back));
	back.fx.mxcsr_mask = 0;
	canonical(&area);
	canonical(&back);
	bad += memcmp(&area, &back, sizeof(area)) != 0;
	fpu_get(&cpu, &fpu);
	bad += fpu_set(&cpu, &fpu) != 0;
	fpu_get(&cpu, &fpu2);
	bad += memcmp(&fpu, &fpu2, sizeof(fpu)) != 0;
	fpu.mxcsr = 0x80000000u;
	bad += fpu_set(&cpu, &fpu) == 0;
	area.fx.mxcsr = 0x80000000u;
	bad += xsave_set(&cpu, &area, sizeof(area)) == 0;
	area = back;
	area.xstate_bv = BIT64(9);
	bad += xsave_set(&cpu, &area, sizeof(area)) == 0;
	area = back;
	area.header_rsvd[3] = 1;
	bad += xsave_set(&cpu, &area, sizeof(area)) == 0;
	bad += xsave_set(&cpu, &back, sizeof(back) - 1) == 0;
	if (bad)
		printf("KVM formats: %u checks failed\n", bad);
	return bad;
}

static const struct {
	u8 bytes[5];
	bool fpu, sse, avx;
	u32 cr0, cr4, xcr0;
	unsigned vector;
} unavailable[] = {
    {{0xd9, 0xe8}, false, true, true, BIT(2), BIT(9) | BIT(18), 7, EXC_NM},    /* fld1, EM */
    {{0xd9, 0xe8}, false, true, true, BIT(3), BIT(9) | BIT(18), 7, EXC_NM},    /* fld1, TS */
    {{0x0f, 0xfc, 0xc1}, false, true, true, BIT(2), BIT(9), 7, EXC_UD},        /* paddb mm, EM */
    {{0x0f, 0xfc, 0xc1}, false, true, true, BIT(3), BIT(9), 7, EXC_NM},        /* paddb mm, TS */
    {{0x0f, 0x58, 0xc1}, true, false, true, BIT(2), BIT(9), 7, EXC_UD},        /* addps, EM */
    {{0x0f, 0x58, 0xc1}, true, false, true, 0, 0, 7, EXC_UD},                  /* addps, !OSFXSR */
    {{0x0f, 0x58, 0xc1}, true, false, true, BIT(3), BIT(9), 7, EXC_NM},        /* addps, TS */
    {{0xc5, 0xf0, 0x58, 0xc1}, true, true, false, BIT(3), BIT(18), 7, EXC_NM}, /* vaddps, TS */
    {{0xc5, 0xf0, 0x58, 0xc1}, true, true, false, BIT(3), 0, 7, EXC_UD},       /* ... !OSXSAVE */
    {{0xc5, 0xf0, 0x58, 0xc1}, true, true, false, BIT(3), BIT(18), 3, EXC_UD}, /* ... no AVX state */
    {{0x9b}, false, true, true, BIT(1) | BIT(3), BIT(9), 7, EXC_NM},           /* fwait, MP and TS */
    {{0x9b}, false, true, true, BIT(3), BIT(9), 7, NO_FAULT},                  /* fwait, TS */
    {{0x0f, 0xae, 0x03}, false, true, true, BIT(3), BIT(9), 7, EXC_NM},        /* fxsave, TS */
    {{0x0f, 0xae, 0x23}, true, true, true, 0, BIT(9), 7, EXC_UD},              /* xsave, !OSXSAVE */
    {{0x0f, 0xae, 0x23}, true, true, true, BIT(3), BIT(18), 7, EXC_NM},        /* xsave, TS */
};

static unsigned check_unavailable(void)
{
	static struct vcpu saved;
	unsigned bad = 0;

	saved = cpu;
	for (unsigned i = 0; i < ARRAY_SIZE(unavailable); i++) {
		struct insn in;
		struct iop ops[2] = {0};
		u8 bytes[16] = {0};

		memcpy(bytes, unavailable[i].bytes, 5);
		cpu.mode.fpu_ok = unavailable[i].fpu;
		cpu.mode.sse_ok = unavailable[i].sse;
		cpu.mode.avx_ok = unavailable[i].avx;
		cpu.cr0 = 0x80000031 | unavailable[i].cr0;
		cpu.cr4 = unavailable[i].cr4;
		cpu.xcr0 = unavailable[i].xcr0;
		cpu.gpr[R_BX] = ARENA + PAGE_SIZE;
		eng_assert(insn_decode(bytes, 15, INSN_MODE_64, &in) == INSN_OK);
		fill_op(&in, &ops[0]);
		ops[1].fn = h_end;
		eng_assert(vec_compile(&cpu, &in, &ops[0]));
		run_ours(ops);
		if (vec_ours.vector != unavailable[i].vector) {
			printf("availability %u: vector %u, not %u\n", i, vec_ours.vector,
			       unavailable[i].vector);
			bad++;
		}
	}
	cpu = saved;
	return bad;
}

/*
 * The host's x87 pointers are lost when the kernel (or a hypervisor) switches tasks in the middle of a test: XSAVE on AMD
 * keeps FIP and FDP only while an exception is pending. So a difference must show again to be one.
 */
static bool run_settled(u64 start)
{
	for (unsigned i = 0; i < 8; i++)
		if (run_test(start))
			return true;
	return false;
}

int main(int argc, char **argv)
{
	u64 count = 350000, first = 1000003;
	unsigned passed = 0, failed = 0;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--series")) /* another one than that of `make test`; 0: by the clock */
			first = (strtoull(argv[i + 1], NULL, 0) ?: (u64)time(NULL)) * 1000003;
		if (!strcmp(argv[i], "--count"))
			count = strtoull(argv[i + 1], NULL, 0);
		if (!strcmp(argv[i], "--seed")) {
			first = strtoull(argv[i + 1], NULL, 0);
			count = 1;
			verbose = true;
		}
	}
	set_up();
	seed = 1;
	fpu_reset(&cpu, false);
	failed += check_unavailable() + check_formats();
	cpu.xcr0 = xstate_supported();
	for (u64 i = 0; i < count && failed < 20; i++)
		run_settled(first + i * 0x9e3779b97f4a7c15ull) ? passed++ : failed++;
	printf("%u passed, %u failed\n", passed, failed);
	return failed != 0;
}
