/*
 * The guest's physical address space.
 *
 *   0          .. 0x9fc00     RAM (boot data at 0x90000, dead once the guest's kernel has read it)
 *   0xe0000    .. 0xf0000     ACPI tables
 *   0x100000   .. 3 GiB       RAM
 *   3 GiB      .. 0xe0000000  32-bit PCI window
 *   0xe0000000 .. 0xe0100000  ECAM (bus 0)
 *   0xfec00000, 0xfee00000    IOAPIC, local APICs
 *   0xfffbc000 .. 0xfffc0000  KVM's own pages (identity map, TSS)
 *   4 GiB      ..             the rest of RAM, then the 64-bit PCI window
 */
#ifndef VMM_MEMMAP_H
#define VMM_MEMMAP_H

#include "base/base.h"

#define MEM_BOOT_DATA      0x90000ull
#define MEM_LOW_END        0x9fc00ull
#define MEM_ACPI           0xe0000ull
#define MEM_ACPI_SIZE      0x10000ull
#define MEM_HIGH_START     0x100000ull
#define MEM_HOLE_START     0xc0000000ull
#define MEM_ECAM           0xe0000000ull
#define MEM_ECAM_SIZE      0x100000ull
#define MEM_IOAPIC         0xfec00000ull
#define MEM_LAPIC          0xfee00000ull
#define MEM_KVM_IDENTITY   0xfffbc000ull
#define MEM_KVM_TSS        0xfffbd000ull
#define MEM_4G             0x100000000ull
#define MEM_PCI64_SIZE     0x400000000ull
#define MEM_MIN            (4ull << 20)
#define MEM_MAX            (1ull << 40)

/* Ports and interrupts of the board. */
enum {
	PORT_PM = 0x600, /* PM1a event block, control block, timer: vmm/acpi_pm.c */
	PORT_COM1 = 0x3f8,
	PORT_CMOS = 0x70,
	GSI_COM1 = 4,
	GSI_RTC = 8,
	GSI_SCI = 9,
};

enum e820_type { E820_RAM = 1, E820_RESERVED = 2 };
struct e820 { /* as the Linux boot protocol and multiboot have it */
	u64 addr, size;
	u32 type;
} __attribute__((packed));
#define MEMMAP_MAX 16

struct memmap {
	u64 low, high;         /* bytes of RAM below the hole and above 4 GiB */
	u64 pci64_base;
	u32 n;
	struct e820 e[MEMMAP_MAX];
};
void memmap_make(struct memmap *mm, u64 memory);

#endif
