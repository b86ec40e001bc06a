/* IOAPIC, PIC pair, PIT, routing, irqfd. */
#include <sys/eventfd.h>
#include "irq_fakes.h"

#define MS     1000000ull
#define LEVEL  BIT64(15)
#define MASKED BIT64(16)

/* ---- IOAPIC ---- */

static void ioapic_registers(void **state)
{
	u32 v = 0;

	fake_vm(1, false);
	assert_int_equal(ioapic_get_reg(1), 0x170011);
	for (unsigned i = 0; i < 24; i++)
		assert_int_equal(ioapic_get_reg(0x10 + 2 * i), 0x10000);
	ioapic_put_reg(0, 0xff000000);
	assert_int_equal(ioapic_get_reg(0), 0x0f000000);
	ioapic_put_reg(0x10, ~0u);
	assert_int_equal(ioapic_get_reg(0x10), 0x1afff); /* status and remote IRR are read-only */
	ioapic_put_reg(0x11, ~0u);
	assert_int_equal(ioapic_get_reg(0x11), 0xff000000);
	assert_int_equal(ioapic_get_reg(0x40), 0);
	ioapic_put_reg(0x40, 1);
	assert_false(ioapic_mmio_read(the_vm(), IOAPIC_BASE + 0x100, &v, 4));
	assert_false(ioapic_mmio_read(the_vm(), IOAPIC_BASE - 1, &v, 1));
}

static void ioapic_edge(void **state)
{
	struct vm *vm = fake_vm(2, false);

	enable_all();
	ioapic_redirect(4, 1ull << 56 | 0x44);
	assert_int_equal(irq_set_gsi(vm, 4, true), 2); /* the PIC took it too, its mask is clear */
	assert_int_equal(take(1), 0x44);
	assert_int_equal(irq_set_gsi(vm, 4, true), 0); /* no edge */
	irq_set_gsi(vm, 4, false);
	eoi(1);
	assert_int_equal(take(1), -1);
	ioapic_redirect(20, 0x45);
	assert_int_equal(irq_set_gsi(vm, 20, true), 1);
	assert_int_equal(take(0), 0x45);
	ioapic_redirect(21, MASKED | 0x46);
	assert_int_equal(irq_set_gsi(vm, 21, true), -1);
	assert_int_equal(irq_set_gsi(vm, 24, true), -1);
	assert_int_equal(irq_set_gsi(vm, 0xffffffff, true), -1);
}

static void ioapic_level(void **state)
{
	struct vm *vm = fake_vm(1, false);

	enable_all();
	ioapic_redirect(20, LEVEL | 0x50);
	assert_int_equal(irq_set_gsi(vm, 20, true), 1);
	assert_true(ioapic_get_reg(0x38) & BIT(14));
	assert_int_equal(take(0), 0x50);
	assert_int_equal(irq_set_gsi(vm, 20, true), -1); /* remote IRR holds it back */
	eoi(0);
	assert_int_equal(take(0), 0x50); /* still asserted: again */
	irq_set_gsi(vm, 20, false);
	eoi(0);
	assert_int_equal(take(0), -1);
	assert_false(ioapic_get_reg(0x38) & BIT(14));
	/* masked while asserted: pending until unmasked */
	ioapic_redirect(20, MASKED | LEVEL | 0x50);
	assert_int_equal(irq_set_gsi(vm, 20, true), -1);
	ioapic_redirect(20, LEVEL | 0x50);
	assert_int_equal(take(0), 0x50);
	/* the way version 11H is EOIed by hand: to edge and back */
	ioapic_put_reg(0x38, 0x10050);
	assert_false(ioapic_get_reg(0x38) & BIT(14));
	irq_set_gsi(vm, 20, false);
	eoi(0);
	assert_int_equal(take(0), -1);
}

static void ioapic_round_trip(void **state)
{
	struct vm *vm = fake_vm(1, false);
	struct kvm_irqchip a = {.chip_id = KVM_IRQCHIP_IOAPIC}, b = {.chip_id = KVM_IRQCHIP_IOAPIC};

	enable_all();
	ioapic_redirect(20, LEVEL | 0x50);
	ioapic_redirect(3, 0x800000000000b33ull);
	irq_set_gsi(vm, 20, true);
	assert_int_equal(irqchip_get(vm, &a), 0);
	assert_true(a.chip.ioapic.irr == BIT(20) && a.chip.ioapic.base_address == IOAPIC_BASE);
	ioapic_redirect(20, MASKED);
	assert_int_equal(irqchip_set(vm, &a), 0);
	assert_int_equal(irqchip_get(vm, &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	a.chip_id = 3;
	assert_int_equal(irqchip_get(vm, &a), -EINVAL);
	assert_int_equal(irqchip_set(vm, &a), -EINVAL);
	assert_int_equal(irqchip_split(vm, 24), -EINVAL);
}

/* ---- PIC ---- */

static void pic_setup(u8 icw4)
{
	fake_vm(1, false);
	out8(0x20, 0x11);
	out8(0x21, 0x20);
	out8(0x21, 0x04);
	out8(0x21, icw4);
	out8(0xa0, 0x11);
	out8(0xa1, 0x28);
	out8(0xa1, 0x02);
	out8(0xa1, icw4);
	out8(0x21, 0);
	out8(0xa1, 0);
}

static void raise_gsi(unsigned gsi)
{
	irq_set_gsi(the_vm(), gsi, true);
}
static void lower_gsi(unsigned gsi)
{
	irq_set_gsi(the_vm(), gsi, false);
}
static void pulse(unsigned gsi)
{
	raise_gsi(gsi);
	lower_gsi(gsi);
}

static void pic_basic(void **state)
{
	pic_setup(1);
	pulse(5);
	assert_int_equal(fake_kicks[0] & ATT_IRQ, ATT_IRQ);
	assert_int_equal(irq_pending_vector(fake_cpu(0)), 0x25);
	assert_int_equal(in8(0x20), 0x20); /* IRR */
	assert_int_equal(take(0), 0x25);
	out8(0x20, 0x0b);
	assert_int_equal(in8(0x20), 0x20); /* ISR */
	pulse(6);
	assert_int_equal(take(0), -1); /* lower */
	pulse(1);
	assert_int_equal(take(0), 0x21);
	out8(0x20, 0x20); /* ends 1 */
	out8(0x20, 0x0b);
	assert_int_equal(in8(0x20), 0x20);
	assert_int_equal(take(0), -1);
	out8(0x20, 0x65); /* specific */
	assert_int_equal(take(0), 0x26);
	out8(0x20, 0x20);
	out8(0x21, 0x08);
	assert_int_equal(in8(0x21), 8);
	pulse(3);
	assert_int_equal(take(0), -1);
	out8(0x21, 0);
	assert_int_equal(take(0), 0x23);
	/* with the LAPIC's LINT0 masked nothing comes this way */
	out8(0x20, 0x20);
	mmio_put(0, AR_SPIV, 0x1ff);
	mmio_put(0, AR_LVT_LINT0, 0x10700);
	pulse(3);
	assert_int_equal(irq_pending_vector(fake_cpu(0)), -1);
}

static void pic_cascade(void **state)
{
	pic_setup(1);
	pulse(12);
	assert_int_equal(take(0), 0x2c);
	pulse(9);
	assert_int_equal(take(0), -1); /* the master still serves IR2: fully nested */
	pulse(1);
	assert_int_equal(take(0), 0x21);
	out8(0x20, 0x20);
	out8(0xa0, 0x20);
	assert_int_equal(take(0), -1);
	out8(0x20, 0x20);
	assert_int_equal(take(0), 0x29);
	out8(0xa0, 0x20);
	out8(0x20, 0x20);
	pic_setup(0x11); /* special fully nested: the slave's better one passes */
	pulse(12);
	assert_int_equal(take(0), 0x2c);
	pulse(9);
	assert_int_equal(take(0), 0x29);
}

static void pic_rotation(void **state)
{
	pic_setup(1);
	out8(0x20, 0xc3); /* lowest is 3, so 4 is best */
	pulse(3);
	pulse(4);
	pulse(0);
	assert_int_equal(take(0), 0x24);
	out8(0x20, 0xa0); /* rotate on EOI: 4 becomes lowest */
	assert_int_equal(take(0), 0x20);
	out8(0x20, 0xe0 | 0); /* specific with rotation: 0 lowest */
	assert_int_equal(take(0), 0x23);
	out8(0x20, 0x20);
}

static void pic_auto_eoi(void **state)
{
	pic_setup(3);
	pulse(3);
	assert_int_equal(take(0), 0x23);
	pulse(3);
	assert_int_equal(take(0), 0x23);
	out8(0x20, 0x80); /* rotate in automatic mode */
	pulse(3);
	pulse(4);
	assert_int_equal(take(0), 0x23);
	assert_int_equal(take(0), 0x24);
	pulse(3);
	pulse(5);
	assert_int_equal(take(0), 0x25);
	out8(0x20, 0x00);
}

static void pic_special_mask_and_poll(void **state)
{
	pic_setup(1);
	pulse(2 + 1);
	assert_int_equal(take(0), 0x23);
	out8(0x21, 0x08);
	pulse(6);
	assert_int_equal(take(0), -1);
	out8(0x20, 0x68); /* special mask: 3 in service is masked, so 6 passes */
	assert_int_equal(take(0), 0x26);
	out8(0x20, 0x48);
	pic_setup(1);
	pulse(4);
	out8(0x20, 0x0c);
	assert_int_equal(in8(0x20), 0x84);
	out8(0x20, 0x0b);
	assert_int_equal(in8(0x20), 0x10);
	out8(0x20, 0x0c);
	assert_int_equal(in8(0x21), 0); /* nothing: and either port polls */
}

static void pic_level(void **state)
{
	pic_setup(1);
	out8(0x4d0, 0xff);
	assert_int_equal(in8(0x4d0), 0xf8);
	out8(0x4d1, 0xff);
	assert_int_equal(in8(0x4d1), 0xde);
	raise_gsi(11);
	assert_int_equal(take(0), 0x2b);
	out8(0xa0, 0x20);
	out8(0x20, 0x20);
	assert_int_equal(take(0), 0x2b); /* still there */
	lower_gsi(11);
	out8(0xa0, 0x20);
	out8(0x20, 0x20);
	assert_int_equal(take(0), -1);
	raise_gsi(11);
	lower_gsi(11); /* gone before it was taken */
	assert_int_equal(irq_pending_vector(fake_cpu(0)), -1);
}

static void pic_round_trip(void **state)
{
	struct kvm_irqchip a = {.chip_id = KVM_IRQCHIP_PIC_SLAVE}, b = {.chip_id = KVM_IRQCHIP_PIC_SLAVE};
	struct kvm_irqchip m = {.chip_id = KVM_IRQCHIP_PIC_MASTER};

	pic_setup(1);
	pulse(14);
	assert_int_equal(irqchip_get(the_vm(), &a), 0);
	assert_int_equal(irqchip_get(the_vm(), &m), 0);
	assert_int_equal(a.chip.pic.irq_base, 0x28);
	assert_int_equal(a.chip.pic.irr, 0x40);
	out8(0xa0, 0x11);
	out8(0x20, 0x11);
	assert_int_equal(take(0), -1);
	assert_int_equal(irqchip_set(the_vm(), &m), 0);
	assert_int_equal(irqchip_set(the_vm(), &a), 0);
	assert_int_equal(irqchip_get(the_vm(), &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	assert_int_equal(take(0), 0x2e);
	memset(&a.chip, 0xff, sizeof(a.chip)); /* hostile: bounded */
	assert_int_equal(irqchip_set(the_vm(), &a), 0);
	take(0);
	in8(0xa0);
	out8(0xa0, 0x20);
}

static void ports(void **state)
{
	u32 v = 0;

	pic_setup(1);
	assert_false(irqchip_pio_read(the_vm(), 0x22, 1, &v));
	assert_false(irqchip_pio_write(the_vm(), 0x80, 1, 0));
	assert_false(irqchip_pio_read(the_vm(), 0x44, 1, &v));
	out8(0x4d0, 0x20);
	out8(0x4d1, 0x08);
	assert_true(irqchip_pio_read(the_vm(), 0x4d0, 2, &v));
	assert_int_equal(v, 0x0820);
	assert_true(irqchip_pio_write(the_vm(), 0x4d0, 2, 0x0418));
	assert_int_equal(in8(0x4d1), 0x04);
}

/* ---- PIT ---- */

static void load(unsigned ch, u8 control, u16 count)
{
	out8(0x43, (u8)(ch << 6 | 0x30 | control));
	out8((u16)(0x40 + ch), (u8)count);
	out8((u16)(0x40 + ch), (u8)(count >> 8));
}

static u16 count(unsigned ch)
{
	u16 lo = in8((u16)(0x40 + ch));

	return (u16)(lo | in8((u16)(0x40 + ch)) << 8);
}

static u64 ticks_ns(u64 t)
{
	return (t * 1000000000ull + 1193181) / 1193182;
}

static unsigned ticks_taken(void)
{
	unsigned n = 0;

	while (take(0) == 0x20) {
		out8(0x20, 0x20);
		n++;
	}
	return n;
}

static void pit_periodic(void **state)
{
	u64 t0 = 0;
	unsigned n = 0;

	pic_setup(1);
	t0 = fake_now;
	load(0, 2 << 1, 11932); /* 100 Hz */
	for (unsigned i = 1; i <= 10; i++) {
		fake_run_timers(t0 + i * 10 * MS + MS);
		n += ticks_taken();
	}
	assert_int_equal(n, 10);
	fake_run_timers(fake_now + 995 * MS); /* nobody takes them: merged */
	assert_int_equal(ticks_taken(), 1);
	/* the loop itself starved: one, then in phase */
	fake_now += 1000 * MS;
	fake_timer->fn(fake_timer->arg);
	assert_int_equal(ticks_taken(), 1);
	assert_true(fake_timer->deadline > fake_now && fake_timer->deadline - fake_now <= ticks_ns(11932));
	n = (unsigned)((fake_timer->deadline - t0 + MS) / (10 * MS));
	assert_true(fake_timer->deadline == t0 + ticks_ns(n * 11932ull));
	load(0, 2 << 1, 2); /* absurd rate: thinned out */
	assert_true(fake_timer->deadline - fake_now < 10000);
	fake_run_timers(fake_timer->deadline);
	assert_true(fake_timer->deadline - fake_now >= 190000);
}

static void pit_oneshot(void **state)
{
	pic_setup(1);
	load(0, 0, 1193);
	fake_run_timers(fake_now + MS / 2);
	assert_int_equal(ticks_taken(), 0);
	fake_run_timers(fake_now + MS);
	assert_int_equal(ticks_taken(), 1);
	fake_run_timers(fake_now + 100 * MS);
	assert_int_equal(ticks_taken(), 0);
	load(0, 4 << 1, 1193); /* software strobe: as Linux's one-shot */
	fake_run_timers(fake_now + 2 * MS);
	assert_int_equal(ticks_taken(), 1);
	load(0, 4 << 1, 1193);
	out8(0x43, 0x30); /* mode set, no count: rests */
	fake_run_timers(fake_now + 100 * MS);
	assert_int_equal(ticks_taken(), 0);
}

static void pit_reading(void **state)
{
	pic_setup(1);
	load(0, 2 << 1, 10000);
	fake_now += ticks_ns(1000);
	assert_int_equal(count(0), 9000);
	out8(0x43, 0); /* latch */
	fake_now += ticks_ns(500);
	out8(0x43, 0); /* a second latch is ignored */
	assert_int_equal(count(0), 9000);
	assert_in_range(count(0), 8499, 8500);
	load(0, 3 << 1, 10000);
	fake_now += ticks_ns(1000);
	assert_int_equal(count(0), 8000); /* by twos */
	load(0, 0, 100);
	fake_now += ticks_ns(200);
	assert_int_equal(count(0), 65436); /* wraps */
	out8(0x43, 0x10);                  /* LSB only */
	out8(0x40, 50);
	assert_int_equal(in8(0x40), 50);
	out8(0x43, 0x20); /* MSB only */
	out8(0x40, 2);
	assert_int_equal(in8(0x40), 2);
	out8(0x43, 0x31); /* BCD, mode 0 */
	out8(0x40, 0x34);
	out8(0x40, 0x12);
	assert_int_equal(count(0), 0x1234);
	fake_now += ticks_ns(35);
	assert_int_equal(count(0), 0x1199);
	load(2, 0, 0); /* 0 means 65536 */
	assert_int_equal(count(2), 0);
}

static void pit_readback(void **state)
{
	pic_setup(1);
	out8(0x43, 0x30);
	out8(0x43, 0xe2);                  /* status of channel 0 */
	assert_int_equal(in8(0x40), 0x70); /* null count, OUT low */
	load(0, 2 << 1, 1000);
	fake_now += ticks_ns(100);
	out8(0x43, 0xc2); /* status and count */
	assert_int_equal(in8(0x40), 0xb4);
	assert_int_equal(count(0), 900);
	out8(0x43, 0xd0 | 0x0e); /* counts of all three */
	assert_int_equal(count(0), 900);
}

static void pit_speaker_gate(void **state)
{
	pic_setup(1);
	out8(0x61, 0x01);
	load(2, 0, 11932); /* what Linux calibrates the TSC with */
	assert_int_equal(in8(0x61) & 0x21, 1);
	fake_now += 9 * MS;
	assert_int_equal(in8(0x61) & 0x20, 0);
	fake_now += 2 * MS;
	assert_int_equal(in8(0x61) & 0x20, 0x20);
	load(2, 0, 1000);
	fake_now += ticks_ns(100);
	out8(0x61, 0x02); /* gate low: counting stops */
	fake_now += 100 * MS;
	assert_in_range(count(2), 899, 900);
	assert_int_equal(in8(0x61) & 0x23, 0x02);
	out8(0x61, 0x03);
	fake_now += ticks_ns(100);
	assert_in_range(count(2), 799, 800);
	out8(0x61, 0);
	load(2, 1 << 1, 1000); /* one-shot waits for the gate */
	assert_int_equal(in8(0x61) & 0x20, 0x20);
	out8(0x61, 1);
	assert_int_equal(in8(0x61) & 0x20, 0);
	fake_now += ticks_ns(1001);
	assert_int_equal(in8(0x61) & 0x20, 0x20);
}

static void pit_round_trip(void **state)
{
	struct kvm_pit_state2 a = {0}, b = {0};

	pic_setup(1);
	load(0, 2 << 1, 11932);
	out8(0x61, 3);
	assert_int_equal(pit_get(the_vm(), &a), 0);
	assert_int_equal(a.channels[0].count, 11932);
	assert_int_equal(a.channels[1].count, 0);
	assert_int_equal(a.flags, KVM_PIT_FLAGS_SPEAKER_DATA_ON);
	load(0, 0, 5);
	assert_int_equal(pit_set(the_vm(), &a), 0);
	assert_int_equal(pit_get(the_vm(), &b), 0);
	for (unsigned i = 0; i < 3; i++)
		a.channels[i].count_load_time = b.channels[i].count_load_time;
	assert_memory_equal(&a, &b, sizeof(a));
	ticks_taken();
	fake_run_timers(fake_now + 11 * MS);
	assert_int_equal(ticks_taken(), 1);
	a.channels[1].mode = 9;
	assert_int_equal(pit_set(the_vm(), &a), -EINVAL);
	a.channels[1].mode = 2;
	a.channels[1].count = 70000;
	assert_int_equal(pit_set(the_vm(), &a), -EINVAL);
	a.channels[1].count = 0;
	a.flags = KVM_PIT_FLAGS_HPET_LEGACY;
	assert_int_equal(pit_set(the_vm(), &a), 0);
	assert_int_equal(fake_timer->deadline, 0);
}

/* ---- routing, irqfd ---- */

static struct kvm_irq_routing *table(unsigned n)
{
	struct kvm_irq_routing *r = calloc(1, sizeof(*r) + n * sizeof(r->entries[0]));

	r->nr = n;
	return r;
}

static void routing(void **state)
{
	struct vm *vm = fake_vm(2, false);
	struct kvm_irq_routing *r = table(2);

	enable_all();
	ioapic_redirect(2, 0x32);
	r->entries[0] = (struct kvm_irq_routing_entry){.gsi = 0, .type = KVM_IRQ_ROUTING_IRQCHIP};
	r->entries[0].u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
	r->entries[0].u.irqchip.pin = 2;
	r->entries[1] = (struct kvm_irq_routing_entry){.gsi = 100, .type = KVM_IRQ_ROUTING_MSI};
	r->entries[1].u.msi.address_lo = 0xfee01000;
	r->entries[1].u.msi.data = 0x61;
	assert_int_equal(irqchip_set_routing(vm, r), 0);
	assert_int_equal(irq_set_gsi(vm, 0, true), 1);
	assert_int_equal(take(0), 0x32);
	assert_int_equal(irq_set_gsi(vm, 100, true), 1);
	assert_int_equal(take(1), 0x61);
	assert_int_equal(irq_set_gsi(vm, 4, true), -1); /* the default is gone */
	r->entries[0].u.irqchip.pin = 24;
	assert_int_equal(irqchip_set_routing(vm, r), -EINVAL);
	r->entries[0].u.irqchip.pin = 2;
	r->entries[1].gsi = 4096;
	assert_int_equal(irqchip_set_routing(vm, r), -EINVAL);
	r->entries[1].type = 77;
	assert_int_equal(irqchip_set_routing(vm, r), -EINVAL);
	assert_int_equal(irq_set_gsi(vm, 100, true), 1); /* a refusal changed nothing */
	free(r);
}

static void irqfd_plain(void **state)
{
	struct vm *vm = fake_vm(1, false);
	struct kvm_irqfd f = {.gsi = 20};
	int fd = eventfd(0, EFD_NONBLOCK), again = dup(fd), other = eventfd(0, EFD_NONBLOCK);

	enable_all();
	ioapic_redirect(20, 0x55);
	assert_int_equal(irqchip_irqfd(vm, &f, fd, -1), 0);
	fake_fire_fd(fd);
	assert_int_equal(take(0), -1); /* nothing was written */
	eventfd_write(fd, 3);
	fake_fire_fd(fd);
	assert_int_equal(take(0), 0x55);
	f.flags = KVM_IRQFD_FLAG_DEASSIGN;
	assert_int_equal(irqchip_irqfd(vm, &f, other, -1), 0); /* another one: no match, closed */
	assert_int_equal(fake_watches[0].fd, fd);
	assert_non_null(fake_watches[0].fn);
	assert_int_equal(irqchip_irqfd(vm, &f, again, -1), 0);
	assert_null(fake_watches[0].fn);
	assert_int_equal(close(fd), -1); /* all were closed */
	assert_int_equal(close(again), -1);
	assert_int_equal(close(other), -1);
	f.flags = 0x80;
	assert_int_equal(irqchip_irqfd(vm, &f, -1, -1), -EINVAL);
	f.flags = KVM_IRQFD_FLAG_RESAMPLE;
	assert_int_equal(irqchip_irqfd(vm, &f, eventfd(0, 0), -1), -EBADF);
}

static void irqfd_resample(void **state)
{
	struct vm *vm = fake_vm(1, false);
	struct kvm_irqfd f = {.gsi = 20, .flags = KVM_IRQFD_FLAG_RESAMPLE};
	int fd = eventfd(0, EFD_NONBLOCK), re = eventfd(0, EFD_NONBLOCK), peek = dup(re);
	eventfd_t v = 0;

	enable_all();
	ioapic_redirect(20, LEVEL | 0x55);
	assert_int_equal(irqchip_irqfd(vm, &f, fd, re), 0);
	eventfd_write(fd, 1);
	fake_fire_fd(fd);
	assert_int_equal(take(0), 0x55);
	assert_int_equal(eventfd_read(peek, &v), -1);
	eoi(0);
	assert_int_equal(eventfd_read(peek, &v), 0);
	assert_int_equal(take(0), -1); /* the line was lowered */
	eventfd_write(fd, 1);
	fake_fire_fd(fd);
	assert_int_equal(take(0), 0x55);
	close(peek);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(ioapic_registers),
	    cmocka_unit_test(ioapic_edge),
	    cmocka_unit_test(ioapic_level),
	    cmocka_unit_test(ioapic_round_trip),
	    cmocka_unit_test(pic_basic),
	    cmocka_unit_test(pic_cascade),
	    cmocka_unit_test(pic_rotation),
	    cmocka_unit_test(pic_auto_eoi),
	    cmocka_unit_test(pic_special_mask_and_poll),
	    cmocka_unit_test(pic_level),
	    cmocka_unit_test(pic_round_trip),
	    cmocka_unit_test(ports),
	    cmocka_unit_test(pit_periodic),
	    cmocka_unit_test(pit_oneshot),
	    cmocka_unit_test(pit_reading),
	    cmocka_unit_test(pit_readback),
	    cmocka_unit_test(pit_speaker_gate),
	    cmocka_unit_test(pit_round_trip),
	    cmocka_unit_test(routing),
	    cmocka_unit_test(irqfd_plain),
	    cmocka_unit_test(irqfd_resample),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
