/*
 * Guest memory as the guest's instructions see it: linear addresses, translated by the guest's page tables.
 *
 * All accessors below either succeed or do not return: a page fault, or an access that must leave to the VMM
 * (MMIO), unwinds to the run loop (cpu_raise, cpu_exit_mmio_read). So an instruction does all its faulting
 * accesses before it changes any state. Segmentation and canonicality are the caller's business
 * (cpu/segment.h); these take linear addresses (truncated to 32 bits outside long mode by the caller).
 *
 * Called by the owning vCPU thread only, except where said.
 */
#ifndef ENGINE_MMU_MMU_H
#define ENGINE_MMU_MMU_H

#include "engine/vcpu.h"

/* Attributes of a guest page frame: attr bytes at ENG_ATTR_BASE, indexed by GPA >> 12; atomic access. */
enum page_attr {
	PA_RAM = 0x01,   /* backed by memory at gpa_to_hva() */
	PA_RO = 0x02,    /* KVM_MEM_READONLY: writes are MMIO exits */
	PA_CODE = 0x04,  /* decoded or translated code exists from this page: writers must invalidate */
	PA_LOG = 0x08,   /* slot has dirty logging on */
	PA_DIRTY = 0x10, /* written since the log was last read (only kept up where PA_LOG) */
	PA_TABLE = 0x20, /* a walk has found a page table there, and stores to it are traced */
};

static inline u8 *page_attr(gpa_t gpa)
{
	return (u8 *)ENG_ATTR_BASE + (gpa >> 12);
}

/* Page-fault error code bits (SDM 3A 4.7). */
#define PF_P    0x01u
#define PF_W    0x02u
#define PF_U    0x04u
#define PF_RSVD 0x08u
#define PF_I    0x10u
#define PF_PK   0x20u

enum access_type { ACC_READ, ACC_WRITE, ACC_EXEC };

/* Slow paths (mmu/access.c): TLB miss, page crossing, MMIO, code pages. size 1..64; buf is host memory. */
void mmu_read_slow(struct vcpu *cpu, gva_t a, void *buf, unsigned size, enum mmu_idx idx);
void mmu_write_slow(struct vcpu *cpu, gva_t a, const void *buf, unsigned size, enum mmu_idx idx);

/* Host pointer to the whole of [a, a+size) for the access, or NULL if it crosses a page or is not plain RAM.
 * Faults as the access would. For ACC_WRITE the caller is going to write through the pointer now: the dirty bit,
 * the dirty log and code invalidation are already done. */
void *mmu_ptr_slow(struct vcpu *cpu, gva_t a, unsigned size, enum access_type t, enum mmu_idx idx);

/* Fills the TLB for an access to the page of a. False: it would fault; *error is then not 0 if by a #PF, and cpu_raise_pf() takes its
 * low 16 bits. Nothing has changed then. */
bool mmu_fill(struct vcpu *cpu, gva_t a, enum access_type t, enum mmu_idx idx, u32 *error);

/* Faults (#PF, with the right error code) if [a, a+size) cannot be written (read); otherwise changes nothing visible but A/D
 * bits. For instructions with several writes. */
void mmu_probe(struct vcpu *cpu, gva_t a, unsigned size, enum access_type t, enum mmu_idx idx);

static inline void *mmu_ptr(struct vcpu *cpu, gva_t a, unsigned size, enum access_type t, enum mmu_idx idx)
{
	const struct tlb_entry *e = &cpu->tlb.e[idx][tlb_index(a)];
	u64 last = ((a + size - 1) & PAGE_MASK) | cpu->tlb.ctx[a >> 63];
	u64 tag = t == ACC_READ ? e->tag_r : t == ACC_WRITE ? e->tag_w : e->tag_x;

	if (likely(tag == last))
		return (void *)(a + e->addend);
	return mmu_ptr_slow(cpu, a, size, t, idx);
}

/* A crossing access has its last byte in the next page, whose tag never sits at the index of the first. */
/* [a, a + size), not across pages, if the TLB allows it at once; else NULL. */
static inline u64 *mmu_hit(const struct vcpu *cpu, gva_t a, unsigned size, bool write, enum mmu_idx idx)
{
	const struct tlb_entry *e = &cpu->tlb.e[idx][tlb_index(a)];

	if ((write ? e->tag_w : e->tag_r) != (((a + size - 1) & PAGE_MASK) | cpu->tlb.ctx[a >> 63]))
		return NULL;
	return (u64 *)(a + e->addend);
}

#define MMU_ACCESSORS(bits)                                                                                      \
	static inline u##bits mmu_read##bits##_idx(struct vcpu *cpu, gva_t a, enum mmu_idx idx)                  \
	{                                                                                                        \
		const struct tlb_entry *e = &cpu->tlb.e[idx][tlb_index(a)];                                      \
		u##bits v;                                                                                       \
		if (likely(e->tag_r == (((a + bits / 8 - 1) & PAGE_MASK) | cpu->tlb.ctx[a >> 63])))              \
			return *(volatile u##bits *)(a + e->addend);                                             \
		mmu_read_slow(cpu, a, &v, bits / 8, idx);                                                        \
		return v;                                                                                        \
	}                                                                                                        \
	static inline void mmu_write##bits##_idx(struct vcpu *cpu, gva_t a, u##bits v, enum mmu_idx idx)         \
	{                                                                                                        \
		const struct tlb_entry *e = &cpu->tlb.e[idx][tlb_index(a)];                                      \
		if (likely(e->tag_w == (((a + bits / 8 - 1) & PAGE_MASK) | cpu->tlb.ctx[a >> 63])))              \
			*(volatile u##bits *)(a + e->addend) = v;                                                \
		else                                                                                             \
			mmu_write_slow(cpu, a, &v, bits / 8, idx);                                               \
	}                                                                                                        \
	/* explicit data access of the current instruction */                                                    \
	static inline u##bits mmu_read##bits(struct vcpu *cpu, gva_t a)                                          \
	{                                                                                                        \
		return mmu_read##bits##_idx(cpu, a, cpu->mode.mmu_idx);                                          \
	}                                                                                                        \
	static inline void mmu_write##bits(struct vcpu *cpu, gva_t a, u##bits v)                                 \
	{                                                                                                        \
		mmu_write##bits##_idx(cpu, a, v, cpu->mode.mmu_idx);                                             \
	}                                                                                                        \
	/* implicit supervisor access: descriptor tables, TSS, IDT, interrupt stacks */                          \
	static inline u##bits mmu_sys_read##bits(struct vcpu *cpu, gva_t a)                                      \
	{                                                                                                        \
		return mmu_read##bits##_idx(cpu, a, MMU_KERNEL);                                                 \
	}                                                                                                        \
	static inline void mmu_sys_write##bits(struct vcpu *cpu, gva_t a, u##bits v)                             \
	{                                                                                                        \
		mmu_write##bits##_idx(cpu, a, v, MMU_KERNEL);                                                    \
	}

MMU_ACCESSORS(8)
MMU_ACCESSORS(16)
MMU_ACCESSORS(32)
MMU_ACCESSORS(64)

/*
 * Read-modify-write. Returns a host pointer that a LOCKed (or plain) host instruction may work on in place, or NULL:
 * then the operand crosses a page or is MMIO, and the caller does mmu_probe(WRITE), read, compute, write under
 * vm_split_lock()/unlock. Size 1 2 4 8 16.
 */
static inline void *mmu_rmw_ptr(struct vcpu *cpu, gva_t a, unsigned size)
{
	return mmu_ptr(cpu, a, size, ACC_WRITE, cpu->mode.mmu_idx);
}

/*
 * Instruction fetch at linear address a: the GPA of the page for execution, faulting as a fetch does
 * (#PF with I/D bit, SMEP, NX). Fetch outside RAM raises an INTERNAL_ERROR emulation exit (cpu_exit_emulation).
 */
gpa_t mmu_fetch_page(struct vcpu *cpu, gva_t a);

/* Copies up to n bytes for execution starting at a; stops before a second page that faults (returns the count read, at
 * least the bytes of the first page); faults if the first byte does. */
unsigned mmu_fetch_bytes(struct vcpu *cpu, gva_t a, u8 *buf, unsigned n);

/* Result of a page-table walk without side effects on A/D (for KVM_TRANSLATE, debuggers): false if not mapped. */
bool mmu_translate_debug(struct vcpu *cpu, gva_t a, gpa_t *gpa, bool *writable, bool *user);

/* ---- control: the CPU room calls these when architectural state changes ---- */
void mmu_reset(struct vcpu *cpu);
void mmu_flush_all(struct vcpu *cpu);                /* everything, globals too */
void mmu_flush_nonglobal(struct vcpu *cpu);          /* current PCID, non-global (MOV CR3 without bit 63) */
void mmu_invlpg(struct vcpu *cpu, gva_t a);          /* page in all forms, globals too, current PCID */
void mmu_invpcid(struct vcpu *cpu, unsigned type, u16 pcid, gva_t a); /* SDM INVPCID types 0..3 */
/* CR3/CR4/CR0/EFER changed: old values given; decides what to flush, selects contexts, loads PDPTEs for PAE (the load
 * of PDPTEs may fault: returns false, nothing changed, caller raises #GP(0)). noflush: CR3 bit 63 with PCIDE. */
bool mmu_load_pdptes(struct vcpu *cpu, u64 cr3);
void mmu_set_cr3(struct vcpu *cpu, u64 cr3, bool noflush);
void mmu_update_paging(struct vcpu *cpu, u64 old_cr0, u64 old_cr4, u64 old_efer);

/* ---- physical memory, any thread ---- */
bool phys_read(gpa_t a, void *buf, u64 n);        /* false: some of it is not RAM (nothing copied) */
bool phys_write(gpa_t a, const void *buf, u64 n); /* also dirty log and code invalidation; false also where it is read-only */
bool phys_exchange8(gpa_t a, u8 value, u8 *old);  /* atomically */
static inline bool phys_is_ram(gpa_t a)
{
	return a < ENG_GPA_LIMIT && (__atomic_load_n(page_attr(a), __ATOMIC_RELAXED) & PA_RAM);
}

/* ---- memory slots (KVM_SET_USER_MEMORY_REGION, dirty log); VM lock held, vCPUs at a safe point ---- */
struct vm;
int mmu_set_region(struct vm *vm, const struct kvm_userspace_memory_region *r, int fd, u64 fd_offset);
/* Fills bitmap (one bit per page of the slot, caller sized it) and clears the log; flushes write tags of all vCPUs. */
int mmu_get_dirty_log(struct vm *vm, u32 slot, u64 *bitmap, u64 bitmap_bytes);

/* ---- code tracking ---- */
/* Marks the page as holding decoded code: after it returns no vCPU can write it without mmu calling
 * code_invalidate(). Must be called before the code bytes are read. Any vCPU thread (takes a safe point the first time
 * when there are other running vCPUs). */
void mmu_mark_code(struct vcpu *cpu, gpa_t page);
/* The last code of the page is gone. */
void mmu_clear_code(gpa_t page);

#endif
