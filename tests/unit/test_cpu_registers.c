/* MSRs, control and debug registers, CPUID, kvmclock. */
#include "cpu_fake.h"
#include "engine/cpu/pvclock.h"
#include "engine/cpu/pvsched.h"

static struct kvm_cpuid_entry2 table[VCPU_MAX_CPUID];

static struct vcpu *with_cpuid(void)
{
	struct vcpu *cpu = fake_cpu();
	unsigned n = cpuid_supported(table, ARRAY_SIZE(table));

	assert_in_range(n, 15, ARRAY_SIZE(table));
	assert_int_equal(cpuid_set(cpu, table, n), 0);
	return cpu;
}

static void run_cpuid(struct vcpu *cpu, u32 leaf, u32 subleaf)
{
	cpu->gpr[R_AX] = leaf;
	cpu->gpr[R_CX] = subleaf;
	cpu_cpuid(cpu);
}

static void cpuid_offers_what_works(void **state)
{
	struct vcpu *cpu = with_cpuid();

	run_cpuid(cpu, 7, 0);
	assert_int_equal(cpu->gpr[R_BX] & (BIT(16) | BIT(4) | BIT(11) | BIT(14)), 0); /* AVX-512 HLE RTM MPX */
	assert_int_equal(cpu->gpr[R_CX] & (BIT(3) | BIT(7) | BIT(16)), 0);            /* PKU CET LA57 */
	assert_true(cpu->gpr[R_BX] & BIT(20));
	run_cpuid(cpu, 0x80000001, 0);
	assert_int_equal(cpu->gpr[R_CX] & BIT(2), 0); /* SVM */
	assert_true(cpu->gpr[R_DX] & BIT(29));
	run_cpuid(cpu, 1, 0);
	assert_int_equal(cpu->gpr[R_CX] & (BIT(5) | BIT(3)), 0); /* VMX MONITOR */
	assert_true(cpu->gpr[R_DX] & BIT(16));                   /* PAT */
	run_cpuid(cpu, 0x40000000, 0);
	assert_int_equal(cpu->gpr[R_BX], 0x4b4d564b);
	run_cpuid(cpu, 0x12345, 0);
	if (!cpu_vendor_is_intel(cpu))
		assert_int_equal(cpu->gpr[R_AX] | cpu->gpr[R_BX] | cpu->gpr[R_CX] | cpu->gpr[R_DX], 0);
	run_cpuid(cpu, 0x80000008, 0);
	assert_int_equal(cpu->gpr[R_AX] & 0xff, ENG_GPA_BITS);
	assert_int_equal(cpuid_supported(NULL, 0), cpuid_supported(table, ARRAY_SIZE(table)));
	assert_int_equal(cpuid_set(cpu, table, VCPU_MAX_CPUID + 1), -7 /* E2BIG */);
}

static void cpuid_follows_state(void **state)
{
	struct vcpu *cpu = with_cpuid();

	run_cpuid(cpu, 1, 0);
	assert_int_equal(cpu->gpr[R_CX] & BIT(27), 0);
	assert_true(cpu->gpr[R_DX] & BIT(9));
	cpu->cr4 |= CR4_OSXSAVE;
	cpu->apic_base &= ~(u64)BIT(11);
	run_cpuid(cpu, 1, 0);
	assert_true(cpu->gpr[R_CX] & BIT(27));
	assert_int_equal(cpu->gpr[R_DX] & BIT(9), 0);
	run_cpuid(cpu, 0xd, 0);
	assert_int_equal(cpu->gpr[R_BX], 576);
	cpu->xcr0 = 7;
	run_cpuid(cpu, 0xd, 0);
	assert_int_equal(cpu->gpr[R_BX], 832);
}

static void features_gate_cr4(void **state)
{
	struct vcpu *cpu = with_cpuid();

	enter_long(cpu, 0);
	assert_true(cpu_has(cpu, FEAT_FSGSBASE));
	assert_int_equal(RAISED(cpu, cpu_set_cr(cpu, 4, CR4_PAE | CR4_SMAP | CR4_UMIP | CR4_PCIDE)), -1);
	assert_int_equal(RAISED(cpu, cpu_set_cr(cpu, 4, CR4_PAE | BIT(12))), EXC_GP); /* LA57 */
	assert_int_equal(RAISED(cpu, cpu_set_cr(cpu, 4, CR4_PAE | BIT(13))), EXC_GP); /* VMXE */
	for (unsigned i = 0; i < cpu->ncpuid; i++)
		if (cpu->cpuid[i].function == 7)
			cpu->cpuid[i].ebx &= ~BIT(20);
	memcpy(table, cpu->cpuid, sizeof(table));
	cpuid_set(cpu, table, cpu->ncpuid);
	assert_false(cpu_has(cpu, FEAT_SMAP));
	assert_int_equal(RAISED(cpu, cpu_set_cr(cpu, 4, CR4_PAE | CR4_SMAP)), EXC_GP);
}

static void control_registers(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_long(cpu, 0);
	assert_int_equal(RAISED(cpu, cpu_set_cr(cpu, 0, CR0_PG)), EXC_GP);
	assert_int_equal(RAISED(cpu, cpu_set_cr(cpu, 0, cpu->cr0 | CR0_NW)), EXC_GP);
	assert_int_equal(RAISED(cpu, cpu_set_cr(cpu, 0, BIT64(32) | cpu->cr0)), EXC_GP);
	assert_int_equal(RAISED(cpu, cpu_set_cr(cpu, 3, BIT64(63))), EXC_GP); /* without PCIDE */
	assert_int_equal(RAISED(cpu, cpu_set_cr(cpu, 3, ENG_GPA_LIMIT)), EXC_GP);
	assert_int_equal(RAISED(cpu, cpu_set_cr(cpu, 8, 16)), EXC_GP);
	assert_int_equal(RAISED(cpu, cpu_set_cr(cpu, 1, 0)), EXC_UD);
	cpu_set_cr(cpu, 0, cpu->cr0 | CR0_TS);
	assert_false(cpu->mode.fpu_ok);
	cpu_clts(cpu);
	assert_true(cpu->mode.fpu_ok);
	cpu_lmsw(cpu, 0); /* cannot leave protected mode */
	assert_true(cpu->cr0 & CR0_PE);
	cpu_set_cr(cpu, 4, CR4_PAE | CR4_DE);
	assert_int_equal(RAISED(cpu, cpu_get_dr(cpu, 4)), EXC_UD);
	assert_int_equal(RAISED(cpu, cpu_set_dr(cpu, 7, BIT64(32))), EXC_GP);
	cpu_set_dr(cpu, 7, 0);
	assert_int_equal(cpu_get_dr(cpu, 7), DR7_FIXED);
}

static void pae_pdptes(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_protected(cpu, 0);
	cpu_set_cr(cpu, 4, CR4_PAE);
	cpu_set_cr(cpu, 3, 0x1000); /* the fake refuses these PDPTEs */
	assert_int_equal(RAISED(cpu, cpu_set_cr(cpu, 0, cpu->cr0 | CR0_PG)), EXC_GP);
	assert_int_equal(cpu->cr0 & CR0_PG, 0);
	cpu_set_cr(cpu, 3, 0x2000);
	cpu_set_cr(cpu, 0, cpu->cr0 | CR0_PG);
	assert_int_equal(RAISED(cpu, cpu_set_cr(cpu, 3, 0x1000)), EXC_GP);
	assert_int_equal(cpu->cr3, 0x2000);
}

static bool wr(struct vcpu *cpu, u32 index, u64 v) { return msr_write(cpu, index, v, false); }

static u64 rd(struct vcpu *cpu, u32 index)
{
	u64 v = 0;

	assert_true(msr_read(cpu, index, &v, false));
	return v;
}

static void msr_rules(void **state)
{
	struct vcpu *cpu = with_cpuid();
	u64 v = 0;

	enter_long(cpu, 0);
	assert_false(wr(cpu, 0xc0000080, BIT64(12)));                       /* EFER.SVME */
	assert_false(wr(cpu, 0xc0000080, EFER_SCE | EFER_NX));               /* LME with paging on */
	assert_true(wr(cpu, 0xc0000080, EFER_SCE | EFER_LME | EFER_NX));
	assert_true(rd(cpu, 0xc0000080) & EFER_LMA);
	assert_false(wr(cpu, 0xc0000082, BIT64(47)));
	assert_true(wr(cpu, 0xc0000082, 0xffffffff81000000ull));
	assert_int_equal(cpu->lstar, 0xffffffff81000000ull);
	assert_true(wr(cpu, 0xc0000100, 0x1234000));
	assert_int_equal(cpu->seg[SEG_FS].base, 0x1234000);
	assert_true(wr(cpu, 0xc0000101, 0x5678000));
	assert_int_equal(cpu->seg[SEG_GS].base, 0x5678000);
	assert_false(wr(cpu, 0x277, 2)); /* reserved type */
	assert_true(wr(cpu, 0x277, 0x0007050600070106ull));
	assert_false(wr(cpu, 0x2ff, 2));
	assert_true(wr(cpu, 0x2ff, 0xc06));
	assert_true(wr(cpu, 0x26f, 0x0606060606060606ull));
	assert_int_equal(cpu->mtrr_fixed[10], 0x0606060606060606ull);
	assert_true(wr(cpu, 0x20f, 0x800));
	assert_int_equal(rd(cpu, 0x20f), 0x800);
	assert_false(msr_read(cpu, 0xc1, &v, false)); /* no performance counters */
	assert_false(msr_read(cpu, 0xc0010114, &v, false));
	assert_false(wr(cpu, 0x401, 1));
	assert_true(wr(cpu, 0x401, 0));
	assert_false(msr_read(cpu, 0x400 + 4 * 10, &v, false));
	assert_false(wr(cpu, 0xfe, 0));
	assert_true(rd(cpu, 0x10a) & 1);
}

static void listed_msrs_round_trip(void **state)
{
	struct vcpu *cpu = with_cpuid();
	unsigned n = 0;
	const u32 *list = msr_index_list(&n);

	enter_long(cpu, 0);
	for (unsigned i = 0; i < n; i++) {
		u64 v = 0;

		assert_true(msr_read(cpu, list[i], &v, true));
		assert_true(msr_write(cpu, list[i], v, true));
	}
}

static void tsc(void **state)
{
	struct vcpu *cpu = with_cpuid();
	u64 before = cpu->tsc_offset;

	assert_in_range(rd(cpu, 0x10), 0, 2600000000ull); /* started at 0, moments ago */
	assert_true(wr(cpu, 0x3b, 1000));
	assert_int_equal(cpu->tsc_offset, before + 1000);
	assert_true(wr(cpu, 0x10, 0));
	assert_int_equal(cpu->tsc_offset - before, cpu->tsc_adjust);
}

static void kvmclock(void **state)
{
	struct vcpu *cpu = with_cpuid();
	u64 now = 0, tsc_now = 0, page = 0;
	struct {
		u32 version, pad;
		u64 tsc, ns;
		u32 mul;
		s8 shift;
		u8 flags, pad2[2];
	} t;

	assert_true(wr(cpu, 0x4b564d01, 0x8001));
	memcpy(&t, fake_mem + 0x8000, sizeof(t));
	assert_int_equal(t.version & 1, 0);
	assert_int_equal(t.flags, 1);
	tsc_now = cpu_rdtsc(cpu);
	now = pvclock_now_ns(&fake_vm);
	page = tsc_now - t.tsc;
	page = t.shift < 0 ? page >> -t.shift : page << t.shift;
	page = (u64)((unsigned __int128)page * t.mul >> 32) + t.ns;
	assert_in_range(now - page, 0, 100000);
	/* one second of ticks is one second, to a microsecond in a day */
	page = t.shift < 0 ? 2600000000ull >> -t.shift : 2600000000ull << t.shift;
	assert_in_range(((unsigned __int128)page * t.mul >> 32) + 5, 1000000000ull, 1000000010ull);
	pvclock_set_ns(&fake_vm, 77);
	assert_in_range(pvclock_now_ns(&fake_vm), 77, 10000000);
	assert_true(wr(cpu, 0x4b564d00, 0x9000));
	assert_in_range(get(0x9004, 4), 1699999000, 1700000000);
}

static void hypercalls(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_long(cpu, 3);
	cpu->gpr[R_AX] = 1;
	cpu_hypercall(cpu);
	assert_int_equal(cpu->gpr[R_AX], (u64)-1); /* KVM_EPERM */
	enter_long(cpu, 0);
	cpu->gpr[R_AX] = 99;
	cpu_hypercall(cpu);
	assert_int_equal(cpu->gpr[R_AX], (u64)-1000); /* KVM_ENOSYS */
}

static u64 hypercall(struct vcpu *cpu, u64 nr, u64 a0, u64 a1, u64 a2, u64 a3)
{
	cpu->gpr[R_AX] = nr;
	cpu->gpr[R_BX] = a0;
	cpu->gpr[R_CX] = a1;
	cpu->gpr[R_DX] = a2;
	cpu->gpr[R_SI] = a3;
	cpu_hypercall(cpu);
	return cpu->gpr[R_AX];
}

static void kick_and_ipi(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_long(cpu, 0);
	fake_vm.nvcpus = 1;
	fake_kicks = 0;
	assert_int_equal(hypercall(cpu, 5, 0, 7, 0, 0), 0); /* nobody has that APIC ID */
	assert_false(cpu->pv_kicked || fake_kicks);
	assert_int_equal(hypercall(cpu, 5, 0, 0, 0, 0), 0);
	assert_true(cpu->pv_kicked && fake_kicks & ATT_IRQ);
	cpu_reset(cpu, true);
	assert_false(cpu->pv_kicked);

	enter_long(cpu, 0);
	assert_int_equal(hypercall(cpu, 10, 5, 6, 3, 0xfd), (u64)-22); /* no LAPIC */
	cpu->lapic = (struct lapic *)1;
	assert_int_equal(hypercall(cpu, 10, 5, 6, 3, 0xfd), 3);
	assert_int_equal(fake_sent[0], 5);
	assert_int_equal(fake_sent[1], 6);
	assert_int_equal(fake_sent[2], 64ull << 32 | 3);
	assert_int_equal(fake_sent[3], 0xfd);
	assert_int_equal(hypercall(cpu, 10, 5, 6, 3, 0x400fd), (u64)-22); /* a shorthand */
	assert_int_equal(hypercall(cpu, 10, 5, 6, 3, 0x8fd), (u64)-22);   /* logical */
	assert_int_equal(hypercall(cpu, 11, 0, 0, 0, 0), 0);
	cpu->lapic = NULL;
}

#define STEAL 0x4b564d03u

static void steal_time(void **state)
{
	struct vcpu *cpu = with_cpuid();
	u64 t = 0;

	assert_false(wr(cpu, STEAL, 0x8003)); /* bits 1 to 5 are reserved */
	assert_false(wr(cpu, STEAL, 0x8021));
	memset(fake_mem + 0x8000, 0xff, 64);
	assert_true(wr(cpu, STEAL, 0x8001));
	assert_int_equal(get(0x8000, 8), 0);
	assert_int_equal(get(0x8010, 1), 0);
	fake_now += 1000; /* ran for 700 of 1000 ns */
	fake_used += 700;
	steal_update(cpu);
	assert_int_equal(get(0x8000, 8), 300);
	t = get(0x8008, 4);
	assert_int_equal(t & 1, 0);
	steal_update(cpu);
	assert_int_equal(get(0x8008, 4), t); /* no news, no new version */
	fake_now += 100; /* clocks of different grain: time does not flow back */
	fake_used += 105;
	steal_end(cpu);
	assert_int_equal(get(0x8000, 8), 300);
	assert_int_equal(get(0x8010, 1), 1); /* not running */
	fake_now += 50000; /* asleep */
	fake_mem[0x8010] |= 2;
	steal_begin(cpu);
	assert_int_equal(get(0x8010, 1), 0);
	assert_int_equal(fake_flushes, 1);
	fake_now += 40;
	steal_end(cpu);
	assert_int_equal(get(0x8000, 8), 340);
	assert_int_equal(get(0x8008, 4) & 1, 0);
	assert_true(wr(cpu, STEAL, 0));
	fake_now += 1000;
	steal_begin(cpu);
	steal_end(cpu);
	assert_int_equal(get(0x8000, 8), 340);
	/* restored by the VMM: goes on from what the record says */
	assert_true(msr_write(cpu, STEAL, 0x8001, true));
	steal_begin(cpu);
	fake_now += 60;
	steal_end(cpu);
	assert_int_equal(get(0x8000, 8), 400);
	assert_true(wr(cpu, STEAL, FAKE_SIZE + 1)); /* not memory: nothing is written */
	steal_begin(cpu);
	steal_end(cpu);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cpuid_offers_what_works),
		cmocka_unit_test(cpuid_follows_state),
		cmocka_unit_test(features_gate_cr4),
		cmocka_unit_test(control_registers),
		cmocka_unit_test(pae_pdptes),
		cmocka_unit_test(msr_rules),
		cmocka_unit_test(listed_msrs_round_trip),
		cmocka_unit_test(tsc),
		cmocka_unit_test(kvmclock),
		cmocka_unit_test(hypercalls),
		cmocka_unit_test(kick_and_ipi),
		cmocka_unit_test(steal_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
