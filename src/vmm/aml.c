/* AML encoding; section numbers are those of ACPI 6.4. */
#include <string.h>
#include "vmm/aml.h"

enum { /* 20.3, table 20.4 */
	OP_NAME = 0x08,
	OP_BYTE = 0x0a,
	OP_WORD = 0x0b,
	OP_DWORD = 0x0c,
	OP_STRING = 0x0d,
	OP_QWORD = 0x0e,
	OP_SCOPE = 0x10,
	OP_BUFFER = 0x11,
	OP_PACKAGE = 0x12,
	OP_METHOD = 0x14,
	OP_DUAL_PREFIX = 0x2e,
	OP_EXT = 0x5b,
	OP_EXT_DEVICE = 0x82,
	OP_IF = 0xa0,
	OP_ELSE = 0xa1,
};

void aml_bytes(struct aml *a, const void *p, u32 n)
{
	if (n > a->cap - a->size) {
		a->overflow = true;
		return;
	}
	memcpy(a->buf + a->size, p, n);
	a->size += n;
}

void aml_byte(struct aml *a, u8 v)
{
	aml_bytes(a, &v, 1);
}

void aml_u16(struct aml *a, u16 v)
{
	aml_bytes(a, &v, 2);
}

void aml_u32(struct aml *a, u32 v)
{
	aml_bytes(a, &v, 4);
}

void aml_u64(struct aml *a, u64 v)
{
	aml_bytes(a, &v, 8);
}

void aml_namestring(struct aml *a, const char *name)
{
	if (*name == '\\')
		aml_byte(a, (u8)*name++);
	if (strlen(name) > 4) {
		aml_byte(a, OP_DUAL_PREFIX);
		aml_bytes(a, name, 4);
		name += 5;
	}
	aml_bytes(a, name, 4);
}

void aml_int(struct aml *a, u64 v)
{
	if (v < 2) {
		aml_byte(a, (u8)v); /* ZeroOp, OneOp */
	} else if (v <= UINT8_MAX) {
		aml_byte(a, OP_BYTE);
		aml_byte(a, (u8)v);
	} else if (v <= UINT16_MAX) {
		aml_byte(a, OP_WORD);
		aml_u16(a, (u16)v);
	} else if (v <= UINT32_MAX) {
		aml_byte(a, OP_DWORD);
		aml_u32(a, (u32)v);
	} else {
		aml_byte(a, OP_QWORD);
		aml_u64(a, v);
	}
}

void aml_string(struct aml *a, const char *s)
{
	aml_byte(a, OP_STRING);
	aml_bytes(a, s, (u32)strlen(s) + 1);
}

/* 19.3.4: three letters of five bits, four hex digits, in the byte order of a big-endian dword. */
void aml_eisaid(struct aml *a, const char *id)
{
	u32 v = (u32)(id[0] & 31) << 26 | (u32)(id[1] & 31) << 21 | (u32)(id[2] & 31) << 16;

	for (int i = 0; i < 4; i++) {
		u32 digit = (u32)(id[3 + i] <= '9' ? id[3 + i] - '0' : id[3 + i] - 'A' + 10);

		v |= digit << (12 - 4 * i);
	}
	aml_byte(a, OP_DWORD);
	aml_u32(a, __builtin_bswap32(v));
}

/* 20.2.4: the length counts its own three bytes. */
static void open_block(struct aml *a)
{
	static const u8 room[3];

	if (a->depth == AML_DEPTH) {
		a->overflow = true;
		return;
	}
	a->open[a->depth++] = a->size;
	aml_bytes(a, room, sizeof(room));
}

void aml_end(struct aml *a)
{
	u32 at = 0, n = 0;

	if (!a->depth || a->overflow)
		return;
	at = a->open[--a->depth];
	n = a->size - at;
	a->buf[at] = (u8)(0x80 | (n & 15));
	a->buf[at + 1] = (u8)(n >> 4);
	a->buf[at + 2] = (u8)(n >> 12);
}

void aml_scope(struct aml *a, const char *name)
{
	aml_byte(a, OP_SCOPE);
	open_block(a);
	aml_namestring(a, name);
}

void aml_device(struct aml *a, const char *name)
{
	aml_byte(a, OP_EXT);
	aml_byte(a, OP_EXT_DEVICE);
	open_block(a);
	aml_namestring(a, name);
}

void aml_method(struct aml *a, const char *name, unsigned args, bool serialized)
{
	aml_byte(a, OP_METHOD);
	open_block(a);
	aml_namestring(a, name);
	aml_byte(a, (u8)(args | (serialized ? 8 : 0)));
}

void aml_package(struct aml *a, u8 elements)
{
	aml_byte(a, OP_PACKAGE);
	open_block(a);
	aml_byte(a, elements);
}

void aml_buffer(struct aml *a, const void *p, u32 n)
{
	aml_byte(a, OP_BUFFER);
	open_block(a);
	aml_int(a, n);
	aml_bytes(a, p, n);
	aml_end(a);
}

void aml_if(struct aml *a)
{
	aml_byte(a, OP_IF);
	open_block(a);
}

void aml_else(struct aml *a)
{
	aml_byte(a, OP_ELSE);
	open_block(a);
}

void aml_name(struct aml *a, const char *name)
{
	aml_byte(a, OP_NAME);
	aml_namestring(a, name);
}

void aml_name_int(struct aml *a, const char *name, u64 v)
{
	aml_name(a, name);
	aml_int(a, v);
}

void aml_name_eisaid(struct aml *a, const char *name, const char *id)
{
	aml_name(a, name);
	aml_eisaid(a, id);
}

/* ---- resource descriptors, 6.4 ---- */
/* A buffer whose size is patched in as a word: Buffer(n) { descriptors, end tag }. */
void aml_crs(struct aml *a)
{
	aml_name(a, "_CRS");
	aml_byte(a, OP_BUFFER);
	open_block(a);
	aml_byte(a, OP_WORD);
	aml_u16(a, 0);
}

void aml_crs_end(struct aml *a)
{
	u32 size_at = a->depth ? a->open[a->depth - 1] + 4 : 0;
	u16 n = 0;

	aml_byte(a, 0x79); /* end tag; a checksum of 0 means "not checked" */
	aml_byte(a, 0);
	n = (u16)(a->size - (size_at + 2));
	if (!a->overflow)
		memcpy(a->buf + size_at, &n, sizeof(n));
	aml_end(a);
}

void aml_crs_io(struct aml *a, u16 port, u8 len)
{
	aml_byte(a, 0x47);
	aml_byte(a, 1); /* decodes 16 bits */
	aml_u16(a, port);
	aml_u16(a, port);
	aml_byte(a, 1);
	aml_byte(a, len);
}

void aml_crs_irq(struct aml *a, u8 irq)
{
	aml_byte(a, 0x22);
	aml_u16(a, (u16)(1u << irq));
}

void aml_crs_fixed_mem(struct aml *a, u32 base, u32 size)
{
	aml_byte(a, 0x86);
	aml_u16(a, 9);
	aml_byte(a, 1); /* writable */
	aml_u32(a, base);
	aml_u32(a, size);
}

enum { SPACE_MEMORY, SPACE_IO, SPACE_BUS, FIXED_MIN_MAX = 0x0c, MEM_RW = 1, IO_ENTIRE = 3 };

static void word_space(struct aml *a, u8 type, u8 flags, u16 first, u16 last)
{
	aml_byte(a, 0x88);
	aml_u16(a, 13);
	aml_byte(a, type);
	aml_byte(a, FIXED_MIN_MAX);
	aml_byte(a, flags);
	aml_u16(a, 0); /* granularity */
	aml_u16(a, first);
	aml_u16(a, last);
	aml_u16(a, 0); /* translation */
	aml_u16(a, (u16)(last - first + 1));
}

void aml_crs_bus(struct aml *a, u16 first, u16 last)
{
	word_space(a, SPACE_BUS, 0, first, last);
}

void aml_crs_io_window(struct aml *a, u16 first, u16 last)
{
	word_space(a, SPACE_IO, IO_ENTIRE, first, last);
}

void aml_crs_mem32_window(struct aml *a, u32 first, u32 last)
{
	aml_byte(a, 0x87);
	aml_u16(a, 23);
	aml_byte(a, SPACE_MEMORY);
	aml_byte(a, FIXED_MIN_MAX);
	aml_byte(a, MEM_RW);
	aml_u32(a, 0);
	aml_u32(a, first);
	aml_u32(a, last);
	aml_u32(a, 0);
	aml_u32(a, last - first + 1);
}

void aml_crs_mem64_window(struct aml *a, u64 first, u64 last)
{
	aml_byte(a, 0x8a);
	aml_u16(a, 43);
	aml_byte(a, SPACE_MEMORY);
	aml_byte(a, FIXED_MIN_MAX);
	aml_byte(a, MEM_RW);
	aml_u64(a, 0);
	aml_u64(a, first);
	aml_u64(a, last);
	aml_u64(a, 0);
	aml_u64(a, last - first + 1);
}
