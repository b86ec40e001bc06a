/* vCPU requests: general, segment, control and debug registers, MSRs, CPUID. On the vCPU's thread, not running. */
#include <errno.h>

#include "engine/api/api.h"
#include "engine/cpu/cpu.h"
#include "engine/cpu/record.h"
#include "engine/irqchip/irqchip.h"
#include "engine/lib/lib.h"
#include "engine/mmu/mmu.h"
#include "engine/translate/dump.h"
#include "engine/safepoint.h"

static s64 get_regs(struct api_call *c)
{
	const struct vcpu *cpu = c->cpu;
	const u64 *g = cpu->gpr;
	struct kvm_regs *r = (void *)c->buf;

	*r = (struct kvm_regs){
		.rax = g[R_AX], .rbx = g[R_BX], .rcx = g[R_CX], .rdx = g[R_DX], .rsi = g[R_SI], .rdi = g[R_DI],
		.rsp = g[R_SP], .rbp = g[R_BP], .r8 = g[8], .r9 = g[9], .r10 = g[10], .r11 = g[11], .r12 = g[12],
		.r13 = g[13], .r14 = g[14], .r15 = g[15], .rip = cpu->rip, .rflags = cpu->rflags,
	};
	return 0;
}

static s64 set_regs(struct api_call *c)
{
	struct vcpu *cpu = c->cpu;
	u64 *g = cpu->gpr;
	const struct kvm_regs *r = (void *)c->buf;

	g[R_AX] = r->rax, g[R_BX] = r->rbx, g[R_CX] = r->rcx, g[R_DX] = r->rdx;
	g[R_SI] = r->rsi, g[R_DI] = r->rdi, g[R_SP] = r->rsp, g[R_BP] = r->rbp;
	g[8] = r->r8, g[9] = r->r9, g[10] = r->r10, g[11] = r->r11;
	g[12] = r->r12, g[13] = r->r13, g[14] = r->r14, g[15] = r->r15;
	if (cpu->rip != r->rip) { /* an access under way at the VMM is not the new instruction's */
		mmio_commit(cpu);
		cpu->pio.answered = false;
	}
	cpu->rip = r->rip;
	cpu->rflags = (r->rflags & 0x3f7fd5) | FL_ONE;
	cpu->exc.pending = cpu->redelivery.pending = cpu->inject_bp = false;
	cpu_update_mode(cpu);
	return 0;
}

static void get_segment(const struct segment *s, struct kvm_segment *k)
{
	*k = (struct kvm_segment){
		.base = s->base, .limit = s->limit, .selector = s->sel, .type = s->type, .present = s->present,
		.dpl = s->dpl, .db = s->db, .s = s->s, .l = s->l, .g = s->g, .avl = s->avl, .unusable = s->unusable,
	};
}

static void set_segment(struct segment *s, const struct kvm_segment *k)
{
	*s = (struct segment){
		.base = k->base, .limit = k->limit, .sel = k->selector, .type = k->type & 15, .dpl = k->dpl & 3,
		.s = k->s & 1, .present = k->present & 1, .avl = k->avl & 1, .l = k->l & 1, .db = k->db & 1, .g = k->g & 1,
		.unusable = k->unusable || !k->present,
	};
}

static void fill_sregs(struct vcpu *cpu, struct kvm_sregs *s)
{
	memset(s, 0, sizeof(*s));
	get_segment(&cpu->seg[SEG_CS], &s->cs);
	get_segment(&cpu->seg[SEG_DS], &s->ds);
	get_segment(&cpu->seg[SEG_ES], &s->es);
	get_segment(&cpu->seg[SEG_FS], &s->fs);
	get_segment(&cpu->seg[SEG_GS], &s->gs);
	get_segment(&cpu->seg[SEG_SS], &s->ss);
	get_segment(&cpu->seg[SEG_TR], &s->tr);
	get_segment(&cpu->seg[SEG_LDTR], &s->ldt);
	s->gdt.base = cpu->gdt.base;
	s->gdt.limit = cpu->gdt.limit;
	s->idt.base = cpu->idt.base;
	s->idt.limit = cpu->idt.limit;
	s->cr0 = cpu->cr0;
	s->cr2 = cpu->cr2;
	s->cr3 = cpu->cr3;
	s->cr4 = cpu->cr4;
	s->cr8 = cpu_get_cr(cpu, 8);
	s->efer = cpu->efer;
	s->apic_base = cpu->apic_base;
	if (cpu->inject.pending)
		s->interrupt_bitmap[cpu->inject.vector / 64] |= BIT64(cpu->inject.vector % 64);
}

static s64 get_sregs(struct api_call *c)
{
	fill_sregs(c->cpu, (void *)c->buf);
	return 0;
}

#define EFER_KNOWN 0xd01ull /* SCE LME LMA NXE */

/* As KVM: refuse what no CPU could be in. */
static bool sregs_valid(const struct vcpu *cpu, const struct kvm_sregs *s)
{
	bool pg = s->cr0 & BIT64(31), pe = s->cr0 & 1, pae = s->cr4 & BIT64(5);

	if (s->cr4 & cpu->cr4_guest_rsvd || s->cr0 >> 32 || (pg && !pe))
		return false;
	if ((s->cr0 & BIT64(29)) && !(s->cr0 & BIT64(30))) /* NW without CD */
		return false;
	if (s->efer & ~(EFER_KNOWN | 0x7000ull))
		return false;
	if ((s->efer & BIT64(8)) && pg) {
		if (!pae || !(s->efer & BIT64(10)) || (s->cs.l && s->cs.db))
			return false;
		if (s->cr3 >> ENG_GPA_BITS)
			return false;
	} else if (s->efer & BIT64(10) || s->cs.l) {
		return false;
	}
	return true;
}

static bool uses_pdptes(const struct vcpu *cpu)
{
	return cpu->cr0 & BIT64(31) && cpu->cr4 & BIT64(5) && !(cpu->efer & BIT64(10));
}

static int apply_sregs(struct vcpu *cpu, const struct kvm_sregs *s)
{
	u64 old_cr0 = cpu->cr0, old_cr4 = cpu->cr4, old_efer = cpu->efer;

	if (!sregs_valid(cpu, s))
		return -EINVAL;
	if (cpu->lapic && s->apic_base != cpu->apic_base && !lapic_set_base(cpu, s->apic_base, true))
		return -EINVAL;
	set_segment(&cpu->seg[SEG_CS], &s->cs);
	set_segment(&cpu->seg[SEG_DS], &s->ds);
	set_segment(&cpu->seg[SEG_ES], &s->es);
	set_segment(&cpu->seg[SEG_FS], &s->fs);
	set_segment(&cpu->seg[SEG_GS], &s->gs);
	set_segment(&cpu->seg[SEG_SS], &s->ss);
	set_segment(&cpu->seg[SEG_TR], &s->tr);
	set_segment(&cpu->seg[SEG_LDTR], &s->ldt);
	cpu->gdt = (struct dtable){s->gdt.base, s->gdt.limit};
	cpu->idt = (struct dtable){s->idt.base, s->idt.limit};
	cpu->cr0 = s->cr0 | BIT64(4);
	cpu->cr2 = s->cr2;
	cpu->cr4 = s->cr4;
	cpu->efer = s->efer;
	cpu->apic_base = s->apic_base;
	if (cpu->lapic)
		lapic_set_tpr(cpu, (u8)(s->cr8 & 15));
	mmu_update_paging(cpu, old_cr0, old_cr4, old_efer);
	mmu_set_cr3(cpu, s->cr3, false);
	mmu_flush_all(cpu);
	cpu_update_mode(cpu);
	return 0;
}

static s64 set_sregs(struct api_call *c)
{
	struct vcpu *cpu = c->cpu;
	const struct kvm_sregs *s = (void *)c->buf;
	int r = apply_sregs(cpu, s);

	if (r < 0)
		return r;
	if (uses_pdptes(cpu))
		mmu_load_pdptes(cpu, s->cr3);
	cpu->inject.pending = false;
	for (unsigned v = 0; v < 256; v++) {
		if (s->interrupt_bitmap[v / 64] >> (v % 64) & 1) {
			cpu->inject.pending = true;
			cpu->inject.vector = (u8)v;
			break;
		}
	}
	return 0;
}

/* As KVM_GET/SET_SREGS, but with the PAE pointers and without the interrupt. The two structs agree up to apic_base. */
#define SREGS_COMMON offsetof(struct kvm_sregs, interrupt_bitmap)
_Static_assert(offsetof(struct kvm_sregs2, flags) == SREGS_COMMON, "common part");

static s64 get_sregs2(struct api_call *c)
{
	struct kvm_sregs s;
	struct kvm_sregs2 *s2 = (void *)c->buf;

	fill_sregs(c->cpu, &s);
	memset(s2, 0, sizeof(*s2));
	memcpy(s2, &s, SREGS_COMMON);
	if (uses_pdptes(c->cpu)) {
		s2->flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
		memcpy(s2->pdptrs, c->cpu->pdpte, sizeof(s2->pdptrs));
	}
	return 0;
}

static s64 set_sregs2(struct api_call *c)
{
	const struct kvm_sregs2 *s2 = (void *)c->buf;
	struct kvm_sregs s = {0};
	int r;

	if (s2->flags & ~(u64)KVM_SREGS2_FLAGS_PDPTRS_VALID)
		return -EINVAL;
	memcpy(&s, s2, SREGS_COMMON);
	r = apply_sregs(c->cpu, &s);
	if (r < 0)
		return r;
	if (s2->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID)
		memcpy(c->cpu->pdpte, s2->pdptrs, sizeof(s2->pdptrs));
	else if (uses_pdptes(c->cpu))
		mmu_load_pdptes(c->cpu, s.cr3);
	return 0;
}

static s64 get_msrs(struct api_call *c)
{
	struct kvm_msrs *m = (void *)c->buf;
	u32 i;

	if (c->size < sizeof(*m) + (u64)m->nmsrs * sizeof(struct kvm_msr_entry))
		return -EFAULT;
	for (i = 0; i < m->nmsrs; i++) {
		u64 v = 0;

		if (!msr_read(c->cpu, m->entries[i].index, &v, true))
			break;
		m->entries[i].data = v;
	}
	return i;
}

static s64 set_msrs(struct api_call *c)
{
	const struct kvm_msrs *m = (void *)c->buf;
	u32 i;

	if (c->size < sizeof(*m) + (u64)m->nmsrs * sizeof(struct kvm_msr_entry))
		return -EFAULT;
	for (i = 0; i < m->nmsrs; i++)
		if (!msr_write(c->cpu, m->entries[i].index, m->entries[i].data, true))
			break;
	return i;
}

static s64 set_cpuid(struct api_call *c)
{
	const struct kvm_cpuid2 *q = (void *)c->buf;
	int r;

	if (q->nent > VCPU_MAX_CPUID)
		return -E2BIG;
	if (c->size < sizeof(*q) + (u64)q->nent * sizeof(struct kvm_cpuid_entry2))
		return -EFAULT;
	r = cpuid_set(c->cpu, q->entries, q->nent);
	cpu_update_mode(c->cpu);
	return r;
}

static s64 get_cpuid(struct api_call *c)
{
	struct kvm_cpuid2 *q = (void *)c->buf;
	u32 room = q->nent, n = c->cpu->ncpuid;

	q->nent = n;
	if (room < n) {
		c->size = sizeof(*q);
		return -E2BIG;
	}
	memcpy(q->entries, c->cpu->cpuid, n * sizeof(struct kvm_cpuid_entry2));
	c->size = (u32)(sizeof(*q) + n * sizeof(struct kvm_cpuid_entry2));
	return 0;
}

static s64 get_debugregs(struct api_call *c)
{
	struct kvm_debugregs *d = (void *)c->buf;

	memset(d, 0, sizeof(*d));
	memcpy(d->db, c->cpu->dr, sizeof(d->db));
	d->dr6 = c->cpu->dr6;
	d->dr7 = c->cpu->dr7;
	return 0;
}

static s64 set_debugregs(struct api_call *c)
{
	const struct kvm_debugregs *d = (void *)c->buf;

	if (d->flags || d->dr6 >> 32 || d->dr7 >> 32)
		return -EINVAL;
	memcpy(c->cpu->dr, d->db, sizeof(d->db));
	c->cpu->dr6 = d->dr6 | 0xffff0ff0;
	c->cpu->dr7 = d->dr7 | 0x400;
	mmu_flush_all(c->cpu);
	return 0;
}

static s64 set_guest_debug(struct api_call *c)
{
	const struct kvm_guest_debug *d = (void *)c->buf;
	struct vcpu *cpu = c->cpu;

	u32 control = d->control & KVM_GUESTDBG_ENABLE ? d->control : 0, inject = KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP;

	if (d->control & ~(u32)GUEST_DEBUG_FLAGS)
		return -EINVAL;
	if (d->control & inject && (cpu->exc.pending || cpu->redelivery.pending))
		return -EBUSY;
	if (d->control & KVM_GUESTDBG_INJECT_DB)
		cpu->exc = (struct exception){.vector = EXC_DB, .pending = true};
	cpu->inject_bp = d->control & KVM_GUESTDBG_INJECT_BP;
	control &= ~inject;
	if ((control | cpu->guest_debug) & KVM_GUESTDBG_USE_HW_BP)
		mmu_flush_all(cpu); /* watched pages get no entries, code at breakpoints no short cuts */
	cpu->guest_debug = control;
	memcpy(cpu->guest_debug_dr, d->arch.debugreg, sizeof(cpu->guest_debug_dr));
	return 0;
}

static s64 translate(struct api_call *c)
{
	struct kvm_translation *t = (void *)c->buf;
	bool w = false, u = false;
	gpa_t gpa = 0;

	t->valid = mmu_translate_debug(c->cpu, t->linear_address, &gpa, &w, &u);
	t->physical_address = t->valid ? gpa : ~0ull;
	t->writeable = w;
	t->usermode = u;
	return 0;
}

static s64 get_stats(struct api_call *c)
{
	struct doppel_stats *s = (void *)c->buf;

	memset(s, 0, sizeof(*s));
	c->cpu->stats.insns = c->cpu->insn_count;
	s->count = sizeof(c->cpu->stats) / sizeof(u64);
	_Static_assert(sizeof(struct vcpu_stats) <= sizeof(s->value), "counters fit the message");
	memcpy(s->value, &c->cpu->stats, sizeof(c->cpu->stats));
	return 0;
}

static s64 dump_code(struct api_call *c)
{
	struct doppel_dump *d = (void *)c->buf;
	bool w = false, u = false;
	gpa_t gpa = 0;

	if (!mmu_translate_debug(c->cpu, d->pc, &gpa, &w, &u))
		return -ENOENT;
	d->size = tr_dump(gpa, d->pc, d->offset, d->text, sizeof(d->text));
	return 0;
}

static s64 get_record(struct api_call *c)
{
	record_get(c->cpu, (void *)c->buf);
	return 0;
}

static s64 set_record(struct api_call *c)
{
	if (c->arg & ~(u64)(DOPPEL_RECORD_ARRIVALS | DOPPEL_RECORD_COVERAGE))
		return -EINVAL;
	record_set(c->cpu, (u32)c->arg);
	return 0;
}

static s64 clear_coverage(struct api_call *c)
{
	record_clear_coverage(c->cpu);
	return 0;
}

static s64 get_coverage(struct api_call *c)
{
	record_get_coverage((void *)c->buf);
	return 0;
}

const struct api_row api_vcpu_rows[] = {
	API_ROW(KVM_GET_REGS, get_regs),
	API_ROW(KVM_SET_REGS, set_regs),
	API_ROW(KVM_GET_SREGS, get_sregs),
	API_ROW(KVM_SET_SREGS, set_sregs),
	API_ROW(KVM_GET_SREGS2, get_sregs2),
	API_ROW(KVM_SET_SREGS2, set_sregs2),
	API_ROW(KVM_GET_MSRS, get_msrs),
	API_ROW(KVM_SET_MSRS, set_msrs),
	API_ROW(KVM_SET_CPUID2, set_cpuid),
	API_ROW(KVM_GET_CPUID2, get_cpuid),
	API_ROW(KVM_GET_DEBUGREGS, get_debugregs),
	API_ROW(KVM_SET_DEBUGREGS, set_debugregs),
	API_ROW(KVM_SET_GUEST_DEBUG, set_guest_debug),
	API_ROW(KVM_TRANSLATE, translate),
	API_ROW(DOPPEL_GET_STATS, get_stats),
	API_ROW(DOPPEL_DUMP_CODE, dump_code),
	API_ROW(DOPPEL_GET_RECORD, get_record),
	API_ROW(DOPPEL_SET_RECORD, set_record),
	API_ROW(DOPPEL_CLEAR_COVERAGE, clear_coverage),
	API_ROW(DOPPEL_GET_COVERAGE, get_coverage),
};
const unsigned api_vcpu_count = ARRAY_SIZE(api_vcpu_rows);
