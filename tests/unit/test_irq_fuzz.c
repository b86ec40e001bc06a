/* A hostile guest and VMM: random accesses and states. Nothing may crash, hang or leave its bounds. Seed:
 * argv[1]. */
#include "irq_fakes.h"

#define STEPS 300000

static u64 rng = 0x9e3779b97f4a7c15ull;

static u64 rnd(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static struct vcpu *any_cpu(void)
{
	return fake_cpu(rnd() % 4);
}

static void do_mmio(void)
{
	static const u64 pages[] = {LAPIC_DEFAULT_BASE, LAPIC_DEFAULT_BASE, IOAPIC_BASE, 0xd0000000};
	gpa_t a = pages[rnd() % 4] + rnd() % 0x1004;
	u64 v = rnd() >> (rnd() & 63);
	unsigned len = 1u << (rnd() % 4);
	struct vcpu *cpu = any_cpu();

	if (rnd() & 3)
		a &= ~15ull;
	if (rnd() & 1) {
		if (!lapic_mmio_read(cpu, a, &v, len))
			ioapic_mmio_read(cpu->vm, a, &v, len);
	} else if (!lapic_mmio_write(cpu, a, &v, len)) {
		ioapic_mmio_write(cpu->vm, a, &v, len);
	}
}

static void do_msr(void)
{
	u32 index = 0x800 + rnd() % 0x100;
	u64 v = rnd() >> (rnd() & 63);

	if (rnd() & 1)
		lapic_msr_read(any_cpu(), index, &v);
	else
		lapic_msr_write(any_cpu(), index, v);
}

static void do_pio(void)
{
	static const u16 ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x40, 0x41, 0x42, 0x43, 0x61, 0x4d0, 0x4d1};
	u16 port = ports[rnd() % ARRAY_SIZE(ports)];
	unsigned len = 1u << (rnd() % 3);
	u32 v = (u32)rnd();

	if (rnd() & 1)
		irqchip_pio_read(the_vm(), port, len, &v);
	else
		irqchip_pio_write(the_vm(), port, len, v);
}

static void do_state(void)
{
	struct kvm_irqchip chip = {.chip_id = rnd() % 4};
	struct kvm_pit_state2 pit = {0};
	struct kvm_lapic_state lapic = {0};

	for (unsigned i = 0; i < sizeof(chip.chip); i++)
		chip.chip.dummy[i] = (char)rnd();
	for (unsigned i = 0; i < sizeof(lapic.regs); i++)
		lapic.regs[i] = (char)rnd();
	for (unsigned i = 0; i < 3; i++)
		pit.channels[i] = (struct kvm_pit_channel_state){
		    .count = rnd() % 65537,
		    .mode = rnd() % 6,
		    .gate = rnd() & 1,
		    .bcd = rnd() & 1,
		    .rw_mode = rnd() % 4,
		    .read_state = rnd() % 5,
		    .write_state = rnd() % 5,
		    .count_latched = rnd() % 5,
		    .count_load_time = (s64)rnd(),
		};
	switch (rnd() % 4) {
	case 0:
		irqchip_set(the_vm(), &chip);
		break;
	case 1:
		pit_set(the_vm(), &pit);
		break;
	case 2:
		lapic_set(any_cpu(), &lapic);
		break;
	default:
		lapic_set_base(any_cpu(), rnd() & (ENG_GPA_LIMIT - 1) & (rnd() & 1 ? ~0ull : 0xfee00d00),
			       rnd() & 1);
		break;
	}
}

static void do_run(void)
{
	struct vcpu *cpu = any_cpu();

	lapic_take_events(cpu);
	lapic_timer_run(cpu);
	for (unsigned i = 0; i < 300; i++) {
		int p = irq_pending_vector(cpu), v = irq_acknowledge(cpu);

		assert_true(v < 256 && p < 256);
		if (v < 0)
			break;
	}
	if (rnd() % 8 == 0)
		lapic_reset(cpu, rnd() & 1);
}

static void do_lines(void)
{
	irq_set_gsi(the_vm(), (u32)rnd() % 32, rnd() & 1);
	irq_send_msi(the_vm(), rnd(), (u32)rnd());
	lapic_set_tsc_deadline(any_cpu(), rnd() >> (rnd() & 63));
	lapic_set_tpr(any_cpu(), (u8)rnd());
	fake_now += rnd() % 2000000;
	for (unsigned i = 0; i < 10 && fake_timer && fake_timer->deadline && fake_timer->deadline <= fake_now;
	     i++)
		fake_timer->fn(fake_timer->arg);
}

static void fuzz(void **state)
{
	fake_vm(4, true);
	enable_all();
	for (unsigned i = 0; i < STEPS; i++) {
		switch (rnd() % 8) {
		case 0:
		case 1:
			do_mmio();
			break;
		case 2:
			do_msr();
			break;
		case 3:
		case 4:
			do_pio();
			break;
		case 5:
			do_lines();
			break;
		case 6:
			do_run();
			break;
		default:
			if (rnd() % 16 == 0)
				do_state();
			break;
		}
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(fuzz)};

	if (argc > 1)
		rng = strtoull(argv[1], NULL, 0) | 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
