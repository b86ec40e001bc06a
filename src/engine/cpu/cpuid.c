/*
 * CPUID: what is offered (the host's features that the engine executes, and those it emulates whatever the host has),
 * what a guest got, and the instruction.
 */
#include <errno.h>
#include <linux/kvm_para.h>
#include "engine/cpu/cpu_int.h"
#include "engine/cpu/fpu.h"
#include "engine/lib/lib.h"

#define VENDOR_INTEL_EBX 0x756e6547u /* "Genu" */
#define KVM_LEAVES       0x40000000u
/* Not ASYNC_PF: a page of guest memory that the host swapped out is brought back by the host's kernel while the thread waits, and
 * nobody tells the engine. */
#define KVM_FEATURES                                                                                             \
	(BIT(KVM_FEATURE_CLOCKSOURCE) | BIT(KVM_FEATURE_NOP_IO_DELAY) | BIT(KVM_FEATURE_CLOCKSOURCE2) |          \
	 BIT(KVM_FEATURE_STEAL_TIME) | BIT(KVM_FEATURE_PV_EOI) | BIT(KVM_FEATURE_PV_UNHALT) |                    \
	 BIT(KVM_FEATURE_PV_TLB_FLUSH) | BIT(KVM_FEATURE_PV_SEND_IPI) | BIT(KVM_FEATURE_PV_SCHED_YIELD) |        \
	 BIT(KVM_FEATURE_CLOCKSOURCE_STABLE_BIT))

static struct kvm_cpuid_entry2 host_cpuid(u32 leaf, u32 subleaf)
{
	struct kvm_cpuid_entry2 e = {.function = leaf, .index = subleaf};

	__asm__ volatile("cpuid" : "=a"(e.eax), "=b"(e.ebx), "=c"(e.ecx), "=d"(e.edx) : "a"(leaf), "c"(subleaf));
	return e;
}

static bool host_is_intel(void)
{
	return host_cpuid(0, 0).ebx == VENDOR_INTEL_EBX;
}

/*
 * Feature words: host & pass | emulate. `pass` lists what needs the host's help (its instructions execute there);
 * `emulate` is done by the engine alone.
 */
struct feature_word {
	u32 leaf, subleaf;
	u8 reg; /* enum cpuid_reg */
	u32 pass, emulate, emulate_intel, emulate_amd;
};

static const struct feature_word feature_words[] = {
	/* SSE3 PCLMULQDQ SSSE3 FMA CX16 SSE4.1 SSE4.2 MOVBE POPCNT AES XSAVE AVX F16C RDRAND; PCID x2APIC TSC-deadline
	 * hypervisor */
	{.leaf = 1, .reg = CPUID_ECX, .pass = 0x76d83203, .emulate = BIT(17) | BIT(21) | BIT(24) | BIT(31)},
	/* the baseline without DS ACPI SS HTT TM PBE PSN */
	{.leaf = 1, .reg = CPUID_EDX, .pass = 0x078bfbff},
	/* BMI1 AVX2 BMI2 RDSEED ADX CLFLUSHOPT CLWB SHA; FSGSBASE TSC_ADJUST SMEP ERMS INVPCID SMAP */
	{.leaf = 7, .reg = CPUID_EBX, .pass = 0x218c0128,
	 .emulate = BIT(0) | BIT(1) | BIT(7) | BIT(9) | BIT(10) | BIT(20)},
	/* GFNI VAES VPCLMULQDQ; UMIP RDPID */
	{.leaf = 7, .reg = CPUID_ECX, .pass = 0x700, .emulate = BIT(2) | BIT(22)},
	/* SERIALIZE; FSRM ARCH_CAPABILITIES; SPEC_CTRL on Intel */
	{.leaf = 7, .reg = CPUID_EDX, .pass = BIT(14), .emulate = BIT(4) | BIT(29), .emulate_intel = BIT(26)},
	/* XSAVEOPT XSAVEC XGETBV1 XSAVES */
	{.leaf = 0xd, .subleaf = 1, .reg = CPUID_EAX, .pass = 0xf},
	/* LZCNT PREFETCHW; LAHF in 64-bit mode */
	{.leaf = 0x80000001, .reg = CPUID_ECX, .pass = BIT(5) | BIT(8), .emulate = BIT(0)},
	/* SYSCALL; NX 1-GiB pages RDTSCP long mode; AMD repeats words of leaf 1 */
	{.leaf = 0x80000001, .reg = CPUID_EDX, .pass = 0x0183f3ff,
	 .emulate = BIT(11) | BIT(20) | BIT(26) | BIT(27) | BIT(29)},
	{.leaf = 0x80000007, .reg = CPUID_EDX, .emulate = BIT(8)}, /* invariant TSC */
	/* WBNOINVD; AMD: IBRS, SSB_NO, BTC_NO */
	{.leaf = 0x80000008, .reg = CPUID_EBX, .pass = BIT(9), .emulate_amd = BIT(14) | BIT(26) | BIT(29)},
	/* NO_NESTED_DATA_BP LFENCE_SERIALIZING NULL_SEL_CLEARS_BASE SRSO_NO */
	{.leaf = 0x80000021, .reg = CPUID_EAX, .emulate_amd = BIT(0) | BIT(2) | BIT(6) | BIT(29)},
	{.leaf = 0x80000021, .reg = CPUID_ECX, .emulate_amd = BIT(1) | BIT(2)}, /* TSA_SQ_NO TSA_L1_NO */
};

static u32 *entry_reg(struct kvm_cpuid_entry2 *e, enum cpuid_reg reg)
{
	switch (reg) {
	case CPUID_EAX:
		return &e->eax;
	case CPUID_EBX:
		return &e->ebx;
	case CPUID_ECX:
		return &e->ecx;
	default:
		return &e->edx;
	}
}

/* The feature words of e's leaf; registers without a word keep what they have. */
static void apply_words(struct kvm_cpuid_entry2 *e, bool intel)
{
	struct kvm_cpuid_entry2 host = host_cpuid(e->function, e->index);

	for (unsigned i = 0; i < ARRAY_SIZE(feature_words); i++) {
		const struct feature_word *w = &feature_words[i];

		if (w->leaf != e->function || w->subleaf != e->index)
			continue;
		*entry_reg(e, w->reg) = (*entry_reg(&host, w->reg) & w->pass) | w->emulate |
					(intel ? w->emulate_intel : w->emulate_amd);
	}
}

struct builder {
	struct kvm_cpuid_entry2 *e;
	unsigned n, max;
	bool intel;
};

static void add(struct builder *b, struct kvm_cpuid_entry2 e, bool indexed)
{
	apply_words(&e, b->intel);
	e.flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
	if (b->n < b->max)
		b->e[b->n] = e;
	b->n++;
}

static void add_values(struct builder *b, u32 leaf, u32 eax, u32 ebx, u32 ecx, u32 edx)
{
	add(b, (struct kvm_cpuid_entry2){.function = leaf, .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx}, false);
}

static void add_host(struct builder *b, u32 leaf)
{
	add(b, host_cpuid(leaf, 0), false);
}

/* Deterministic cache parameters: Intel 4, AMD 8000001D. */
static void add_caches(struct builder *b, u32 leaf)
{
	for (u32 i = 0; i < 8; i++) {
		struct kvm_cpuid_entry2 e = host_cpuid(leaf, i);

		add(b, e, true);
		if (!(e.eax & 31))
			break;
	}
}

static void add_xsave(struct builder *b)
{
	u64 xcr0 = xstate_supported();
	struct kvm_cpuid_entry2 e = {.function = 0xd, .eax = xcr0, .edx = xcr0 >> 32};

	e.ebx = e.ecx = xstate_size(xcr0, false);
	add(b, e, true);
	add(b, (struct kvm_cpuid_entry2){.function = 0xd, .index = 1, .ebx = xstate_size(xcr0, true)}, true);
	for (unsigned i = 2; i < 63; i++) {
		if (xcr0 >> i & 1)
			add(b, host_cpuid(0xd, i), true);
	}
}

static void add_basic(struct builder *b)
{
	struct kvm_cpuid_entry2 e = host_cpuid(0, 0);

	add_values(b, 0, 0xd, e.ebx, e.ecx, e.edx);
	e = host_cpuid(1, 0);
	add_values(b, 1, e.eax, (e.ebx & 0xff00) | 1 << 16, 0, 0); /* CLFLUSH line, one logical processor */
	if (b->intel) {
		add_host(b, 2);
		add_caches(b, 4);
	}
	add_values(b, 6, BIT(2), 0, 0, 0); /* ARAT */
	add(b, (struct kvm_cpuid_entry2){.function = 7}, true);
	/* One thread per core, one core: the VMM fills in its topology. */
	add(b, (struct kvm_cpuid_entry2){.function = 0xb, .index = 0, .ebx = 1, .ecx = 0x100}, true);
	add(b, (struct kvm_cpuid_entry2){.function = 0xb, .index = 1, .ebx = 1, .ecx = 0x201}, true);
	add_xsave(b);
}

static void add_kvm(struct builder *b)
{
	add_values(b, KVM_LEAVES, KVM_LEAVES + 1, 0x4b4d564b, 0x564b4d56, 0x4d); /* "KVMKVMKVM" */
	add_values(b, KVM_LEAVES + 1, KVM_FEATURES, 0, 0, 0);
}

static void add_extended(struct builder *b)
{
	struct kvm_cpuid_entry2 v = host_cpuid(0, 0), e = {0};

	add_values(b, 0x80000000, b->intel ? 0x80000008 : 0x80000021, b->intel ? 0 : v.ebx, b->intel ? 0 : v.ecx,
		   b->intel ? 0 : v.edx);
	e = host_cpuid(0x80000001, 0);
	add_values(b, 0x80000001, e.eax, 0, 0, 0);
	for (u32 leaf = 0x80000002; leaf <= 0x80000006; leaf++)
		add_host(b, leaf);
	add_values(b, 0x80000007, 0, 0, 0, 0);
	add_values(b, 0x80000008, ENG_GPA_BITS | 48 << 8, 0, 0, 0);
	if (!b->intel) {
		add_caches(b, 0x8000001d);
		add_values(b, 0x80000021, 0, 0, 0, 0);
	}
}

unsigned cpuid_supported(struct kvm_cpuid_entry2 *e, unsigned max)
{
	struct builder b = {.e = e, .max = max, .intel = host_is_intel()};

	add_basic(&b);
	add_kvm(&b);
	add_extended(&b);
	return b.n;
}

/* ---- a guest's table ---- */

static const struct kvm_cpuid_entry2 *find_in(const struct kvm_cpuid_entry2 *t, unsigned n, u32 leaf, u32 subleaf)
{
	for (unsigned i = 0; i < n; i++) {
		bool indexed = t[i].flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;

		if (t[i].function == leaf && (!indexed || t[i].index == subleaf))
			return &t[i];
	}
	return NULL;
}

const struct kvm_cpuid_entry2 *cpuid_find(const struct vcpu *cpu, u32 leaf, u32 subleaf)
{
	return find_in(cpu->cpuid, cpu->ncpuid, leaf, subleaf);
}

bool cpu_vendor_is_intel(const struct vcpu *cpu)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(cpu, 0, 0);

	return e ? e->ebx == VENDOR_INTEL_EBX : host_is_intel();
}

static u32 reg_in(const struct kvm_cpuid_entry2 *t, unsigned n, u32 leaf, u32 subleaf, enum cpuid_reg reg)
{
	const struct kvm_cpuid_entry2 *e = find_in(t, n, leaf, subleaf);
	struct kvm_cpuid_entry2 copy = {0};

	if (e)
		copy = *e;
	return *entry_reg(&copy, reg);
}

static void set_features(struct vcpu *cpu, const struct kvm_cpuid_entry2 *t, unsigned n)
{
	memset(cpu->feature_bits, 0, sizeof(cpu->feature_bits));
	for (unsigned i = 0; i < FEAT_COUNT; i++) {
		const struct insn_feature_bit *f = &insn_feature_bits[i];

		if (f->bit == FEATURE_ALWAYS || (reg_in(t, n, f->leaf, f->subleaf, f->reg) >> f->bit & 1))
			cpu->feature_bits[i >> 6] |= BIT64(i & 63);
	}
}

struct cr4_rule {
	u32 bits, leaf;
	u8 reg, bit;
};

static const struct cr4_rule cr4_rules[] = {
	{CR4_VME | CR4_PVI, 1, CPUID_EDX, 1},
	{CR4_TSD, 1, CPUID_EDX, 4},
	{CR4_DE, 1, CPUID_EDX, 2},
	{CR4_PSE, 1, CPUID_EDX, 3},
	{CR4_PAE, 1, CPUID_EDX, 6},
	{CR4_MCE, 1, CPUID_EDX, 7},
	{CR4_PGE, 1, CPUID_EDX, 13},
	{CR4_OSFXSR, 1, CPUID_EDX, 24},
	{CR4_OSXMMEXCPT, 1, CPUID_EDX, 25},
	{CR4_UMIP, 7, CPUID_ECX, 2},
	{CR4_FSGSBASE, 7, CPUID_EBX, 0},
	{CR4_PCIDE, 1, CPUID_ECX, 17},
	{CR4_OSXSAVE, 1, CPUID_ECX, 26},
	{CR4_SMEP, 7, CPUID_EBX, 7},
	{CR4_SMAP, 7, CPUID_EBX, 20},
};

static void set_reserved(struct vcpu *cpu, const struct kvm_cpuid_entry2 *t, unsigned n)
{
	u64 ok = CR4_PCE;

	for (unsigned i = 0; i < ARRAY_SIZE(cr4_rules); i++) {
		const struct cr4_rule *r = &cr4_rules[i];

		if (reg_in(t, n, r->leaf, 0, r->reg) >> r->bit & 1)
			ok |= r->bits;
	}
	cpu->cr4_guest_rsvd = ~ok;
	cpu->xcr0_supported = reg_in(t, n, 0xd, 0, CPUID_EAX) & xstate_supported();
	if (cpu->xcr0_supported)
		cpu->xcr0_supported |= 1;
}

int cpuid_set(struct vcpu *cpu, const struct kvm_cpuid_entry2 *e, unsigned n)
{
	if (n > VCPU_MAX_CPUID)
		return -E2BIG;
	if (n) {
		memcpy(cpu->cpuid, e, n * sizeof(*e));
		cpu->ncpuid = n;
		set_features(cpu, e, n);
		set_reserved(cpu, e, n);
		return 0;
	}
	/* No table: CPUID answers zeros, but as on KVM all instructions work. */
	n = MIN(cpuid_supported(cpu->cpuid, VCPU_MAX_CPUID), (unsigned)VCPU_MAX_CPUID);
	set_features(cpu, cpu->cpuid, n);
	set_reserved(cpu, cpu->cpuid, n);
	memset(cpu->cpuid, 0, sizeof(cpu->cpuid));
	cpu->ncpuid = 0;
	return 0;
}

/* ---- the instruction ---- */

static void put_bit(u32 *word, unsigned bit, bool on)
{
	*word = (*word & ~BIT(bit)) | (u32)on << bit;
}

/* Bits and sizes that follow the state of the processor. */
static void fill_live(struct vcpu *cpu, struct kvm_cpuid_entry2 *e, u32 leaf, u32 subleaf)
{
	switch (leaf) {
	case 1:
		put_bit(&e->ecx, 27, cpu->cr4 & CR4_OSXSAVE);
		if (!(cpu->apic_base & BIT(11)))
			put_bit(&e->edx, 9, false);
		break;
	case 0xd:
		if (subleaf == 0 && e->eax)
			e->ebx = xstate_size(cpu->xcr0, false);
		else if (subleaf == 1 && (e->eax & (BIT(1) | BIT(3))))
			e->ebx = xstate_size(cpu->xcr0 | cpu->xss, true);
		break;
	default:
		break;
	}
}

/* Beyond the last basic leaf Intel answers with the last one's data, AMD with zeros (SDM 2A CPUID). */
static u32 clamp_leaf(const struct vcpu *cpu, u32 leaf)
{
	const struct kvm_cpuid_entry2 *top = cpuid_find(cpu, leaf & 0x80000000, 0);

	if (!cpu_vendor_is_intel(cpu) || !top || leaf >> 16 == KVM_LEAVES >> 16)
		return leaf;
	if (leaf > top->eax) {
		top = cpuid_find(cpu, 0, 0);
		return top ? top->eax : leaf;
	}
	return leaf;
}

void cpu_cpuid(struct vcpu *cpu)
{
	u32 leaf = clamp_leaf(cpu, cpu->gpr[R_AX]), subleaf = cpu->gpr[R_CX];
	const struct kvm_cpuid_entry2 *found = cpuid_find(cpu, leaf, subleaf);
	struct kvm_cpuid_entry2 e = {0};

	if (found) {
		e = *found;
		fill_live(cpu, &e, leaf, subleaf);
	} else if (leaf == 0xb || leaf == 0x1f) {
		/* Levels beyond the last: the sub-leaf number, and the x2APIC ID as at level 0 (SDM 2A CPUID). */
		found = cpuid_find(cpu, leaf, 0);
		e.ecx = found ? subleaf & 0xff : 0;
		e.edx = found ? found->edx : 0;
	}
	cpu->gpr[R_AX] = e.eax;
	cpu->gpr[R_BX] = e.ebx;
	cpu->gpr[R_CX] = e.ecx;
	cpu->gpr[R_DX] = e.edx;
}
