/*
 * The 64-bit boot protocol of Linux (Documentation/arch/x86/boot.rst and zero-page.rst): paging on with memory mapped
 * one to one, RSI = boot_params.
 */
#include <string.h>
#include "vmm/loader.h"

enum { /* offsets in boot_params */
	BP_RSDP = 0x070,
	BP_E820_COUNT = 0x1e8,
	BP_HEADER = 0x1f1,
	BP_BOOT_FLAG = 0x1fe,
	BP_MAGIC = 0x202,
	BP_VERSION = 0x206,
	BP_LOADER = 0x210,
	BP_RAMDISK = 0x218,
	BP_RAMDISK_SIZE = 0x21c,
	BP_HEAP_END = 0x224,
	BP_CMDLINE = 0x228,
	BP_INITRD_MAX = 0x22c,
	BP_CMDLINE_SIZE = 0x238,
	BP_E820 = 0x2d0,
	BP_SIZE = 4096,
};

static void put32(u8 *p, u32 v)
{
	memcpy(p, &v, sizeof(v));
}

static u32 get32(const u8 *p)
{
	u32 v = 0;

	memcpy(&v, p, sizeof(v));
	return v;
}

static int put_page_tables(struct machine *m, struct boot_state *out, struct err *e)
{
	enum { PRESENT_RW = 3, LARGE = 0x80, DIRS = 4 };
	u64 page[512] = {BOOT_PAGETABLES + PAGE_SIZE + PRESENT_RW};
	int ret = boot_put(m, BOOT_PAGETABLES, page, sizeof(page), e);

	memset(page, 0, sizeof(page));
	for (u64 i = 0; i < DIRS; i++)
		page[i] = BOOT_PAGETABLES + (2 + i) * PAGE_SIZE + PRESENT_RW;
	if (!ret)
		ret = boot_put(m, BOOT_PAGETABLES + PAGE_SIZE, page, sizeof(page), e);
	for (u64 d = 0; d < DIRS && !ret; d++) {
		for (u64 i = 0; i < 512; i++)
			page[i] = (d * 512 + i) << 21 | LARGE | PRESENT_RW;
		ret = boot_put(m, BOOT_PAGETABLES + (2 + d) * PAGE_SIZE, page, sizeof(page), e);
	}
	out->cr3 = BOOT_PAGETABLES;
	return ret;
}

int boot_linux64(struct machine *m, const struct boot_source *src, u64 entry, u64 kernel_end, struct blob hdr,
		 struct boot_state *out, struct err *e)
{
	u8 bp[BP_SIZE] = {0};
	u64 cmdline_max = 2048, initrd_limit = 0x80000000ull, rsdp = src->rsdp;
	gpa_t initrd = 0;
	int ret = 0;

	if (hdr.n) {
		memcpy(bp + BP_HEADER, hdr.p, MIN(hdr.n, (u64)(0x290 - BP_HEADER)));
		cmdline_max = (u64)get32(bp + BP_CMDLINE_SIZE) + 1;
		initrd_limit = (u64)get32(bp + BP_INITRD_MAX) + 1;
	} else {
		put32(bp + BP_MAGIC, 0x53726448); /* HdrS */
		bp[BP_BOOT_FLAG] = 0x55;
		bp[BP_BOOT_FLAG + 1] = 0xaa;
		put32(bp + BP_VERSION, 0x020c);
	}
	ret = boot_initrd(m, src, kernel_end, initrd_limit, &initrd, e);
	if (!ret)
		ret = boot_cmdline(m, src->cmdline, cmdline_max, e);
	if (ret)
		return ret;
	memcpy(bp + BP_RSDP, &rsdp, sizeof(rsdp));
	bp[BP_LOADER] = 0xff; /* no assigned loader number */
	put32(bp + BP_RAMDISK, (u32)initrd);
	put32(bp + BP_RAMDISK_SIZE, src->initrd.p ? (u32)src->initrd.n : 0);
	put32(bp + BP_CMDLINE, BOOT_CMDLINE);
	bp[BP_E820_COUNT] = (u8)src->map->n;
	memcpy(bp + BP_E820, src->map->e, src->map->n * sizeof(struct e820));
	*out = (struct boot_state){.long_mode = true, .entry = entry, .rsi = BOOT_ZEROPAGE, .rsp = BOOT_STACK,
				   .how = "64-bit entry"};
	ret = boot_put(m, BOOT_ZEROPAGE, bp, sizeof(bp), e);
	if (!ret)
		ret = put_page_tables(m, out, e);
	return ret ? ret : boot_flat_gdt(m, out, e);
}
