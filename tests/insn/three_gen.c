/* Makes programs and states for them. See three.h. */
#include <string.h>

#include "tests/insn/three.h"

u64 three_random(u64 *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}

unsigned below(u64 *rnd, unsigned n)
{
	return (unsigned)(three_random(rnd) >> 33) % n;
}

const struct world_facts world_facts[WORLDS] = {
	[WORLD_USER64] = {"user 64", true, true, true, true},
	[WORLD_COMPAT] = {"user compatibility", false, true, true, true},
	[WORLD_KERNEL64] = {"kernel 64", true, false, true, true},
	[WORLD_SMAP] = {"kernel 64 with AC", true, false, true, true},
	[WORLD_HIGH] = {"kernel 64, upper half", true, false, true, false},
	[WORLD_KERNEL32] = {"kernel 32", false, false, false, true},
	[WORLD_USER32] = {"user 32", false, true, false, true},
};

u64 code_base(const struct program *p)
{
	return W_CODE_VA + (p->world == WORLD_HIGH ? W_HIGH : 0);
}

static bool mode64(const struct program *p)
{
	return world_facts[p->world].mode64;
}

static enum insn_mode mode_of(const struct program *p)
{
	return mode64(p) ? INSN_MODE_64 : INSN_MODE_32;
}

/* ---- single instructions ---- */

static unsigned pick(u64 *rnd, u32 set)
{
	for (;;) {
		unsigned r = below(rnd, 16);

		if (set >> r & 1)
			return r;
	}
}

/* Relative to a pointer, which is at the border of the two writable pages. */
static s32 displacement(u64 *rnd)
{
	switch (below(rnd, 16)) {
	case 0: /* across the border */
	case 1:
		return -(s32)below(rnd, 40);
	case 2: /* about the read-only page */
		return (s32)PAGE_SIZE - 32 + (s32)below(rnd, 64);
	case 3: /* about the ends */
		return below(rnd, 2) ? (s32)(2 * PAGE_SIZE) - 32 + (s32)below(rnd, 64) : -(s32)PAGE_SIZE - 32 + (s32)below(rnd, 64);
	case 4:
		return (s32)below(rnd, 128) - 64;
	case 5:
	case 6:
	case 7:
		return ((s32)below(rnd, 512) - 256) * 16;
	default:
		return (s32)below(rnd, 8000) - 4000;
	}
}

struct encoding {
	u8 prefix[4], body[16];
	unsigned nprefix, nbody;
	u8 rex;
	unsigned disp_at; /* in body, of a RIP-relative one; 0: none */
};

static void put32(struct encoding *e, u32 v)
{
	memcpy(e->body + e->nbody, &v, 4);
	e->nbody += 4;
}

static void put_sib(const struct program *p, struct encoding *e, u64 *rnd, unsigned base, bool short_disp)
{
	unsigned index = below(rnd, 2) ? pick(rnd, p->smalls) : R_SP;
	s32 disp = displacement(rnd);

	if (below(rnd, 8) == 0) { /* no base */
		e->body[e->nbody - 1] = (u8)((e->body[e->nbody - 1] & 0x38) | 4);
		e->body[e->nbody++] = (u8)(below(rnd, 4) << 6 | (index & 7) << 3 | 5);
		e->rex |= index & 8 ? 2 : 0;
		put32(e, (u32)(W_DATA_VA + PAGE_SIZE + (u64)(s64)disp));
		return;
	}
	e->body[e->nbody - 1] = (u8)((e->body[e->nbody - 1] & 0x38) | (short_disp ? 0x44 : 0x84));
	e->body[e->nbody++] = (u8)(below(rnd, 4) << 6 | (index & 7) << 3 | (base & 7));
	e->rex |= (index & 8 ? 2 : 0) | (base & 8 ? 1 : 0);
	if (short_disp)
		e->body[e->nbody++] = (u8)disp;
	else
		put32(e, (u32)disp);
}

/* ModRM and what belongs to it, at the end of the body. */
static void put_operand(const struct program *p, struct encoding *e, u64 *rnd)
{
	unsigned base = pick(rnd, p->pointers), kind = below(rnd, 20);
	u8 reg = (u8)(below(rnd, 8) << 3);
	bool short_disp = below(rnd, 4) == 0;

	if (kind < 8) {
		e->body[e->nbody++] = 0xc0 | reg | (u8)below(rnd, 8);
		e->rex |= mode64(p) ? (u8)below(rnd, 2) : 0;
	} else if (kind == 8) { /* absolute, or relative to RIP */
		e->body[e->nbody++] = 5 | reg;
		e->disp_at = e->nbody;
		put32(e, (u32)(W_DATA_VA + PAGE_SIZE + (u64)(s64)displacement(rnd)));
	} else if (kind < 13 || (base & 7) == R_SP) {
		e->body[e->nbody++] = reg;
		put_sib(p, e, rnd, base, short_disp);
	} else {
		e->body[e->nbody++] = (u8)((short_disp ? 0x40 : 0x80) | reg | (base & 7));
		e->rex |= base & 8 ? 1 : 0;
		if (short_disp)
			e->body[e->nbody++] = (u8)displacement(rnd);
		else
			put32(e, (u32)displacement(rnd));
	}
}

static void make_encoding(const struct program *p, struct encoding *e, u64 *rnd)
{
	static const u8 prefixes[] = {0x66, 0x66, 0x66, 0xf2, 0xf3, 0xf3, 0xf0, 0x66, 0x64, 0x65, 0x67, 0x36, 0x2e, 0x66, 0xf2, 0xf3};
	unsigned map = below(rnd, 10);

	memset(e, 0, sizeof(*e));
	if (below(rnd, 4) == 0)
		e->prefix[e->nprefix++] = prefixes[below(rnd, 16)];
	if (below(rnd, 24) == 0)
		e->prefix[e->nprefix++] = prefixes[below(rnd, 16)];
	if (mode64(p) && below(rnd, 2))
		e->rex = 0x40 | (u8)(below(rnd, 4) << 2);
	if (map == 9) {
		e->body[e->nbody++] = 0xc4;
		e->body[e->nbody++] = (u8)(1 + below(rnd, 3));
		e->body[e->nbody++] = (u8)three_random(rnd);
	} else if (map >= 5) {
		e->body[e->nbody++] = 0x0f;
		if (map == 8)
			e->body[e->nbody++] = below(rnd, 2) ? 0x38 : 0x3a;
	}
	if (p->x87 && map < 5 && below(rnd, 3) == 0)
		e->body[e->nbody++] = 0xd8 | (u8)below(rnd, 8);
	else
		e->body[e->nbody++] = (u8)three_random(rnd);
	put_operand(p, e, rnd);
	if (map == 9) {
		e->body[1] |= (u8)((mode64(p) ? ~e->rex << 5 : 0xc0) & 0xe0);
		if (!mode64(p))
			e->body[1] |= 0xe0;
		e->rex = 0;
	}
}

static unsigned join(const struct encoding *e, u8 *out, u64 *rnd)
{
	unsigned n = 0;

	memcpy(out, e->prefix, e->nprefix);
	n = e->nprefix;
	if (e->rex)
		out[n++] = 0x40 | e->rex;
	memcpy(out + n, e->body, e->nbody);
	n += e->nbody;
	while (n < 31)
		out[n++] = (u8)three_random(rnd);
	return n;
}

static bool unrepeatable(const struct insn *in)
{
	static const u16 list[] = {INSN_RDRAND, INSN_RDSEED, INSN_PAUSE, INSN_CLDEMOTE, INSN_JMP_FAR, INSN_CALL_FAR, INSN_INTO,
				   INSN_ENTER, INSN_BOUND};

	for (unsigned i = 0; i < ARRAY_SIZE(list); i++)
		if (list[i] == in->id)
			return true;
	return false;
}

/* The hosts' and the interpreter's answers agree, and do not depend on what is not part of the state. */
static bool suits(const struct program *p, const struct insn *in, u64 *rnd, bool (*has)(unsigned))
{
	u8 cls = in->desc->cls;

	if (cls != IC_INT && cls != IC_SSE && cls != IC_AVX && !(p->x87 && (cls == IC_X87 || cls == IC_MMX)) && in->id != INSN_LDMXCSR && in->id != INSN_STMXCSR)
		return false;
	if (cls != IC_INT && (in->mem.vsib || in->id == INSN_MASKMOVDQU))
		return false;
	if (unrepeatable(in) || (in->desc->attr & IA_BRANCH))
		return false;
	if (in->desc->feature != FEAT_NONE && !has(in->desc->feature))
		return false;
	for (unsigned i = 0; i < in->nops; i++) {
		const struct insn_operand *o = &in->op[i];

		if (o->kind == OPK_SREG || (o->kind == OPK_MMX && !p->x87))
			return false;
		if (o->kind == OPK_GPR && o->access & OPA_WRITE && !o->high8 && (p->pointers | p->smalls) >> o->reg & 1 &&
		    below(rnd, 100) < 85)
			return false;
		/* a bit offset in a register reaches anywhere, this process included */
		if (o->kind == OPK_MEM && in->id >= INSN_BT && in->id <= INSN_BTC && in->op[1].kind == OPK_GPR &&
		    !(p->smalls >> in->op[1].reg & 1))
			return false;
	}
	return true;
}

/* Whether after it the flags it writes have surely been written: not by a shift by CL, or a repeat count of 0. */
static bool surely_writes(const struct insn *in)
{
	bool shift = in->id >= INSN_ROL && in->id <= INSN_SAR;
	bool by_cl = in->nops && in->op[in->nops - 1].kind == OPK_GPR && in->op[in->nops - 1].reg == R_CX;

	if ((shift || in->id == INSN_SHLD || in->id == INSN_SHRD) && by_cl)
		return false;
	return !(in->desc->attr & IA_STRING);
}

/* ---- programs ---- */

static struct slot *append(struct program *p, const u8 *bytes, unsigned n)
{
	struct slot *s = &p->slot[p->nslots++];

	insn_decode(bytes, n, mode_of(p), &s->in);
	s->off = (u16)p->len;
	memcpy(p->bytes + p->len, bytes, s->in.len);
	p->len += s->in.len;
	return s;
}

/* Flags behind slot n as they are before it, changed by what it does. */
static u64 flags_after(const struct program *p, unsigned n)
{
	const struct insn *in = &p->slot[n].in;
	u64 u = p->slot[n].undefined;

	if (surely_writes(in))
		u &= ~(u64)in->desc->flags_written;
	return u | in->desc->flags_undef;
}

static void flow(struct program *p)
{
	p->slot[p->nslots].undefined |= flags_after(p, p->nslots - 1);
}

static void add_random(struct program *p, u64 *rnd, bool (*has)(unsigned))
{
	struct encoding e;
	struct insn in;
	u8 bytes[32];

	for (;;) {
		make_encoding(p, &e, rnd);
		join(&e, bytes, rnd);
		if (insn_decode(bytes, 15, mode_of(p), &in) != INSN_OK || !suits(p, &in, rnd, has) ||
		    in.desc->flags_read & p->slot[p->nslots].undefined)
			continue;
		if (in.mem.rip_relative) {
			u32 rel = 0;

			memcpy(&rel, bytes + in.disp_off, 4);
			rel -= (u32)(W_CODE_VA + p->at + p->len + in.len);
			memcpy(bytes + in.disp_off, &rel, 4);
		}
		append(p, bytes, 15);
		flow(p);
		return;
	}
}

/* cmp eax, imm8: behind it every flag is known. */
static void define_flags(struct program *p, u64 *rnd)
{
	u8 cmp[] = {0x83, 0xf8, (u8)three_random(rnd)};

	if (!p->slot[p->nslots].undefined)
		return;
	append(p, cmp, sizeof(cmp));
	flow(p);
}

/* op [counter or table], RIP-relative in 64-bit mode. n: bytes before the address; tail bytes follow it. */
static void add_absolute(struct program *p, const u8 *head, unsigned n, u32 address, const u8 *tail, unsigned ntail)
{
	u8 b[16];
	u32 a = mode64(p) ? address - (u32)(W_CODE_VA + p->at + p->len + n + 4 + ntail) : address;

	memcpy(b, head, n);
	memcpy(b + n, &a, 4);
	memcpy(b + n + 4, tail, ntail);
	append(p, b, n + 4 + ntail);
	flow(p);
}

struct fixup {
	u8 slot, to; /* branch and the wanted instruction it leads to */
};

struct making {
	struct program *p;
	u64 *rnd;
	u8 first[W_MAX_SLOTS + 1]; /* slot at which wanted instruction n begins */
	unsigned n;              /* wanted instructions so far */
	struct fixup fix[W_MAX_SLOTS];
	unsigned nfix;
	u64 arrives[W_MAX_SLOTS]; /* flags that are undefined where jumped from */
	unsigned main_end;       /* wanted instruction that is the end of the main part; the function follows */
	u8 table_to[8];
	bool has_function;
};

static void branch_to(struct making *k, unsigned to)
{
	struct program *p = k->p;

	k->fix[k->nfix++] = (struct fixup){(u8)(p->nslots - 1), (u8)to};
	k->arrives[to] |= flags_after(p, p->nslots - 1);
}

static unsigned later(struct making *k)
{
	unsigned limit = k->n < k->main_end ? k->main_end : k->p->nwanted;

	return k->n + 1 + below(k->rnd, limit - k->n);
}

static void add_jcc(struct making *k)
{
	struct program *p = k->p;
	u8 b[6] = {0x0f, 0x80 | (u8)below(k->rnd, 16)};
	u8 s[2] = {0xe3, 0};

	if (below(k->rnd, 8) == 0) { /* JRCXZ, LOOP: short, so only to the next but one at most */
		s[0] = below(k->rnd, 2) ? 0xe3 : 0xe2;
		append(p, s, 2);
	} else {
		struct insn in;

		insn_decode(b, 6, mode_of(p), &in);
		if (in.desc->flags_read & p->slot[p->nslots].undefined)
			define_flags(p, k->rnd);
		append(p, b, 6);
	}
	flow(p);
	branch_to(k, p->slot[p->nslots - 1].in.len == 2 ? k->n + 1 : later(k));
}

static void add_loop(struct making *k)
{
	static const u8 sub[] = {0x83, 0x2d}, one[] = {1};
	struct program *p = k->p;
	unsigned from = k->n < k->main_end || !k->has_function ? 0 : k->main_end + 1;
	u8 jg[6] = {0x0f, 0x8f};

	add_absolute(p, sub, 2, (u32)(W_COUNT_VA + 4 * (p->nloops++ % 8)), one, 1);
	append(p, jg, 6);
	flow(p);
	branch_to(k, from + below(k->rnd, k->n - from + 1));
}

/* An access of a plain kind through a pointer, close to it. */
static void add_plain_access(struct program *p, u64 *rnd, unsigned base)
{
	/* MOV, ADD, ADC, XOR both ways, MOVZX; MOVUPS, MOVDQU */
	static const u8 one[] = {0x8b, 0x89, 0x88, 0x01, 0x03, 0x11, 0x13, 0x33, 0x30}, two[] = {0xb6, 0xb7, 0x10, 0x11, 0x6f, 0x7f};
	unsigned n = 0, what = below(rnd, 15), reg = pick(rnd, 0xffff & ~(p->pointers | p->smalls));
	bool indexed = below(rnd, 3) == 0 || (base & 7) == R_SP;
	unsigned index = below(rnd, 2) ? pick(rnd, p->smalls) : R_SP;
	u8 b[15];

	if (what >= 13) /* MOVDQU */
		b[n++] = 0xf3;
	b[n++] = (u8)(0x40 | (below(rnd, 2) ? 8 : 0) | (reg & 8 ? 4 : 0) | (indexed && index & 8 ? 2 : 0) | (base & 8 ? 1 : 0));
	if (what >= 9)
		b[n++] = 0x0f;
	b[n++] = what < 9 ? one[what] : two[what - 9];
	b[n++] = (u8)(0x40 | (reg & 7) << 3 | (indexed ? 4 : base & 7));
	if (indexed)
		b[n++] = (u8)(below(rnd, 4) << 6 | (index & 7) << 3 | (base & 7));
	b[n++] = (u8)(below(rnd, 64) - 32);
	append(p, b, n);
	flow(p);
}

/* A pointer, or an index, moves. */
static void add_step(struct program *p, u64 *rnd, unsigned reg)
{
	u8 by = (u8)(below(rnd, 40) - 20);
	u8 add[] = {(u8)(0x48 | reg >> 3), 0x83, (u8)(0xc0 | (below(rnd, 2) ? 0x28 : 0) | (reg & 7)), by};
	u8 lea[] = {(u8)(0x48 | reg >> 3 | (reg >> 3) << 2), 0x8d, (u8)(0x40 | (reg & 7) << 3 | (reg & 7)), by};
	u8 inc[] = {(u8)(0x48 | reg >> 3), 0xff, (u8)(0xc0 | (reg & 7))};

	if (below(rnd, 3) == 0 && (reg & 7) != R_SP)
		append(p, lea, sizeof(lea));
	else if (below(rnd, 4) == 0)
		append(p, inc, sizeof(inc));
	else
		append(p, add, sizeof(add));
	flow(p);
}

/* A small loop over memory: what the translator unrolls. */
static void add_strided_loop(struct making *k)
{
	static const u8 sub[] = {0x83, 0x2d}, one[] = {1};
	struct program *p = k->p;
	unsigned a = pick(k->rnd, p->pointers), b = pick(k->rnd, p->pointers), n = 1 + below(k->rnd, 5);
	u8 jcc[6] = {0x0f, below(k->rnd, 4) ? 0x8f : 0x85}, out[6] = {0x0f, 0x80 | (u8)below(k->rnd, 16)};

	define_flags(p, k->rnd);
	for (unsigned i = 0; i < n; i++)
		add_plain_access(p, k->rnd, below(k->rnd, 3) ? a : b);
	if (below(k->rnd, 4) == 0) {
		append(p, out, sizeof(out));
		flow(p);
		branch_to(k, later(k));
	}
	add_step(p, k->rnd, a);
	if (below(k->rnd, 2))
		add_step(p, k->rnd, below(k->rnd, 2) ? b : pick(k->rnd, p->smalls));
	add_absolute(p, sub, 2, (u32)(W_COUNT_VA + 4 * (p->nloops++ % 8)), one, 1);
	append(p, jcc, sizeof(jcc));
	flow(p);
	branch_to(k, k->n);
}

/* lea reg, [base + disp32] */
static void add_lea(struct program *p, unsigned reg, unsigned base, s32 disp)
{
	u8 b[7] = {0x48 | (u8)(base >> 3), 0x8d, (u8)(0x80 | reg << 3 | (base & 7))};

	memcpy(b + 3, &disp, 4);
	append(p, mode64(p) ? b : b + 1, mode64(p) ? 7 : 6);
	flow(p);
}

static u32 string_count(u64 *rnd)
{
	switch (below(rnd, 8)) {
	case 0:
		return 0;
	case 1:
		return below(rnd, 600);
	case 2: /* about a page */
		return ((u32)PAGE_SIZE >> below(rnd, 4)) - 8 + below(rnd, 16);
	case 3:
	case 4:
		return below(rnd, 64);
	default:
		return 1 + below(rnd, 12);
	}
}

/* A string instruction between two places about the data, which often overlap. */
static void add_string(struct program *p, u64 *rnd)
{
	static const u8 ops[] = {0xa4, 0xa4, 0xa4, 0xa5, 0xa5, 0xaa, 0xaa, 0xab, 0xab, 0xac, 0xa6, 0xae}, set[] = {0xfd}, clear[] = {0xfc};
	u32 bases = p->pointers & ~(u32)(BIT(R_SP) | BIT(R_12));
	unsigned from = pick(rnd, bases), to = below(rnd, 3) ? from : pick(rnd, bases), n = 0;
	s32 at = displacement(rnd);
	bool back = below(rnd, 6) == 0;
	u8 op[6], count[5] = {0xb9};
	u32 cx = string_count(rnd);

	add_lea(p, R_SI, from, at);
	add_lea(p, R_DI, to, below(rnd, 2) ? at + (s32)below(rnd, 41) - 20 : displacement(rnd));
	memcpy(count + 1, &cx, 4);
	if (below(rnd, 8)) {
		append(p, count, 5);
		flow(p);
	}
	if (back || below(rnd, 3) == 0) {
		append(p, back ? set : clear, 1);
		flow(p);
	}
	if (below(rnd, 8) == 0)
		op[n++] = 0x67;
	if (below(rnd, 16) == 0)
		op[n++] = 0x64 | (u8)below(rnd, 2);
	if (below(rnd, 8) == 0)
		op[n++] = 0x66;
	if (below(rnd, 8))
		op[n++] = below(rnd, 6) ? 0xf3 : 0xf2;
	if (mode64(p) && below(rnd, 2))
		op[n++] = 0x48;
	op[n] = ops[below(rnd, sizeof(ops))] | (u8)below(rnd, 2);
	if ((op[n] & ~1) == 0xa6 || (op[n] & ~1) == 0xae) /* of count 0 they leave the flags */
		define_flags(p, rnd);
	append(p, op, n + 1);
	flow(p);
	if (back) {
		append(p, clear, 1);
		flow(p);
	}
}

static void add_jump(struct making *k)
{
	static const u8 jmp[5] = {0xe9};
	struct program *p = k->p;

	if (p->slot[p->nslots].undefined)
		define_flags(p, k->rnd);
	append(p, jmp, 5);
	branch_to(k, later(k));
}

/* lea reg, [rip + x]; jmp reg. In 32-bit code: mov reg, x. Or through a table in memory. */
static void add_indirect(struct making *k, bool call)
{
	struct program *p = k->p;
	unsigned reg = pick(k->rnd, ~(p->pointers | p->smalls) & (mode64(p) ? 0xffff : 0xef));
	u8 load[7] = {0x48 | (reg & 8 ? 4 : 0), 0x8d, (u8)(5 | (reg & 7) << 3)}, mov[5] = {(u8)(0xb8 | (reg & 7))};
	u8 go[3] = {0x41, 0xff, (u8)((call ? 0xd0 : 0xe0) | (reg & 7))};
	u8 to = (u8)(call ? k->main_end + 1 : later(k));
	static const u8 through[] = {0xff, 0x25}, call_through[] = {0xff, 0x15};

	define_flags(p, k->rnd);
	if (below(k->rnd, 2) && p->ntables < 8) {
		k->table_to[p->ntables] = to;
		add_absolute(p, call ? call_through : through, 2, (u32)(W_COUNT_VA + W_TABLES + 8 * p->ntables++), NULL, 0);
		p->slot[p->nslots].undefined = 0;
		return;
	}
	if (mode64(p))
		append(p, load, 7);
	else
		append(p, mov, 5);
	flow(p);
	branch_to(k, to);
	append(p, reg & 8 ? go : go + 1, reg & 8 ? 3 : 2);
	flow(p);
	p->slot[p->nslots].undefined = 0;
}

static void add_call(struct making *k)
{
	static const u8 call[5] = {0xe8};
	struct program *p = k->p;

	define_flags(p, k->rnd);
	append(p, call, 5);
	branch_to(k, k->main_end + 1);
	p->slot[p->nslots].undefined = 0;
}

static void point(struct program *p, unsigned slot, unsigned off)
{
	struct insn *in = &p->slot[slot].in;
	u8 *b = p->bytes + p->slot[slot].off;
	s32 rel = (s32)off - (s32)(p->slot[slot].off + in->len);

	if (in->desc->attr & IA_BRANCH)
		memcpy(b + in->imm_off, &rel, in->imm_len);
	else if (in->id == INSN_LEA)
		memcpy(b + in->disp_off, &rel, 4);
	else {
		rel = (s32)(W_CODE_VA + p->at + off);
		memcpy(b + in->imm_off, &rel, 4);
	}
	insn_decode(b, 15, mode_of(p), in);
}

static unsigned offset_of(const struct making *k, unsigned wanted)
{
	return k->p->slot[k->first[wanted]].off;
}

static void add_wanted(struct making *k, bool (*has)(unsigned))
{
	struct program *p = k->p;
	unsigned what = below(k->rnd, 40);
	bool in_main = k->n < k->main_end;

	if (p->nslots + (p->nwanted - k->n) > W_MAX_SLOTS - 16)
		what = 39;
	if (what < 3)
		add_jcc(k);
	else if (what == 3)
		add_loop(k);
	else if (what == 7 && mode64(p))
		add_strided_loop(k);
	else if (what == 4)
		add_jump(k);
	else if (what == 5)
		add_indirect(k, k->has_function && in_main && below(k->rnd, 2));
	else if (what == 6 && k->has_function && in_main)
		add_call(k);
	else if (what == 8 || what == 9)
		add_string(p, k->rnd);
	else
		add_random(p, k->rnd, has);
}

static void finish_part(struct making *k, bool function)
{
	static const u8 ret[] = {0xc3}, jmp[5] = {0xe9};
	struct program *p = k->p;

	p->slot[p->nslots].undefined |= k->arrives[k->n];
	if (function) {
		define_flags(p, k->rnd);
		append(p, ret, 1);
	} else if (k->has_function) {
		define_flags(p, k->rnd);
		append(p, jmp, 5);
		k->fix[k->nfix++] = (struct fixup){(u8)(p->nslots - 1), 0xff};
	}
	if (function || k->has_function)
		p->slot[p->nslots].undefined = 0;
}

static void choose_registers(struct program *p, u64 *rnd)
{
	u32 all = mode64(p) ? 0xffff : 0xff;

	p->pointers = BIT(R_SP);
	p->smalls = 0;
	while (__builtin_popcount(p->pointers) < (mode64(p) ? 6 : 4))
		p->pointers |= BIT(pick(rnd, all));
	while (__builtin_popcount(p->smalls) < 2)
		p->smalls |= BIT(pick(rnd, all & ~p->pointers));
}

void generate(struct program *p, u64 *rnd, enum world w, bool (*has)(unsigned))
{
	struct making k = {.p = p, .rnd = rnd};

	memset(p, 0, sizeof(*p));
	p->world = w;
	p->at = below(rnd, 4) ? 64 + below(rnd, 3000) : PAGE_SIZE - 1 - below(rnd, 100);
	p->nwanted = 1 + below(rnd, 20);
	p->x87 = below(rnd, 6) == 0;
	choose_registers(p, rnd);
	k.has_function = p->nwanted > 3 && below(rnd, 3) == 0;
	k.main_end = k.has_function ? p->nwanted / 2 : p->nwanted;
	while (k.n < p->nwanted) {
		k.first[k.n] = (u8)p->nslots;
		if (k.has_function && k.n == k.main_end) {
			finish_part(&k, false);
			k.n++;
			continue;
		}
		p->slot[p->nslots].undefined |= k.arrives[k.n];
		add_wanted(&k, has);
		k.n++;
	}
	k.first[k.n] = (u8)p->nslots;
	finish_part(&k, k.has_function);
	p->slot[p->nslots].off = (u16)p->len;
	for (unsigned i = 0; i < k.nfix; i++)
		point(p, k.fix[i].slot, k.fix[i].to == 0xff ? p->len : offset_of(&k, k.fix[i].to));
	for (unsigned i = 0; i < p->ntables; i++)
		p->table[i] = k.first[k.table_to[i]];
}
