/*
 * Writes ACPI Machine Language (ACPI 6.4, chapter 20). Scopes, devices, packages and buffers are opened and closed; their lengths
 * are patched in at the end, always in the three-byte form.
 */
#ifndef VMM_AML_H
#define VMM_AML_H

#include "base/types.h"

#define AML_DEPTH 16
struct aml {
	u8 *buf;
	u32 size, cap;
	bool overflow;
	u32 open[AML_DEPTH]; /* where the package length of each open block stands */
	u32 depth;
};

void aml_byte(struct aml *a, u8 v);
void aml_bytes(struct aml *a, const void *p, u32 n);
void aml_u16(struct aml *a, u16 v);
void aml_u32(struct aml *a, u32 v);
void aml_u64(struct aml *a, u64 v);
void aml_namestring(struct aml *a, const char *name); /* "_SB_", "\\_SB_.PCI0": segments of four */
void aml_int(struct aml *a, u64 v);
void aml_string(struct aml *a, const char *s);
void aml_eisaid(struct aml *a, const char *id); /* "PNP0A08" */
void aml_buffer(struct aml *a, const void *p, u32 n);

void aml_scope(struct aml *a, const char *name);
void aml_device(struct aml *a, const char *name);
void aml_method(struct aml *a, const char *name, unsigned args, bool serialized);
void aml_package(struct aml *a, u8 elements);
void aml_if(struct aml *a); /* the predicate follows */
void aml_else(struct aml *a);
void aml_end(struct aml *a);

void aml_name(struct aml *a, const char *name); /* Name(name, <the next object>) */
void aml_name_int(struct aml *a, const char *name, u64 v);
void aml_name_eisaid(struct aml *a, const char *name, const char *id);

/* Resource templates: Name(_CRS, ResourceTemplate() { ... }) */
void aml_crs(struct aml *a);
void aml_crs_end(struct aml *a);
void aml_crs_io(struct aml *a, u16 port, u8 len);
void aml_crs_irq(struct aml *a, u8 irq); /* edge, active high, exclusive */
void aml_crs_fixed_mem(struct aml *a, u32 base, u32 size);
void aml_crs_bus(struct aml *a, u16 first, u16 last);
void aml_crs_io_window(struct aml *a, u16 first, u16 last);
void aml_crs_mem32_window(struct aml *a, u32 first, u32 last);
void aml_crs_mem64_window(struct aml *a, u64 first, u64 last);

#endif
