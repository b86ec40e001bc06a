/*
 * ELF kernels (System V ABI, ELF-64 object file format). Entered through the PVH note where there is one (Xen's
 * docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h), else at the 64-bit entry of Linux' boot protocol.
 */
#include <elf.h>
#include <string.h>
#include "vmm/loader.h"

#define NOTE_PHYS32_ENTRY 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
#define PVH_MAGIC         0x336ec578u

struct pvh_start_info {
	u32 magic, version, flags, nr_modules;
	u64 modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
	u32 memmap_entries, reserved;
};
struct pvh_module {
	u64 paddr, size, cmdline_paddr, reserved;
};
struct pvh_memmap {
	u64 addr, size;
	u32 type, reserved;
};
struct pvh_boot {
	struct pvh_start_info info;
	struct pvh_module initrd;
	struct pvh_memmap map[MEMMAP_MAX];
};

bool elf_is(struct blob b)
{
	return b.n >= sizeof(Elf32_Ehdr) && !memcmp(b.p, ELFMAG, SELFMAG);
}

/* Program headers of both classes in the wide form. */
static bool get_phdr(struct blob b, bool is64, u64 off, Elf64_Phdr *out)
{
	if (is64) {
		if (!range_within(off, sizeof(*out), b.n))
			return false;
		memcpy(out, b.p + off, sizeof(*out));
	} else {
		Elf32_Phdr p;

		if (!range_within(off, sizeof(p), b.n))
			return false;
		memcpy(&p, b.p + off, sizeof(p));
		*out = (Elf64_Phdr){.p_type = p.p_type, .p_offset = p.p_offset, .p_paddr = p.p_paddr,
				    .p_vaddr = p.p_vaddr, .p_filesz = p.p_filesz, .p_memsz = p.p_memsz,
				    .p_align = p.p_align};
	}
	return true;
}

/* Looks for the PVH entry in a note segment; malformed notes end the search. */
static void scan_notes(struct blob b, u64 off, u64 size, u64 align, struct image *im)
{
	u64 end = off + size;

	if (!range_within(off, size, b.n))
		return;
	align = align == 8 ? 8 : 4;
	while (end - off >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr n;
		u64 name = off + sizeof(n), desc = 0, next = 0;

		memcpy(&n, b.p + off, sizeof(n));
		desc = ALIGN_UP(name + n.n_namesz, align);
		next = ALIGN_UP(desc + n.n_descsz, align);
		if (desc + n.n_descsz > end)
			return;
		if (n.n_type == NOTE_PHYS32_ENTRY && n.n_namesz == 4 && !memcmp(b.p + name, "Xen", 4) &&
		    (n.n_descsz == 4 || n.n_descsz == 8)) {
			u64 v = 0;

			memcpy(&v, b.p + desc, n.n_descsz);
			if (v <= UINT32_MAX)
				im->pvh_entry = v;
			return;
		}
		if (next >= end)
			return;
		off = next;
	}
}

static int add_segment(struct image *im, const Elf64_Phdr *p, struct blob b, struct err *e)
{
	if (!p->p_memsz)
		return 0;
	if (im->nsegs == IMAGE_SEGMENTS)
		return err_set(e, EINVAL, "kernel: ELF file with more than %d segments", IMAGE_SEGMENTS);
	if (p->p_filesz > p->p_memsz || !range_within(p->p_offset, p->p_filesz, b.n))
		return err_set(e, EINVAL, "kernel: ELF segment lies outside the file (the file is truncated)");
	if (add_overflows(p->p_paddr, p->p_memsz))
		return err_set(e, EINVAL, "kernel: ELF segment wraps around the address space");
	im->seg[im->nsegs].gpa = p->p_paddr;
	im->seg[im->nsegs].file_off = p->p_offset;
	im->seg[im->nsegs].filesz = p->p_filesz;
	im->seg[im->nsegs].memsz = p->p_memsz;
	im->start = im->nsegs ? MIN(im->start, p->p_paddr) : p->p_paddr;
	im->end = MAX(im->end, p->p_paddr + p->p_memsz);
	im->nsegs++;
	return 0;
}

int elf_parse(struct blob b, struct image *im, struct err *e)
{
	Elf64_Ehdr h = {0};
	u64 phentsize = 0;

	*im = (struct image){0};
	if (!elf_is(b))
		return err_set(e, ENOEXEC, "kernel: not an ELF file");
	im->is64 = b.p[EI_CLASS] == ELFCLASS64;
	if (im->is64) {
		if (b.n < sizeof(h))
			return err_set(e, EINVAL, "kernel: ELF header cut short (the file is truncated)");
		memcpy(&h, b.p, sizeof(h));
		phentsize = sizeof(Elf64_Phdr);
	} else {
		Elf32_Ehdr s;

		memcpy(&s, b.p, sizeof(s));
		h = (Elf64_Ehdr){.e_type = s.e_type, .e_machine = s.e_machine, .e_entry = s.e_entry, .e_phoff = s.e_phoff,
				 .e_phentsize = s.e_phentsize, .e_phnum = s.e_phnum};
		phentsize = sizeof(Elf32_Phdr);
	}
	if (b.p[EI_DATA] != ELFDATA2LSB || h.e_machine != (im->is64 ? EM_X86_64 : EM_386))
		return err_set(e, ENOEXEC, "kernel: ELF file for another machine (doppel runs x86-64)");
	if (h.e_type != ET_EXEC && h.e_type != ET_DYN)
		return err_set(e, ENOEXEC, "kernel: ELF file is not an executable");
	if (!h.e_phnum || h.e_phentsize != phentsize)
		return err_set(e, EINVAL, "kernel: ELF file without program headers");
	im->entry = h.e_entry;
	for (u32 i = 0; i < h.e_phnum; i++) {
		Elf64_Phdr p;
		int ret = 0;

		if (add_overflows(h.e_phoff, i * phentsize) || !get_phdr(b, im->is64, h.e_phoff + i * phentsize, &p))
			return err_set(e, EINVAL, "kernel: ELF program headers lie outside the file (truncated)");
		if (p.p_type == PT_LOAD)
			ret = add_segment(im, &p, b, e);
		else if (p.p_type == PT_NOTE)
			scan_notes(b, p.p_offset, p.p_filesz, p.p_align, im);
		if (ret)
			return ret;
	}
	if (!im->nsegs)
		return err_set(e, EINVAL, "kernel: ELF file with nothing to load");
	return 0;
}

/* CPU state as pvh.pandoc asks: 32-bit protected mode, no paging, EBX = start_info. */
static int boot_pvh(struct machine *m, const struct boot_source *src, const struct image *im, struct boot_state *out,
		    struct err *e)
{
	struct pvh_boot b = {.info = {.magic = PVH_MAGIC, .version = 1, .cmdline_paddr = BOOT_CMDLINE,
				      .rsdp_paddr = src->rsdp, .memmap_entries = src->map->n,
				      .memmap_paddr = BOOT_INFO + offsetof(struct pvh_boot, map)}};
	int ret = boot_initrd(m, src, im->end, MEM_4G, &b.initrd.paddr, e);

	if (ret)
		return ret;
	if (src->initrd.p) {
		b.info.nr_modules = 1;
		b.info.modlist_paddr = BOOT_INFO + offsetof(struct pvh_boot, initrd);
		b.initrd.size = src->initrd.n;
	}
	for (u32 i = 0; i < src->map->n; i++)
		b.map[i] = (struct pvh_memmap){.addr = src->map->e[i].addr, .size = src->map->e[i].size,
					       .type = src->map->e[i].type};
	*out = (struct boot_state){.entry = im->pvh_entry, .rbx = BOOT_INFO, .how = "PVH entry"};
	ret = boot_cmdline(m, src->cmdline, 2048, e);
	if (!ret)
		ret = boot_put(m, BOOT_INFO, &b, sizeof(b), e);
	return ret ? ret : boot_flat_gdt(m, out, e);
}

int elf_load(struct machine *m, const struct boot_source *src, struct blob file, struct blob hdr, struct boot_state *out,
	     struct err *e)
{
	struct image im = {0};
	int ret = elf_parse(file, &im, e);

	if (ret)
		return ret;
	if (!im.is64 && !im.pvh_entry)
		return err_set(e, ENOEXEC, "kernel: 32-bit ELF without a multiboot header or PVH note");
	ret = image_place(m, src->map, &im, file, e);
	if (ret)
		return ret;
	if (im.pvh_entry)
		return boot_pvh(m, src, &im, out, e);
	return boot_linux64(m, src, im.entry, im.end, hdr, out, e);
}
