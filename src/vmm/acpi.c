/* The fixed tables: RSDP, XSDT, FADT, FACS, MADT, MCFG (ACPI 6.4, chapter 5; PCI Firmware 3.2, 4.1.2). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/acpi.h"
#include "vmm/acpi_int.h"

struct gas {
	u8 space, width, offset, access;
	u64 address;
} __attribute__((packed));
enum { SPACE_MEM = 0, SPACE_IO = 1, ACCESS_BYTE = 1, ACCESS_WORD = 2, ACCESS_DWORD = 3 };

struct fadt { /* after the header; 5.2.9 */
	u32 facs, dsdt;
	u8 reserved0, profile;
	u16 sci_int;
	u32 smi_cmd;
	u8 acpi_enable, acpi_disable, s4bios_req, pstate_cnt;
	u32 pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
	u8 pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_len, gpe1_len, gpe1_base, cst_cnt;
	u16 p_lvl2_lat, p_lvl3_lat, flush_size, flush_stride;
	u8 duty_offset, duty_width, day_alarm, mon_alarm, century;
	u16 boot_arch;
	u8 reserved1;
	u32 flags;
	struct gas reset_reg;
	u8 reset_value;
	u16 arm_boot_arch;
	u8 minor;
	u64 x_facs, x_dsdt;
	struct gas x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt, x_pm_tmr, x_gpe0, x_gpe1, sleep_ctl, sleep_sts;
	u64 hypervisor;
} __attribute__((packed));
_Static_assert(sizeof(struct fadt) + ACPI_HEADER == 276, "FADT of ACPI 6");

enum { /* FADT flags and boot flags */
	FADT_WBINVD = 1 << 0,
	FADT_PROC_C1 = 1 << 2,
	FADT_SLP_BUTTON = 1 << 5, /* there is no fixed sleep button */
	FADT_RESET_REG = 1 << 10,
	FADT_TMR_VAL_EXT = 1 << 8,
	BOOT_LEGACY = 1 << 0,
	BOOT_NO_VGA = 1 << 2,
};
enum { MADT_LAPIC = 0, MADT_IOAPIC = 1, MADT_OVERRIDE = 2, MADT_NMI = 4, MADT_X2APIC = 9, MADT_X2APIC_NMI = 10 };
enum { PORT_RESET = 0xcf9, RESET_FULL = 0x0e };

void acpi_header(struct aml *a, const char *signature, u8 revision)
{
	static const u8 rest[] = {'D', 'O', 'P', 'P', 'E', 'L', 'D', 'O', 'P', 'P', 'E', 'L', ' ', ' ',
				  1,   0,   0,   0,   'D', 'P', 'P', 'L', 1,   0,   0,   0};

	aml_bytes(a, signature, 4);
	aml_u32(a, 0); /* length */
	aml_byte(a, revision);
	aml_byte(a, 0); /* checksum */
	aml_bytes(a, rest, sizeof(rest));
}

static u8 checksum(const u8 *p, u32 n)
{
	u8 sum = 0;

	while (n--)
		sum += *p++;
	return (u8)-sum;
}

long acpi_finish(struct aml *a, u32 start)
{
	u32 n = a->size - start;

	if (a->overflow || a->depth)
		return -ENOSPC;
	memcpy(a->buf + start + 4, &n, sizeof(n));
	a->buf[start + 9] = checksum(a->buf + start, n);
	return n;
}

static struct gas io_reg(u16 port, u8 width, u8 access)
{
	return (struct gas){.space = SPACE_IO, .width = width, .access = access, .address = port};
}

static void put_fadt(struct aml *a, u64 facs, u64 dsdt)
{
	struct fadt f = {.facs = (u32)facs, .dsdt = (u32)dsdt, .profile = 1 /* desktop */, .sci_int = GSI_SCI,
			 .pm1a_evt = PORT_PM + PM_EVT, .pm1a_cnt = PORT_PM + PM_CNT, .pm_tmr = PORT_PM + PM_TMR,
			 .pm1_evt_len = 4, .pm1_cnt_len = 2, .pm_tmr_len = 4, .p_lvl2_lat = 0xfff, .p_lvl3_lat = 0xfff,
			 .century = 0x32, .boot_arch = BOOT_LEGACY | BOOT_NO_VGA,
			 .flags = FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_RESET_REG | FADT_TMR_VAL_EXT,
			 .reset_reg = io_reg(PORT_RESET, 8, ACCESS_BYTE), .reset_value = RESET_FULL, .minor = 4,
			 .x_dsdt = dsdt, .x_pm1a_evt = io_reg(PORT_PM + PM_EVT, 32, ACCESS_WORD),
			 .x_pm1a_cnt = io_reg(PORT_PM + PM_CNT, 16, ACCESS_WORD),
			 .x_pm_tmr = io_reg(PORT_PM + PM_TMR, 32, ACCESS_DWORD)};

	acpi_header(a, "FACP", 6);
	aml_bytes(a, &f, sizeof(f));
}

/* 5.2.10; it has no ordinary header and no checksum. */
static void put_facs(struct aml *a)
{
	static const u8 zero[48];

	aml_bytes(a, "FACS", 4);
	aml_u32(a, 64);
	aml_u32(a, 0); /* hardware signature */
	aml_u32(a, 0); /* waking vector */
	aml_bytes(a, zero, 16);
	aml_byte(a, 2); /* version */
	aml_bytes(a, zero, 31);
}

static void put_override(struct aml *a, u8 irq, u32 gsi, u16 flags)
{
	aml_byte(a, MADT_OVERRIDE);
	aml_byte(a, 10);
	aml_byte(a, 0); /* ISA */
	aml_byte(a, irq);
	aml_u32(a, gsi);
	aml_u16(a, flags);
}

static void put_madt(struct aml *a, u32 ncpus)
{
	enum { PCAT_COMPAT = 1, ENABLED = 1, ACTIVE_HIGH = 1, LEVEL = 3 << 2, ACTIVE_HIGH_LEVEL = ACTIVE_HIGH | LEVEL };

	acpi_header(a, "APIC", 5);
	aml_u32(a, MEM_LAPIC);
	aml_u32(a, PCAT_COMPAT);
	for (u32 i = 0; i < ncpus; i++) {
		aml_byte(a, MADT_LAPIC);
		aml_byte(a, 8);
		aml_byte(a, (u8)i); /* processor UID, APIC ID */
		aml_byte(a, (u8)i);
		aml_u32(a, ENABLED);
	}
	aml_byte(a, MADT_IOAPIC);
	aml_byte(a, 12);
	aml_byte(a, 0); /* IOAPIC ID, as KVM's reads */
	aml_byte(a, 0);
	aml_u32(a, MEM_IOAPIC);
	aml_u32(a, 0);
	put_override(a, 0, 2, 0);
	put_override(a, GSI_SCI, GSI_SCI, ACTIVE_HIGH_LEVEL);
	aml_byte(a, MADT_NMI); /* LINT1 of all processors */
	aml_byte(a, 6);
	aml_byte(a, 0xff);
	aml_u16(a, 0);
	aml_byte(a, 1);
}

static void put_mcfg(struct aml *a)
{
	acpi_header(a, "MCFG", 1);
	aml_u64(a, 0);
	aml_u64(a, MEM_ECAM);
	aml_u16(a, 0);
	aml_byte(a, 0);
	aml_byte(a, (MEM_ECAM_SIZE >> 20) - 1);
	aml_u32(a, 0);
}

static void align(struct aml *a, u32 to)
{
	while (a->size % to && !a->overflow)
		aml_byte(a, 0);
}

static u64 address(const struct aml *a)
{
	return MEM_ACPI + a->size;
}

/* 5.2.5.3 */
static void put_rsdp(u8 *p, u64 xsdt)
{
	static const u8 oem[6] = {'D', 'O', 'P', 'P', 'E', 'L'};

	memset(p, 0, 36);
	memcpy(p, "RSD PTR ", 8);
	memcpy(p + 9, oem, sizeof(oem));
	p[15] = 2;
	p[20] = 36;
	memcpy(p + 24, &xsdt, sizeof(xsdt));
	p[8] = checksum(p, 20);
	p[32] = checksum(p, 36);
}

long acpi_build(const struct acpi_config *c, u8 *buf, u64 cap)
{
	struct aml a = {.buf = buf, .cap = (u32)MIN(cap, MEM_ACPI_SIZE), .size = 64 /* the RSDP's place */};
	u64 facs = 0, dsdt = 0, tables[3] = {0}, xsdt = 0;
	u32 start = 0;
	long n = 0;

	if (cap < a.size)
		return -ENOSPC;
	memset(buf, 0, a.size);
	facs = address(&a); /* 64-byte aligned */
	put_facs(&a);
	dsdt = address(&a);
	n = acpi_build_dsdt(c, a.buf + a.size, a.cap - a.size);
	if (n < 0)
		return n;
	a.size += (u32)n;
	for (u32 i = 0; i < ARRAY_SIZE(tables); i++) {
		align(&a, 16);
		start = a.size;
		tables[i] = address(&a);
		if (i == 0)
			put_fadt(&a, facs, dsdt);
		else if (i == 1)
			put_madt(&a, c->ncpus);
		else
			put_mcfg(&a);
		if (acpi_finish(&a, start) < 0)
			return -ENOSPC;
	}
	align(&a, 16);
	start = a.size;
	xsdt = address(&a);
	acpi_header(&a, "XSDT", 1);
	aml_bytes(&a, tables, sizeof(tables));
	if (acpi_finish(&a, start) < 0)
		return -ENOSPC;
	put_rsdp(buf, xsdt);
	return a.size;
}
