/* Which loader, and what they share: placing segments, the initrd, the command line, a flat GDT. */
#include <stdlib.h>
#include <string.h>
#include "vmm/loader.h"

#define MIB(x) ((unsigned long long)((x) >> 20))

bool ram_range(const struct memmap *map, gpa_t a, u64 n)
{
	for (u32 i = 0; i < map->n; i++) {
		const struct e820 *r = &map->e[i];

		if (r->type == E820_RAM && a >= r->addr && range_within(a - r->addr, n, r->size))
			return true;
	}
	return false;
}

int boot_put(struct machine *m, gpa_t a, const void *p, u64 n, struct err *e)
{
	if (!guest_write(m, a, p, n))
		return err_set(e, EFAULT, "memory: boot data at 0x%llx does not fit (give the VM more --memory)",
			       (unsigned long long)a);
	return 0;
}

/* Zeroes [a, a+n); RAM is fresh at power-on, but not after a reset by a loader that did not clear it. */
static int put_zero(struct machine *m, gpa_t a, u64 n, struct err *e)
{
	void *p = guest_ptr(m, a, n);

	if (!p)
		return err_set(e, EFAULT, "memory: segment at 0x%llx does not fit (give the VM more --memory)",
			       (unsigned long long)a);
	memset(p, 0, n);
	guest_written(m, a, n);
	return 0;
}

int image_place(struct machine *m, const struct memmap *map, const struct image *im, struct blob file, struct err *e)
{
	int ret = 0;

	for (u32 i = 0; i < im->nsegs; i++) {
		u64 a = im->seg[i].gpa, n = im->seg[i].memsz;

		if (!range_within(im->seg[i].file_off, im->seg[i].filesz, file.n) || im->seg[i].filesz > n)
			return err_set(e, EINVAL, "kernel: segment %u lies outside the file (truncated or not a kernel)", i);
		/* linkers put the ELF headers into the page below 1 MiB: there is RAM, though the map does not offer it */
		if (a >= MEM_ACPI + MEM_ACPI_SIZE && a < MEM_HIGH_START && !add_overflows(a, n)) {
			n -= MIN(n, MEM_HIGH_START - a);
			a = MEM_HIGH_START;
			if (!n)
				continue;
		}
		if (add_overflows(a, n) || (a < MEM_HIGH_START && a + n > MEM_BOOT_DATA))
			return err_set(e, EINVAL, "kernel: segment %u at 0x%llx: the VM has no RAM there", i,
				       (unsigned long long)a);
		if (!ram_range(map, a, n))
			return err_set(e, ENOMEM,
				       "kernel: needs RAM from 0x%llx to 0x%llx, the VM has %llu MiB (give it more --memory)",
				       (unsigned long long)a, (unsigned long long)(a + n), MIB(map->low + map->high));
	}
	for (u32 i = 0; i < im->nsegs && !ret; i++) {
		u64 a = im->seg[i].gpa, nf = im->seg[i].filesz, nz = im->seg[i].memsz - nf;

		ret = boot_put(m, a, file.p + im->seg[i].file_off, nf, e);
		if (!ret && nz)
			ret = put_zero(m, a + nf, nz, e);
	}
	return ret;
}

int boot_cmdline(struct machine *m, const char *s, u64 max, struct err *e)
{
	u64 n = strlen(s) + 1;

	if (n > MIN(max, (u64)BOOT_CMDLINE_MAX))
		return err_set(e, E2BIG, "--append: %llu bytes, this kernel takes %llu (shorten it)",
			       (unsigned long long)(n - 1), (unsigned long long)MIN(max, (u64)BOOT_CMDLINE_MAX) - 1);
	return boot_put(m, BOOT_CMDLINE, s, n, e);
}

int boot_flat_gdt(struct machine *m, struct boot_state *out, struct err *e)
{
	/* null, spare, code (10h), data (18h), TSS (20h): the selectors Linux' boot protocol and we use */
	static const u64 gdt64[] = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00008b0000000067, 0};
	static const u64 gdt32[] = {0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00008b0000000067, 0};

	out->gdt = BOOT_GDT;
	out->gdt_limit = sizeof(gdt64) - 1;
	return boot_put(m, BOOT_GDT, out->long_mode ? gdt64 : gdt32, sizeof(gdt64), e);
}

int boot_initrd(struct machine *m, const struct boot_source *src, u64 floor, u64 limit, gpa_t *at, struct err *e)
{
	u64 top = MIN(limit, src->map->low) & PAGE_MASK, size = ALIGN_UP(src->initrd.n, PAGE_SIZE);

	*at = 0;
	if (!src->initrd.p)
		return 0;
	floor = ALIGN_UP(MAX(floor, MEM_HIGH_START), PAGE_SIZE);
	if (size > top || top - size < floor)
		return err_set(e, ENOMEM, "initrd: %llu MiB do not fit beside the kernel in %llu MiB (give it more --memory)",
			       MIB(src->initrd.n), MIB(src->map->low + src->map->high));
	*at = top - size;
	return boot_put(m, *at, src->initrd.p, src->initrd.n, e);
}

int loader_load(struct machine *m, const struct boot_source *src, struct boot_state *out, struct err *e)
{
	*out = (struct boot_state){0};
	if (!src->kernel.n)
		return err_set(e, EINVAL, "kernel: the file is empty");
	if (bzimage_is(src->kernel))
		return bzimage_load(m, src, out, e);
	if (elf_is(src->kernel)) {
		struct image im = {0};
		int ret = elf_parse(src->kernel, &im, e);

		if (ret)
			return ret;
		if (!im.pvh_entry && multiboot_is(src->kernel))
			return multiboot_load(m, src, out, e);
		return elf_load(m, src, src->kernel, (struct blob){0}, out, e);
	}
	if (multiboot_is(src->kernel))
		return multiboot_load(m, src, out, e);
	return err_set(e, ENOEXEC,
		       "kernel: not a format doppel knows (give a bzImage, an x86-64 ELF vmlinux or a multiboot kernel)");
}
