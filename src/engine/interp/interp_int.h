/* Inside the interpreter: blocks, the vCPU's lookup cache, and what handlers are made of. */
#ifndef ENGINE_INTERP_INT_H
#define ENGINE_INTERP_INT_H

#include "engine/interp/interp.h"
#include "engine/vm.h"
#include "engine/lib/lib.h"
#include "kvm/chan.h"

#define BLOCK_MAX_OPS 64
#define LOOKUP_SIZE   4096
#define ONEOFF_SIZE   512

/* Decoded code from one guest page. ops[nops] is the sentinel that leads on to the next block. */
struct iblock {
	gpa_t gpa;            /* of the first byte */
	u32 key;              /* cpu_mode.key it was decoded for */
	u16 bytes, nops;
	struct iblock *hash_next;
	struct iblock *page_next;
	bool dead;            /* unlinked; every fn is interp_leave */
	struct iop ops[] __attribute__((aligned(64)));
};

/* Linear address to block, tagged with all that the mapping and the decoding depend on. Only flat modes enter. */
struct icache_lookup {
	u64 rip, tag;
	struct iblock *block;
	u64 pad;
};

/* An instruction that no block may hold: it crosses a page, or is executed alone. */
struct icache_oneoff {
	u8 block[sizeof(struct iblock) + 2 * sizeof(struct iop)] __attribute__((aligned(64)));
	u8 bytes[INSN_MAX_LEN];
	u8 len; /* 0: empty */
	u32 key;
};

struct icache_vcpu {
	struct iblock *cur;   /* executing; NULL when its instructions have been counted */
	u64 generation;       /* of the cache the lookups belong to */
	u64 epoch;            /* part of lookup tags, bits 12..31: counted up to forget all lookups */
	u64 pages[64];        /* Bloom filter of the linear pages that lookups may name */
	bool stop;            /* a handler wants interp_run to return */
	bool split_locked;    /* this vCPU holds vm_split_lock() */
	bool stepping;        /* exactly one instruction, or one iteration of a repeated one */
	struct icache_lookup lookup[LOOKUP_SIZE];
	struct icache_oneoff oneoff[ONEOFF_SIZE];
	u8 staging[sizeof(struct iblock) + (BLOCK_MAX_OPS + 1) * sizeof(struct iop)] __attribute__((aligned(64)));
};

/* ---- block.c ---- */
u64 icache_generation(void);
/* The vCPU's own part of the arena: two of them; [1] has an ever empty lookup cache, for single steps. */
struct icache_vcpu *icache_vcpu(struct vcpu *cpu);
/* The block that starts at the linear address for execution; faults as a fetch does. NULL: no block can be made there,
 * the instruction must run by itself. */
struct iblock *block_find(struct vcpu *cpu, gva_t lin);

/* For the translator, whose blocks hang on the same pages: */
void icache_lock(void);
void icache_unlock(void);
/* Head of the page's list of translated blocks; NULL: no room for another page. */
u32 *icache_page_blocks_locked(gpa_t page);
/*
 * Pages that hold code and are written often are not write-protected: their translated blocks compare their code with
 * what was translated each time they are entered. SOFT: and take constants from the code itself, which has been seen to change.
 * WILD: more than constants changes all the time, so that only what is run several times is worth translating.
 */
enum page_mode { PAGE_PROTECTED, PAGE_CHECKED, PAGE_SOFT, PAGE_WILD };
enum page_mode icache_page_mode(gpa_t page);
void icache_page_soft_locked(gpa_t page); /* a checked block was not what the page holds now */
void icache_sweep(void);                  /* now and then: back to PAGE_PROTECTED */
void icache_page_cover_locked(gpa_t page, gpa_t first, gpa_t last); /* a block covers these bytes */
typedef void icache_cover_fn(void *arg, gpa_t first, gpa_t last);
/* translate/cache.c: kills the blocks of the list that overlap; tells keep() of the others. True: there were some. */
bool tr_invalidate_locked(u32 *list, gpa_t first, gpa_t last, icache_cover_fn *keep, void *arg);
void tr_flush_locked(void);

/* ---- compile.c ---- */
void iop_compile(struct vcpu *cpu, const struct insn *in, struct iop *op);
void iop_compile_error(const struct insn *in, enum insn_error err, struct iop *op);
bool insn_ends_block(const struct insn *in);
iop_fn interp_leave;     /* the block has been invalidated */
iop_fn interp_block_end; /* sentinel of a block */
iop_fn interp_alone_end; /* sentinel of a single instruction */
iop_fn op_raise_ud, op_raise_gp, op_raise_nm, op_nop;

/* One compiler per group of int_*.c and sys_*.c; false: #UD. */
typedef bool int_compiler(struct vcpu *cpu, const struct insn *in, struct iop *op);
int_compiler compile_alu, compile_unary, compile_shift, compile_muldiv, compile_bit, compile_bmi, compile_mov, compile_ext,
    compile_stack, compile_branch, compile_string, compile_flags, compile_atomic, compile_legacy, compile_cmov,
    compile_sys_far, compile_sys_reg, compile_sys_desc, compile_sys_io, compile_sys_misc;

/* ---- run.c ---- */
/* The caller's loop gets each block, or instruction, by itself: branches lead on to none. */
static inline void interp_apart(struct vcpu *cpu, struct icache_vcpu *ic)
{
	cpu->icache = ic + 1;
	ic[1].stepping = ic[1].stop = false;
	ic[1].cur = NULL;
}

typedef void loop_of_run(struct vcpu *cpu, struct icache_vcpu *ic);
/* Calls fn; if that unwinds, settles what the interpreter had under way and unwinds further. */
void interp_guarded(struct vcpu *cpu, loop_of_run *fn);
bool interp_must_stop(const struct vcpu *cpu);
/* Inside a guarded function with cpu->icache the second half (no look-ups): one block; one instruction, returns its length. */
void interp_one_block(struct vcpu *cpu);
unsigned interp_alone(struct vcpu *cpu);

static inline u64 lookup_tag(const struct vcpu *cpu, u64 rip)
{
	return (u64)cpu->mode.key << 32 | cpu->icache->epoch | cpu->tlb.ctx[rip >> 63];
}

static inline struct icache_lookup *lookup_slot(struct icache_vcpu *ic, u64 rip)
{
	return &ic->lookup[(rip ^ rip >> 12) & (LOOKUP_SIZE - 1)];
}

static inline u64 code_linear(const struct vcpu *cpu)
{
	return cpu->mode.long64 ? cpu->rip : (u32)(cpu->rip + cpu->seg[SEG_CS].base);
}

static inline u32 attention(const struct vcpu *cpu)
{
	return __atomic_load_n(&cpu->chan->attention, __ATOMIC_RELAXED);
}

/* The instructions up to and including op have retired; nothing of the current block is left to count. */
static inline void count_retired(struct vcpu *cpu, const struct iop *op)
{
	cpu->insn_count += op->nth + 1;
	cpu->icache->cur = NULL;
}

/* op committed and has set RIP: on to the block there, at once if the lookup cache knows it. */
static inline void iop_goto(struct vcpu *cpu, const struct iop *op)
{
	struct icache_vcpu *ic = cpu->icache;
	const struct icache_lookup *e = lookup_slot(ic, cpu->rip);

	cpu->insn_count += op->nth + 1;
	if (likely(e->rip == cpu->rip && e->tag == lookup_tag(cpu, cpu->rip) && !attention(cpu))) {
		ic->cur = e->block;
		return e->block->ops[0].fn(cpu, e->block->ops);
	}
	ic->cur = NULL;
}

/* A repeated instruction that has more to do: RIP stays. */
static inline void iop_again(struct vcpu *cpu, const struct iop *op)
{
	cpu->insn_count += op->nth;
	cpu->icache->cur = NULL;
}

/* op committed and has set RIP; back to the loop of interp_run, or with stop out of it. */
static inline void iop_return(struct vcpu *cpu, const struct iop *op, bool stop)
{
	count_retired(cpu, op);
	if (stop)
		cpu->icache->stop = true;
}

/* op committed, set RIP, and may have unmasked interrupts or traps: old is RFLAGS before it. */
static inline bool flags_want_loop(const struct vcpu *cpu, u64 old)
{
	return (cpu->rflags & FL_TF) || cpu->nmi_pending || (cpu->irq_window && (cpu->rflags & ~old & FL_IF));
}

/* ---- operands ---- */
/* Number of a register operand as handlers take it: byte registers by their byte offset in gpr[]. */
static inline u8 reg_code(const struct insn_operand *o)
{
	return o->size == 1 ? o->reg * 8 + o->high8 : o->reg;
}

#define RD8(cpu, r)     (((const u8 *)(cpu)->gpr)[r])
#define RD16(cpu, r)    ((u16)(cpu)->gpr[r])
#define RD32(cpu, r)    ((u32)(cpu)->gpr[r])
#define RD64(cpu, r)    ((cpu)->gpr[r])
#define WR8(cpu, r, v)  (((u8 *)(cpu)->gpr)[r] = (u8)(v))
#define WR16(cpu, r, v) (*(u16 *)&(cpu)->gpr[r] = (u16)(v))
#define WR32(cpu, r, v) ((cpu)->gpr[r] = (u32)(v))
#define WR64(cpu, r, v) ((cpu)->gpr[r] = (u64)(v))

static inline u64 gpr_read(const struct vcpu *cpu, unsigned r, unsigned size)
{
	return size == 8 ? RD64(cpu, r) : size == 4 ? RD32(cpu, r) : size == 2 ? RD16(cpu, r) : RD8(cpu, r);
}

static inline void gpr_write(struct vcpu *cpu, unsigned r, u64 v, unsigned size)
{
	if (size == 8)
		WR64(cpu, r, v);
	else if (size == 4)
		WR32(cpu, r, v);
	else if (size == 2)
		WR16(cpu, r, v);
	else
		WR8(cpu, r, v);
}

static inline u64 mem_read(struct vcpu *cpu, gva_t a, unsigned size)
{
	return size == 8 ? mmu_read64(cpu, a) : size == 4 ? mmu_read32(cpu, a) : size == 2 ? mmu_read16(cpu, a)
											    : mmu_read8(cpu, a);
}

static inline void mem_write(struct vcpu *cpu, gva_t a, u64 v, unsigned size)
{
	if (size == 8)
		mmu_write64(cpu, a, v);
	else if (size == 4)
		mmu_write32(cpu, a, v);
	else if (size == 2)
		mmu_write16(cpu, a, v);
	else
		mmu_write8(cpu, a, v);
}

/* Read-modify-write where mmu_rmw_ptr() gave NULL. locked: as one access against other crossing ones. */
u64 rmw_begin(struct vcpu *cpu, gva_t a, unsigned size, bool locked);
void rmw_end(struct vcpu *cpu, gva_t a, u64 v, unsigned size, bool locked);

/* Row of four handlers by operand size. */
static inline unsigned size_row(unsigned size)
{
	return size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3;
}

static inline bool cond_true(u64 fl, unsigned cond)
{
	bool r = false;

	switch (cond >> 1) {
	case 0: r = fl & FL_OF; break;
	case 1: r = fl & FL_CF; break;
	case 2: r = fl & FL_ZF; break;
	case 3: r = fl & (FL_CF | FL_ZF); break;
	case 4: r = fl & FL_SF; break;
	case 5: r = fl & FL_PF; break;
	case 6: r = (fl >> 7 ^ fl >> 11) & 1; break;
	default: r = (fl & FL_ZF) || ((fl >> 7 ^ fl >> 11) & 1); break;
	}
	return r ^ (cond & 1);
}

static inline bool is_canonical(u64 a)
{
	return (u64)((s64)(a << 16) >> 16) == a;
}

#endif
