/*
 * Registers for gdb: one table gives the target description, the order in g packets and where each lies in KVM's structs.
 *
 * The description is the same in all modes of the processor: the 64-bit one, so that a mode switch never changes the size of a g
 * packet; or the 32-bit one, if the user says so (`monitor description i386`, i8086), as gdb disassembles by the description. $rip is CS:RIP as a linear address, also where CS has a
 * base: breakpoints, x/i and backtraces of real-mode code work by linear addresses.
 */
#include <stdlib.h>
#include <string.h>
#include "base/base.h"
#include "debug/gdb_int.h"

enum kind { K_GPR, K_PC, K_FLAGS, K_SEG, K_ST, K_FPU, K_XMM, K_MXCSR, K_YMMH, K_BASE, K_CR, K_EFER, K_KERNEL_GS };
enum { FPU_CTRL, FPU_STAT, FPU_TAG, FPU_ISEG, FPU_IOFF, FPU_OSEG, FPU_OOFF, FPU_OP };

struct reg {
	const char *name, *type;
	u8 bytes;
	u8 kind;
	u16 n;  /* K_GPR: offset in struct kvm_regs; K_SEG, K_BASE: offset in struct kvm_sregs; else which */
};
struct feature {
	const char *name, *types;
	const struct reg *reg;
	u32 n;
};

#define GPR64(r, t) {#r, t, 8, K_GPR, offsetof(struct kvm_regs, r)}
#define GPR32(name, r, t) {name, t, 4, K_GPR, offsetof(struct kvm_regs, r)}
#define SEG(r) {#r, "int32", 4, K_SEG, offsetof(struct kvm_sregs, r)}
#define SEGS SEG(cs), SEG(ss), SEG(ds), SEG(es), SEG(fs), SEG(gs)
#define ST(i) {"st" #i, "i387_ext", 10, K_ST, i}
#define FPU(name, which) {name, "int", 4, K_FPU, which}
#define X87 \
	ST(0), ST(1), ST(2), ST(3), ST(4), ST(5), ST(6), ST(7), FPU("fctrl", FPU_CTRL), FPU("fstat", FPU_STAT), FPU("ftag", FPU_TAG), \
	FPU("fiseg", FPU_ISEG), FPU("fioff", FPU_IOFF), FPU("foseg", FPU_OSEG), FPU("fooff", FPU_OOFF), FPU("fop", FPU_OP)
#define XMM(i) {"xmm" #i, "vec128", 16, K_XMM, i}
#define XMM0_7 XMM(0), XMM(1), XMM(2), XMM(3), XMM(4), XMM(5), XMM(6), XMM(7)
#define YMMH(i) {"ymm" #i "h", "uint128", 16, K_YMMH, i}
#define YMMH0_7 YMMH(0), YMMH(1), YMMH(2), YMMH(3), YMMH(4), YMMH(5), YMMH(6), YMMH(7)
#define CR(name, type, n) {name, type, 8, K_CR, n}

static const struct reg core64[] = {
	GPR64(rax, "int64"), GPR64(rbx, "int64"), GPR64(rcx, "int64"), GPR64(rdx, "int64"), GPR64(rsi, "int64"),
	GPR64(rdi, "int64"), GPR64(rbp, "data_ptr"), GPR64(rsp, "data_ptr"), GPR64(r8, "int64"), GPR64(r9, "int64"),
	GPR64(r10, "int64"), GPR64(r11, "int64"), GPR64(r12, "int64"), GPR64(r13, "int64"), GPR64(r14, "int64"),
	GPR64(r15, "int64"), {"rip", "code_ptr", 8, K_PC, 0}, {"eflags", "x86_eflags", 4, K_FLAGS, 0}, SEGS, X87,
};
static const struct reg core32[] = {
	GPR32("eax", rax, "int32"), GPR32("ecx", rcx, "int32"), GPR32("edx", rdx, "int32"), GPR32("ebx", rbx, "int32"),
	GPR32("esp", rsp, "data_ptr"), GPR32("ebp", rbp, "data_ptr"), GPR32("esi", rsi, "int32"), GPR32("edi", rdi, "int32"),
	{"eip", "code_ptr", 4, K_PC, 0}, {"eflags", "x86_eflags", 4, K_FLAGS, 0}, SEGS, X87,
};
static const struct reg sse64[] = {XMM0_7, XMM(8), XMM(9), XMM(10), XMM(11), XMM(12), XMM(13), XMM(14), XMM(15),
				   {"mxcsr", "x86_mxcsr", 4, K_MXCSR, 0}};
static const struct reg sse32[] = {XMM0_7, {"mxcsr", "x86_mxcsr", 4, K_MXCSR, 0}};
static const struct reg avx64[] = {YMMH0_7, YMMH(8), YMMH(9), YMMH(10), YMMH(11), YMMH(12), YMMH(13), YMMH(14), YMMH(15)};
static const struct reg bases[] = {{"fs_base", "int", 8, K_BASE, offsetof(struct kvm_sregs, fs)},
				   {"gs_base", "int", 8, K_BASE, offsetof(struct kvm_sregs, gs)}};
static const struct reg control[] = {
	{"k_gs_base", "uint64", 8, K_KERNEL_GS, 0}, CR("cr0", "x86_cr0", 0), CR("cr2", "uint64", 2), CR("cr3", "uint64", 3),
	CR("cr4", "x86_cr4", 4), CR("cr8", "uint64", 8), {"efer", "x86_efer", 8, K_EFER, 0},
};

#define FIELD(name, bit) "<field name=\"" name "\" start=\"" #bit "\" end=\"" #bit "\"/>"
static const char core_types[] =
	"<flags id=\"x86_eflags\" size=\"4\"><field name=\"\" start=\"22\" end=\"31\"/>" FIELD("CF", 0) FIELD("", 1) FIELD("PF", 2)
	FIELD("AF", 4) FIELD("ZF", 6) FIELD("SF", 7) FIELD("TF", 8) FIELD("IF", 9) FIELD("DF", 10) FIELD("OF", 11) FIELD("NT", 14)
	FIELD("RF", 16) FIELD("VM", 17) FIELD("AC", 18) FIELD("VIF", 19) FIELD("VIP", 20) FIELD("ID", 21) "</flags>";
static const char sse_types[] =
	"<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/><vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
	"<vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
	"<vector id=\"v4i32\" type=\"int32\" count=\"4\"/><vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
	"<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>"
	"<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/>"
	"<field name=\"v2_int64\" type=\"v2i64\"/><field name=\"uint128\" type=\"uint128\"/></union>"
	"<flags id=\"x86_mxcsr\" size=\"4\">" FIELD("IE", 0) FIELD("DE", 1) FIELD("ZE", 2) FIELD("OE", 3) FIELD("UE", 4)
	FIELD("PE", 5) FIELD("DAZ", 6) FIELD("IM", 7) FIELD("DM", 8) FIELD("ZM", 9) FIELD("OM", 10) FIELD("UM", 11) FIELD("PM", 12)
	FIELD("FZ", 15) "</flags>";
static const char control_types[] =
	"<flags id=\"x86_cr0\" size=\"8\">" FIELD("PE", 0) FIELD("MP", 1) FIELD("EM", 2) FIELD("TS", 3) FIELD("ET", 4) FIELD("NE", 5)
	FIELD("WP", 16) FIELD("AM", 18) FIELD("NW", 29) FIELD("CD", 30) FIELD("PG", 31) "</flags>"
	"<flags id=\"x86_cr4\" size=\"8\">" FIELD("VME", 0) FIELD("PVI", 1) FIELD("TSD", 2) FIELD("DE", 3) FIELD("PSE", 4)
	FIELD("PAE", 5) FIELD("MCE", 6) FIELD("PGE", 7) FIELD("PCE", 8) FIELD("OSFXSR", 9) FIELD("OSXMMEXCPT", 10) FIELD("UMIP", 11)
	FIELD("FSGSBASE", 16) FIELD("PCIDE", 17) FIELD("OSXSAVE", 18) FIELD("SMEP", 20) FIELD("SMAP", 21) "</flags>"
	"<flags id=\"x86_efer\" size=\"8\">" FIELD("SCE", 0) FIELD("LME", 8) FIELD("LMA", 10) FIELD("NXE", 11) "</flags>";

#define FEATURE(name, types, table) {name, types, table, ARRAY_SIZE(table)}
static const struct feature wide[] = {
	FEATURE("org.gnu.gdb.i386.core", core_types, core64), FEATURE("org.gnu.gdb.i386.sse", sse_types, sse64),
	FEATURE("org.gnu.gdb.i386.avx", "", avx64), FEATURE("org.gnu.gdb.i386.segments", "", bases),
	FEATURE("doppel.x86.control", control_types, control),
};
static const struct feature narrow[] = {
	FEATURE("org.gnu.gdb.i386.core", core_types, core32), FEATURE("org.gnu.gdb.i386.sse", sse_types, sse32),
	FEATURE("doppel.x86.control", control_types, control),
};

static const struct feature *features(const struct gdb *g, u32 *n)
{
	*n = g->description == DESC_X86_64 ? ARRAY_SIZE(wide) : ARRAY_SIZE(narrow);
	return g->description == DESC_X86_64 ? wide : narrow;
}

/* The register of that number; NULL: none. */
static const struct reg *reg_at(const struct gdb *g, u64 n)
{
	u32 count = 0;
	const struct feature *f = features(g, &count);

	for (u32 i = 0; i < count; i++) {
		if (n < f[i].n)
			return &f[i].reg[n];
		n -= f[i].n;
	}
	return NULL;
}

static const char *const architectures[DESC_COUNT] = {
	[DESC_X86_64] = "i386:x86-64", [DESC_I386] = "i386", [DESC_I8086] = "i8086"};

char *gdb_description(const struct gdb *g, size_t *n)
{
	u32 count = 0;
	const struct feature *f = features(g, &count);
	char *text = NULL;
	FILE *out = open_memstream(&text, n);

	if (!out)
		return NULL;
	fprintf(out, "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">"
		     "<architecture>%s</architecture>\n", architectures[g->description]);
	for (u32 i = 0; i < count; i++) {
		fprintf(out, "<feature name=\"%s\">%s\n", f[i].name, f[i].types);
		for (u32 k = 0; k < f[i].n; k++) {
			const struct reg *r = &f[i].reg[k];

			fprintf(out, "<reg name=\"%s\" bitsize=\"%d\" type=\"%s\"%s/>\n", r->name, r->bytes * 8, r->type,
				r->kind == K_FPU ? " group=\"float\"" : r->kind >= K_BASE ? " group=\"system\"" : "");
		}
		fprintf(out, "</feature>\n");
	}
	fprintf(out, "</target>");
	return fclose(out) ? free(text), NULL : text;
}

/* ---- the XSAVE area: legacy region as FXSAVE's (SDM 1 10.5.1), header at 512, YMM halves at 576 ---- */
enum { AT_FCW = 0, AT_FSW = 2, AT_FTW = 4, AT_FOP = 6, AT_FIP = 8, AT_FDP = 16, AT_MXCSR = 24, AT_ST = 32, AT_XMM = 160, AT_BV = 512,
       AT_YMMH = 576 };

static u8 *area(const struct cpu_state *c)
{
	return (u8 *)(uintptr_t)c->x.region;
}

static u64 get_le(const u8 *p, unsigned n)
{
	u64 v = 0;

	memcpy(&v, p, n);
	return v;
}

static void mark_in_use(struct cpu_state *c, unsigned component)
{
	u64 bv = get_le(area(c) + AT_BV, 8) | BIT64(component);

	memcpy(area(c) + AT_BV, &bv, 8);
}

static bool in_use(const struct cpu_state *c, unsigned component)
{
	return get_le(area(c) + AT_BV, 8) >> component & 1;
}

/* Two bits per physical register, made from one and the contents (SDM 1 8.1.7). */
static u32 full_tag(const struct cpu_state *c)
{
	unsigned top = area(c)[AT_FSW + 1] >> 3 & 7;
	u32 tag = 0;

	for (unsigned i = 0; i < 8; i++) {
		const u8 *st = area(c) + AT_ST + 16 * ((i - top) & 7);
		u32 exponent = get_le(st + 8, 2) & 0x7fff;
		u64 mantissa = get_le(st, 8);
		u32 t = 0;

		if (!(area(c)[AT_FTW] >> i & 1))
			t = 3;
		else if (!exponent && !mantissa)
			t = 1;
		else if (!exponent || exponent == 0x7fff || !(mantissa >> 63))
			t = 2;
		tag |= t << (2 * i);
	}
	return tag;
}

static const struct {
	u8 at, bytes;
} fpu_at[] = {
	[FPU_CTRL] = {AT_FCW, 2}, [FPU_STAT] = {AT_FSW, 2}, [FPU_TAG] = {AT_FTW, 1}, [FPU_ISEG] = {AT_FIP + 4, 2},
	[FPU_IOFF] = {AT_FIP, 4}, [FPU_OSEG] = {AT_FDP + 4, 2}, [FPU_OOFF] = {AT_FDP, 4}, [FPU_OP] = {AT_FOP, 2},
};

static u64 get_fpu(const struct cpu_state *c, unsigned which)
{
	if (!in_use(c, 0)) /* its initial state (SDM 1 13.6) */
		return which == FPU_CTRL ? 0x37f : which == FPU_TAG ? 0xffff : 0;
	return which == FPU_TAG ? full_tag(c) : get_le(area(c) + fpu_at[which].at, fpu_at[which].bytes);
}

static void set_fpu(struct cpu_state *c, unsigned which, u64 v)
{
	if (which == FPU_TAG) {
		u64 one = 0;

		for (unsigned i = 0; i < 8; i++)
			one |= (u64)((v >> (2 * i) & 3) != 3) << i;
		v = one;
	}
	if (!in_use(c, 0)) {
		memset(area(c), 0, AT_MXCSR);
		memset(area(c) + AT_ST, 0, 8 * 16);
		area(c)[AT_FCW] = 0x7f;
		area(c)[AT_FCW + 1] = 3;
	}
	memcpy(area(c) + fpu_at[which].at, &v, fpu_at[which].bytes);
	mark_in_use(c, 0);
}

/* ---- one register ---- */
static u64 *cr_of(struct cpu_state *c, unsigned n)
{
	return (u64 *)(n == 0 ? &c->s.cr0 : n == 2 ? &c->s.cr2 : n == 3 ? &c->s.cr3 : n == 4 ? &c->s.cr4 : &c->s.cr8);
}

static const u8 *vector_at(const struct cpu_state *c, const struct reg *r)
{
	static const u8 zero[16];

	switch (r->kind) {
	case K_ST:
		return in_use(c, 0) ? area(c) + AT_ST + 16 * r->n : zero;
	case K_XMM:
		return in_use(c, 1) ? area(c) + AT_XMM + 16 * r->n : zero;
	default:
		return in_use(c, 2) ? area(c) + AT_YMMH + 16 * r->n : zero;
	}
}

static void fetch(const struct cpu_state *c, const struct reg *r, u8 *buf)
{
	const u8 *s = (const u8 *)&c->s;
	u64 v = 0;

	switch (r->kind) {
	case K_GPR:
		v = get_le((const u8 *)&c->r + r->n, 8);
		break;
	case K_PC:
		v = cpu_state_pc(c);
		break;
	case K_FLAGS:
		v = c->r.rflags;
		break;
	case K_SEG:
		v = ((const struct kvm_segment *)(const void *)(s + r->n))->selector;
		break;
	case K_BASE:
		v = ((const struct kvm_segment *)(const void *)(s + r->n))->base;
		break;
	case K_FPU:
		v = get_fpu(c, r->n);
		break;
	case K_MXCSR:
		v = get_le(area(c) + AT_MXCSR, 4);
		break;
	case K_CR:
		v = *cr_of((struct cpu_state *)(uintptr_t)c, r->n);
		break;
	case K_EFER:
		v = c->s.efer;
		break;
	case K_KERNEL_GS:
		v = c->kernel_gs_base;
		break;
	default:
		memcpy(buf, vector_at(c, r), r->bytes);
		return;
	}
	memcpy(buf, &v, r->bytes);
}

static u32 store_vector(struct cpu_state *c, const struct reg *r, const u8 *buf)
{
	static const u16 from[] = {AT_ST, AT_XMM, AT_YMMH};
	unsigned component = r->kind == K_ST ? 0 : r->kind == K_XMM ? 1 : 2;

	if (!in_use(c, component)) {
		if (component == 0)
			set_fpu(c, FPU_CTRL, 0x37f);
		else
			memset(area(c) + from[component], 0, 256);
	}
	memcpy(area(c) + from[component] + 16 * r->n, buf, r->bytes);
	mark_in_use(c, component);
	return CPU_STATE_XSAVE;
}

/* Changes the state; returns what is to be written back. */
static u32 store(struct cpu_state *c, const struct reg *r, const u8 *buf)
{
	u8 old[16];
	u64 v = 0;

	fetch(c, r, old);
	if (!memcmp(old, buf, r->bytes))
		return 0;
	memcpy(&v, buf, MIN(r->bytes, 8));
	switch (r->kind) {
	case K_GPR:
		memcpy((u8 *)&c->r + r->n, &v, 8);
		return CPU_STATE_REGS;
	case K_PC:
		c->r.rip = v - (cpu_state_pc(c) - c->r.rip);
		return CPU_STATE_REGS;
	case K_FLAGS:
		c->r.rflags = v;
		return CPU_STATE_REGS;
	case K_SEG: /* the selector alone: what it means stays as it is */
		((struct kvm_segment *)(void *)((u8 *)&c->s + r->n))->selector = (u16)v;
		return CPU_STATE_SREGS;
	case K_BASE:
		((struct kvm_segment *)(void *)((u8 *)&c->s + r->n))->base = v;
		return CPU_STATE_SREGS;
	case K_FPU:
		set_fpu(c, r->n, v);
		return CPU_STATE_XSAVE;
	case K_MXCSR:
		v &= 0xffff;
		memcpy(area(c) + AT_MXCSR, &v, 4);
		mark_in_use(c, 1);
		return CPU_STATE_XSAVE;
	case K_CR:
		*cr_of(c, r->n) = v;
		return CPU_STATE_SREGS;
	case K_EFER:
		c->s.efer = v;
		return CPU_STATE_SREGS;
	case K_KERNEL_GS:
		c->kernel_gs_base = v;
		return CPU_STATE_KERNEL_GS;
	default:
		return store_vector(c, r, buf);
	}
}

/* ---- packets ---- */
static void error(struct gdb *g, int e)
{
	reply_text(g, "E%02x", (unsigned)-e & 0xff);
}

void gdb_read_all(struct gdb *g)
{
	struct cpu_state c;
	const struct reg *r = NULL;
	int ret = gdb_get(g, g->cpu, &c);
	u8 buf[16];

	if (ret) {
		error(g, ret);
		return;
	}
	for (u64 n = 0; (r = reg_at(g, n)); n++) {
		fetch(&c, r, buf);
		reply_hex(g, buf, r->bytes);
	}
}

static void write_back(struct gdb *g, const struct cpu_state *c, u32 parts)
{
	int ret = parts ? gdb_put(g, g->cpu, c, parts) : 0;

	if (ret)
		error(g, ret);
	else
		reply_text(g, "OK");
}

/* A packet that ends early leaves the rest alone (GDB manual E.2, G). */
void gdb_write_all(struct gdb *g, struct scan *s)
{
	struct cpu_state c;
	const struct reg *r = NULL;
	int ret = gdb_get(g, g->cpu, &c);
	u32 parts = 0;
	u8 buf[16];

	if (ret) {
		error(g, ret);
		return;
	}
	for (u64 n = 0; s->p < s->end && (r = reg_at(g, n)); n++) {
		if (!scan_bytes(s, buf, r->bytes)) {
			error(g, -EINVAL);
			return;
		}
		parts |= store(&c, r, buf);
	}
	write_back(g, &c, parts);
}

void gdb_read_one(struct gdb *g, struct scan *s)
{
	struct cpu_state c;
	const struct reg *r = NULL;
	u64 n = 0;
	int ret = -EINVAL;
	u8 buf[16];

	if (scan_hex(s, &n) && (r = reg_at(g, n)))
		ret = gdb_get(g, g->cpu, &c);
	if (ret) {
		error(g, ret);
		return;
	}
	fetch(&c, r, buf);
	reply_hex(g, buf, r->bytes);
}

void gdb_write_one(struct gdb *g, struct scan *s)
{
	struct cpu_state c;
	const struct reg *r = NULL;
	u64 n = 0;
	int ret = -EINVAL;
	u8 buf[16];

	if (scan_hex(s, &n) && scan_char(s, '=') && (r = reg_at(g, n)) && scan_bytes(s, buf, r->bytes))
		ret = gdb_get(g, g->cpu, &c);
	if (ret)
		error(g, ret);
	else
		write_back(g, &c, store(&c, r, buf));
}
