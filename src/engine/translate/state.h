/*
 * What the translator keeps in struct vcpu. Translated code reaches it by GS-relative addresses.
 *
 * Address tables. One u64 per pair of neighbouring pages: entry[(VPN(first byte) + VPN(last byte)) mod 2^32], or 2^31 further on for
 * writing. Within a page the two numbers are equal, so the index is even and the entry is what to add to the guest address to get the
 * host's; 0: look elsewhere. An access that crosses a page has an odd index, where there is never an entry. Pages 2^31 page
 * numbers apart share an entry, and one's entry for reading is that for writing of another 2^30 apart: their addresses differ by a multiple of
 * 4 TiB, so with the wrong entry an access lands where the engine has nothing, and faults (layout.h: guest RAM is in [1 TiB, 2 TiB),
 * nothing in [5 TiB, 6 TiB) nor above 8 TiB). So a look-up needs no comparison, no branch but JRCXZ, and changes no flags.
 */
#ifndef ENGINE_TRANSLATE_STATE_H
#define ENGINE_TRANSLATE_STATE_H

#include "base/types.h"

#define TT_ENTRIES   0x100000000ull
#define TT_SIZE      (TT_ENTRIES * 8)
#define TT_WRITE     0x80000000u /* added to the index */
#define TT_USER_CTX  4    /* address spaces of the low half that keep their tables */
#define TT_LOG       65536 /* entries made since the last flush */
#define TR_HELD      4    /* look-ups that a block remembers */

/* Tables of a vCPU: user address spaces, reached from FS, then supervisor's, from GS, and that with EFLAGS.AC. */
enum { TTP_KERNEL = TT_USER_CTX, TTP_KERNEL_AC, TTP_COUNT };

struct tt_table {
	u64 *t;
	u32 ctx;           /* of the low half; 0: none */
	u32 nlog;
	u64 touched[64];   /* by hash of the table page: entries may be there */
	u32 npages;        /* bits in touched */
	bool has_low;      /* supervisor tables: entries of the low half */
	u64 log[TT_LOG];   /* page address | 1 read | 2 write */
};

/*
 * Jump caches: guest address to translated code, by bits 3 to 18 of the address. One per mode, so that only code that
 * was looked up for the mode is found, and those of user modes once more for each address space. A jump goes to what the entry
 * says, and the block there compares the address with the entry's (gen_arrival()); an empty entry leads out. An address whose
 * entry is another's has a second place, by the same bits of the address plus its page number, where tr_jump_again looks.
 *
 * PEXT makes the index, and its mask is the calm word: while somebody asks for attention each jump finds entry 0, which
 * leads to tr_jump_again and out. On hosts whose PEXT is slow there is one place per address, by its low
 * 16 bits, and blocks look at calm.
 *
 * Direct jumps to other pages need not look for their target, only whether the page is where it was. While address v is mapped to the page
 * frame f, an entry says so, by bits 12 to 27 of v: -(v + f). Frames are below 2^28, so that no two that share an entry have the same
 * sum, and none is a multiple of 4096, so that 0 is nobody's. Jumps that can be part of an endless loop make the index with the
 * calm word too. The jump carries the frame as a constant (gen_far(), tb_chain_far()).
 */
enum jc_class { JC_USER64, JC_KERNEL64, JC_KERNEL64_AC, JC_USER32, JC_KERNEL32, JC_COUNT, JC_NONE = 0xff };
#define JC_ENTRIES 65536
#define JC_PAGE_BITS 65536

#define JC_LOGGED 1 /* an empty entry's negated address: it is in the log */

#define FAR_MASK   0x0ffff000u
#define FAR_FRAMES (1ull << 28)
#define FAR_NOBODYS 0x7fffffff /* a constant that no entry fits */
#define FAR_GONE   (1ull << 62) /* an empty entry that is in the log: no canonical address makes 0 of it */

struct jc_table {
	u64 negated[JC_ENTRIES]; /* -address */
	u64 host[JC_ENTRIES];    /* where to jump */
	u16 log[JC_ENTRIES];     /* entries that are not as they were in the beginning, each once */
	u32 n;                   /* of them */
	bool ready;
	u32 far_n;
	u16 far_log[JC_ENTRIES];
	u64 far[JC_ENTRIES];
};

struct tr_state {
	bool on;
	bool inside;       /* between tr_enter() and its return: for trace/sample.c */
	u64 *tt_ac;        /* table of kernel mode with AC, which no segment reaches */
	u64 target;        /* guest address an indirect jump goes to */
	u32 from;          /* site of the last indirect jump */
	u64 value;         /* read by an instruction with two memory operands */
	u64 address;       /* of an operand, where it is not what the address fields say */
	u64 held[TR_HELD]; /* what look-ups found: hold.c */
	u32 drops;         /* counts what takes entries out of the tables */
	u64 addend;        /* waits here while both of the translator's registers are busy */
	u64 page_va;       /* guest address of the page whose code runs */
	u64 host_sp;       /* of tr_enter() */
	u64 entry;         /* where tr_enter() jumps */
	u64 fip, fdp;      /* of x87 instructions, with what follows: gen_x87.c */
	u32 fop, fdp_seg;  /* X87_OP_VALID | opcode; X87_SEG_VALID | segment; 0: nothing new */
	u16 flags_ax;      /* arithmetic flags: AL = OF, AH = the rest */
	u32 fl_if, fl_ac, fl_df, fl_rest; /* the other flags: run.c; fl_df is part of fl_rest, and only read */
	bool fsgsbase;     /* the host's kernel allows WRFSBASE */
	u32 far_mask;      /* FAR_MASK: the operand of a PEXT */
	u32 user_slot;     /* table and jump caches in use for the low half */
	u32 victim;
	struct tt_table table[TTP_COUNT];
	u64 jc_pages[JC_PAGE_BITS / 64]; /* hash of the pages that jump caches name */
	u64 seen_ctx[2];   /* of the TLB, that the tables follow */
	bool crosses;      /* the instruction at RIP crosses a page: no block holds it */
	u8 heat[262144];    /* executions of cold code, by hash of its address */
};

#endif
