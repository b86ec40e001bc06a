/* Segment and system descriptors in guest memory (SDM 3A 3.4.5, 3.5). */
#include "engine/cpu/cpu_int.h"

u64 desc_base(u64 d)
{
	return (u32)(((d >> 16) & 0xffffff) | ((d >> 56) << 24));
}

u32 desc_limit(u64 d)
{
	u32 limit = (d & 0xffff) | ((d >> 32) & 0xf0000);

	return d >> 55 & 1 ? limit << 12 | 0xfff : limit;
}

void seg_from_descriptor(struct segment *s, u16 sel, u64 d)
{
	*s = (struct segment){
		.base = desc_base(d),
		.limit = desc_limit(d),
		.sel = sel,
		.type = DESC_TYPE(d),
		.dpl = DESC_DPL(d),
		.s = DESC_S(d),
		.present = DESC_P(d),
		.avl = d >> 52 & 1,
		.l = DESC_L(d),
		.db = DESC_DB(d),
		.g = d >> 55 & 1,
	};
}

bool desc_locate(struct vcpu *cpu, u16 sel, unsigned size, gva_t *a)
{
	const struct segment *ldt = &cpu->seg[SEG_LDTR];
	u32 off = sel & 0xfff8, limit = cpu->gdt.limit;
	u64 base = cpu->gdt.base;

	if (sel & 4) {
		if (ldt->unusable || !ldt->present)
			return false;
		base = ldt->base;
		limit = ldt->limit;
	}
	if (off + size - 1 > limit)
		return false;
	*a = cpu->mode.lma ? base + off : (u32)(base + off);
	return true;
}

static u64 read_part(struct vcpu *cpu, u16 sel, unsigned off, unsigned vector, u32 ext)
{
	gva_t a = 0;

	if (!desc_locate(cpu, sel, off + 8, &a))
		cpu_raise_err(cpu, vector, SEL_ERR(sel) | ext);
	return mmu_sys_read64(cpu, a + off);
}

u64 desc_read(struct vcpu *cpu, u16 sel, unsigned vector, u32 ext)
{
	return read_part(cpu, sel, 0, vector, ext);
}

u64 desc_read_high(struct vcpu *cpu, u16 sel, unsigned vector, u32 ext)
{
	return read_part(cpu, sel, 8, vector, ext);
}

/* The byte with P, DPL, S and type: always within one page, whatever the alignment of the table. */
static u8 *type_byte(struct vcpu *cpu, gva_t a)
{
	return mmu_ptr(cpu, a + 5, 1, ACC_WRITE, MMU_KERNEL);
}

u64 desc_set_type_bits(struct vcpu *cpu, u16 sel, u64 d, unsigned bits)
{
	gva_t a = 0;
	u8 *p = NULL;

	if ((DESC_TYPE(d) & bits) == bits || !desc_locate(cpu, sel, 8, &a))
		return d;
	p = type_byte(cpu, a);
	if (p)
		__atomic_fetch_or(p, bits, __ATOMIC_SEQ_CST);
	else
		mmu_sys_write8(cpu, a + 5, (u8)(d >> 40) | bits);
	return d | (u64)bits << 40;
}

void desc_clear_busy(struct vcpu *cpu, u16 sel)
{
	gva_t a = 0;
	u8 *p = NULL;

	if (!desc_locate(cpu, sel, 8, &a))
		return;
	p = type_byte(cpu, a);
	if (p)
		__atomic_fetch_and(p, ~DT_BUSY_BIT, __ATOMIC_SEQ_CST);
	else
		mmu_sys_write8(cpu, a + 5, mmu_sys_read8(cpu, a + 5) & ~DT_BUSY_BIT);
}
