/* The memory map, as the guest is told it (E820). */
#include "vmm/memmap.h"

static void add(struct memmap *mm, u64 addr, u64 end, enum e820_type type)
{
	if (end > addr && mm->n < MEMMAP_MAX)
		mm->e[mm->n++] = (struct e820){.addr = addr, .size = end - addr, .type = type};
}

void memmap_make(struct memmap *mm, u64 memory)
{
	*mm = (struct memmap){.low = MIN(memory, MEM_HOLE_START)};
	mm->high = memory - mm->low;
	mm->pci64_base = ALIGN_UP(MEM_4G + mm->high, 1ull << 30);
	add(mm, 0, MEM_LOW_END, E820_RAM);
	add(mm, MEM_LOW_END, 0xa0000, E820_RESERVED);
	add(mm, MEM_ACPI, MEM_HIGH_START, E820_RESERVED);
	add(mm, MEM_HIGH_START, mm->low, E820_RAM);
	add(mm, MEM_ECAM, MEM_ECAM + MEM_ECAM_SIZE, E820_RESERVED);
	add(mm, MEM_KVM_IDENTITY, MEM_KVM_TSS + 3 * PAGE_SIZE, E820_RESERVED);
	add(mm, MEM_4G, MEM_4G + mm->high, E820_RAM);
}
