/* Local APIC: registers, priorities, modes, messages, saved state. */
#include "irq_fakes.h"

static void ipi(unsigned from, u32 icr2, u32 icr)
{
	mmio_put(from, AR_ICR2, icr2);
	mmio_put(from, AR_ICR, icr);
}

/* Bitmap of the vCPUs that have vector pending; takes and ends it. */
static unsigned who_got(int vector)
{
	unsigned set = 0;

	for (u32 i = 0; i < the_vm()->nvcpus; i++) {
		struct lapic *l = fake_lapic(i);

		if (l->reg[AR_IRR + vector / 32] & BIT(vector % 32)) {
			set |= BIT(i);
			l->reg[AR_IRR + vector / 32] &= ~BIT(vector % 32);
		}
	}
	return set;
}

static void reset_values(void **state)
{
	fake_vm(2, false);
	assert_int_equal(mmio_get(1, AR_ID), 1u << 24);
	assert_int_equal(mmio_get(0, AR_VERSION), 0x50014);
	assert_int_equal(mmio_get(0, AR_SPIV), 0xff);
	assert_int_equal(mmio_get(0, AR_DFR), 0xffffffff);
	assert_int_equal(mmio_get(0, AR_LVT_LINT0), 0x700);
	assert_int_equal(mmio_get(1, AR_LVT_LINT0), LVT_MASKED);
	assert_int_equal(mmio_get(1, AR_LVT_TIMER), LVT_MASKED);
	assert_true(fake_cpu(0)->apic_base == (LAPIC_DEFAULT_BASE | BASE_ENABLE | BASE_BSP));
	assert_true(fake_cpu(1)->apic_base == (LAPIC_DEFAULT_BASE | BASE_ENABLE));
}

static void mmio_shapes(void **state)
{
	u8 b = 0;
	u16 h = 0;
	u64 q = 0;

	fake_vm(1, false);
	mmio_put(0, AR_LVT_ERROR, 0x100ff);
	assert_true(lapic_mmio_read(fake_cpu(0), LAPIC_DEFAULT_BASE + 0x372, &b, 1));
	assert_int_equal(b, 1);
	assert_true(lapic_mmio_read(fake_cpu(0), LAPIC_DEFAULT_BASE + 0x370, &h, 2));
	assert_int_equal(h, 0xff);
	assert_true(lapic_mmio_read(fake_cpu(0), LAPIC_DEFAULT_BASE + 0x370, &q, 8));
	assert_true(q == 0x100ff);
	assert_false(lapic_mmio_read(fake_cpu(0), LAPIC_DEFAULT_BASE + 0x1000, &q, 4));
	/* a byte write is ignored, not half done */
	assert_true(lapic_mmio_write(fake_cpu(0), LAPIC_DEFAULT_BASE + 0x80, "\x55", 1));
	assert_int_equal(mmio_get(0, AR_TPR), 0);
	/* read-only registers stay */
	mmio_put(0, AR_VERSION, 0);
	assert_int_equal(mmio_get(0, AR_VERSION), 0x50014);
}

static void priorities(void **state)
{
	fake_vm(1, false);
	enable_all();
	lapic_post(fake_lapic(0), 0x31, false);
	lapic_post(fake_lapic(0), 0x52, false);
	assert_int_equal(fake_kicks[0], ATT_IRQ);
	assert_int_equal(irq_pending_vector(fake_cpu(0)), 0x52);
	assert_int_equal(take(0), 0x52);
	assert_int_equal(mmio_get(0, AR_PPR), 0x50);
	assert_int_equal(take(0), -1); /* 31 is below */
	lapic_post(fake_lapic(0), 0x5f, false);
	assert_int_equal(take(0), -1); /* same class */
	lapic_post(fake_lapic(0), 0x60, false);
	assert_int_equal(take(0), 0x60);
	fake_kicks[0] = 0;
	eoi(0);
	assert_int_equal(mmio_get(0, AR_PPR), 0x50);
	assert_int_equal(fake_kicks[0], 0);
	eoi(0);
	assert_int_equal(fake_kicks[0], ATT_IRQ); /* 5f may come now */
	assert_int_equal(take(0), 0x5f);
	eoi(0);
	lapic_set_tpr(fake_cpu(0), 3);
	assert_int_equal(mmio_get(0, AR_TPR), 0x30);
	assert_int_equal(take(0), -1);
	fake_kicks[0] = 0;
	lapic_set_tpr(fake_cpu(0), 2);
	assert_int_equal(fake_kicks[0], ATT_IRQ);
	assert_int_equal(take(0), 0x31);
	mmio_put(0, AR_TPR, 0x3f);
	assert_int_equal(mmio_get(0, AR_PPR), 0x3f);
	assert_int_equal(lapic_get_tpr(fake_cpu(0)), 3);
	eoi(0);
	eoi(0); /* nothing in service: harmless */
}

static void software_disable(void **state)
{
	fake_vm(1, false);
	enable_all();
	mmio_put(0, AR_LVT_ERROR, 0x40);
	mmio_put(0, AR_SPIV, 0xff);
	assert_int_equal(mmio_get(0, AR_LVT_ERROR), LVT_MASKED | 0x40);
	mmio_put(0, AR_LVT_ERROR, 0x41);
	assert_int_equal(mmio_get(0, AR_LVT_ERROR), LVT_MASKED | 0x41);
	assert_int_equal(irq_send_msi(the_vm(), 0xfee00000, 0x40), 0);
	assert_int_equal(take(0), -1);
	assert_int_equal(irq_send_msi(the_vm(), 0xfee00000, DM_NMI << 8), 1); /* NMI passes */
	lapic_take_events(fake_cpu(0));
	assert_true(fake_cpu(0)->nmi_pending);
}

static void base_transitions(void **state)
{
	struct vcpu *cpu = NULL;
	u64 b = LAPIC_DEFAULT_BASE | BASE_BSP;

	fake_vm(2, true);
	cpu = fake_cpu(0);
	assert_false(lapic_set_base(cpu, b | BASE_X2APIC, false));
	assert_false(lapic_set_base(cpu, b | BASE_X2APIC, true));
	assert_false(lapic_set_base(cpu, b | BASE_ENABLE | 1, false));
	assert_false(lapic_set_base(cpu, b | BASE_ENABLE | BIT64(50), true));
	assert_true(lapic_set_base(cpu, b | BASE_ENABLE | BASE_X2APIC, false));
	assert_false(lapic_mmio_read(cpu, LAPIC_DEFAULT_BASE + 0x20, &b, 4));
	assert_false(lapic_set_base(cpu, b | BASE_ENABLE, false)); /* x2APIC to xAPIC */
	assert_true(lapic_set_base(cpu, b, false));
	assert_int_equal(fake_lapic(0)->mode, LAPIC_OFF);
	assert_false(lapic_set_base(cpu, b | BASE_ENABLE | BASE_X2APIC, false)); /* off to x2APIC */
	assert_true(lapic_set_base(cpu, b | BASE_ENABLE, false));
	assert_int_equal(mmio_get(0, AR_ID), 0);
	assert_true(lapic_set_base(fake_cpu(1), 0xd0000000 | BASE_ENABLE, false)); /* moved */
	assert_false(lapic_mmio_read(fake_cpu(1), LAPIC_DEFAULT_BASE + 0x20, &b, 4));
	assert_true(lapic_mmio_read(fake_cpu(1), 0xd0000020, &b, 4));
	fake_vm(1, false);
	assert_false(lapic_set_base(fake_cpu(0), LAPIC_DEFAULT_BASE | BASE_ENABLE | BASE_X2APIC, false));
}

static void go_x2apic(unsigned i)
{
	struct vcpu *cpu = fake_cpu(i);

	assert_true(lapic_set_base(cpu, cpu->apic_base | BASE_X2APIC, false));
	assert_true(lapic_msr_write(cpu, 0x80f, 0x1ff));
}

static void x2apic_registers(void **state)
{
	static const u16 unreadable[] = {0x809, 0x80b, 0x80c, 0x80e, 0x831,
					 0x83f, 0x800, 0x840, 0x8ff, 0x82f};
	static const u16 unwritable[] = {0x802, 0x803, 0x80a, 0x80d, 0x80e,
					 0x810, 0x818, 0x820, 0x831, 0x839};
	struct vcpu *cpu = NULL;
	u64 v = 0;

	fake_vm(20, true);
	cpu = fake_cpu(18);
	assert_false(lapic_msr_read(cpu, 0x802, &v));
	go_x2apic(18);
	assert_true(lapic_msr_read(cpu, 0x802, &v) && v == 18);
	assert_true(lapic_msr_read(cpu, 0x80d, &v) && v == 0x10004);
	for (unsigned i = 0; i < ARRAY_SIZE(unreadable); i++)
		assert_false(lapic_msr_read(cpu, unreadable[i], &v));
	for (unsigned i = 0; i < ARRAY_SIZE(unwritable); i++)
		assert_false(lapic_msr_write(cpu, unwritable[i], 0));
	assert_false(lapic_msr_write(cpu, 0x808, 0x100)); /* TPR is 8 bits */
	assert_false(lapic_msr_write(cpu, 0x80b, 1));     /* EOI: zero only */
	assert_false(lapic_msr_write(cpu, 0x828, 1));     /* ESR: zero only */
	assert_false(lapic_msr_write(cpu, 0x80f, 0x11ff));
	assert_false(lapic_msr_write(cpu, 0x832, BIT(19)));
	assert_false(lapic_msr_write(cpu, 0x837, 0x700));
	assert_false(lapic_msr_write(cpu, 0x83e, 4));
	assert_false(lapic_msr_write(cpu, 0x830, BIT(20)));
	assert_false(lapic_msr_write(cpu, 0x838, 1ull << 32));
	assert_true(lapic_msr_write(cpu, 0x835, 0x1f7ff & ~0x800u)); /* read-only bits may be written */
	assert_true(lapic_msr_read(cpu, 0x835, &v) && v == (0x1a7ff));
	assert_true(lapic_msr_write(cpu, 0x83f, 0x77));
	assert_int_equal(who_got(0x77), BIT(18));
	assert_true(lapic_msr_write(cpu, 0x830, 3ull << 32 | 0x66));
	assert_true(lapic_msr_read(cpu, 0x830, &v) && v == (3ull << 32 | 0x66));
}

static void x2apic_destinations(void **state)
{
	fake_vm(20, true);
	enable_all();
	for (unsigned i = 0; i < 20; i++)
		go_x2apic(i);
	assert_true(lapic_msr_write(fake_cpu(0), 0x830, 17ull << 32 | 0x40));
	assert_int_equal(who_got(0x40), BIT(17));
	assert_true(lapic_msr_write(fake_cpu(0), 0x830, 0xffffffffull << 32 | 0x41));
	assert_int_equal(who_got(0x41), BIT(20) - 1);
	assert_true(lapic_msr_write(fake_cpu(0), 0x830, 0xffull << 32 | 0x42)); /* no broadcast for an IPI */
	assert_int_equal(who_got(0x42), 0);
	assert_true(
	    lapic_msr_write(fake_cpu(0), 0x830, 0x10005ull << 32 | 0x843)); /* cluster 1, members 0 and 2 */
	assert_int_equal(who_got(0x43), BIT(16) | BIT(18));
	assert_true(lapic_msr_write(fake_cpu(5), 0x830, SH_OTHERS << 18 | 0x44));
	assert_int_equal(who_got(0x44), (BIT(20) - 1) & ~BIT(5));
	assert_int_equal(irq_send_msi(the_vm(), 0xfeeff000, 0x45), 20); /* for an MSI, FF is */
	assert_int_equal(who_got(0x45), BIT(20) - 1);
}

static void xapic_destinations(void **state)
{
	fake_vm(6, false);
	enable_all();
	for (unsigned i = 0; i < 6; i++)
		mmio_put(i, AR_LDR, BIT(24 + i));
	ipi(0, 3u << 24, 0x40);
	assert_int_equal(who_got(0x40), BIT(3));
	ipi(0, 0xff000000, 0x40);
	assert_int_equal(who_got(0x40), 0x3f);
	ipi(0, 0x0a000000, 0x840); /* flat */
	assert_int_equal(who_got(0x40), 0x0a);
	for (unsigned i = 0; i < 6; i++) {
		mmio_put(i, AR_DFR, 0x0fffffff);
		mmio_put(i, AR_LDR, (i / 4) << 28 | BIT(24 + i % 4));
	}
	ipi(0, 0x13000000, 0x840); /* cluster 1, both */
	assert_int_equal(who_got(0x40), BIT(4) | BIT(5));
	ipi(0, 0x04000000, 0x840);
	assert_int_equal(who_got(0x40), BIT(2));
	ipi(2, 0, SH_SELF << 18 | 0x40);
	assert_int_equal(who_got(0x40), BIT(2));
	ipi(2, 0, SH_ALL << 18 | 0x40);
	assert_int_equal(who_got(0x40), 0x3f);
	ipi(2, 0, SH_OTHERS << 18 | 0x40);
	assert_int_equal(who_got(0x40), 0x3b);
	ipi(0, 0xff000000, 0x940); /* lowest priority: exactly one */
	assert_int_equal(__builtin_popcount(who_got(0x40)), 1);
	assert_int_equal(irq_send_msi(the_vm(), 0xfee0f00c, 0x51),
			 1); /* redirection hint, logical cluster 0 */
	assert_int_equal(__builtin_popcount(who_got(0x51)), 1);
	assert_int_equal(irq_send_msi(the_vm(), 0xfee03000, 0x51), 1);
	assert_int_equal(who_got(0x51), BIT(3));
	assert_int_equal(irq_send_msi(the_vm(), 0xfee77000, 0x51), -1);
	assert_int_equal(mmio_get(0, AR_ICR) & BIT(12), 0);
}

static void init_sipi_nmi(void **state)
{
	struct vcpu *cpu = NULL;

	fake_vm(2, false);
	cpu = fake_cpu(1);
	ipi(0, 1u << 24, 0x4500); /* INIT needs no enabled APIC */
	ipi(0, 1u << 24, 0x8500); /* level de-assert: nothing */
	assert_int_equal(fake_kicks[1], ATT_EVENT);
	lapic_take_events(cpu);
	assert_true(cpu->init_pending && !cpu->sipi_pending);
	cpu->init_pending = false;
	ipi(0, 1u << 24, 0x4699);
	ipi(0, 1u << 24, 0x469a);
	lapic_take_events(cpu);
	assert_true(cpu->sipi_pending && cpu->sipi_vector == 0x9a && !cpu->init_pending);
	ipi(0, 1u << 24, 0x4699);
	ipi(0, 1u << 24, 0x4500); /* voids it */
	lapic_take_events(cpu);
	assert_true(cpu->init_pending && !cpu->sipi_pending);
	ipi(0, 0, SH_OTHERS << 18 | 0x4400);
	lapic_take_events(cpu);
	assert_true(cpu->nmi_pending);
	lapic_take_events(fake_cpu(0));
	assert_false(fake_cpu(0)->nmi_pending);
	ipi(0, 1u << 24, 0x4200); /* SMI */
	ipi(0, 1u << 24, 0x4740); /* ExtINT */
	assert_int_equal(fake_lapic(1)->events, 0);
}

static void errors(void **state)
{
	fake_vm(2, false);
	enable_all();
	mmio_put(0, AR_LVT_ERROR, 0xfe);
	ipi(0, 1u << 24, 0x0f);
	assert_int_equal(mmio_get(0, AR_ESR), 0); /* latched by a write only */
	mmio_put(0, AR_ESR, 0);
	assert_int_equal(mmio_get(0, AR_ESR), ESR_SEND_ILLEGAL);
	assert_int_equal(take(0), 0xfe);
	eoi(0);
	mmio_put(0, AR_ESR, 0);
	assert_int_equal(mmio_get(0, AR_ESR), 0);
	irq_send_msi(the_vm(), 0xfee00000, 5);
	lapic_take_events(fake_cpu(0));
	mmio_put(0, AR_ESR, 0);
	assert_int_equal(mmio_get(0, AR_ESR), ESR_RECV_ILLEGAL);
	mmio_get(0, 0x04);
	mmio_put(0, AR_ESR, 0);
	assert_int_equal(mmio_get(0, AR_ESR), ESR_REGISTER);
	mmio_put(0, AR_SELF_IPI, 0x40); /* not in xAPIC mode */
	assert_int_equal(who_got(0x40), 0);
}

static void init_reset(void **state)
{
	fake_vm(2, true);
	go_x2apic(1);
	lapic_post(fake_lapic(1), 0x40, false);
	lapic_reset(fake_cpu(1), true);
	assert_int_equal(fake_lapic(1)->mode, LAPIC_X2APIC);
	assert_int_equal(fake_lapic(1)->reg[AR_LDR], 2);
	assert_int_equal(fake_lapic(1)->reg[AR_SPIV], 0xff);
	assert_int_equal(take(1), -1);
}

static void state_round_trip(void **state)
{
	struct kvm_lapic_state a, b;

	fake_vm(2, true);
	enable_all();
	lapic_post(fake_lapic(1), 0x40, false);
	lapic_post(fake_lapic(1), 0x80, true);
	take(1);
	mmio_put(1, AR_TPR, 0x20);
	mmio_put(1, AR_TDCR, 0xb);
	mmio_put(1, AR_LVT_TIMER, TIMER_PERIODIC << 17 | 0x50);
	mmio_put(1, AR_TMICT, 1000000);
	fake_now += 300000;
	lapic_get(fake_cpu(1), &a);
	lapic_reset(fake_cpu(1), false);
	assert_int_equal(lapic_set(fake_cpu(1), &a), 0);
	lapic_get(fake_cpu(1), &b);
	assert_memory_equal(&a, &b, sizeof(a));
	assert_int_equal(mmio_get(1, AR_TMCCT), 700000);
	assert_true(fake_lapic(1)->timer.target == fake_now + 700000);
	eoi(1);
	assert_int_equal(take(1), 0x40);
	go_x2apic(1);
	lapic_get(fake_cpu(1), &a);
	assert_int_equal(a.regs[0x23], 1); /* xAPIC form of the ID */
	assert_int_equal(lapic_set(fake_cpu(1), &a), 0);
	assert_int_equal(fake_lapic(1)->reg[AR_ID], 1);
	a.regs[0x23] = 7;
	assert_int_equal(lapic_set(fake_cpu(1), &a), -EINVAL);
}

static void no_lapic(void **state)
{
	struct vcpu *cpu = aligned_alloc(64, ALIGN_UP(sizeof(*cpu), 64));
	u64 v = 0;

	memset(cpu, 0, sizeof(*cpu));
	cpu->vm = fake_vm(0, false);
	assert_false(lapic_mmio_read(cpu, LAPIC_DEFAULT_BASE, &v, 4));
	assert_false(lapic_msr_read(cpu, 0x802, &v));
	assert_int_equal(irq_pending_vector(cpu), -1);
	assert_int_equal(irq_acknowledge(cpu), -1);
	lapic_take_events(cpu);
	lapic_timer_run(cpu);
	lapic_set_tpr(cpu, 7);
	assert_int_equal(lapic_get_tpr(cpu), 7);
	free(cpu);
}

static void pv_eoi(void **state)
{
	struct lapic *l = NULL;

	fake_vm(1, false);
	enable_all();
	l = fake_lapic(0);
	fake_cpu(0)->msr_kvm_eoi_en = 9; /* at 8 */
	lapic_post(l, 0x50, false);
	assert_int_equal(take(0), 0x50);
	assert_int_equal(fake_ram[8], 1);
	fake_ram[8] = 0; /* the guest ends it */
	lapic_post(l, 0x51, false);
	assert_int_equal(take(0), 0x51); /* was not held back by 0x50 */
	assert_int_equal(l->reg[AR_ISR + 2], 1u << 17);
	/* one that waits takes the offer back */
	assert_int_equal(fake_ram[8], 1);
	lapic_post(l, 0x52, false);
	assert_int_equal(take(0), -1);
	assert_int_equal(fake_ram[8], 0);
	eoi(0);
	assert_int_equal(take(0), 0x52);
	assert_int_equal(mmio_get(0, AR_PPR), 0x50); /* looked at: no offer any more */
	assert_int_equal(fake_ram[8], 0);
	eoi(0);
	assert_int_equal(mmio_get(0, AR_PPR), 0);
	/* no offer with one more waiting, nor for a level */
	lapic_post(l, 0x60, false);
	lapic_post(l, 0x40, false);
	assert_int_equal(take(0), 0x60);
	assert_int_equal(fake_ram[8], 0);
	eoi(0);
	assert_int_equal(take(0), 0x40);
	assert_int_equal(fake_ram[8], 1);
	eoi(0); /* by the register after all */
	assert_int_equal(fake_ram[8], 0);
	lapic_post(l, 0x70, true);
	assert_int_equal(take(0), 0x70);
	assert_int_equal(fake_ram[8], 0);
	eoi(0);
	/* saved state has the truth */
	lapic_post(l, 0x50, false);
	assert_int_equal(take(0), 0x50);
	fake_ram[8] = 0;
	struct kvm_lapic_state s;

	lapic_get(fake_cpu(0), &s);
	assert_int_equal(s.regs[0x120], 0);
	fake_cpu(0)->msr_kvm_eoi_en = sizeof(fake_ram) | 1; /* not memory */
	lapic_post(l, 0x50, false);
	assert_int_equal(take(0), 0x50);
	eoi(0);
	assert_int_equal(take(0), -1);
}

static void send_set(void **state)
{
	fake_vm(4, true);
	enable_all();
	assert_int_equal(lapic_send_set(fake_cpu(0), 0xa, 0, 0, 64, 0x90), 2);
	assert_int_equal(who_got(0x90), 0xa);
	assert_int_equal(lapic_send_set(fake_cpu(0), 0x3, 0, 2, 64, 0x90), 2);
	assert_int_equal(who_got(0x90), 0xc);
	assert_int_equal(lapic_send_set(fake_cpu(0), 1, 2, 1, 2, 0x90), 1); /* 1, and 1 + 2 + 1: there is none */
	assert_int_equal(who_got(0x90), 0x2);
	assert_int_equal(lapic_send_set(fake_cpu(0), 1, 1, 1, 2, 0x90), 2);
	assert_int_equal(who_got(0x90), 0xa);
	assert_int_equal(lapic_send_set(fake_cpu(0), ~0ull, ~0ull, ~0u, 64, 0x90), 0);
	assert_int_equal(lapic_send_set(fake_cpu(0), 2, 0, 0, 64, DM_NMI << 8), 1);
	lapic_take_events(fake_cpu(1));
	assert_true(fake_cpu(1)->nmi_pending);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(reset_values),
	    cmocka_unit_test(pv_eoi),
	    cmocka_unit_test(send_set),
	    cmocka_unit_test(mmio_shapes),
	    cmocka_unit_test(priorities),
	    cmocka_unit_test(software_disable),
	    cmocka_unit_test(base_transitions),
	    cmocka_unit_test(x2apic_registers),
	    cmocka_unit_test(x2apic_destinations),
	    cmocka_unit_test(xapic_destinations),
	    cmocka_unit_test(init_sipi_nmi),
	    cmocka_unit_test(errors),
	    cmocka_unit_test(init_reset),
	    cmocka_unit_test(state_round_trip),
	    cmocka_unit_test(no_lapic),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
