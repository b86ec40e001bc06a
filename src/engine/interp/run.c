/*
 * Executes blocks. A handler leads on to the next block by itself while the lookup cache knows it and nobody asks for
 * attention; it returns here otherwise.
 *
 * Counting: a handler that leaves a block adds the instructions of the block up to itself. When a fault unwinds out of
 * a block, icache->cur is still set, and RIP says how many had retired.
 */
#include "engine/cpu/breakpoints.h"
#include "engine/cpu/fpu.h"
#include "engine/cpu/record.h"
#include "engine/cpu/run.h"
#include "engine/interp/interp_int.h"
#include "engine/translate/tr.h"

#define PAGE_INSNS 1000 /* that interp_page() runs */
#define EPOCH_ONE  0x1000ull
#define EPOCH_END  0x100000000ull

static void forget_lookups(struct icache_vcpu *ic)
{
	ic->epoch += EPOCH_ONE;
	memset(ic->pages, 0, sizeof(ic->pages));
	if (ic->epoch == EPOCH_END) {
		ic->epoch = 0;
		memset(ic->lookup, 0, sizeof(ic->lookup));
	}
}

void interp_forget_lookups(struct vcpu *cpu)
{
	forget_lookups(icache_vcpu(cpu));
	tr_forget_targets(cpu);
}

static unsigned page_bit(gva_t a)
{
	return (a >> 12 ^ a >> 24) & 4095;
}

void interp_forget_page(struct vcpu *cpu, gva_t a)
{
	struct icache_vcpu *ic = icache_vcpu(cpu);
	unsigned n = page_bit(a);

	if (ic->pages[n >> 6] >> (n & 63) & 1)
		forget_lookups(ic);
	tr_forget_page(cpu, a);
}

static void remember(struct vcpu *cpu, struct icache_vcpu *ic, struct icache_lookup *e, struct iblock *b)
{
	unsigned n = page_bit(cpu->rip);

	*e = (struct icache_lookup){.rip = cpu->rip, .tag = lookup_tag(cpu, cpu->rip), .block = b};
	ic->pages[n >> 6] |= BIT64(n & 63);
}

/* ---- ends of blocks ---- */

void interp_leave(struct vcpu *cpu, const struct iop *op)
{
	struct icache_lookup *e = lookup_slot(cpu->icache, cpu->rip);

	cpu->insn_count += op->nth;
	cpu->icache->cur = NULL;
	if (e->rip == cpu->rip)
		e->block = NULL, e->tag = ~0ull;
}

void interp_block_end(struct vcpu *cpu, const struct iop *op)
{
	struct icache_vcpu *ic = cpu->icache;
	const struct icache_lookup *e = lookup_slot(ic, cpu->rip);

	cpu->insn_count += op->nth;
	if (likely(e->rip == cpu->rip && e->tag == lookup_tag(cpu, cpu->rip) && !attention(cpu))) {
		ic->cur = e->block;
		return e->block->ops[0].fn(cpu, e->block->ops);
	}
	ic->cur = NULL;
}

void interp_alone_end(struct vcpu *cpu, const struct iop *op)
{
	cpu->insn_count += op->nth;
	cpu->icache->cur = NULL;
}

/* ---- one instruction by itself ---- */

static void check_cs_limit(struct vcpu *cpu, unsigned bytes)
{
	const struct segment *cs = &cpu->seg[SEG_CS];

	if (!cpu->mode.long64 && cpu->rip + bytes - 1 > cs->limit)
		cpu_raise_gp(cpu, 0);
}

static void oneoff_fill(struct vcpu *cpu, struct icache_oneoff *o, gva_t lin, const struct insn *in, enum insn_error err)
{
	struct iblock *b = (struct iblock *)o->block;

	memset(o, 0, sizeof(*o));
	if (records_coverage(cpu) && !err)
		record_coverage(cpu, cpu->rip, in->len);
	b->gpa = lin & ~PAGE_MASK;
	b->bytes = in->len;
	b->nops = 1;
	if (err)
		iop_compile_error(in, err, &b->ops[0]);
	else
		iop_compile(cpu, in, &b->ops[0]);
	b->ops[1].fn = interp_alone_end;
	b->ops[1].nth = 1;
	if (err)
		return; /* not kept */
	memcpy(o->bytes, in->bytes, in->len);
	o->len = in->len;
	o->key = cpu->mode.key;
}

static struct iblock *oneoff_find(struct vcpu *cpu, struct icache_vcpu *ic, gva_t lin)
{
	struct icache_oneoff *o = &ic->oneoff[(lin ^ lin >> 12) & (ONEOFF_SIZE - 1)];
	struct iblock *b = (struct iblock *)o->block;
	u8 bytes[INSN_MAX_LEN];
	unsigned n = mmu_fetch_bytes(cpu, lin, bytes, sizeof(bytes));
	struct insn in;
	enum insn_error err;

	if (o->len && o->len <= n && o->key == cpu->mode.key && !memcmp(o->bytes, bytes, o->len)) {
		check_cs_limit(cpu, o->len);
		b->gpa = lin & ~PAGE_MASK;
		return b;
	}
	err = insn_decode(bytes, n, cpu->mode.code, &in);
	if (err == INSN_NEED_MORE) {
		check_cs_limit(cpu, n + 1);
		mmu_fetch_page(cpu, lin + n); /* faults: that is why there are no more bytes */
		err = INSN_UD;
	}
	check_cs_limit(cpu, err ? 1 : in.len);
	oneoff_fill(cpu, o, lin, &in, err);
	return b;
}

/* ---- loops ---- */

static void wrap_ip(struct vcpu *cpu)
{
	if (!cpu->mode.long64)
		cpu->rip = (u32)cpu->rip;
}

static struct iblock *find_next(struct vcpu *cpu, struct icache_vcpu *ic)
{
	gva_t lin = code_linear(cpu);
	struct icache_lookup *e = lookup_slot(ic, cpu->rip);
	struct iblock *b;

	record_arrival(cpu);
	if (e->rip == cpu->rip && e->tag == lookup_tag(cpu, cpu->rip))
		return e->block;
	wrap_ip(cpu);
	check_cs_limit(cpu, 1);
	cpu->stats.blocks_run++;
	b = block_find(cpu, lin);
	if (ic->generation != icache_generation()) {
		interp_forget_lookups(cpu);
		ic->generation = icache_generation();
	}
	if (b && cpu->mode.flat) {
		if (!(cpu->mode.key & MODE_KEY_ARRIVALS)) /* what is remembered leads on without being recorded */
			remember(cpu, ic, e, b);
	} else if (b && cpu->rip + b->bytes - 1 > cpu->seg[SEG_CS].limit) {
		b = NULL;
	}
	return b ? b : oneoff_find(cpu, ic, lin);
}

static bool must_stop(const struct vcpu *cpu, const struct icache_vcpu *ic)
{
	return attention(cpu) || ic->stop || cpu->shadow || cpu->cell_stop || (cpu->rflags & FL_TF) || cpu->halted_by_hlt ||
	       (cpu->irq_window && cpu->rflags & FL_IF) || (unlikely(dbg_armed(cpu)) && dbg_page_armed(cpu, code_linear(cpu)));
}

bool interp_must_stop(const struct vcpu *cpu)
{
	return must_stop(cpu, cpu->icache);
}

static __attribute__((noinline)) void run_blocks(struct vcpu *cpu, struct icache_vcpu *ic)
{
	while (!must_stop(cpu, ic)) {
		struct iblock *b = find_next(cpu, ic);

		ic->cur = b;
		b->ops[0].fn(cpu, b->ops);
	}
}

static __attribute__((noinline)) void step_one(struct vcpu *cpu, struct icache_vcpu *ic)
{
	struct iblock *b;

	wrap_ip(cpu);
	check_cs_limit(cpu, 1);
	record_arrival(cpu);
	b = oneoff_find(cpu, ic, code_linear(cpu));
	cpu->icache = ic + 1; /* finds no further block */
	ic[1].stepping = true;
	ic[1].cur = b;
	b->ops[0].fn(cpu, b->ops);
}

void interp_one_block(struct vcpu *cpu)
{
	struct icache_vcpu *ic = cpu->icache;
	struct iblock *b = NULL;

	wrap_ip(cpu);
	check_cs_limit(cpu, 1);
	record_arrival(cpu);
	cpu->stats.blocks_run++;
	b = block_find(cpu, code_linear(cpu));
	if (b && !cpu->mode.flat && cpu->rip + b->bytes - 1 > cpu->seg[SEG_CS].limit)
		b = NULL;
	if (!b)
		b = oneoff_find(cpu, ic - 1, code_linear(cpu));
	ic->cur = b;
	b->ops[0].fn(cpu, b->ops);
}

unsigned interp_alone(struct vcpu *cpu)
{
	struct icache_vcpu *ic = cpu->icache;
	struct iblock *b = NULL;
	unsigned len = 0;

	wrap_ip(cpu);
	check_cs_limit(cpu, 1);
	b = oneoff_find(cpu, ic - 1, code_linear(cpu));
	len = b->ops[0].len;
	ic->cur = b;
	b->ops[0].fn(cpu, b->ops);
	return len;
}

/* The address by which op uses the stack segment, if it does. The instruction has changed nothing yet. */
static bool stack_address(const struct vcpu *cpu, const struct iop *op, u64 *a)
{
	switch (op->desc->id) {
	case INSN_PUSH:
	case INSN_CALL:
	case INSN_PUSHF:
		*a = cpu->gpr[R_SP] - op->size;
		break;
	case INSN_POP:
	case INSN_RET:
	case INSN_POPF:
		*a = cpu->gpr[R_SP];
		break;
	case INSN_LEAVE:
		*a = cpu->gpr[R_BP];
		break;
	case INSN_ENTER: /* all of its accesses are to the stack: whichever it was */
		*a = BIT64(62);
		break;
	default:
		return false;
	}
	return true;
}

/* Not as the instruction demands, which is looked at before the address is. */
static bool misaligned(struct vcpu *cpu, const struct iop *op)
{
	u64 base = cpu->mode.long64 && !(op->flags & IOP_SEGBASE) ? 0 : cpu->seg[op->seg].base;

	u32 attr = op->desc->attr;

	if (!op->has_mem || !((iop_ea_offset(cpu, op) + base) & (op->desc->id == INSN_CMPXCHG16B ? 15u : op->size - 1u)))
		return false;
	if (op->desc->id == INSN_CMPXCHG16B || attr & IA_ALIGN_ANY)
		return true;
	return op->desc->cls == IC_SSE && attr & IA_ALIGN16 && !(op->desc->feature == FEAT_SHA && vec_state(cpu)->amd);
}

/* Whether the explicit operand, in the stack segment, was what faulted. */
static bool stack_operand(struct vcpu *cpu, const struct iop *op)
{
	u64 a = iop_ea_offset(cpu, op);

	if (op->desc->id >= INSN_BT && op->desc->id <= INSN_BTC) /* a bit offset in a register reaches anywhere */
		return true;
	return !misaligned(cpu, op) && !is_canonical(a);
}

/* The MMU answers a non-canonical address with #GP(0); through the stack segment it is #SS(0) (SDM 1 3.3.7.1). */
static void fix_stack_fault(struct vcpu *cpu, const struct iop *op)
{
	struct exception *e = &cpu->exc;
	u64 a = 0;

	if (e->pending && e->vector == EXC_SS && !e->error && op->desc && misaligned(cpu, op))
		e->vector = EXC_GP;
	if (!e->pending || e->vector != EXC_GP || e->error || !cpu->mode.long64 || !op->desc)
		return;
	if (op->has_mem && (op->desc->id == INSN_PUSH || op->desc->id == INSN_CALL)) { /* they read it first */
		u64 at = iop_ea_offset(cpu, op) + (op->flags & IOP_SEGBASE ? cpu->seg[op->seg].base : 0);

		if (!is_canonical(at)) {
			e->vector = op->seg == SEG_SS ? EXC_SS : EXC_GP;
			return;
		}
	}
	if ((stack_address(cpu, op, &a) && !is_canonical(a)) ||
	    (op->has_mem && op->seg == SEG_SS && stack_operand(cpu, op)))
		e->vector = EXC_SS;
}

/* What had retired of the block that a fault or exit left: RIP is at the first instruction that had not. */
static void settle_unwound(struct vcpu *cpu)
{
	struct iblock *b = cpu->icache->cur;
	unsigned off = 0, n = 0;

	if (!b)
		return;
	off = ((unsigned)code_linear(cpu) - (unsigned)b->gpa) & 0xfff;
	while (n < b->nops && off) {
		off -= MIN(off, b->ops[n].len);
		n++;
	}
	cpu->insn_count += n;
	cpu->icache->cur = NULL;
	if (n < b->nops)
		fix_stack_fault(cpu, &b->ops[n]);
}

static void leave(struct vcpu *cpu, struct icache_vcpu *ic)
{
	cpu->icache = ic;
	cpu->stats.insns = cpu->insn_count;
}

static _Noreturn __attribute__((noinline)) void unwind_further(struct vcpu *cpu)
{
	__builtin_longjmp(cpu->unwind, 1);
}

__attribute__((noinline)) void interp_guarded(struct vcpu *cpu, loop_of_run *fn)
{
	struct icache_vcpu *ic = icache_vcpu(cpu);
	void *outer[ARRAY_SIZE(cpu->unwind)];

	memcpy(outer, cpu->unwind, sizeof(outer));
	cpu->icache = ic;
	ic->stop = false;
	ic->cur = NULL;
	if (__builtin_setjmp(cpu->unwind) == 0) {
		fn(cpu, ic);
		memcpy(cpu->unwind, outer, sizeof(outer));
		leave(cpu, ic);
		return;
	}
	memcpy(cpu->unwind, outer, sizeof(outer));
	if (cpu->icache->split_locked) {
		cpu->icache->split_locked = false;
		vm_split_unlock(cpu->vm);
	}
	settle_unwound(cpu);
	leave(cpu, ic);
	unwind_further(cpu);
}

static void run_page(struct vcpu *cpu, struct icache_vcpu *ic)
{
	gva_t page = cpu->rip & PAGE_MASK;

	interp_apart(cpu, ic);
	for (unsigned n = 0; n < PAGE_INSNS && (cpu->rip & PAGE_MASK) == page && !must_stop(cpu, ic + 1); n++)
		interp_alone(cpu);
}

void interp_page(struct vcpu *cpu)
{
	interp_guarded(cpu, run_page);
}

void interp_run(struct vcpu *cpu)
{
	interp_guarded(cpu, run_blocks);
}

void interp_step(struct vcpu *cpu)
{
	interp_guarded(cpu, step_one);
}
