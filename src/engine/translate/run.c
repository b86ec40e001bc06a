/*
 * Runs translated code, and does what it cannot: fills address tables, interprets single instructions, finds and makes blocks,
 * chains them. Code that is cold is interpreted block by block.
 */
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "engine/cpu/breakpoints.h"
#include "engine/cpu/record.h"
#include "engine/interp/hostop.h"
#include "engine/lib/lib.h"
#include "engine/translate/check.h"
#include "engine/translate/stress.h"
#include "engine/translate/tr_int.h"

#define ARCH_SET_GS   0x1001
#define SS_AUTODISARM (1u << 31)
#define HOT           4  /* docs/performance.md */
#define HOT_MUCH      16 /* while a quarter of the code cache is full: it is a large program that runs, and most of its code runs seldom */
#define HOT_WILD      16

bool tr_mode_ok(const struct vcpu *cpu)
{
	const struct cpu_mode *m = &cpu->mode;

	return m->flat && m->pe && !m->vm86 && m->mmu_idx != MMU_USER_AC &&
	       (m->long64 || (m->code == INSN_MODE_32 && m->stack == 4));
}

bool tr_vcpu_start(struct vcpu *cpu)
{
	stack_t ss = {.ss_sp = (u8 *)cpu + ENG_VCPU_ALTSTACK, .ss_flags = (int)SS_AUTODISARM,
		      .ss_size = ENG_VCPU_ALTSTACK_SIZE};

	if (!tr_available() || !tt_start(cpu) || !jc_start(cpu))
		return false;
	/* without AUTODISARM the kernel would look whether the guest's stack pointer lies there */
	if (sys_call(SYS_sigaltstack, &ss, NULL) < 0 || sys_call(SYS_arch_prctl, ARCH_SET_GS, cpu) < 0)
		return false;
	cpu->tr.on = true;
	cpu->record.key |= tr_stress()->record;
	cpu_update_mode(cpu);
	mmu_flush_all(cpu); /* tables follow the TLB's contexts from here on */
	return true;
}

/* ---- interpreting ---- */

static u64 next_rip(const struct vcpu *cpu, u64 rip)
{
	return cpu->mode.long64 ? rip : (u32)rip;
}

static void run_emulated(struct vcpu *cpu, struct iblock *b)
{
	cpu->icache->cur = b;
	b->ops[0].fn(cpu, b->ops);
}

/* ---- finding code ---- */

static u8 *heat_of(struct vcpu *cpu, gpa_t gpa)
{
	return &cpu->tr.heat[(gpa ^ gpa >> 14) & (sizeof(cpu->tr.heat) - 1)];
}

/* An instruction that crosses into the next page is found once and remembered. Others at the end of a page that share its
 * place stay interpreted too. */
#define HEAT_NEVER 0xff

static bool at_page_end(gpa_t gpa)
{
	return (gpa & ~PAGE_MASK) > PAGE_SIZE - INSN_MAX_LEN;
}

/* Executions before code there is translated. Checked pages cannot be interpreted in blocks. */
static u32 hot_enough(gpa_t gpa)
{
	switch (icache_page_mode(gpa & PAGE_MASK)) {
	case PAGE_PROTECTED:
		return tr_stress()->hot ? tr_stress()->hot : tr_much_code() ? HOT_MUCH : HOT;
	case PAGE_WILD:
		return HOT_WILD;
	default:
		return 1;
	}
}

/* An instruction that goes on in the next page. Faults as its fetch does. */
static struct tblock *make_crossing(struct vcpu *cpu, gpa_t gpa)
{
	struct insn in;

	if (!jc_by_pext() || insn_decode(gpa_to_hva(gpa), PAGE_SIZE - (gpa & ~PAGE_MASK), cpu->mode.code, &in) != INSN_NEED_MORE)
		return NULL;
	return tb_make_crossing(cpu, gpa, mmu_fetch_page(cpu, next_rip(cpu, (code_linear(cpu) & PAGE_MASK) + PAGE_SIZE)));
}

/* A block for RIP, which is at gpa, if it has been met often enough; NULL: cold, or not translatable. */
static struct tblock *make_if_hot(struct vcpu *cpu, gpa_t gpa)
{
	u8 *heat = heat_of(cpu, gpa);
	struct tblock *t = NULL;

	cpu->tr.crosses = *heat == HEAT_NEVER && at_page_end(gpa);
	if (cpu->tr.crosses || ++*heat < hot_enough(gpa))
		return NULL;
	*heat = 0;
	t = tb_make(cpu, gpa, 0);
	if (!t && at_page_end(gpa))
		t = make_crossing(cpu, gpa);
	if (!t && at_page_end(gpa))
		*heat = HEAT_NEVER;
	return t;
}

/* The block at RIP. Faults as a fetch does. */
static struct tblock *block_at_rip(struct vcpu *cpu)
{
	gva_t lin = code_linear(cpu);
	gpa_t gpa = mmu_fetch_page(cpu, lin) | (lin & ~PAGE_MASK);
	struct tblock *t = tb_find(gpa, tr_key(cpu));

	return t ? t : make_if_hot(cpu, gpa);
}

/* Where to go on at RIP in translated code; 0: not there. */
static u64 code_at_rip(struct vcpu *cpu)
{
	unsigned cls = 0;
	struct tblock *t = NULL;
	u64 host = 0;

	cpu->tr.crosses = false;
	if (!tr_mode_ok(cpu))
		return 0;
	cls = tr_jc_class(tr_key(cpu));
	jc_ready(cpu, cls);
	host = jc_find(cpu, cls, cpu->rip);
	if (!host) {
		t = block_at_rip(cpu);
		if (!t)
			return 0;
		jc_install(cpu, cls, cpu->rip, t);
		host = t->body;
	}
	cpu->tr.page_va = cpu->rip & PAGE_MASK;
	return host;
}

/* ---- what translated code came back for; each returns where to go on, 0: the loop decides by RIP ---- */

struct stop {
	u64 kills; /* when translated code was entered */
	u32 key;   /* when it was left */
};

static bool code_still_good(const struct vcpu *cpu, const struct stop *st)
{
	return st->kills == tr_kill_count() && st->key == tr_key(cpu) && !interp_must_stop(cpu);
}

/* host: read from the site before guest code ran, which may have had its memory used anew. */
static u64 resume(struct vcpu *cpu, u32 host, const struct stop *st, u64 expected)
{
	return host && cpu->rip == expected && code_still_good(cpu, st) ? host : 0;
}

/* The piece of code that the instruction belongs to has counted it already: gen_count.c */
static void uncount(struct vcpu *cpu, const struct stop *st)
{
	if (unlikely(st->key & MODE_KEY_COUNT))
		cpu->insn_count--;
}

static u64 interpret_and_resume(struct vcpu *cpu, const struct tr_site *s, const struct stop *st)
{
	u32 host = s->resume;
	u64 before = cpu->rip;
	unsigned len = 0;

	uncount(cpu, st);
	len = interp_alone(cpu);

	return resume(cpu, host, st, next_rip(cpu, before + len));
}

gva_t tr_site_address(const struct vcpu *cpu, const struct tr_site *s)
{
	u64 a = (u64)(s64)s->disp;

	if (s->base < 16)
		a += cpu->gpr[s->base];
	else if (s->base == SITE_BASE_RIP)
		a += cpu->rip;
	else if (s->base == SITE_BASE_STORED)
		a += cpu->tr.address;
	if (s->index != INSN_NO_REG)
		a += cpu->gpr[s->index] << s->shift;
	a = s->asize == 8 ? a : (u32)a;
	if (s->seg >= SEG_FS)
		a += cpu->seg[s->seg].base;
	return cpu->mode.long64 ? a : (u32)a;
}

/*
 * The page walk that the instruction would do. It faults here unless something else may come first: an operand of more
 * than 8 bytes may have to be aligned, an x87 exception may be pending, a shared look-up is not for this instruction's address.
 */
static bool walk(struct vcpu *cpu, const struct tr_site *s, gva_t a)
{
	u32 error = 0;

	if ((a & ~PAGE_MASK) + s->size > PAGE_SIZE)
		return false;
	if (mmu_fill(cpu, a, s->write ? ACC_WRITE : ACC_READ, cpu->mode.mmu_idx, &error))
		return true;
	if (error && s->size <= 8 && !s->group && !s->waits)
		cpu_raise_pf(cpu, a, error & 0xffff);
	return false;
}

/* A look-up for several accesses that no entry can serve: from now on to code with a look-up for each. */
static u64 leave_group(struct vcpu *cpu, struct tr_site *s, const struct stop *st)
{
	const struct tblock *b = tb_at(s->block);
	gpa_t gpa = (b->gpa & PAGE_MASK) | s->goff;
	struct tblock *alone = tb_find(gpa, st->key | TR_KEY_ALONE);

	if (!alone)
		alone = tb_make(cpu, gpa, TR_KEY_ALONE);
	if (!alone) /* not even that can be made: the loop would only come here again */
		return interpret_and_resume(cpu, s, st);
	if (!code_still_good(cpu, st))
		return 0;
	if (!s->x87_op) /* else what it carries must come by here */
		tb_divert(s, alone);
	return alone->body;
}

static bool group_fails(const struct vcpu *cpu, const struct tr_site *s, gva_t a)
{
	return s->group && ((a & ~PAGE_MASK) + s->size > PAGE_SIZE || s->write != s->own_write) &&
	       !(cpu->mode.mmu_idx == MMU_USER_AC);
}

/* The entry is there now. A turn of the lock-step mode makes its own ones for writing. */
static u64 look_again(struct vcpu *cpu, const struct tr_site *s, gva_t a, u32 drops)
{
	if (tr_checking() && s->write)
		tt_drop_write(cpu, a & PAGE_MASK, cpu->mode.mmu_idx);
	if (s->holding && (tr_checking() || cpu->tr.drops != drops))
		return 0; /* earlier look-ups are to be repeated too: what they found may not hold any more */
	return s->host; /* 0: an earlier look-up is to be repeated; the loop finds a block that does */
}

static u64 on_memory(struct vcpu *cpu, struct tr_site *s, const struct stop *st, bool fault)
{
	gva_t a = tr_site_address(cpu, s);
	u32 drops = cpu->tr.drops;
	enum tt_fill r = tt_fill(cpu, a, s->size, s->write, cpu->mode.mmu_idx);

	cpu->stats.tr_misses++;
	if (tr_checking() && fault && r == TT_FILLED) { /* the turn had it, and the instruction faulted nevertheless */
		look_again(cpu, s, a, drops);
		r = TT_SAME;
	}
	if (r == TT_FILLED || (r == TT_SAME && !fault))
		return look_again(cpu, s, a, drops);
	if (group_fails(cpu, s, a))
		return leave_group(cpu, s, st);
	if (r == TT_NONE && !tr_checking() && walk(cpu, s, a) && tt_fill(cpu, a, s->size, s->write, cpu->mode.mmu_idx) == TT_FILLED)
		return look_again(cpu, s, a, drops);
	cpu->stats.tr_interpreted++;
	return interpret_and_resume(cpu, s, st);
}

/* Its handler has them in the TLB now. */
static void string_pages(struct vcpu *cpu, enum string_kind string, gva_t from, gva_t to)
{
	if (string == STRING_MOVS)
		tt_fill(cpu, from, 1, false, cpu->mode.mmu_idx);
	tt_fill(cpu, to, 1, true, cpu->mode.mmu_idx);
}

static u64 on_emulated(struct vcpu *cpu, const struct tr_site *s, const struct stop *st)
{
	u64 expected = next_rip(cpu, cpu->rip + s->emu->bytes);
	u32 host = s->resume;
	enum string_kind string = s->string;
	u64 from = next_rip(cpu, cpu->gpr[R_SI]), to = next_rip(cpu, cpu->gpr[R_DI]);

	cpu->stats.tr_emulated++;
	uncount(cpu, st);
	run_emulated(cpu, s->emu);
	if (string)
		string_pages(cpu, string, from, to);
	return resume(cpu, host, st, expected);
}

/* A direct jump within the page. */
static u64 on_exit(struct vcpu *cpu, struct tr_site *s, const struct stop *st)
{
	struct tblock *from = tb_at(s->block), *to = NULL;
	gpa_t gpa = (from->gpa & PAGE_MASK) | ((u32)s->target & 0xfff);
	u32 key = st->key;

	cpu->rip = next_rip(cpu, cpu->tr.page_va + (u64)(s64)s->target);
	if (interp_must_stop(cpu))
		return 0;
	to = tb_find(gpa, key);
	if (!to)
		to = make_if_hot(cpu, gpa);
	if (!to || !code_still_good(cpu, st))
		return 0;
	cpu->stats.tr_chained++;
	tb_chain(s, to);
	return to->body;
}

/* Who asks sets attention, then clears calm: if the first was taken in between, the second says so for nothing. */
static void calm_down(struct vcpu *cpu)
{
	if (likely(__atomic_load_n(&cpu->chan->calm, __ATOMIC_SEQ_CST)))
		return;
	if (!__atomic_load_n(&cpu->chan->attention, __ATOMIC_SEQ_CST))
		__atomic_store_n(&cpu->chan->calm, CHAN_CALM, __ATOMIC_SEQ_CST);
	/* attention set since then: interp_must_stop() sees it, the run loop looks at both */
}

static bool target_is_good(const struct vcpu *cpu)
{
	return !cpu->mode.long64 || is_canonical(cpu->tr.target);
}

static u64 arrive(struct vcpu *cpu)
{
	cpu->rip = next_rip(cpu, cpu->tr.target);
	cpu->stats.tr_jumps++;
	calm_down(cpu);
	return 0;
}

/*
 * A target that is not canonical is the jump's own fault (SDM 2A, CALL, JMP; 2B, RET): its handler raises it, from the stack pointer
 * it began with.
 */
static u64 on_jump(struct vcpu *cpu, const struct tr_site *s)
{
	if (!target_is_good(cpu)) {
		cpu->gpr[R_SP] -= (u64)(s64)s->disp;
		interp_alone(cpu);
		return 0;
	}
	return arrive(cpu);
}

/* Direct jumps to other pages. What is not translated there the loop finds, and this jump is chained the next time. */
static u64 on_far(struct vcpu *cpu, struct tr_site *s, const struct stop *st)
{
	struct tblock *to = NULL;
	gva_t lin = 0;

	cpu->tr.target = next_rip(cpu, cpu->tr.page_va + (u64)(s64)s->target);
	on_jump(cpu, s);
	if (cpu->rip != cpu->tr.target || interp_must_stop(cpu))
		return 0;
	lin = code_linear(cpu);
	to = tb_find(mmu_fetch_page(cpu, lin) | (lin & ~PAGE_MASK), st->key);
	if (!to || !code_still_good(cpu, st))
		return 0;
	jc_install(cpu, tr_jc_class(st->key), cpu->rip, to);
	tb_chain_far(s, to);
	cpu->stats.tr_chained++;
	cpu->tr.page_va = cpu->rip & PAGE_MASK;
	return to->body;
}

static u64 on_cross(struct vcpu *cpu, const struct tr_site *s, const struct stop *st)
{
	u64 next = next_rip(cpu, cpu->tr.page_va + PAGE_SIZE);
	gpa_t second = mmu_fetch_page(cpu, next);

	if (second >> 12 == tb_at(s->block)->cross && !(dbg_armed(cpu) && dbg_page_armed(cpu, next)) &&
	    jc_install_page(cpu, tr_jc_class(st->key), next, second))
		return code_still_good(cpu, st) ? s->host : 0;
	uncount(cpu, st);
	interp_alone(cpu); /* it may be another one, of another length: what follows it in the block is not known to be next */
	return 0;
}

/* Its successor is of the same kind: from the one without shared look-ups the other would only lead back here. */
static u64 on_dead(struct vcpu *cpu, u32 block, const struct stop *st)
{
	const struct tblock *to = NULL;
	u32 alone = tb_at(block)->key & TR_KEY_ALONE;
	gpa_t gpa = tb_at(block)->gpa;

	jc_drop(cpu, tr_jc_class(st->key), cpu->rip);
	to = tb_find(gpa, st->key | alone);
	if (!to && alone)
		to = tb_make(cpu, gpa, alone);
	if (!to && alone)
		interp_alone(cpu);
	if (!to || !code_still_good(cpu, st))
		return 0;
	tb_succeed(block, to);
	return to->body;
}

static u64 came_back(struct vcpu *cpu, u32 number, const struct stop *st)
{
	bool fault = number & SITE_FAULT_BIT;
	struct tr_site *s = NULL;

	if (number == SITE_JUMPED) {
		if (likely(!(cpu->tr.fop | cpu->tr.fdp_seg) && target_is_good(cpu))) /* a jump has no x87 record of its own */
			return arrive(cpu);
		number = cpu->tr.from;
	}
	number &= ~SITE_FAULT_BIT;
	s = site_at(number);
	if (cpu->tr.fop | cpu->tr.fdp_seg | s->x87_op)
		x87_settle(cpu, s);
	cpu->rip = next_rip(cpu, cpu->tr.page_va + s->goff);
	switch ((enum site_kind)s->kind) {
	case SITE_MEM:
		return on_memory(cpu, s, st, fault);
	case SITE_EMU:
		return on_emulated(cpu, s, st);
	case SITE_EXIT:
		return on_exit(cpu, s, st);
	case SITE_STOP:
		cpu->rip = next_rip(cpu, cpu->tr.page_va + (u64)(s64)s->target);
		calm_down(cpu);
		return 0;
	case SITE_STALE:
		cpu->stats.tr_stale++;
		tb_stale(s->block);
		jc_drop(cpu, tr_jc_class(st->key), cpu->rip);
		return 0;
	case SITE_DEAD:
		return on_dead(cpu, s->block, st);
	case SITE_CROSS:
		return on_cross(cpu, s, st);
	case SITE_FAR:
		return on_far(cpu, s, st);
	case SITE_JUMP:
		return on_jump(cpu, s);
	case SITE_FAULT:
		cpu->stats.tr_faults++;
		return interpret_and_resume(cpu, s, st);
	}
	return 0;
}

/* RFLAGS in pieces: arithmetic flags for the host's; what in-line code changes. */
static void unpack_flags(struct vcpu *cpu)
{
	struct tr_state *s = &cpu->tr;
	u32 fl = (u32)cpu->rflags;

	s->flags_ax = (u16)flags_to_ax(fl);
	s->fl_if = fl & FL_IF;
	s->fl_ac = fl & FL_AC;
	s->fl_df = fl & FL_DF;
	s->fl_rest = fl & ~(FL_ARITH | FL_IF | FL_AC | FL_ONE | FL_VM | FL_RF);
}

static void pack_flags(struct vcpu *cpu)
{
	const struct tr_state *s = &cpu->tr;

	cpu->rflags = flags_merge(cpu->rflags & ~(u64)(FL_IF | FL_AC), s->flags_ax) | s->fl_if | s->fl_ac;
}

u32 tr_enter_with_flags(struct vcpu *cpu, u64 host)
{
	u32 site = 0;

	unpack_flags(cpu);
	__atomic_store_n(&cpu->tr.inside, true, __ATOMIC_RELAXED);
	site = tr_enter(cpu, host);
	__atomic_store_n(&cpu->tr.inside, false, __ATOMIC_RELAXED);
	pack_flags(cpu);
	return site;
}

static u64 find_code(struct vcpu *cpu)
{
	if (unlikely(tr_stress()->flush))
		tr_stress_flush(cpu, true);
	return code_at_rip(cpu);
}

/* True: RIP is at code that is to be interpreted; false: the run loop is asked for. */
static bool run_code(struct vcpu *cpu, u64 host)
{
	struct stop st = {.kills = tr_kill_count()};

	while (host) {
		u32 site = 0;

		cpu->stats.tr_entries++;
		if (unlikely(tr_stress()->flush))
			tr_stress_flush(cpu, false);
		site = tr_checking() ? check_enter(cpu, host) : tr_enter_with_flags(cpu, host);
		st.key = tr_key(cpu);
		host = came_back(cpu, site, &st);
		if (host)
			continue;
		if (interp_must_stop(cpu))
			return false;
		st.kills = tr_kill_count();
		host = find_code(cpu);
	}
	return true;
}

/* The page of RIP must not get decoded blocks of the interpreter, which would have it protected again. */
static bool is_checked(struct vcpu *cpu)
{
	return tr_mode_ok(cpu) && icache_page_mode(mmu_fetch_page(cpu, code_linear(cpu))) != PAGE_PROTECTED;
}

static void loop(struct vcpu *cpu, struct icache_vcpu *ic)
{
	interp_apart(cpu, ic);
	check_unwound(cpu);
	while (!interp_must_stop(cpu) && run_code(cpu, find_code(cpu))) {
		if (cpu->tr.crosses || is_checked(cpu)) {
			record_arrival(cpu);
			interp_alone(cpu);
		} else {
			interp_one_block(cpu);
		}
	}
}

void tr_run(struct vcpu *cpu)
{
	icache_sweep();
	interp_guarded(cpu, loop);
}

/* ---- signals ---- */

bool tr_handle_fault(struct vcpu *cpu, void *ucontext)
{
	ucontext_t *uc = ucontext;
	u64 pc = (u64)uc->uc_mcontext.gregs[REG_RIP];
	const struct tr_site *s = cpu && cpu->tr.on ? site_of_code(pc) : NULL;

	if (!s)
		return false;
	if (s->string)
		string_fault(cpu, s, uc->uc_mcontext.gregs);
	uc->uc_mcontext.gregs[REG_RIP] = (long long)(u64)tr_leave;
	uc->uc_mcontext.gregs[REG_R15] = (long long)((u64)(s - site_at(0)) | SITE_FAULT_BIT);
	return true;
}
