/* The DSDT: PCI root bridge, its windows and interrupt routes, the board's legacy devices, the S5 state. */
#include "devices/pci.h"
#include "devices/pvpanic.h"
#include "vmm/acpi.h"
#include "vmm/acpi_int.h"
#include "vmm/aml.h"

/*
 * _OSC (ACPI 6.2.11, PCI Firmware 3.2 4.5): of what the OS asks for, it gets the PCIe capability structure; there is no hot-plug,
 * power management event or error reporting to hand over.
 *   Method(_OSC, 4) { CreateDWordField(Arg3, 0, CDW1) If (Arg0 == UUID) { CreateDWordField(Arg3, 8, CDW3)
 *     If (CDW3 & ~10h) { CDW1 |= 10h } CDW3 &= 10h } Else { CDW1 |= 4 } Return (Arg3) }
 */
static void pci_osc(struct aml *a)
{
	enum { ARG0 = 0x68, ARG3 = 0x6b, OP_OR = 0x7d, OP_AND = 0x7b, OP_DWORD_FIELD = 0x8a, OP_LEQUAL = 0x93, OP_RETURN = 0xa4 };
	static const u8 uuid[] = {0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40, 0x96, 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66};

	aml_method(a, "_OSC", 4, true);
	aml_byte(a, OP_DWORD_FIELD);
	aml_byte(a, ARG3);
	aml_int(a, 0);
	aml_namestring(a, "CDW1");
	aml_if(a);
	aml_byte(a, OP_LEQUAL);
	aml_byte(a, ARG0);
	aml_buffer(a, uuid, sizeof(uuid));
	aml_byte(a, OP_DWORD_FIELD);
	aml_byte(a, ARG3);
	aml_int(a, 8);
	aml_namestring(a, "CDW3");
	aml_if(a);
	aml_byte(a, OP_AND);
	aml_namestring(a, "CDW3");
	aml_int(a, 0xffffffef);
	aml_byte(a, 0); /* no target */
	aml_byte(a, OP_OR);
	aml_namestring(a, "CDW1");
	aml_int(a, 0x10);
	aml_namestring(a, "CDW1");
	aml_end(a);
	aml_byte(a, OP_AND);
	aml_namestring(a, "CDW3");
	aml_int(a, 0x10);
	aml_namestring(a, "CDW3");
	aml_end(a);
	aml_else(a);
	aml_byte(a, OP_OR);
	aml_namestring(a, "CDW1");
	aml_int(a, 4);
	aml_namestring(a, "CDW1");
	aml_end(a);
	aml_byte(a, OP_RETURN);
	aml_byte(a, ARG3);
	aml_end(a);
}

/* Pin A of slot s goes to PCI_INTX_GSI(s); functions have no other pins. */
static void pci_prt(struct aml *a)
{
	aml_name(a, "_PRT");
	aml_package(a, PCI_SLOTS);
	for (u32 slot = 0; slot < PCI_SLOTS; slot++) {
		aml_package(a, 4);
		aml_int(a, (u64)slot << 16 | 0xffff);
		aml_int(a, 0);
		aml_int(a, 0);
		aml_int(a, PCI_INTX_GSI(slot));
		aml_end(a);
	}
	aml_end(a);
}

static void pci_root(struct aml *a, const struct memmap *map)
{
	aml_device(a, "PCI0");
	aml_name_eisaid(a, "_HID", "PNP0A08");
	aml_name_eisaid(a, "_CID", "PNP0A03");
	aml_name_int(a, "_UID", 0);
	aml_name_int(a, "_SEG", 0);
	aml_name_int(a, "_BBN", 0);
	aml_name_int(a, "_CCA", 1);
	aml_crs(a);
	aml_crs_bus(a, 0, 0);
	aml_crs_io(a, 0xcf8, 8);
	aml_crs_io_window(a, 0, 0xcf7);
	aml_crs_io_window(a, 0xd00, 0xffff);
	aml_crs_mem32_window(a, MEM_HOLE_START, MEM_ECAM - 1);
	aml_crs_mem64_window(a, map->pci64_base, map->pci64_base + MEM_PCI64_SIZE - 1);
	aml_crs_end(a);
	pci_prt(a);
	pci_osc(a);
	aml_end(a);
}

static void isa_device(struct aml *a, const char *name, const char *hid, u16 port, u8 len, u8 irq)
{
	aml_device(a, name);
	aml_name_eisaid(a, "_HID", hid);
	aml_name_int(a, "_UID", 0);
	aml_crs(a);
	aml_crs_io(a, port, len);
	aml_crs_irq(a, irq);
	aml_crs_end(a);
	aml_end(a);
}

/* What no driver claims but nobody else may use: ECAM, the PM block. */
static void motherboard(struct aml *a)
{
	aml_device(a, "MBRD");
	aml_name_eisaid(a, "_HID", "PNP0C02");
	aml_name_int(a, "_UID", 0);
	aml_crs(a);
	aml_crs_fixed_mem(a, MEM_ECAM, MEM_ECAM_SIZE);
	aml_crs_io(a, PORT_PM, 16);
	aml_crs_end(a);
	aml_end(a);
}

static void panic_port(struct aml *a)
{
	aml_device(a, "PANC");
	aml_name(a, "_HID");
	aml_string(a, "QEMU0001");
	aml_crs(a);
	aml_crs_io(a, PORT_PVPANIC, 1);
	aml_crs_end(a);
	aml_end(a);
}

long acpi_build_dsdt(const struct acpi_config *c, u8 *buf, u64 cap)
{
	struct aml a = {.buf = buf, .cap = (u32)cap, .size = 0};

	acpi_header(&a, "DSDT", 2);
	aml_scope(&a, "_SB_");
	pci_root(&a, c->map);
	motherboard(&a);
	isa_device(&a, "COM1", "PNP0501", PORT_COM1, 8, GSI_COM1);
	isa_device(&a, "RTC0", "PNP0B00", PORT_CMOS, 2, GSI_RTC);
	panic_port(&a);
	aml_end(&a);
	aml_name(&a, "_S5_");
	aml_package(&a, 4);
	aml_int(&a, ACPI_S5_TYPE);
	aml_int(&a, ACPI_S5_TYPE);
	aml_int(&a, 0);
	aml_int(&a, 0);
	aml_end(&a);
	return acpi_finish(&a, 0);
}
