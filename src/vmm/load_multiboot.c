/*
 * Multiboot 1 (Multiboot Specification 0.6.96): small and hobby kernels. ELF32, or any file with addresses in its header. Video
 * mode requests are not met (the information structure says so); the initrd becomes the one module.
 */
#include <string.h>
#include "vmm/loader.h"

enum { MB_MAGIC = 0x1badb002, MB_EAX = 0x2badb002, MB_SEARCH = 8192, MB_ADDRS = 1 << 16 };
enum { INFO_MEM = 1 << 0, INFO_CMDLINE = 1 << 2, INFO_MODS = 1 << 3, INFO_MMAP = 1 << 6, INFO_NAME = 1 << 9 };

struct mb_header {
	u32 magic, flags, checksum;
	u32 header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};
struct mb_info {
	u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4], mmap_length, mmap_addr;
	u32 drives_length, drives_addr, config_table, boot_loader_name, apm_table;
};
struct mb_mod {
	u32 start, end, string, reserved;
};
struct mb_mmap {
	u32 size;
	struct e820 e;
} __attribute__((packed));
struct mb_boot {
	struct mb_info info;
	struct mb_mod mod;
	struct mb_mmap map[MEMMAP_MAX];
	char name[8];
};

/* The header, 4-byte aligned in the first 8 KiB, and its place; what lies past the file's end reads as zero. */
static bool find_header(struct blob b, struct mb_header *h, u64 *off)
{
	for (u64 o = 0; o + 12 <= MIN(b.n, (u64)MB_SEARCH); o += 4) {
		*h = (struct mb_header){0};
		memcpy(h, b.p + o, MIN(sizeof(*h), b.n - o));
		if (h->magic == MB_MAGIC && h->magic + h->flags + h->checksum == 0) {
			*off = o;
			return true;
		}
	}
	return false;
}

bool multiboot_is(struct blob b)
{
	struct mb_header h;
	u64 off = 0;

	return find_header(b, &h, &off);
}

/* The header says where the file's bytes go. */
static int image_of_header(struct blob b, const struct mb_header *h, u64 off, struct image *im, struct err *e)
{
	u64 before = (u64)h->header_addr - h->load_addr, filesz = 0, memsz = 0;

	if (h->header_addr < h->load_addr || before > off)
		return err_set(e, EINVAL, "kernel: multiboot header with impossible addresses");
	filesz = h->load_end_addr ? (u64)h->load_end_addr - h->load_addr : b.n - (off - before);
	if (h->load_end_addr && h->load_end_addr < h->load_addr)
		return err_set(e, EINVAL, "kernel: multiboot header with impossible addresses");
	if (!range_within(off - before, filesz, b.n))
		return err_set(e, EINVAL, "kernel: multiboot image lies outside the file (the file is truncated)");
	memsz = h->bss_end_addr ? (u64)h->bss_end_addr - h->load_addr : filesz;
	if (h->bss_end_addr && (h->bss_end_addr < h->load_addr || memsz < filesz))
		return err_set(e, EINVAL, "kernel: multiboot header with impossible addresses");
	*im = (struct image){.nsegs = 1, .entry = h->entry_addr, .start = h->load_addr, .end = h->load_addr + memsz};
	im->seg[0].gpa = h->load_addr;
	im->seg[0].file_off = off - before;
	im->seg[0].filesz = filesz;
	im->seg[0].memsz = memsz;
	return 0;
}

static int make_info(struct machine *m, const struct boot_source *src, const struct image *im, struct err *e)
{
	struct mb_boot b = {.info = {.flags = INFO_MEM | INFO_CMDLINE | INFO_MMAP | INFO_NAME, .mem_lower = MEM_LOW_END >> 10,
				     .mem_upper = (u32)((src->map->low - MEM_HIGH_START) >> 10), .cmdline = BOOT_CMDLINE,
				     .mmap_addr = BOOT_INFO + offsetof(struct mb_boot, map),
				     .boot_loader_name = BOOT_INFO + offsetof(struct mb_boot, name)},
			    .name = "doppel"};
	gpa_t at = 0;
	int ret = boot_initrd(m, src, im->end, MEM_4G, &at, e);

	if (ret)
		return ret;
	if (src->initrd.p) {
		b.info.flags |= INFO_MODS;
		b.info.mods_count = 1;
		b.info.mods_addr = BOOT_INFO + offsetof(struct mb_boot, mod);
		b.mod = (struct mb_mod){.start = (u32)at, .end = (u32)(at + src->initrd.n), .string = BOOT_CMDLINE};
	}
	b.info.mmap_length = src->map->n * (u32)sizeof(struct mb_mmap);
	for (u32 i = 0; i < src->map->n; i++)
		b.map[i] = (struct mb_mmap){.size = sizeof(struct e820), .e = src->map->e[i]};
	ret = boot_cmdline(m, src->cmdline, BOOT_CMDLINE_MAX, e);
	return ret ? ret : boot_put(m, BOOT_INFO, &b, sizeof(b), e);
}

int multiboot_load(struct machine *m, const struct boot_source *src, struct boot_state *out, struct err *e)
{
	struct mb_header h;
	struct image im = {0};
	u64 off = 0;
	int ret = 0;

	if (!find_header(src->kernel, &h, &off))
		return err_set(e, ENOEXEC, "kernel: no multiboot header");
	if (h.flags & MB_ADDRS)
		ret = image_of_header(src->kernel, &h, off, &im, e);
	else
		ret = elf_parse(src->kernel, &im, e);
	if (!ret && im.is64)
		ret = err_set(e, ENOTSUP, "kernel: 64-bit ELF multiboot kernel (multiboot 1 wants 32-bit ELF)");
	if (!ret)
		ret = image_place(m, src->map, &im, src->kernel, e);
	if (!ret)
		ret = make_info(m, src, &im, e);
	if (ret)
		return ret;
	*out = (struct boot_state){.entry = im.entry, .rax = MB_EAX, .rbx = BOOT_INFO, .how = "multiboot"};
	return boot_flat_gdt(m, out, e);
}
