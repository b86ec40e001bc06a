/*
 * Loaders: from the bytes of a kernel file to guest memory and the first CPU's state. All take (bytes, length), check everything
 * before the first byte is copied, and touch the guest through guest_write() only.
 */
#ifndef VMM_LOADER_H
#define VMM_LOADER_H

#include "base/base.h"
#include "devices/machine_if.h"
#include "vmm/memmap.h"

struct blob {
	const u8 *p;
	u64 n;
};

struct boot_source {
	struct blob kernel, initrd; /* initrd.p NULL: none */
	const char *cmdline;
	gpa_t rsdp;
	const struct memmap *map;
};

/* What the first CPU starts with. */
struct boot_state {
	bool long_mode;          /* else protected mode without paging */
	u64 entry, rsp, cr3;
	u64 rax, rbx, rsi;
	gpa_t gdt;
	u16 gdt_limit;
	const char *how;         /* for the log: "PVH", "64-bit entry", ... */
};

int loader_load(struct machine *m, const struct boot_source *src, struct boot_state *out, struct err *e);

/* ---- inside the loaders ---- */
#define IMAGE_SEGMENTS 64
struct image {
	u32 nsegs;
	struct {
		u64 gpa, file_off, filesz, memsz;
	} seg[IMAGE_SEGMENTS];
	u64 entry;
	u64 pvh_entry;  /* 0: no PVH note */
	u64 start, end; /* the lowest and highest address of all segments */
	bool is64;
};

/* Where boot data lies; see MEM_BOOT_DATA. */
enum {
	BOOT_GDT = 0x90000,
	BOOT_INFO = 0x91000,     /* PVH start_info or multiboot info and what they point to */
	BOOT_ZEROPAGE = 0x92000,
	BOOT_PAGETABLES = 0x93000, /* PML4, PDPT, 4 page directories */
	BOOT_CMDLINE = 0x99000,
	BOOT_CMDLINE_MAX = 0x4000,
	BOOT_STACK = 0x9e000, /* grows down */
};

int image_place(struct machine *m, const struct memmap *map, const struct image *im, struct blob file, struct err *e);
bool ram_range(const struct memmap *map, gpa_t a, u64 n); /* inside usable RAM */
int boot_put(struct machine *m, gpa_t a, const void *p, u64 n, struct err *e);
int boot_cmdline(struct machine *m, const char *s, u64 max, struct err *e);
int boot_flat_gdt(struct machine *m, struct boot_state *out, struct err *e);
/* Puts the initrd as high as possible below limit and above floor. */
int boot_initrd(struct machine *m, const struct boot_source *src, u64 floor, u64 limit, gpa_t *at, struct err *e);
/* Enters a kernel at its 64-bit entry; hdr: the setup header of a bzImage (from offset 0x1f1), or none. */
int boot_linux64(struct machine *m, const struct boot_source *src, u64 entry, u64 kernel_end, struct blob hdr,
		 struct boot_state *out, struct err *e);

bool elf_is(struct blob b);
int elf_parse(struct blob b, struct image *im, struct err *e);
int elf_load(struct machine *m, const struct boot_source *src, struct blob file, struct blob hdr, struct boot_state *out,
	     struct err *e);
bool bzimage_is(struct blob b);
int bzimage_load(struct machine *m, const struct boot_source *src, struct boot_state *out, struct err *e);
/* The compressed payload's plain bytes (to be freed): 0, -ENOTSUP for an unknown format, -EFBIG. */
int payload_unpack(struct blob packed, u64 max, void **data, u64 *size, struct err *e);
bool multiboot_is(struct blob b);
int multiboot_load(struct machine *m, const struct boot_source *src, struct boot_state *out, struct err *e);

#endif
