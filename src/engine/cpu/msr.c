/* Model-specific registers: one table of rows; a row is a field of struct vcpu with a mask, or a pair of functions. */
#include "engine/cpu/cpu_int.h"
#include "engine/cpu/pvclock.h"
#include "engine/cpu/pvsched.h"
#include "engine/irqchip/irqchip.h"
#include "engine/lib/lib.h"
#include "engine/vm.h"

enum {
	M_RO = 1,     /* guest writes: #GP */
	M_IGNORE = 2, /* guest writes have no effect */
	M_CANON = 4,  /* must be canonical */
	M_WO = 8,    /* guest reads: #GP */
};

struct msr {
	u32 index, count;
	u32 field;  /* offset of the u64 (array) in struct vcpu; 0: value is `fixed` */
	u32 flags;
	u64 writable; /* other bits set: #GP */
	u64 fixed;
	bool (*present)(const struct vcpu *cpu);
	bool (*get)(struct vcpu *cpu, u32 index, u64 *v, bool host);
	bool (*set)(struct vcpu *cpu, u32 index, u64 v, bool host);
};

static bool cpuid_bit(const struct vcpu *cpu, u32 leaf, enum cpuid_reg reg, unsigned bit)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(cpu, leaf, 0);
	u32 v = 0;

	if (e)
		v = reg == CPUID_EAX ? e->eax : reg == CPUID_EBX ? e->ebx : reg == CPUID_ECX ? e->ecx : e->edx;
	return v >> bit & 1;
}

static bool is_intel(const struct vcpu *cpu) { return cpu_vendor_is_intel(cpu); }
static bool is_amd(const struct vcpu *cpu) { return !cpu_vendor_is_intel(cpu); }
static bool has_tsc_adjust(const struct vcpu *cpu) { return cpuid_bit(cpu, 7, CPUID_EBX, 1); }
static bool has_arch_caps(const struct vcpu *cpu) { return cpuid_bit(cpu, 7, CPUID_EDX, 29); }
static bool has_rdtscp(const struct vcpu *cpu)
{
	return cpuid_bit(cpu, 0x80000001, CPUID_EDX, 27) || cpuid_bit(cpu, 7, CPUID_ECX, 22);
}
static bool has_spec_ctrl(const struct vcpu *cpu)
{
	return cpuid_bit(cpu, 7, CPUID_EDX, 26) || cpuid_bit(cpu, 0x80000008, CPUID_EBX, 14);
}
static bool has_ibpb(const struct vcpu *cpu)
{
	return cpuid_bit(cpu, 7, CPUID_EDX, 26) || cpuid_bit(cpu, 0x80000008, CPUID_EBX, 12);
}
static bool has_xsaves(const struct vcpu *cpu)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(cpu, 0xd, 1);

	return e && (e->eax >> 3 & 1);
}

/* ---- time ---- */

u64 cpu_rdtsc(struct vcpu *cpu)
{
	return eng_rdtsc() + cpu->tsc_offset;
}

static void tsc_changed(struct vcpu *cpu)
{
	if (cpu->lapic)
		lapic_timer_rearm(cpu);
	pvclock_refresh(cpu);
}

static bool get_tsc(struct vcpu *cpu, u32 index, u64 *v, bool host)
{
	*v = cpu_rdtsc(cpu);
	return true;
}

/*
 * A VMM that writes the "same" TSC to one vCPU after the other means them to agree: within a second of the first
 * vCPU's, the first's offset is taken (KVM does so too).
 */
static u64 synchronised_offset(const struct vcpu *cpu, u64 offset)
{
	const struct vcpu *first = cpu->vm ? cpu->vm->vcpus[0] : NULL;
	s64 delta = 0;

	if (!first || first == cpu)
		return offset;
	delta = offset - first->tsc_offset;
	if (delta < 0)
		delta = -delta;
	return (u64)delta < (u64)cpu->vm->tsc_khz * 1000 ? first->tsc_offset : offset;
}

static bool set_tsc(struct vcpu *cpu, u32 index, u64 v, bool host)
{
	u64 offset = v - eng_rdtsc();

	if (host)
		offset = synchronised_offset(cpu, offset);
	else
		cpu->tsc_adjust += offset - cpu->tsc_offset;
	cpu->tsc_offset = offset;
	tsc_changed(cpu);
	return true;
}

static bool set_tsc_adjust(struct vcpu *cpu, u32 index, u64 v, bool host)
{
	if (!host)
		cpu->tsc_offset += v - cpu->tsc_adjust;
	cpu->tsc_adjust = v;
	if (!host)
		tsc_changed(cpu);
	return true;
}

static bool get_deadline(struct vcpu *cpu, u32 index, u64 *v, bool host)
{
	*v = cpu->lapic ? lapic_get_tsc_deadline(cpu) : cpu->tsc_deadline;
	return true;
}

static bool set_deadline(struct vcpu *cpu, u32 index, u64 v, bool host)
{
	if (cpu->lapic)
		lapic_set_tsc_deadline(cpu, v);
	else
		cpu->tsc_deadline = v;
	return true;
}

/* ---- LAPIC ---- */

static bool set_apic_base(struct vcpu *cpu, u32 index, u64 v, bool host)
{
	if (cpu->lapic)
		return lapic_set_base(cpu, v, host);
	if (v & ~(ENG_GPA_LIMIT - 1))
		return false;
	cpu->apic_base = v;
	return true;
}

static bool get_x2apic(struct vcpu *cpu, u32 index, u64 *v, bool host)
{
	return cpu->lapic && lapic_msr_read(cpu, index, v);
}

static bool set_x2apic(struct vcpu *cpu, u32 index, u64 v, bool host)
{
	return cpu->lapic && lapic_msr_write(cpu, index, v);
}

static bool set_pv_eoi(struct vcpu *cpu, u32 index, u64 v, bool host)
{
	if (v & 2) /* the word is on 4 bytes */
		return false;
	if (cpu->lapic)
		lapic_pv_eoi_sync(cpu);
	cpu->msr_kvm_eoi_en = v;
	return true;
}

/* ---- long mode, system calls, segment bases ---- */

static bool set_efer(struct vcpu *cpu, u32 index, u64 v, bool host)
{
	u64 old = cpu->efer, valid = EFER_SCE | EFER_LME | EFER_LMA | EFER_NX;

	if (v & ~valid)
		return false;
	if (host) {
		cpu->efer = v;
		cpu_update_mode(cpu);
		mmu_update_paging(cpu, cpu->cr0, cpu->cr4, old);
		return true;
	}
	if (((old ^ v) & EFER_LME) && (cpu->cr0 & CR0_PG))
		return false;
	cpu_set_efer(cpu, v);
	return true;
}

static struct segment *base_of(struct vcpu *cpu, u32 index)
{
	return &cpu->seg[index == 0xc0000100 ? SEG_FS : SEG_GS];
}

static bool get_seg_base(struct vcpu *cpu, u32 index, u64 *v, bool host)
{
	*v = base_of(cpu, index)->base;
	return true;
}

static bool set_seg_base(struct vcpu *cpu, u32 index, u64 v, bool host)
{
	base_of(cpu, index)->base = v;
	return true;
}

static bool set_xss(struct vcpu *cpu, u32 index, u64 v, bool host)
{
	cpu->xss = v; /* no supervisor component is supported: the table lets only 0 through */
	return true;
}

/* ---- memory types: kept, without effect ---- */

static bool memory_type_ok(u8 t)
{
	return t == 0 || t == 1 || (t >= 4 && t <= 6);
}

static bool set_pat(struct vcpu *cpu, u32 index, u64 v, bool host)
{
	for (unsigned i = 0; i < 8; i++) {
		u8 t = v >> (i * 8);

		if (!memory_type_ok(t) && t != 7)
			return false;
	}
	cpu->pat = v;
	return true;
}

static bool set_mtrr_default(struct vcpu *cpu, u32 index, u64 v, bool host)
{
	if (!memory_type_ok(v & 0xff))
		return false;
	cpu->mtrr_def_type = v;
	return true;
}

static u64 *mtrr_fixed(struct vcpu *cpu, u32 index)
{
	unsigned n = index == 0x250 ? 0 : index <= 0x259 ? 1 + (index - 0x258) : 3 + (index - 0x268);

	return &cpu->mtrr_fixed[n];
}

static bool get_mtrr_fixed(struct vcpu *cpu, u32 index, u64 *v, bool host)
{
	*v = *mtrr_fixed(cpu, index);
	return true;
}

static bool set_mtrr_fixed(struct vcpu *cpu, u32 index, u64 v, bool host)
{
	for (unsigned i = 0; i < 8; i++) {
		if (!memory_type_ok(v >> (i * 8)))
			return false;
	}
	*mtrr_fixed(cpu, index) = v;
	return true;
}

static bool set_mtrr_var(struct vcpu *cpu, u32 index, u64 v, bool host)
{
	bool is_mask = index & 1;

	if (v & ~(ENG_GPA_LIMIT - 1))
		return false;
	if (is_mask ? v & 0x7ff : (v & 0xf00) || !memory_type_ok(v & 0xff))
		return false;
	cpu->mtrr_var[index - 0x200] = v;
	return true;
}

/* ---- machine check: banks exist and stay silent ---- */

static u64 *mce_bank(struct vcpu *cpu, u32 index)
{
	u32 n = index - 0x400;

	return n / 4 < (cpu->mcg_cap & 0xff) && n < ARRAY_SIZE(cpu->mce_banks) ? &cpu->mce_banks[n] : NULL;
}

static bool get_mce_bank(struct vcpu *cpu, u32 index, u64 *v, bool host)
{
	const u64 *b = mce_bank(cpu, index);

	if (b)
		*v = *b;
	return b;
}

static bool set_mce_bank(struct vcpu *cpu, u32 index, u64 v, bool host)
{
	u64 *b = mce_bank(cpu, index);

	if (!b)
		return false;
	if (!host && (index & 3) == 1 && v) /* STATUS may only be cleared */
		return false;
	*b = v;
	return true;
}

static bool set_mcg_ctl(struct vcpu *cpu, u32 index, u64 v, bool host)
{
	if (!(cpu->mcg_cap & BIT(8)) || (v && v != ~0ull))
		return false;
	cpu->mcg_ctl = v;
	return true;
}

static bool get_mcg_ctl(struct vcpu *cpu, u32 index, u64 *v, bool host)
{
	*v = cpu->mcg_ctl;
	return cpu->mcg_cap & BIT(8);
}

/* ---- microcode revision as KVM reports it ---- */

static bool get_ucode(struct vcpu *cpu, u32 index, u64 *v, bool host)
{
	*v = cpu_vendor_is_intel(cpu) ? 0x100000000ull : 0x01000065;
	return true;
}

#define FIELD(f) (u32)offsetof(struct vcpu, f)
#define ANY      (~0ull)
#define LOW32    0xffffffffull

/*
 * IA32_ARCH_CAPABILITIES: guest code runs no speculation of its own across the guest's privilege levels, so the guest
 * need not defend against: RDCL IBRS_ALL SKIP_L1DFL SSB MDS PSCHANGE_MC TAA SBDR FBSDP PSDP BHI PBRSB GDS RFDS ITS.
 */
#define ARCH_CAPS                                                                                                \
	(BIT64(0) | BIT64(1) | BIT64(3) | BIT64(4) | BIT64(5) | BIT64(6) | BIT64(8) | BIT64(13) | BIT64(14) |    \
	 BIT64(15) | BIT64(20) | BIT64(24) | BIT64(26) | BIT64(27) | BIT64(62))

/* Often used ones first. */
static const struct msr msrs[] = {
	{.index = 0x6e0, .count = 1, .writable = ANY, .get = get_deadline, .set = set_deadline},
	{.index = 0x800, .count = 256, .writable = ANY, .get = get_x2apic, .set = set_x2apic},
	{.index = 0xc0000100, .count = 2, .flags = M_CANON, .writable = ANY, .get = get_seg_base, .set = set_seg_base},
	{.index = 0xc0000102, .count = 1, .flags = M_CANON, .writable = ANY, .field = FIELD(kernel_gs_base)},
	{.index = 0x48, .count = 1, .writable = 7, .field = FIELD(spec_ctrl), .present = has_spec_ctrl},
	{.index = 0x49, .count = 1, .flags = M_WO | M_IGNORE, .writable = 1, .present = has_ibpb},
	{.index = 0x10, .count = 1, .writable = ANY, .get = get_tsc, .set = set_tsc},
	{.index = 0x3b, .count = 1, .writable = ANY, .field = FIELD(tsc_adjust), .set = set_tsc_adjust,
	 .present = has_tsc_adjust},
	{.index = 0xc0000103, .count = 1, .writable = LOW32, .field = FIELD(tsc_aux), .present = has_rdtscp},
	{.index = 0x1b, .count = 1, .writable = ANY, .field = FIELD(apic_base), .set = set_apic_base},
	{.index = 0x174, .count = 1, .writable = LOW32, .field = FIELD(sysenter_cs)},
	{.index = 0x175, .count = 1, .flags = M_CANON, .writable = ANY, .field = FIELD(sysenter_esp)},
	{.index = 0x176, .count = 1, .flags = M_CANON, .writable = ANY, .field = FIELD(sysenter_eip)},
	{.index = 0xc0000080, .count = 1, .writable = ANY, .field = FIELD(efer), .set = set_efer},
	{.index = 0xc0000081, .count = 1, .writable = ANY, .field = FIELD(star)},
	{.index = 0xc0000082, .count = 1, .flags = M_CANON, .writable = ANY, .field = FIELD(lstar)},
	{.index = 0xc0000083, .count = 1, .flags = M_CANON, .writable = ANY, .field = FIELD(cstar)},
	{.index = 0xc0000084, .count = 1, .writable = LOW32, .field = FIELD(sfmask)},
	{.index = 0xda0, .count = 1, .writable = 0, .field = FIELD(xss), .set = set_xss, .present = has_xsaves},
	/* memory types */
	{.index = 0x277, .count = 1, .writable = ANY, .field = FIELD(pat), .set = set_pat},
	{.index = 0xfe, .count = 1, .flags = M_RO, .fixed = 0x508}, /* 8 variable ranges, fixed ranges, WC */
	{.index = 0x2ff, .count = 1, .writable = 0xcff, .field = FIELD(mtrr_def_type), .set = set_mtrr_default},
	{.index = 0x200, .count = 16, .writable = ANY, .field = FIELD(mtrr_var), .set = set_mtrr_var},
	{.index = 0x250, .count = 1, .writable = ANY, .get = get_mtrr_fixed, .set = set_mtrr_fixed},
	{.index = 0x258, .count = 2, .writable = ANY, .get = get_mtrr_fixed, .set = set_mtrr_fixed},
	{.index = 0x268, .count = 8, .writable = ANY, .get = get_mtrr_fixed, .set = set_mtrr_fixed},
	/* machine check */
	{.index = 0x179, .count = 1, .flags = M_RO, .field = FIELD(mcg_cap)},
	{.index = 0x17a, .count = 1, .writable = 7, .field = FIELD(mcg_status)},
	{.index = 0x17b, .count = 1, .writable = ANY, .get = get_mcg_ctl, .set = set_mcg_ctl},
	{.index = 0x400, .count = 40, .writable = ANY, .get = get_mce_bank, .set = set_mce_bank},
	/* KVM paravirtual (Documentation/virt/kvm/x86/msr.rst) */
	{.index = 0x4b564d00, .count = 1, .writable = ANY, .field = FIELD(msr_kvm_wall_clock),
	 .set = pvclock_set_wall_clock},
	{.index = 0x4b564d01, .count = 1, .writable = ANY, .field = FIELD(msr_kvm_system_time),
	 .set = pvclock_set_system_time},
	{.index = 0x11, .count = 1, .writable = ANY, .field = FIELD(msr_kvm_wall_clock), .set = pvclock_set_wall_clock},
	{.index = 0x12, .count = 1, .writable = ANY, .field = FIELD(msr_kvm_system_time), .set = pvclock_set_system_time},
	{.index = 0x4b564d03, .count = 1, .writable = ANY, .field = FIELD(msr_kvm_steal_time), .set = steal_set},
	{.index = 0x4b564d04, .count = 1, .writable = ANY, .field = FIELD(msr_kvm_eoi_en), .set = set_pv_eoi},
	{.index = 0x4b564d05, .count = 1, .writable = 1, .field = FIELD(msr_kvm_poll_control)},
	/* identity and miscellany */
	{.index = 0x8b, .count = 1, .flags = M_IGNORE, .writable = ANY, .get = get_ucode},
	{.index = 0x10a, .count = 1, .flags = M_RO, .fixed = ARCH_CAPS, .present = has_arch_caps},
	{.index = 0x1a0, .count = 1, .writable = ANY, .field = FIELD(misc_enable)},
	{.index = 0x1d9, .count = 1, .writable = 3, .field = FIELD(debugctl)},
	{.index = 0xce, .count = 1, .flags = M_RO, .present = is_intel},
	{.index = 0x34, .count = 1, .flags = M_RO, .field = FIELD(smi_count), .present = is_intel},
	{.index = 0x3a, .count = 1, .flags = M_RO, .fixed = 1, .present = is_intel}, /* FEATURE_CONTROL: locked */
	{.index = 0x17, .count = 1, .flags = M_RO, .present = is_intel},             /* PLATFORM_ID */
	{.index = 0x79, .count = 1, .flags = M_WO | M_IGNORE, .writable = ANY, .present = is_intel},
	{.index = 0x140, .count = 1, .flags = M_IGNORE, .writable = 0, .present = is_intel},
	{.index = 0x198, .count = 2, .flags = M_IGNORE, .writable = ANY, .present = is_intel},
	{.index = 0xc0010010, .count = 1, .flags = M_IGNORE, .writable = ANY, .present = is_amd}, /* SYSCFG */
	/* HWCR: TscFreqSel set; Linux writes SmmLock and the like only back as read. */
	{.index = 0xc0010015, .count = 1, .flags = M_IGNORE, .writable = ANY, .fixed = BIT64(24), .present = is_amd},
	{.index = 0xc001001a, .count = 1, .flags = M_RO, .present = is_amd}, /* TOP_MEM */
	{.index = 0xc001001d, .count = 1, .flags = M_RO, .present = is_amd}, /* TOP_MEM2 */
	{.index = 0xc001001f, .count = 1, .flags = M_IGNORE, .writable = ANY, .present = is_amd}, /* NB_CFG */
	{.index = 0xc0010020, .count = 1, .flags = M_WO | M_IGNORE, .writable = ANY, .present = is_amd}, /* PATCH_LOADER */
	{.index = 0xc0010055, .count = 1, .flags = M_IGNORE, .writable = ANY, .present = is_amd}, /* INT_PENDING_MSG */
	{.index = 0xc0010058, .count = 1, .flags = M_IGNORE, .writable = ANY, .present = is_amd}, /* MMIO_CONF_BASE */
	{.index = 0xc0011022, .count = 2, .flags = M_IGNORE, .writable = ANY, .present = is_amd}, /* DC_CFG BU_CFG */
	{.index = 0xc0011029, .count = 1, .flags = M_IGNORE, .writable = ANY, .fixed = BIT64(1), .present = is_amd}, /* DE_CFG */
	{.index = 0xc001102a, .count = 1, .flags = M_IGNORE, .writable = ANY, .present = is_amd}, /* BU_CFG2 */
};

static const struct msr *msr_find(const struct vcpu *cpu, u32 index, bool host)
{
	for (unsigned i = 0; i < ARRAY_SIZE(msrs); i++) {
		const struct msr *m = &msrs[i];

		if (index - m->index < m->count)
			return host || !m->present || m->present(cpu) ? m : NULL;
	}
	return NULL;
}

static u64 *msr_field(struct vcpu *cpu, const struct msr *m, u32 index)
{
	return (u64 *)((u8 *)cpu + m->field) + (index - m->index);
}

bool msr_read(struct vcpu *cpu, u32 index, u64 *value, bool host)
{
	const struct msr *m = msr_find(cpu, index, host);

	if (!m || ((m->flags & M_WO) && !host))
		return false;
	if (m->get)
		return m->get(cpu, index, value, host);
	*value = m->field ? *msr_field(cpu, m, index) : m->fixed;
	return true;
}

/* The VMM may restore a read-only register to the value it has, or set one that is kept in a field. */
static bool host_write_ro(struct vcpu *cpu, const struct msr *m, u32 index, u64 value)
{
	u64 now = 0;

	if (m->field) {
		*msr_field(cpu, m, index) = value;
		return true;
	}
	return msr_read(cpu, index, &now, true) && now == value;
}

bool msr_write(struct vcpu *cpu, u32 index, u64 value, bool host)
{
	const struct msr *m = msr_find(cpu, index, host);

	if (!m)
		return false;
	if (m->flags & M_RO)
		return host && host_write_ro(cpu, m, index, value);
	if ((value & ~m->writable) || ((m->flags & M_CANON) && !canonical(value)))
		return false;
	if (m->flags & M_IGNORE)
		return true;
	if (m->set)
		return m->set(cpu, index, value, host);
	*msr_field(cpu, m, index) = value;
	return true;
}

/* clang-format off */
static const u32 index_list[] = {
	0x10, 0x1b, 0x3b, 0x48, 0x174, 0x175, 0x176, 0x17a, 0x1a0, 0x1d9, 0x277, 0x2ff, 0x6e0, 0xda0,
	0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207, 0x208, 0x209, 0x20a, 0x20b, 0x20c, 0x20d, 0x20e, 0x20f,
	0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f,
	0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103,
	0x4b564d00, 0x4b564d01, 0x4b564d03, 0x4b564d04, 0x4b564d05,
};
/* clang-format on */

const u32 *msr_index_list(unsigned *count)
{
	*count = ARRAY_SIZE(index_list);
	return index_list;
}
