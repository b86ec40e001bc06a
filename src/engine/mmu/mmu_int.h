/* Inside the MMU room. */
#ifndef ENGINE_MMU_MMU_INT_H
#define ENGINE_MMU_MMU_INT_H

#include "engine/cpu/cpu.h"
#include "engine/lib/lib.h"
#include "engine/mmu/mmu.h"
#include "engine/vm.h"

#define CR0_WP   BIT64(16)
#define CR0_AM   BIT64(18)
#define CR0_PG   BIT64(31)
#define CR4_PSE  BIT64(4)
#define CR4_PAE  BIT64(5)
#define CR4_PGE  BIT64(7)
#define CR4_PCIDE BIT64(17)
#define CR4_SMEP BIT64(20)
#define CR4_SMAP BIT64(21)
#define EFER_LMA BIT64(10)
#define EFER_NXE BIT64(11)

enum paging_kind { PAGING_32, PAGING_PAE, PAGING_4, PAGING_OFF };

struct walk {
	gpa_t gpa;    /* of the 4 KiB page */
	u8 shift;     /* of the mapping: 12, 21, 22, 30 */
	u8 tables;    /* looked into, whether or not that found anything */
	bool writable, user, nx, global, dirty;
	bool accessed; /* of mmu_span_page() only */
};

/* The 512 pages of 4 KiB around an address, as the tables have them, without changing anything; 4-level paging only. */
struct mmu_span {
	gpa_t table;  /* of their entries; unused if large */
	u64 large;    /* the entry that maps them all and more; 0: none */
	gpa_t first;  /* large: of the first page */
	bool writable, user, nx, accessed; /* by the tables above */
};
bool mmu_span_find(const struct vcpu *cpu, gva_t a, struct mmu_span *s);
bool mmu_span_page(const struct vcpu *cpu, const struct mmu_span *s, unsigned i, struct walk *w);

#define PF_FAULT 0x80000000u /* set in mmu_walk's result besides the error code */

enum paging_kind mmu_paging_kind(const struct vcpu *cpu);
/* Translates; sets A/D. 0, or PF_FAULT | error code. Does not raise. */
u32 mmu_walk(struct vcpu *cpu, gva_t a, enum access_type t, enum mmu_idx idx, struct walk *w);

/* RAM at [a, a+size) within a page is going to be written: dirty log, decoded code. */
void mmu_note_write(struct vcpu *cpu, gpa_t a, unsigned size);

/* Installs what the walk allows (tlb.c). */
void tlb_install(struct vcpu *cpu, gva_t a, const struct walk *w, enum access_type t, enum mmu_idx idx);
void tlb_note_writable(struct vcpu *cpu, gpa_t gpa); /* somebody may write there without a look into the TLB: a cell */
void tlb_drop_writes(struct vcpu *cpu, gpa_t gpa); /* ~0: all pages */
void mmu_set_attrs(gpa_t gpa, u64 size, u8 set, u8 clear);
/* Whether a slot but that one has memory in [gpa, gpa + size). */
bool mmu_slot_overlaps(const struct vm *vm, gpa_t gpa, u64 size, u32 but);
/* A data breakpoint lies on the page: it gets no tags, so that every access is looked at. */
bool mmu_watched_page(const struct vcpu *cpu, gva_t page);

static inline bool idx_is_user(enum mmu_idx idx)
{
	return idx == MMU_USER || idx == MMU_USER_AC;
}

#endif
