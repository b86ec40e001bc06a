/*
 * The software TLB: per vCPU, direct mapped, one array per kind of access. An entry maps one 4 KiB guest
 * virtual page to host memory: host address = GVA + addend. A tag is the page address with the 12 low bits
 * holding the context number; the context of the low half of the address space changes with CR3 / PCID, that of
 * the high half only when something non-global there must go. So an address-space switch flushes nothing, and a
 * full flush takes new context numbers.
 *
 * A tag present means: this access needs no further work. tag_w only once the PTE is dirty, the page is logged,
 * and the page holds no decoded code; MMIO never enters.
 */
#ifndef ENGINE_MMU_TLB_H
#define ENGINE_MMU_TLB_H

#include "base/types.h"

#define TLB_BITS 10
#define TLB_SIZE (1u << TLB_BITS)
#define TLB_LOW_PAGES (1u << 20)

enum mmu_idx {
	MMU_USER,      /* CPL 3 */
	MMU_KERNEL,    /* supervisor; SMAP applies where CR4.SMAP (also implicit accesses: descriptor tables ...) */
	MMU_KERNEL_AC, /* supervisor, SMAP on, RFLAGS.AC set */
	MMU_USER_AC,   /* CPL 3 with alignment checking on: no tag is ever installed, every access is looked at */
	MMU_IDX_COUNT
};

struct tlb_entry {
	u64 tag_r, tag_w, tag_x; /* TLB_INVALID_TAG: not allowed without the slow path */
	u64 addend;
};

#define TLB_INVALID_TAG 0xfffull /* context 0xfff is never handed out */
#define TLB_CTX_MAX     0xffeu
#define TLB_NONGLOBAL   32u

struct tlb {
	u64 ctx[2]; /* current context of the low [0] and high [1] half */
	struct tlb_entry e[MMU_IDX_COUNT][TLB_SIZE];
	/* a bit per page below 4 GiB: 0 if no entry, of the address tables too, allows writing it */
	u64 writable[TLB_LOW_PAGES / 64];
	/* private to mmu/tlb.c: which context belongs to which PCID */
	struct {
		u16 next;        /* next unused context number */
		u16 pcid_ctx[64];
		u16 pcid_tag[64];
		u64 large_2m[2][64], large_1g[2][8]; /* by half: hash of addresses where a large page was cut into entries */
		gva_t high_nonglobal[TLB_NONGLOBAL]; /* pages of the high half without the G bit that ctx[1] has entries of */
		u32 nhigh_nonglobal;                 /* TLB_NONGLOBAL + 1: too many to tell */
	} as;
};

static inline unsigned tlb_index(gva_t a)
{
	return (a >> 12) & (TLB_SIZE - 1);
}

#endif
