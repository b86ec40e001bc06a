/* The mode of execution, derived from the registers that define it. */
#include "engine/cpu/cpu_int.h"
#include "engine/translate/tr.h"
#include "engine/vm.h"

static bool seg_is_flat(const struct segment *s)
{
	return s->base == 0 && s->limit == 0xffffffff && !s->unusable;
}

static bool data_is_flat(const struct segment *s)
{
	return seg_is_flat(s) && (s->type & 0xe) == 2; /* writable data, expand-up */
}

static bool all_flat(const struct vcpu *cpu)
{
	const struct segment *cs = &cpu->seg[SEG_CS];

	return seg_is_flat(cs) && (!(cs->type & 8) || (cs->type & 2)) && data_is_flat(&cpu->seg[SEG_SS]) &&
	       data_is_flat(&cpu->seg[SEG_DS]) && data_is_flat(&cpu->seg[SEG_ES]);
}

static unsigned current_cpl(const struct vcpu *cpu)
{
	if (!(cpu->cr0 & CR0_PE))
		return 0;
	if (cpu->rflags & FL_VM)
		return 3;
	return cpu->seg[SEG_SS].dpl; /* SS.DPL is the CPL, also under a conforming CS or a null SS */
}

static enum mmu_idx data_mmu_idx(const struct vcpu *cpu, unsigned cpl)
{
	if (cpl == 3)
		return cpu->cr0 & CR0_AM && cpu->rflags & FL_AC ? MMU_USER_AC : MMU_USER;
	return (cpu->cr4 & CR4_SMAP) && (cpu->rflags & FL_AC) ? MMU_KERNEL_AC : MMU_KERNEL;
}

void cpu_update_mode(struct vcpu *cpu)
{
	struct cpu_mode *m = &cpu->mode;
	const struct segment *cs = &cpu->seg[SEG_CS], *ss = &cpu->seg[SEG_SS];
	bool ts = cpu->cr0 & CR0_TS, em = cpu->cr0 & CR0_EM;
	u32 old = m->key;

	m->pe = cpu->cr0 & CR0_PE;
	m->vm86 = m->pe && (cpu->rflags & FL_VM);
	m->lma = cpu->efer & EFER_LMA;
	m->long64 = m->lma && cs->l && !m->vm86;
	m->cpl = current_cpl(cpu);
	m->code = m->long64 ? INSN_MODE_64 : cs->db ? INSN_MODE_32 : INSN_MODE_16;
	m->stack = m->long64 ? 8 : ss->db ? 4 : 2;
	m->fpu_ok = !em && !ts;
	m->sse_ok = !em && !ts && (cpu->cr4 & CR4_OSFXSR);
	m->avx_ok = !ts && (cpu->cr4 & CR4_OSXSAVE) && (cpu->xcr0 & 6) == 6;
	m->flat = m->long64 || all_flat(cpu);
	m->mmu_idx = data_mmu_idx(cpu, m->cpl);
	m->key = m->code | (m->stack >> 1) << 2 | m->cpl << 5 | m->pe << 7 | m->vm86 << 8 | m->lma << 9 |
		 m->fpu_ok << 10 | m->sse_ok << 11 | m->avx_ok << 12 | m->flat << 13;
	m->key |= (cpu->cr4 & CR4_SMAP ? MODE_KEY_SMAP : 0) | (cpu->cr4 & CR4_FSGSBASE ? MODE_KEY_FSGSBASE : 0) |
		  (cpu->cr4 & CR4_TSD ? MODE_KEY_TSD : 0);
	m->key |= cpu->vm->one_cpu && !cpu->met_device ? MODE_KEY_ONE_CPU : 0;
	cpu->cell_stop = cpu->cell_now && m->cpl == 3;
	m->key |= cpu->record.key | cpu->trace.key | cpu->trace.counting;
	if ((old ^ m->key) & ~MODE_KEY_CLASS)
		tr_forget_targets(cpu);
}

void mode_stay_long(struct vcpu *cpu, unsigned cpl)
{
	struct cpu_mode *m = &cpu->mode;

	m->cpl = (u8)cpl;
	m->mmu_idx = data_mmu_idx(cpu, cpl);
	cpu->cell_stop = cpu->cell_now && cpl == 3;
	m->key = (m->key & ~(3u << 5)) | cpl << 5;
}
