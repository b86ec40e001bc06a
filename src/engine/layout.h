/*
 * The engine's address space. Every mapping of the engine lies in [64 KiB, 8 TiB), so that the host addresses
 * [8 TiB, 128 TiB) stay free for the kernel window (docs/architecture.md). All big regions have fixed
 * addresses: code may use them as constants, and other processes of the engine can map them alike.
 */
#ifndef ENGINE_LAYOUT_H
#define ENGINE_LAYOUT_H

#include "base/types.h"

#define ENG_TOP 0x080000000000ull /* nothing of ours at or above */

/* Text, data, brk heap: from 0x400000 (static, non-PIE). */

/* Generated code: two views of one memfd, never writable and executable through the same mapping.
 * Within 2 GiB of the text, so that rel32 calls reach. */
#define ENG_CODE_RX   0x60000000ull /* above the brk heap, which starts up to 1 GiB behind the text */
#define ENG_CODE_RW   0x70000000ull
#define ENG_CODE_SIZE 0x08000000ull /* 128 MiB of address space; the cache uses a part */

/* Stack of the main thread (it leaves the one the kernel gave it). */
#define ENG_STACK_BASE 0x0100000000ull
#define ENG_STACK_SIZE 0x00100000ull

/* One arena for the VM: struct vm and everything shared by its vCPUs. */
#define ENG_VM_BASE 0x1000000000ull

/*
 * One arena per vCPU: struct vcpu, its channel, its thread's stack, jump caches. Behind it, in the vCPU's space, are the address tables of
 * translated code, where there is room for such: eng_vcpu_base().
 */
#define ENG_VCPU_SIZE   0x0001800000ull /* 24 MiB */
#define ENG_VCPU_STATE  0x0000000ull    /* struct vcpu */
#define ENG_VCPU_CHAN   0x0800000ull    /* shared pages: struct vcpu_chan */
#define ENG_VCPU_STACK  0x0c00000ull    /* 1 MiB, a guard page below */
#define ENG_VCPU_STACK_SIZE 0x100000ull
#define ENG_VCPU_ALTSTACK   0x0f00000ull /* signals: the stack pointer may be the guest's */
#define ENG_VCPU_ALTSTACK_SIZE 0x10000ull
#define ENG_MAX_VCPUS   64

/*
 * Jump caches of translated code (translate/jcache.c): those of kernel modes in each vCPU's arena, reached from GS. Those of a user address space
 * are in a piece of their own that FS points into while it is the current one, with its address table behind.
 */
#define ENG_VCPU_JC        0x1000000ull
#define ENG_JC_SIZE        0x0600000ull
#define ENG_JC_KERNEL64    0x000000ull
#define ENG_JC_KERNEL64_AC 0x1d0000ull
#define ENG_JC_KERNEL32    0x3a0000ull
#define ENG_JC_USER_SIZE   0x400000ull /* a piece */
#define ENG_JC_USER_FS     0x001000ull /* in a piece: where FS points; before and behind, what the C library has there */
#define ENG_JC_USER64      0x002000ull
#define ENG_JC_USER32      0x1d2000ull

/* Decoded code (interpreter) and other lazily grown caches: NORESERVE. */
#define ENG_ICACHE_BASE 0x2000000000ull
#define ENG_ICACHE_SIZE 0x0400000000ull /* 16 GiB of address space */
#define ENG_COVERAGE_SIZE 0x0002000000ull /* its end: code that has run, cpu/record.c */
#define ENG_COVERAGE_BASE (ENG_ICACHE_BASE + ENG_ICACHE_SIZE - ENG_COVERAGE_SIZE)

/* Translated blocks: what is known of them, and of the places in them that may fault or leave. NORESERVE. */
#define ENG_TCACHE_BASE 0x2800000000ull
#define ENG_TCACHE_SIZE 0x0080000000ull

/* Rings of traced events (kvm/trace.h), shared with the VMM while a trace runs. */
#define ENG_TRACE_BASE 0x2c00000000ull

/* The page by which processes wake vCPUs (base/wake.h). */
#define ENG_WAKE_BASE 0x2e00000000ull

/* What cells are made from (cell/process.c); they see it at 112 TiB, which is outside of what the translator's address tables can reach. */
#define ENG_CELL_BASE 0x2f00000000ull
#define ENG_CELL_STUB 0x6ffff0000000ull

/* One byte of attributes per guest page frame (enum page_attr); shared with the VMM. NORESERVE. */
#define ENG_ATTR_BASE 0x3000000000ull

/* Guest RAM: host address = ENG_RAM_BASE + GPA, whatever the slot. */
#define ENG_RAM_BASE     0x010000000000ull /* 1 TiB */
#define ENG_GPA_BITS     40                /* MAXPHYADDR: 1 TiB */
#define ENG_GPA_LIMIT    (1ull << ENG_GPA_BITS)
#define ENG_ATTR_SIZE    (ENG_GPA_LIMIT >> 12)

/* A bitmap of dirty pages, while somebody asks for it. */
#define ENG_BITMAP_BASE  0x004000000000ull

/*
 * The spaces of vCPUs: an arena, and address tables of translated code (translate/state.h; NORESERVE): those of kernel modes,
 * the first of which GS reaches, then those of user address spaces, each behind room for its jump caches. They lie in two areas, since nothing may be
 * mapped 4 TiB above guest RAM, in [5 TiB, 6 TiB). vCPUs that have no room there have an arena only, and no translated code.
 */
#define ENG_VCPU_LOW      0x020000000000ull /* 2 TiB */
#define ENG_VCPU_HIGH     0x060000000000ull /* 6 TiB */
#define ENG_VCPU_SMALL    0x001100000000ull
#define ENG_VCPU_NLOW     15
#define ENG_VCPU_NTABLES  24
#define ENG_TT_SIZE       0x000800000000ull /* 32 GiB */
#define ENG_TT_KERNEL     0x000002000000ull
#define ENG_TT_KERNEL_AC  (ENG_TT_KERNEL + ENG_TT_SIZE)
#define ENG_TT_USER       (ENG_TT_KERNEL_AC + ENG_TT_SIZE)
#define ENG_TT_USER_EACH  (ENG_JC_USER_SIZE + ENG_TT_SIZE)
#define ENG_VCPU_SPACE    (ENG_TT_USER + 4 * ENG_TT_USER_EACH)

static inline u64 eng_vcpu_base(unsigned n)
{
	if (n < ENG_VCPU_NLOW)
		return ENG_VCPU_LOW + n * ENG_VCPU_SPACE;
	if (n < ENG_VCPU_NTABLES)
		return ENG_VCPU_HIGH + (n - ENG_VCPU_NLOW) * ENG_VCPU_SPACE;
	return ENG_VCPU_SMALL + n * ENG_VCPU_SIZE;
}

/* Whose arena or tables have the address; ENG_MAX_VCPUS or more: nobody's. */
static inline u64 eng_vcpu_at(u64 a)
{
	if (a >= ENG_VCPU_HIGH)
		return ENG_VCPU_NLOW + (a - ENG_VCPU_HIGH) / ENG_VCPU_SPACE;
	if (a >= ENG_VCPU_LOW)
		return (a - ENG_VCPU_LOW) / ENG_VCPU_SPACE;
	return a >= ENG_VCPU_SMALL ? (a - ENG_VCPU_SMALL) / ENG_VCPU_SIZE : ENG_MAX_VCPUS;
}

#define gpa_to_hva(gpa) ((u8 *)(ENG_RAM_BASE + (gpa)))

#endif
