/* Inside the translator: blocks, sites, and what its files share. */
#ifndef ENGINE_TRANSLATE_INT_H
#define ENGINE_TRANSLATE_INT_H

#include <ucontext.h>

#include "engine/cpu/cpu.h"
#include "engine/interp/interp_int.h"
#include "engine/translate/emit.h"
#include "engine/translate/reencode.h"
#include "engine/translate/tr.h"
#include "engine/vcpu.h"
#include "kvm/chan.h"

/*
 * Host registers in translated code. Guest registers are in the host registers of the same number, but RCX in R14, and R14 and
 * R15 in memory: RCX and R15 are the translator's own. GS is the base of struct vcpu. The guest's arithmetic flags
 * are the host's; the host's DF is clear always.
 */
#define S0      H_CX
#define S1      H_15
#define HOST_CX H_14

static inline struct hostmem mem_at(unsigned base, s32 disp)
{
	return (struct hostmem){.base = (u8)base, .index = H_NONE, .disp = disp};
}
static inline struct hostmem mem_gs(size_t offset)
{
	return (struct hostmem){.base = H_NONE, .index = H_NONE, .gs = true, .disp = (s32)offset};
}
#define MEM_VCPU(field) mem_gs(offsetof(struct vcpu, field))

/* The words that stop translated code, from GS. */
#define GS_ATTENTION (ENG_VCPU_CHAN - ENG_VCPU_STATE + offsetof(struct vcpu_chan, attention))
#define GS_CALM      (ENG_VCPU_CHAN - ENG_VCPU_STATE + offsetof(struct vcpu_chan, calm))

/* ---- places in translated code ---- */

/* Why translated code comes back to tr_run(). */
enum site_kind {
	SITE_MEM,   /* the address tables have no entry: fill and retry, or interpret the instruction */
	SITE_EMU,   /* an instruction that its interpreter handler executes */
	SITE_EXIT,  /* a direct jump not chained yet */
	SITE_STOP,  /* a backward jump found attention */
	SITE_STALE, /* a block whose code is not what it was translated from: gen_check.c */
	SITE_DEAD,  /* a block that was killed: another one is to be found */
	SITE_JUMP,  /* an indirect jump that the cache did not know: target in tr.target */
	SITE_FAR,   /* a direct jump to another page, not chained yet */
	SITE_CROSS, /* an instruction that lies in two pages: the second one is not where it was */
	SITE_FAULT, /* an instruction that may fault by itself: only signals lead here */
};

enum string_kind { STRING_NONE, STRING_STOS, STRING_MOVS };

struct tr_site {
	u32 host;   /* MEM: where to retry. EXIT, FAR: end of the rel32 to patch. Code addresses are below 4 GiB */
	u32 at;     /* host instruction that may fault; 0: none */
	u32 resume; /* MEM, EMU, FAULT: code of the next guest instruction */
	s32 target; /* EXIT, STOP, FAR: offset of the target from the page's start */
	u32 block;
	u32 island; /* MEM: end of the rel32 that leaves from here. FAR: of the one apart that leaves */
	u16 goff;   /* offset of the guest instruction in its page */
	u16 size;   /* MEM: bytes that the look-up is for. EMU: of an element */
	u8 kind;
	bool write; /* MEM: the look-up is for writing ... */
	bool own_write, group; /* ... as this instruction does; it serves later accesses too */
	bool holding; /* MEM: earlier look-ups are remembered (hold.c) */
	u8 nth;     /* instruction of the block */
	bool waits; /* MEM: an x87 exception may be pending, which comes before a fault of the access */
	u16 x87_op, x87_off; /* last x87 instruction before it, if nothing has recorded that yet: gen_x87.c */
	u8 base, index, shift, seg, asize; /* MEM: address, as in struct iop */
	s32 disp;   /* JUMP, FAR: what the stack pointer has moved by */
	u8 string;  /* EMU, enum string_kind: done in line where the tables have its pages */
	struct iblock *emu; /* EMU: one decoded instruction */
};

#define SITE_BASE_RIP    16 /* values of base: the page's address is added; tr.address is */
#define SITE_BASE_STORED 17

#define SITE_FAULT_BIT 0x80000000u
#define SITE_JUMPED    0x40000000u /* the SITE_JUMP in tr.from: seldom worth a look, and it is cold memory */

/* ---- blocks ---- */
#define TR_MAX_INSNS 48
#define TR_CODE_SIZE (64ull << 20) /* of the code cache */

struct tblock {
	gpa_t gpa;
	u32 key;
	u16 bytes, ninsns;
	u32 begin;     /* first byte of its code */
	u32 enter;     /* from the jump cache: S1 = address, S0 = entry. Compares, sets tr.page_va */
	u32 body;      /* from code of the same page */
	u32 end;
	u32 first_site, nsites;
	u32 hash_next; /* block numbers; 0: none */
	u32 page_next;
	u32 cross_next; /* the same of the second page */
	u32 cross;      /* its frame, of a block that is one instruction in two pages; 0: none */
	u32 dead_stub; /* where body leads when the block is dead */
	bool dead;
	bool vectors;  /* has instructions other than integer ones */
} __attribute__((aligned(64))); /* tb_find() touches one line of it */

/* The arena: a head, blocks, sites. */
#define TR_HEAD_SIZE  0x100000ull
#define TR_MAX_BLOCKS 0x100000u
#define TR_SITES_AT   (ENG_TCACHE_BASE + TR_HEAD_SIZE + (u64)TR_MAX_BLOCKS * sizeof(struct tblock))

/* Key of a block in which each access is looked up by itself: where a shared look-up does not do. */
#define TR_KEY_ALONE 0x80000000u

/* What translated code depends on: the decoder's key and which address tables it uses. */
static inline u32 tr_key(const struct vcpu *cpu)
{
	return cpu->mode.key | (u32)cpu->mode.mmu_idx << 24;
}
static inline enum mmu_idx key_mmu_idx(u32 key)
{
	return key >> 24 & 7;
}
static inline u32 key_with_idx(u32 key, enum mmu_idx idx)
{
	return (key & ~(7u << 24)) | (u32)idx << 24;
}
static inline unsigned key_cpl(u32 key)
{
	return key >> 5 & 3;
}
/* The LOCK prefix of an instruction does something. */
static inline bool key_locks(u32 key)
{
	return !(key & MODE_KEY_ONE_CPU) || key_cpl(key) != 3;
}
unsigned tr_jc_class(u32 key);
/* Modes that are translated: flat, 32 or 64 bits, no alignment checks. */
bool tr_mode_ok(const struct vcpu *cpu);

/* ---- cache.c ---- */
struct tblock *tb_at(u32 n);
u32 tb_count(void); /* numbers below it are in use */
struct tr_site *site_at(u32 n);
struct tblock *tb_find(gpa_t gpa, u32 key);
struct tblock *tb_of_code(u64 host); /* the block whose code holds the address */
struct tr_site *site_of_code(u64 host);
/* Translates at gpa; NULL: cannot be translated (first instruction crosses the page). */
struct tblock *tb_make(struct vcpu *cpu, gpa_t gpa, u32 key_bits);
/* The same for an instruction that goes on at the beginning of the page `second`. */
struct tblock *tb_make_crossing(struct vcpu *cpu, gpa_t gpa, gpa_t second);
/* Misses of the site's look-up lead to that block instead of leaving. */
void tb_divert(struct tr_site *s, const struct tblock *to);
void tb_stale(u32 block); /* the page does not hold its code any more */
/* Makes the exit lead straight to the block (same page). */
void tb_chain(struct tr_site *s, const struct tblock *to);
/* The same for a jump of SITE_FAR, once. */
void tb_chain_far(struct tr_site *s, const struct tblock *to);
/* What still leads to a dead block goes on to the one that came after it. */
void tb_succeed(u32 dead, const struct tblock *to);
bool tr_much_code(void); /* a quarter of the cache is full */
u64 tr_kill_count(void); /* blocks killed so far: a change means that running code may be stale */

/* A decoded instruction by itself, as tr_site.emu holds it. */
#define EMU_SIZE ALIGN_UP(sizeof(struct iblock) + 2 * sizeof(struct iop), 64)

/* ---- build.c: one translation in the making ---- */
enum label_bits { LABEL_FORWARD = 1, LABEL_BACKWARD = 2 };

/* An effective address that a look-up can be shared for: base + index * scale + disp. */
struct ea {
	u8 base, index, shift; /* base 16: the page of the code */
	s64 disp;
};

bool ea_same_base(const struct ea *a, const struct ea *b); /* they differ by a constant */

/* A look-up that serves later accesses: good for [lo, hi) from the same base and index. What it found is in S0, in memory
 * (tr.held), or both. */
struct held {
	bool valid, write, stored;
	struct ea ea;
	s64 lo, hi;
	unsigned from; /* instruction that looked up */
	unsigned last; /* the last one that it is known to serve */
};
struct build {
	struct vcpu *cpu;
	struct emit e;
	struct emit apart;  /* what is seldom reached lies elsewhere: build_leave_apart() */
	struct tblock *b;
	u32 key;            /* at the current instruction: STAC and CLAC change it */
	enum mmu_idx idx;
	bool mode64;
	gpa_t page_gpa;
	gpa_t second;       /* of an instruction in two pages: the other one; 0: none */
	u32 page_off;       /* of the current instruction */
	struct insn in;
	struct insn code[TR_MAX_INSNS]; /* the block, decoded ahead */
	unsigned total, limit;          /* instructions: here, and at most */
	u8 label[TR_MAX_INSNS + 1];     /* enum label_bits */
	bool no_resume[TR_MAX_INSNS + 1]; /* code that relies on an earlier look-up */
	bool turned[TR_MAX_INSNS + 1];  /* a jump back that was turned around: the next instruction is its target's copy */
	bool in_loop[TR_MAX_INSNS + 1]; /* of a loop that was unrolled */
	struct held held[TR_HELD];
	u8 s0_held;         /* whose look-up S0 holds; H_NONE: none */
	u8 s1_guest;        /* spilled guest register that S1 holds too, unless e.written says it was overwritten */
	u8 s1_from;         /* instruction that left it there */
	bool s1_operand;    /* gen_access() has left an address in S1 that the operand is s1_behind further on than */
	s32 s1_behind;
	u8 *emu;            /* room for decoded instructions */
	u8 *emu_end;
	u32 insn_host[TR_MAX_INSNS + 1]; /* code of each instruction, by number */
	u16 insn_off[TR_MAX_INSNS + 1];
	u32 insn_key[TR_MAX_INSNS + 1];
	unsigned n;         /* instructions so far */
	u32 nsites;         /* sites of this block so far */
	struct tr_site *site; /* the first of them */
	u32 max_sites;
	struct {            /* JRCXZ instructions that wait for their island */
		u8 *place;
		struct tr_site *site;
	} pending[8];
	unsigned npending;
	struct {            /* conditional jumps whose way out is emitted at the end */
		u8 *rel_end; /* writable view */
		s32 target;
		u32 off;     /* of the jump in its page */
		u32 key;
	} exits[TR_MAX_INSNS];
	unsigned nexits;
	bool insn_waits[TR_MAX_INSNS + 1]; /* an x87 record was waiting there */
	u16 x87_op, x87_off; /* waits to be recorded: X87_OP_VALID | opcode; offset in the page */
	s32 sp_moved;       /* by the instruction, before it jumps */
	bool checked, soft;  /* gen_check.c */
	bool emulated;       /* the current instruction */
	struct {
		u16 at;
		u8 len, insn;
	} soft_at[16];       /* constants left out of the comparison */
	unsigned nsoft, snap_len;
	gpa_t snap_gpa;
	u8 snap[TR_MAX_INSNS * INSN_MAX_LEN + 16]; /* of a checked block: what it is translated from */
	bool full;          /* out of sites: give up */
	bool ended;         /* no way on to the next instruction */
};

/* Fills b->b and the code; false: nothing could be translated. */
bool build_block(struct build *b, gpa_t gpa);
struct tr_site *build_site(struct build *b, enum site_kind kind);
u32 site_number(const struct build *b, const struct tr_site *s);
#define LEAVE_BYTES 12
u64 build_leave_apart(struct build *b, u32 site); /* the same away from code that is on its way; where it is */
#define JUMP_OUT_BYTES 5
void build_jump_out(struct build *b, u32 site);     /* a jump there */
void build_leave(struct build *b, u32 site); /* mov r15d, site; jmp tr_leave */
void build_islands(struct build *b);         /* code of the pending misses, jumped around */
void build_islands_after_jump(struct build *b); /* the same where nothing falls through */
void build_set_key(struct build *b, u32 key);
bool build_next_follows(const struct build *b);  /* the next instruction will be in this block */
void build_pending(struct build *b, struct tr_site *s); /* JRCXZ: leaves with the site if S0 is 0 */
void build_room(struct build *b, unsigned bytes); /* at most so many bytes follow: island first if they would be out of reach */

/* ---- scan.c: what is known of the block before code is made ---- */
void scan_block(struct build *b, gpa_t page);
/* What one look-up is to be for. */
struct group {
	s64 lo, hi;
	bool write;
	bool apart;    /* S0 is likely to be needed for something else in between */
	unsigned last; /* instruction that it serves last */
};
/* Widens the group to what the following instructions access with the same base and index. */
void scan_group(const struct build *b, const struct ea *ea, struct group *g);
/* What the instruction accesses: 0 nothing, 1 one operand that could be shared (*ea), 2 anything else. */
unsigned scan_access(const struct insn *in, unsigned off, struct ea *ea, unsigned *size, bool *write);
/* Follows base and index over one instruction: *moved by how much the address grows; false: lost. */
bool scan_follow(const struct insn *in, const struct ea *ea, s64 *moved);
/* The instruction changes the register by a constant. */
bool scan_delta(const struct insn *in, unsigned reg, s64 *delta);
u32 scan_written(const struct insn *in); /* registers, implicit ones too */
bool shifts_by_cl(const struct insn *in);
int own_index(const struct build *b, s32 target); /* instruction of the block at the offset, or -1 */

/* ---- unroll.c ---- */
void unroll_loops(struct build *b);

/* ---- hold.c: look-ups that serve several instructions ---- */
void hold_drop(struct build *b);   /* S0 is needed */
void hold_forget(struct build *b); /* nothing is known here: a label, or code that may change what look-ups depend on */
void hold_after_insn(struct build *b);
/* An earlier look-up serves this access: S0 holds it again. */
bool hold_find(struct build *b, const struct ea *ea, unsigned size, bool write);
/* S0 holds what a look-up for the group found. */
void hold_keep(struct build *b, const struct ea *ea, const struct group *g);
bool hold_any(const struct build *b); /* something is remembered in memory */

/* ---- gen_*.c: each emits one instruction; false: let the interpreter's handler do it, nothing was emitted ---- */
bool gen_branch(struct build *b);
bool gen_stack(struct build *b);
bool gen_lea(struct build *b);
bool is_special(const struct insn *in); /* for gen_sys(), gen_bitmem() or gen_string() */
bool gen_sys(struct build *b);
bool gen_bitmem(struct build *b);
bool gen_string(struct build *b);
bool gen_data(struct build *b);     /* everything that reencode() can express */
void gen_loop_head(struct build *b); /* looks at attention */
void gen_exits(struct build *b);    /* the ways out of conditional jumps */
void gen_goto(struct build *b, s32 target); /* on to another place: direct exit */
void gen_indirect(struct build *b);         /* guest address in S1 */
void gen_arrival(struct build *b, u32 off); /* where an indirect jump arrives */
u64 gen_behind_arrival(u64 arrival);        /* what follows it, aligned to 8 */
u64 gen_far_arrival(u64 arrival);           /* in it: the address in S1 has been found to be the block's */
void gen_emulate(struct build *b);
struct tr_site *gen_emu_site(struct build *b); /* the handler of the current instruction */
struct tr_site *gen_emulate_unless_zero(struct build *b); /* goes on only if S0 is 0, else the handler does it all */

void gen_next(struct build *b);             /* on to the instruction behind the block */
void build_entry(struct build *b);

/* ---- gen_far.c ---- */
bool gen_far(struct build *b, s32 target); /* a direct jump to another page; false: it is not made in this way */
void gen_cross(struct build *b);           /* is the second page of the instruction where it was? */
u64 gen_far_constant(u64 jump_end);         /* of a far jump: the page frame it expects, less the target's place in it */

/* ---- gen_count.c ---- */
void gen_count(struct build *b); /* before an instruction */

/* ---- gen_check.c ---- */
void check_snapshot(struct build *b, gpa_t gpa);
bool check_writes(const struct insn *in); /* a checked block ends behind it */
void gen_check(struct build *b);
bool gen_soft(struct build *b);

/* ---- gen_x87.c ---- */
#define X87_OP_VALID  0x8000u /* with the opcode's 11 bits */
#define X87_SEG_VALID 0x8000u
bool x87_native(const struct insn *in);
void gen_x87_done(struct build *b);
void gen_x87_flush(struct build *b);
void x87_settle(struct vcpu *cpu, const struct tr_site *s);

/* ---- gen_string.c ---- */
/* The host's registers at a fault of the site's host instruction become the guest's, as far as it came. */
void string_fault(const struct vcpu *cpu, const struct tr_site *s, greg_t *host);

/* ---- gen_mem.c ---- */
/* S1 and S0 are the page numbers of the first byte and the last (one: the same): S0 becomes the table's entry. */
void gen_entry(struct build *b, bool one, bool write);
/* The guest's effective address into reg (S1 or S0); add is added. Uses no other register. */
void gen_offset(struct build *b, unsigned reg, s32 add); /* without segment base */
void gen_ea(struct build *b, unsigned reg, s32 add);
/* Whether the memory operand can be reached by translated code. */
bool gen_addressable(const struct build *b);
/* After this S0 is what to add to the guest address to get the host's: an access of size bytes at the instruction's operand. */
void gen_access(struct build *b, unsigned size, bool write);
/* The same for a plain base register and displacement (stack). */
void gen_access_at(struct build *b, unsigned base, s32 disp, unsigned size, bool write);
/* The same for the address in tr.address. */
void gen_access_stored(struct build *b, unsigned size, bool write);
/* The host instruction emitted next is the one of the last site that may fault. */
void gen_mark(struct build *b);
/* The operand as a host operand, S0 from gen_access(). May take S1. */
struct hostmem gen_operand(struct build *b);
/* The whole address into S0; S1 is free afterwards. */
void gen_operand_in_s0(struct build *b);
void gen_get(struct build *b, unsigned host, unsigned guest); /* 64 bits of a guest register into a host register */
void gen_put(struct build *b, unsigned guest, unsigned host);
bool is_spilled(unsigned guest); /* guest register lives in memory */
unsigned host_of(unsigned guest);

/* ---- ttable.c ---- */
bool tt_start(struct vcpu *cpu);
u64 tt_user_area(const struct vcpu *cpu, unsigned slot); /* room for the jump caches of the address space, then its table */
/* Copies the TLB's entry to the address tables, if there is one and it allows the access. */
enum tt_fill { TT_NONE, TT_SAME, TT_FILLED };
enum tt_fill tt_fill(struct vcpu *cpu, gva_t a, unsigned size, bool write, enum mmu_idx idx);
void tt_drop_write(struct vcpu *cpu, gva_t page, enum mmu_idx idx);

/* ---- jcache.c ---- */
bool jc_start(struct vcpu *cpu);
void jc_switch(struct vcpu *cpu, unsigned slot); /* user address space */
void jc_forget_slot(struct vcpu *cpu, unsigned slot);
void jc_ready(struct vcpu *cpu, unsigned cls); /* before code of the mode runs */
void jc_forget_low(struct vcpu *cpu);
/* Address a is mapped to gpa, for code of the class. False: there is no place for that. */
bool jc_install_page(struct vcpu *cpu, unsigned cls, u64 a, gpa_t gpa);
void jc_install(struct vcpu *cpu, unsigned cls, u64 rip, const struct tblock *b); /* if there is a place for it */
void jc_drop(struct vcpu *cpu, unsigned cls, u64 rip);
u64 jc_find(struct vcpu *cpu, unsigned cls, u64 rip); /* its body */
struct hostmem jc_field(unsigned cls, size_t field); /* of the entry that S0 names */
bool jc_far_ok(gpa_t gpa); /* direct jumps from other pages may be chained to code there */
bool jc_by_pext(void); /* else the host's is slow, and blocks look at attention when they are entered */

/* ---- glue.c ---- */
u32 tr_enter(struct vcpu *cpu, u64 host); /* returns the site it came back from, or SITE_JUMPED */
extern const char tr_leave[];
extern const char tr_jump_miss[]; /* an indirect jump, target in S1, that the cache does not know */
extern const char *const tr_far_jump[JC_COUNT];   /* a direct jump, site in R15d, whose page is not where it was: through the jump cache */
extern const char *const tr_jump_again[JC_COUNT]; /* the same, after its first place was another's */

/* ---- run.c ---- */
u32 tr_enter_with_flags(struct vcpu *cpu, u64 host); /* guest flags in, guest flags out */
gva_t tr_site_address(const struct vcpu *cpu, const struct tr_site *s); /* what a SITE_MEM looks up */

#endif
