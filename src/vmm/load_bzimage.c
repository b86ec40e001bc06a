/*
 * bzImage (Documentation/arch/x86/boot.rst). The payload is unpacked here, which is far faster than the guest unpacking itself;
 * where its compression is unknown the kernel is entered at its own 64-bit entry and unpacks itself.
 */
#include <archive.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/loader.h"

enum {
	HDR_SETUP_SECTS = 0x1f1,
	HDR_SYSSIZE = 0x1f4, /* protected-mode code, in 16 bytes */
	HDR_BOOT_FLAG = 0x1fe,
	HDR_JUMP = 0x200,
	HDR_MAGIC = 0x202,
	HDR_VERSION = 0x206,
	HDR_LOADFLAGS = 0x211,
	HDR_XLOADFLAGS = 0x236,
	HDR_PAYLOAD_OFFSET = 0x248,
	HDR_PAYLOAD_LENGTH = 0x24c,
	HDR_PREF_ADDRESS = 0x258,
	HDR_INIT_SIZE = 0x260,
	HDR_END = 0x264,
};
#define UNPACK_MAX (1ull << 30)

static u32 le32(struct blob b, u64 off)
{
	u32 v = 0;

	memcpy(&v, b.p + off, sizeof(v));
	return v;
}

static u16 le16(struct blob b, u64 off)
{
	u16 v = 0;

	memcpy(&v, b.p + off, sizeof(v));
	return v;
}

bool bzimage_is(struct blob b)
{
	return b.n >= HDR_END && le16(b, HDR_BOOT_FLAG) == 0xaa55 && !memcmp(b.p + HDR_MAGIC, "HdrS", 4);
}

static struct archive *unpacker(struct blob packed)
{
	struct archive *a = archive_read_new();
	struct archive_entry *entry = NULL;

	if (!a)
		return NULL;
	/* in-process filters only: "all" would start programs */
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_bzip2(a);
	archive_read_support_filter_lzma(a);
	archive_read_support_filter_xz(a);
	archive_read_support_filter_lz4(a);
	archive_read_support_filter_zstd(a);
	archive_read_support_format_raw(a);
	if (archive_read_open_memory(a, packed.p, packed.n) == ARCHIVE_OK &&
	    archive_read_next_header(a, &entry) == ARCHIVE_OK && archive_filter_count(a) > 1)
		return a;
	archive_read_free(a);
	return NULL;
}

int payload_unpack(struct blob packed, u64 max, void **data, u64 *size, struct err *e)
{
	struct archive *a = unpacker(packed);
	u64 cap = MIN(MAX(packed.n * 4, (u64)1 << 20), max), n = 0;
	u8 *buf = NULL;
	int ret = 0;

	if (!a)
		return -ENOTSUP;
	buf = malloc(cap);
	while (buf) {
		la_ssize_t r = archive_read_data(a, buf + n, cap - n);

		if (r < 0) {
			ret = err_set(e, EINVAL, "kernel: cannot unpack: %s (the file is damaged or truncated)",
				      archive_error_string(a) ? archive_error_string(a) : "bad data");
			break;
		}
		if (!r)
			break;
		n += (u64)r;
		if (n == cap) {
			u8 *bigger = cap < max ? realloc(buf, MIN(cap * 2, max)) : NULL;

			if (!bigger) {
				ret = err_set(e, EFBIG, "kernel: unpacks to more than %llu MiB",
					      (unsigned long long)(cap >> 20));
				break;
			}
			buf = bigger;
			cap = MIN(cap * 2, max);
		}
	}
	archive_read_free(a);
	if (!buf)
		return err_set(e, ENOMEM, "kernel: no memory to unpack it");
	if (ret) {
		free(buf);
		return ret;
	}
	*data = buf;
	*size = n;
	return 0;
}

/* The kernel unpacks itself: protected-mode code to its preferred address, entry at +200h. */
static int load_packed(struct machine *m, const struct boot_source *src, u64 code_off, struct blob hdr,
		       struct boot_state *out, struct err *e)
{
	struct blob k = src->kernel;
	struct image im = {.nsegs = 1};
	u64 pref = 0, need = le32(k, HDR_INIT_SIZE);
	int ret = 0;

	if (le16(k, HDR_VERSION) < 0x020c || !(le16(k, HDR_XLOADFLAGS) & 1))
		return err_set(e, ENOTSUP, "kernel: bzImage without a 64-bit entry (32-bit or older than Linux 3.8)");
	memcpy(&pref, k.p + HDR_PREF_ADDRESS, sizeof(pref));
	im.seg[0].gpa = pref;
	im.seg[0].file_off = code_off;
	im.seg[0].filesz = k.n - code_off;
	im.seg[0].memsz = MAX(need, im.seg[0].filesz);
	if (pref < MEM_HIGH_START || add_overflows(pref, im.seg[0].memsz))
		return err_set(e, EINVAL, "kernel: bzImage with an impossible load address 0x%llx",
			       (unsigned long long)pref);
	ret = image_place(m, src->map, &im, k, e);
	return ret ? ret : boot_linux64(m, src, pref + 0x200, pref + im.seg[0].memsz, hdr, out, e);
}

int bzimage_load(struct machine *m, const struct boot_source *src, struct boot_state *out, struct err *e)
{
	struct blob k = src->kernel, hdr = {0}, packed = {0};
	u64 sects = k.p[HDR_SETUP_SECTS] ? k.p[HDR_SETUP_SECTS] : 4, code_off = (sects + 1) * 512;
	u64 hdr_end = HDR_MAGIC + k.p[HDR_JUMP + 1], size = 0;
	void *plain = NULL;
	int ret = 0;

	if (le16(k, HDR_VERSION) < 0x0208 || !(k.p[HDR_LOADFLAGS] & 1))
		return err_set(e, ENOTSUP, "kernel: bzImage too old for doppel (boot protocol below 2.08)");
	if (code_off >= k.n || hdr_end > k.n || !range_within(code_off, le32(k, HDR_SYSSIZE) * 16ull, k.n))
		return err_set(e, EINVAL, "kernel: bzImage cut short (the file is truncated)");
	hdr = (struct blob){.p = k.p + HDR_SETUP_SECTS, .n = hdr_end - HDR_SETUP_SECTS};
	packed.n = le32(k, HDR_PAYLOAD_LENGTH);
	if (!range_within(code_off + le32(k, HDR_PAYLOAD_OFFSET), packed.n, k.n))
		return err_set(e, EINVAL, "kernel: bzImage payload lies outside the file (the file is truncated)");
	packed.p = k.p + code_off + le32(k, HDR_PAYLOAD_OFFSET);
	/* The build appends the unpacked size, which gzip has already and no other format expects. */
	if (packed.n > 4 && packed.p[0] != 0x1f)
		packed.n -= 4;
	ret = payload_unpack(packed, UNPACK_MAX, &plain, &size, e);
	if (ret == -ENOTSUP)
		return load_packed(m, src, code_off, hdr, out, e);
	if (ret)
		return ret;
	ret = elf_load(m, src, (struct blob){.p = plain, .n = size}, hdr, out, e);
	free(plain);
	return ret;
}
