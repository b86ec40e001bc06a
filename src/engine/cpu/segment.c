/* Segment registers: access checks, loads, and the instructions that only look (SDM 3A 5.2 - 5.7, SDM 2 MOV, LAR ...). */
#include "engine/cpu/cpu_int.h"

static _Noreturn void raise_access(struct vcpu *cpu, unsigned seg)
{
	cpu_raise_err(cpu, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
}

static bool type_allows(const struct segment *s, bool write)
{
	if (write)
		return (s->type & 0xa) == 2;
	return (s->type & 0xa) != 8; /* not execute-only code */
}

static bool limit_allows(const struct segment *s, u64 off, unsigned size)
{
	u64 last = off + size - 1;

	if ((s->type & 0xc) == 4) /* expand-down data: valid above the limit */
		return off > s->limit && last <= (s->db ? 0xffffffffu : 0xffffu);
	return last <= s->limit;
}

gva_t seg_linear(struct vcpu *cpu, unsigned seg, u64 off, unsigned size, bool write)
{
	const struct segment *s = &cpu->seg[seg];
	u64 a = off;

	if (size == 0)
		size = 1;
	if (cpu->mode.long64) {
		if (seg == SEG_FS || seg == SEG_GS)
			a += s->base;
		if (!canonical(a) || !canonical(a + size - 1))
			raise_access(cpu, seg);
		return a;
	}
	if (cpu->mode.pe && !cpu->mode.vm86 && (s->unusable || !type_allows(s, write)))
		raise_access(cpu, seg);
	if (!limit_allows(s, off, size))
		raise_access(cpu, seg);
	return (u32)(s->base + off);
}

void seg_set_null(struct segment *s, u16 sel, unsigned dpl)
{
	*s = (struct segment){.sel = sel, .dpl = dpl, .unusable = true};
}

void seg_load_real(struct vcpu *cpu, unsigned seg, u16 sel)
{
	struct segment *s = &cpu->seg[seg];

	s->sel = sel;
	s->base = (u32)sel << 4; /* limit and attributes stay: "unreal mode" */
	s->unusable = false;
}

void seg_load_v86(struct vcpu *cpu, unsigned seg, u16 sel)
{
	cpu->seg[seg] = (struct segment){
		.base = (u32)sel << 4, .limit = 0xffff, .sel = sel, .type = 3, .dpl = 3, .s = true, .present = true};
}

static u64 check_ss(struct vcpu *cpu, u16 sel)
{
	u64 d = desc_read(cpu, sel, EXC_GP, 0);
	unsigned cpl = cpu_cpl(cpu);

	if (SEL_RPL(sel) != cpl || !DESC_WDATA(d) || DESC_DPL(d) != cpl)
		cpu_raise_gp(cpu, SEL_ERR(sel));
	if (!DESC_P(d))
		cpu_raise_err(cpu, EXC_SS, SEL_ERR(sel));
	return d;
}

static u64 check_data(struct vcpu *cpu, u16 sel)
{
	u64 d = desc_read(cpu, sel, EXC_GP, 0);

	if (!DESC_RDABLE(d))
		cpu_raise_gp(cpu, SEL_ERR(sel));
	if (!(DESC_CODE(d) && DESC_CONF(d)) && MAX(SEL_RPL(sel), cpu_cpl(cpu)) > DESC_DPL(d))
		cpu_raise_gp(cpu, SEL_ERR(sel));
	if (!DESC_P(d))
		cpu_raise_err(cpu, EXC_NP, SEL_ERR(sel));
	return d;
}

static void load_protected(struct vcpu *cpu, unsigned seg, u16 sel)
{
	struct segment *s = &cpu->seg[seg];
	u64 d = 0;

	if (SEL_NULL(sel)) {
		if (seg == SEG_SS && (!cpu->mode.long64 || cpu_cpl(cpu) == 3 || SEL_RPL(sel) != cpu_cpl(cpu)))
			cpu_raise_gp(cpu, 0);
		seg_set_null(s, sel, seg == SEG_SS ? cpu_cpl(cpu) : 0);
		return;
	}
	d = seg == SEG_SS ? check_ss(cpu, sel) : check_data(cpu, sel);
	d = desc_set_type_bits(cpu, sel, d, 1);
	seg_from_descriptor(s, sel, d);
}

void cpu_load_sreg(struct vcpu *cpu, unsigned seg, u16 sel)
{
	if (!cpu->mode.pe)
		seg_load_real(cpu, seg, sel);
	else if (cpu->mode.vm86)
		seg_load_v86(cpu, seg, sel);
	else
		load_protected(cpu, seg, sel);
	if (seg <= SEG_DS)
		cpu_update_mode(cpu);
}

void seg_drop_inaccessible(struct vcpu *cpu)
{
	static const u8 data_segs[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};

	for (unsigned i = 0; i < ARRAY_SIZE(data_segs); i++) {
		struct segment *s = &cpu->seg[data_segs[i]];
		bool conforming = (s->type & 0xc) == 0xc;

		if (!s->unusable && !conforming && s->dpl < cpu_cpl(cpu))
			seg_set_null(s, 0, 0);
	}
}

/* System descriptors are 16 bytes in long mode: bits 63:32 of the base, and a type field that must be zero. */
static u64 system_base(struct vcpu *cpu, u16 sel, u64 d)
{
	u64 high = 0, base = 0;

	if (!cpu->mode.lma)
		return desc_base(d);
	high = desc_read_high(cpu, sel, EXC_GP, 0);
	base = desc_base(d) | high << 32;
	if (high >> 40 & 0x1f)
		cpu_raise_gp(cpu, SEL_ERR(sel));
	if (!canonical(base))
		cpu_raise_gp(cpu, SEL_ERR(sel));
	return base;
}

void cpu_lldt(struct vcpu *cpu, u16 sel)
{
	struct segment *s = &cpu->seg[SEG_LDTR];
	u64 d = 0, base = 0;

	if (SEL_NULL(sel)) {
		seg_set_null(s, sel, 0);
		return;
	}
	if (sel & 4)
		cpu_raise_gp(cpu, SEL_ERR(sel));
	d = desc_read(cpu, sel, EXC_GP, 0);
	if (DESC_S(d) || DESC_TYPE(d) != DT_LDT)
		cpu_raise_gp(cpu, SEL_ERR(sel));
	if (!DESC_P(d))
		cpu_raise_err(cpu, EXC_NP, SEL_ERR(sel));
	base = system_base(cpu, sel, d);
	seg_from_descriptor(s, sel, d);
	s->base = base;
}

void cpu_ltr(struct vcpu *cpu, u16 sel)
{
	struct segment *s = &cpu->seg[SEG_TR];
	u64 d = 0, base = 0;
	bool type_ok = false;

	if (SEL_NULL(sel))
		cpu_raise_gp(cpu, 0);
	if (sel & 4)
		cpu_raise_gp(cpu, SEL_ERR(sel));
	d = desc_read(cpu, sel, EXC_GP, 0);
	type_ok = DESC_TYPE(d) == DT_TSS32 || (DESC_TYPE(d) == DT_TSS16 && !cpu->mode.lma);
	if (DESC_S(d) || !type_ok)
		cpu_raise_gp(cpu, SEL_ERR(sel));
	if (!DESC_P(d))
		cpu_raise_err(cpu, EXC_NP, SEL_ERR(sel));
	base = system_base(cpu, sel, d);
	d = desc_set_type_bits(cpu, sel, d, DT_BUSY_BIT);
	seg_from_descriptor(s, sel, d);
	s->base = base;
}

/* ---- LAR LSL VERR VERW: refusals only clear ZF ---- */

static bool peek(struct vcpu *cpu, u16 sel, u64 *d)
{
	gva_t a = 0;

	if (SEL_NULL(sel) || !desc_locate(cpu, sel, 8, &a))
		return false;
	*d = mmu_sys_read64(cpu, a);
	return true;
}

static bool visible(struct vcpu *cpu, u16 sel, u64 d)
{
	if (DESC_CODE(d) && DESC_CONF(d))
		return true;
	return DESC_DPL(d) >= cpu_cpl(cpu) && DESC_DPL(d) >= SEL_RPL(sel);
}

/* Types of system descriptors the instruction accepts, one bit each (SDM 2A tables 3-53, 3-54; long mode has fewer). */
#define LAR_TYPES   (BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(9) | BIT(11) | BIT(12))
#define LAR_TYPES64 (BIT(2) | BIT(9) | BIT(11) | BIT(12))
#define LSL_TYPES   (BIT(1) | BIT(2) | BIT(3) | BIT(9) | BIT(11))
#define LSL_TYPES64 (BIT(2) | BIT(9) | BIT(11))

static bool system_type_in(struct vcpu *cpu, u64 d, u32 legacy, u32 lng)
{
	return DESC_S(d) || ((cpu->mode.lma ? lng : legacy) >> DESC_TYPE(d) & 1);
}

bool cpu_lar(struct vcpu *cpu, u16 sel, u32 *value)
{
	u64 d = 0;

	if (!peek(cpu, sel, &d) || !system_type_in(cpu, d, LAR_TYPES, LAR_TYPES64) || !visible(cpu, sel, d))
		return false;
	*value = (d >> 32) & 0x00ffff00;
	return true;
}

bool cpu_lsl(struct vcpu *cpu, u16 sel, u32 *value)
{
	u64 d = 0;

	if (!peek(cpu, sel, &d) || !system_type_in(cpu, d, LSL_TYPES, LSL_TYPES64) || !visible(cpu, sel, d))
		return false;
	*value = desc_limit(d);
	return true;
}

bool cpu_verify(struct vcpu *cpu, u16 sel, bool write)
{
	u64 d = 0;

	if (!peek(cpu, sel, &d) || !DESC_S(d) || !visible(cpu, sel, d))
		return false;
	return write ? DESC_WDATA(d) : DESC_RDABLE(d);
}
