/*
 * Turns of the lock-step mode. A turn runs straight through code of one block, so the interpreter knows when to stop: at the
 * instruction that the site names, or behind it if that is a jump which was done.
 *
 * Memory: between turns no address table allows a write. The first write to a page comes by here, where the page is saved, so
 * after the turn it can be put back for the interpreter. Devices that write to the same pages meanwhile look like a
 * difference: a turn that differs is repeated, and what they wrote is put back.
 */
#include "engine/cpu/fpu.h"
#include "engine/interp/hostop.h"
#include "engine/lib/lib.h"
#include "engine/translate/check.h"
#include "engine/translate/tr_int.h"

#define MAX_PAGES  (TR_MAX_INSNS * 2)
#define MAX_STEPS  (TR_MAX_INSNS + 1)
#define MAX_RACES  64
#define ATTEMPTS   3
#define WORDS      (PAGE_SIZE / 8)

struct image { /* of what instructions may change beside memory */
	u64 gpr[16], rip, rflags;
	struct xsave_area vec __attribute__((aligned(64)));
	u64 fip, fdp;
	u16 fcs, fds, fop;
};

struct saved_page {
	u64 va;
	u64 *now; /* host address */
	u64 before[WORDS], after[WORDS];
};

static struct check {
	bool on, replaying;
	bool vectors;   /* the block uses them */
	struct image start, translated, interpreted;
	u64 target;     /* tr.target at the start */
	u32 site;
	u64 code;       /* host address of the guest page the code is in */
	unsigned npages, nraces, steps;
	struct saved_page page[MAX_PAGES];
	struct {
		u64 *at, value;
	} race[MAX_RACES]; /* words that only one of the two wrote */
} check;

void tr_check_start(void)
{
	check.on = true;
}

bool tr_checking(void)
{
	return check.on;
}

bool check_repeatable(const struct insn *in)
{
	return in->desc->cls != IC_SYS && !(in->desc->attr & IA_STRING) && in->id != INSN_RDRAND && in->id != INSN_RDSEED &&
	       in->id != INSN_PAUSE;
}

/* ---- images ---- */

static void take(struct vcpu *cpu, struct image *m)
{
	const struct vec_state *vs = NULL;

	memcpy(m->gpr, cpu->gpr, sizeof(m->gpr));
	m->rip = cpu->rip;
	m->rflags = cpu->rflags;
	if (!check.vectors)
		return;
	vs = vec_state(cpu);
	memset(&m->vec, 0, sizeof(m->vec));
	__asm__ volatile("xsave64 %0" : "+m"(m->vec) : "a"(XS_X87 | XS_SSE | XS_AVX), "d"(0) : "memory");
	m->fip = vs->fip, m->fdp = vs->fdp;
	m->fcs = vs->fcs, m->fds = vs->fds, m->fop = vs->fop;
}

static void put(struct vcpu *cpu, const struct image *m)
{
	struct vec_state *vs = NULL;

	memcpy(cpu->gpr, m->gpr, sizeof(m->gpr));
	cpu->rip = m->rip;
	cpu->rflags = m->rflags;
	if (!check.vectors)
		return;
	vs = vec_state(cpu);
	__asm__ volatile("xrstor64 %0" : : "m"(m->vec), "a"(XS_X87 | XS_SSE | XS_AVX), "d"(0) : "memory");
	vs->fip = m->fip, vs->fdp = m->fdp;
	vs->fcs = m->fcs, vs->fds = m->fds, vs->fop = m->fop;
}

/* The host's x87 pointers are of our own code; a component in its initial state may be absent. */
static void normalize(struct image *m)
{
	m->vec.fx.fip = m->vec.fx.fdp = 0;
	m->vec.fx.fop = 0;
	if (!(m->vec.xstate_bv & XS_X87))
		m->vec.fx.fcw = FCW_DEFAULT;
	m->vec.xstate_bv = 0;
}

static bool same_words(const void *a, const void *b, unsigned n)
{
	const u64 *p = a, *q = b;
	u64 differ = 0;

	for (unsigned i = 0; i < n / 8; i++)
		differ |= p[i] ^ q[i];
	return !differ;
}

/* ---- pages ---- */

static bool save_page(struct vcpu *cpu, gva_t a)
{
	const struct tlb_entry *e = &cpu->tlb.e[cpu->mode.mmu_idx][tlb_index(a)];
	struct saved_page *p = &check.page[check.npages];

	for (unsigned i = 0; i < check.npages; i++)
		if (check.page[i].va == (a & PAGE_MASK))
			return true;
	if (check.npages == MAX_PAGES)
		return false;
	p->va = a & PAGE_MASK;
	p->now = (u64 *)(p->va + e->addend);
	memcpy(p->before, p->now, PAGE_SIZE);
	check.npages++;
	return true;
}

static void pages_back(void)
{
	for (unsigned i = check.npages; i-- > 0;)
		for (unsigned k = 0; k < WORDS; k++)
			if (check.page[i].now[k] != check.page[i].before[k])
				check.page[i].now[k] = check.page[i].before[k];
}

/* The same, and keeps what the translated half wrote. */
static void pages_back_and_keep(void)
{
	for (unsigned i = 0; i < check.npages; i++) {
		struct saved_page *p = &check.page[i];

		for (unsigned k = 0; k < WORDS; k++) {
			u64 v = p->now[k];

			p->after[k] = v;
			if (unlikely(v != p->before[k]))
				p->now[k] = p->before[k];
		}
	}
}

static bool same_pages(void)
{
	for (unsigned i = 0; i < check.npages; i++)
		if (!same_words(check.page[i].now, check.page[i].after, PAGE_SIZE))
			return false;
	return true;
}

static void note_races(void)
{
	for (unsigned i = 0; i < check.npages; i++) {
		struct saved_page *p = &check.page[i];

		for (unsigned k = 0; k < WORDS && check.nraces < MAX_RACES; k++) {
			if (p->now[k] == p->after[k])
				continue;
			check.race[check.nraces].at = &p->now[k];
			check.race[check.nraces++].value = p->now[k] != p->before[k] ? p->now[k] : p->after[k];
		}
	}
}

static void end_of_turn(struct vcpu *cpu)
{
	for (unsigned i = 0; i < check.npages; i++)
		tt_drop_write(cpu, check.page[i].va, cpu->mode.mmu_idx);
	check.npages = 0;
}

/* ---- the two halves ---- */

/* Where to go on after a miss that has been served; 0: the turn ends here. */
static u64 fill(struct vcpu *cpu, const struct tr_site *s, bool fault)
{
	gva_t a = 0;
	enum tt_fill r = TT_NONE;

	cpu->rip = cpu->mode.long64 ? cpu->tr.page_va + s->goff : (u32)(cpu->tr.page_va + s->goff);
	a = tr_site_address(cpu, s);
	r = tt_fill(cpu, a, s->size, s->write, cpu->mode.mmu_idx);
	if (r == TT_NONE || (r == TT_SAME && fault))
		return 0;
	if (s->write && !save_page(cpu, a))
		return 0;
	return s->host;
}

static u32 run_translated(struct vcpu *cpu, u64 host)
{
	for (;;) {
		u32 site = tr_enter_with_flags(cpu, host);
		const struct tr_site *s = NULL;

		site = site == SITE_JUMPED ? cpu->tr.from : site;
		s = site_at(site & ~SITE_FAULT_BIT);
		if (cpu->tr.fop | cpu->tr.fdp_seg | s->x87_op)
			x87_settle(cpu, s);
		host = s->kind == SITE_MEM ? fill(cpu, s, site & SITE_FAULT_BIT) : 0;
		if (!host)
			return site;
	}
}

/* The jump at the site was done: it belongs to the turn. */
static bool jump_done(const struct vcpu *cpu, const struct tr_site *s)
{
	const struct tblock *b = tb_at(s->block);

	if (s->goff >= (b->gpa & ~PAGE_MASK) + b->bytes)
		return false; /* it left at its end */
	if (s->kind == SITE_JUMP)
		return !cpu->mode.long64 || is_canonical(cpu->tr.target);
	return s->kind == SITE_EXIT || (s->kind == SITE_STOP && s->target != s->goff);
}

static u64 rip_of(const struct vcpu *cpu, u64 offset)
{
	return cpu->mode.long64 ? cpu->tr.page_va + offset : (u32)(cpu->tr.page_va + offset);
}

/* Where the translated half left the instruction pointer. */
static void settle_rip(struct vcpu *cpu, const struct tr_site *s)
{
	cpu->rip = rip_of(cpu, s->goff);
	if (s->kind == SITE_EXIT || s->kind == SITE_STOP)
		cpu->rip = rip_of(cpu, (u64)(s64)s->target);
	if (s->kind == SITE_JUMP) {
		if (!cpu->mode.long64 || is_canonical(cpu->tr.target))
			cpu->rip = cpu->mode.long64 ? cpu->tr.target : (u32)cpu->tr.target;
		else
			cpu->gpr[R_SP] -= (u64)(s64)s->disp;
	}
}

static void run_interpreter(struct vcpu *cpu, const struct tr_site *s, bool jump)
{
	u64 end = rip_of(cpu, s->goff);

	check.steps = 0;
	check.replaying = true;
	while (cpu->rip != end && check.steps < MAX_STEPS) {
		interp_alone(cpu);
		check.steps++;
	}
	if (jump) {
		interp_alone(cpu);
		check.steps++;
	}
	check.replaying = false;
}

/* ---- judging ---- */

/* Flags that the instructions of the turn left undefined. */
static u64 undefined_flags(const struct vcpu *cpu, u64 start)
{
	u64 undefined = 0;
	unsigned off = (unsigned)start & 0xfff;
	struct insn in;

	for (unsigned i = 0; i < check.steps && off < PAGE_SIZE; i++) {
		const u8 *bytes = (const u8 *)check.code + off;
		const struct insn_operand *last = NULL;

		if (insn_decode(bytes, MIN(PAGE_SIZE - off, INSN_MAX_LEN), cpu->mode.code, &in) != INSN_OK)
			break;
		last = in.nops ? &in.op[in.nops - 1] : NULL;
		/* a shift by CL may write none of its flags */
		if (!last || last->kind != OPK_GPR || last->reg != R_CX || in.id < INSN_ROL || in.id > INSN_SHRD)
			undefined &= ~(u64)in.desc->flags_written;
		undefined |= in.desc->flags_undef;
		off += in.len;
	}
	return undefined;
}

static bool same_registers(const struct vcpu *cpu)
{
	const struct image *t = &check.translated, *i = &check.interpreted;

	if (cpu->mode.long64)
		return same_words(t->gpr, i->gpr, sizeof(t->gpr));
	for (unsigned r = 0; r < 8; r++)
		if ((u32)t->gpr[r] != (u32)i->gpr[r])
			return false;
	return true;
}

static bool same_flags(const struct vcpu *cpu)
{
	u64 differ = (check.translated.rflags ^ check.interpreted.rflags) & ~(u64)FL_RF;

	return !differ || !(differ & ~(undefined_flags(cpu, check.start.rip) & FL_ARITH));
}

static bool same_vectors(void)
{
	const struct image *t = &check.translated, *i = &check.interpreted;

	return !check.vectors || (same_words(&t->vec, &i->vec, sizeof(t->vec)) && t->fip == i->fip && t->fdp == i->fdp && t->fcs == i->fcs &&
	       t->fds == i->fds && t->fop == i->fop);
}

static bool agree(const struct vcpu *cpu)
{
	return check.translated.rip == check.interpreted.rip && same_registers(cpu) && same_flags(cpu) && same_vectors() && same_pages();
}

/* ---- the report ---- */

static void report_code(const struct vcpu *cpu)
{
	unsigned off = (unsigned)check.start.rip & 0xfff;
	struct insn in;
	char text[100], bytes[3 * INSN_MAX_LEN + 1];

	for (unsigned i = 0; i < MAX(check.steps, 1u) + 1 && off < PAGE_SIZE; i++) {
		if (insn_decode((const u8 *)check.code + off, MIN(PAGE_SIZE - off, INSN_MAX_LEN), cpu->mode.code, &in) != INSN_OK)
			return;
		insn_format(&in, rip_of(cpu, off), text, sizeof(text));
		for (unsigned k = 0; k < in.len; k++) {
			bytes[3 * k] = "0123456789abcdef"[in.bytes[k] >> 4];
			bytes[3 * k + 1] = "0123456789abcdef"[in.bytes[k] & 15];
			bytes[3 * k + 2] = ' ';
		}
		bytes[3 * in.len] = 0;
		eng_log("check: %lx  %-40s %s", rip_of(cpu, off), text, bytes);
		off += in.len;
	}
}

static void report_registers(void)
{
	const struct image *s = &check.start, *t = &check.translated, *i = &check.interpreted;

	eng_log("check: rip   before %016lx translated %016lx interpreted %016lx", s->rip, t->rip, i->rip);
	eng_log("check: flags before %016lx translated %016lx interpreted %016lx", s->rflags, t->rflags, i->rflags);
	for (unsigned r = 0; r < 16; r++)
		eng_log("check: r%-4u before %016lx translated %016lx interpreted %016lx%s", r, s->gpr[r], t->gpr[r], i->gpr[r],
			t->gpr[r] != i->gpr[r] ? " <--" : "");
	for (unsigned k = 0; k < sizeof(t->vec) / 8; k++) {
		u64 a = ((const u64 *)&t->vec)[k], b = ((const u64 *)&i->vec)[k];

		if (a != b)
			eng_log("check: xsave area + %u: translated %016lx interpreted %016lx", 8 * k, a, b);
	}
	if (t->fip != i->fip || t->fdp != i->fdp || t->fop != i->fop || t->fcs != i->fcs || t->fds != i->fds)
		eng_log("check: x87 pointers: translated %lx %lx %x %x %x interpreted %lx %lx %x %x %x", t->fip, t->fdp, t->fop, t->fcs,
			t->fds, i->fip, i->fdp, i->fop, i->fcs, i->fds);
}

static void report_pages(void)
{
	for (unsigned i = 0; i < check.npages; i++)
		for (unsigned k = 0; k < WORDS; k++)
			if (check.page[i].now[k] != check.page[i].after[k])
				eng_log("check: memory %lx before %016lx translated %016lx interpreted %016lx", check.page[i].va + 8 * k,
					check.page[i].before[k], check.page[i].after[k], check.page[i].now[k]);
}

static _Noreturn void report(const struct vcpu *cpu, const char *what)
{
	const struct tr_site *s = site_at(check.site & ~SITE_FAULT_BIT);

	eng_log("check: %s after %lu equal turns, mode key %x, left at +%x by site kind %u", what, cpu->stats.tr_checked, cpu->mode.key,
		s->goff, s->kind);
	report_code(cpu);
	report_registers();
	report_pages();
	eng_panic("check: translator and interpreter differ");
}

void check_unwound(struct vcpu *cpu)
{
	if (!check.replaying)
		return;
	take(cpu, &check.interpreted);
	eng_log("check: the interpreter raised vector %u, error %x, cr2 %lx", cpu->exc.vector, cpu->exc.error, cpu->exc.cr2);
	report(cpu, "the interpreter faulted");
}

/* ---- one turn ---- */

static bool attempt(struct vcpu *cpu, u64 host)
{
	const struct tr_site *s = NULL;
	bool jump = false;

	check.site = run_translated(cpu, host);
	s = site_at(check.site & ~SITE_FAULT_BIT);
	check.code = (u64)gpa_to_hva(tb_at(s->block)->gpa & PAGE_MASK);
	jump = jump_done(cpu, s);
	settle_rip(cpu, s);
	take(cpu, &check.translated);
	pages_back_and_keep();
	put(cpu, &check.start);
	run_interpreter(cpu, s, jump);
	take(cpu, &check.interpreted);
	if (check.vectors) {
		normalize(&check.translated);
		normalize(&check.interpreted);
		if (check.site & SITE_FAULT_BIT) /* the instruction that the site names has set its flags, and is to do so again */
			check.translated.vec.fx.mxcsr = check.interpreted.vec.fx.mxcsr;
	}
	return agree(cpu);
}

u32 check_enter(struct vcpu *cpu, u64 host)
{
	const struct tr_site *s = NULL;
	const struct tblock *b = tb_of_code(host);

	check.vectors = !b || b->vectors;
	check.target = cpu->tr.target;
	check.nraces = 0;
	take(cpu, &check.start);
	for (unsigned n = 1; !attempt(cpu, host); n++) {
		if (n == ATTEMPTS)
			report(cpu, "difference");
		note_races();
		pages_back();
		end_of_turn(cpu);
		put(cpu, &check.start);
		cpu->tr.target = check.target;
	}
	for (unsigned i = 0; i < check.nraces; i++)
		*check.race[i].at = check.race[i].value;
	end_of_turn(cpu);
	cpu->stats.tr_checked++;
	s = site_at(check.site & ~SITE_FAULT_BIT);
	if (s->kind == SITE_JUMP && cpu->mode.long64 && !is_canonical(cpu->tr.target))
		cpu->gpr[R_SP] += (u64)(s64)s->disp; /* whoever serves the site takes it back again */
	return check.site;
}
