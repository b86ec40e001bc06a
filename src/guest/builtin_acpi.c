/*
 * Power-off as ACPI has it (ACPI 6.4, 7.4.2): SLP_TYP of S5 with SLP_EN into the PM1a control block. The type is in the DSDT's \_S5
 * package, whose encoding is short enough to be read without an AML interpreter.
 */
#include "guest/builtin.h"

enum { BIOS_START = 0xe0000, BIOS_END = 0x100000, REVISION = 15, RSDT = 16, XSDT = 24, FADT_DSDT = 40, FADT_PM1A_CNT = 64, HEADER = 36 };
enum { OP_BYTE = 0x0a, OP_PACKAGE = 0x12, SLP_EN = 1 << 13 };

static u32 get32(u32 at)
{
	return *(const u32 *)at;
}

static u32 sum(u32 at, u32 n)
{
	u8 s = 0;

	while (n--)
		s = (u8)(s + *(const u8 *)at++);
	return s;
}

/* "RSD PTR " on a 16-byte boundary with a sum of 0 (5.2.5); the XSDT from revision 2 on, else the RSDT */
static u32 find_root(void)
{
	for (u32 at = BIOS_START; at < BIOS_END; at += 16) {
		if (get32(at) != 0x20445352 || get32(at + 4) != 0x20525450 || sum(at, 20))
			continue;
		return *(const u8 *)(at + REVISION) >= 2 && get32(at + XSDT) ? get32(at + XSDT) : get32(at + RSDT);
	}
	return 0;
}

static u32 find_table(u32 signature)
{
	u32 root = find_root();
	u32 width = root && get32(root) == 0x54445358 /* XSDT */ ? 8 : 4;

	for (u32 at = root + HEADER; root && at + width <= root + get32(root + 4); at += width)
		if (get32(get32(at)) == signature)
			return get32(at);
	return 0;
}

/* Name(\_S5, Package(n){type, ...}): package length of one to four bytes, count, then 0, 1 or a byte constant (20.2.5.4) */
static u32 s5_type(u32 dsdt)
{
	u32 end = dsdt + get32(dsdt + 4);

	for (u32 at = dsdt + HEADER; at + 12 < end; at++) {
		const u8 *p = (const u8 *)at;

		if (get32(at) != 0x5f35535f || p[4] != OP_PACKAGE)
			continue;
		p += 5;
		p += (p[0] >> 6) + 2; /* length, count */
		return p[0] == OP_BYTE ? p[1] : p[0];
	}
	return 5;
}

void acpi_power_off(void)
{
	u32 fadt = find_table(0x50434146 /* FACP */);

	if (!fadt)
		return;
	outw((u16)get32(fadt + FADT_PM1A_CNT), (u16)(s5_type(get32(fadt + FADT_DSDT)) << 10 | SLP_EN));
}
