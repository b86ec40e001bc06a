#include "irq_fakes.h"

u64 fake_now = 1000000000;
u8 fake_ram[64];
unsigned fake_kicks[ENG_MAX_VCPUS];
struct loop_timer *fake_timer;
struct fake_watch fake_watches[16];

u64 eng_now_ns(void)
{
	return fake_now;
}
u64 eng_tsc_khz(void)
{
	return FAKE_KHZ;
}

bool phys_exchange8(gpa_t a, u8 value, u8 *old)
{
	if (a >= sizeof(fake_ram))
		return false;
	*old = fake_ram[a];
	fake_ram[a] = value;
	return true;
}

void vcpu_kick(struct vcpu *cpu, unsigned attention)
{
	__atomic_fetch_or(&fake_kicks[cpu->id], attention, __ATOMIC_SEQ_CST);
}

void loop_timer_set(struct loop_timer *t, u64 deadline_ns)
{
	t->deadline = deadline_ns;
	fake_timer = t;
}

int loop_add(int fd, loop_fn *fn, void *arg)
{
	for (unsigned i = 0; i < ARRAY_SIZE(fake_watches); i++)
		if (!fake_watches[i].fn) {
			fake_watches[i] = (struct fake_watch){fd, fn, arg};
			return 0;
		}
	return -ENOSPC;
}

void loop_del(int fd)
{
	for (unsigned i = 0; i < ARRAY_SIZE(fake_watches); i++)
		if (fake_watches[i].fn && fake_watches[i].fd == fd)
			fake_watches[i].fn = NULL;
}

void fake_fire_fd(int fd)
{
	for (unsigned i = 0; i < ARRAY_SIZE(fake_watches); i++)
		if (fake_watches[i].fn && fake_watches[i].fd == fd)
			fake_watches[i].fn(fake_watches[i].arg);
}

void fake_run_timers(u64 until)
{
	while (fake_timer && fake_timer->deadline && fake_timer->deadline <= until) {
		fake_now = MAX(fake_now, fake_timer->deadline);
		fake_timer->deadline = 0;
		fake_timer->fn(fake_timer->arg);
	}
	fake_now = until;
}

struct vm *fake_vm(unsigned ncpus, bool x2apic_cpuid)
{
	static bool mapped;
	struct vm *vm = the_vm();
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};

	if (!mapped)
		assert_int_equal(eng_arena_init(), 0);
	mapped = true;
	for (u32 i = 0; i < vm->nvcpus; i++)
		free(vm->vcpus[i]);
	memset(vm, 0, sizeof(*vm));
	memset(fake_kicks, 0, sizeof(fake_kicks));
	memset(fake_watches, 0, sizeof(fake_watches));
	fake_timer = NULL;
	assert_int_equal(irqchip_create(vm), 0);
	assert_int_equal(irqchip_create(vm), -EEXIST);
	assert_int_equal(pit_create(vm, &pit), 0);
	for (unsigned i = 0; i < ncpus; i++) {
		struct vcpu *cpu = aligned_alloc(64, ALIGN_UP(sizeof(*cpu), 64));

		memset(cpu, 0, sizeof(*cpu));
		cpu->id = i;
		cpu->vm = vm;
		cpu->is_bsp = i == 0;
		cpu->ncpuid = 1;
		cpu->cpuid[0].function = 1;
		cpu->cpuid[0].ecx = x2apic_cpuid ? BIT(21) : 0;
		assert_int_equal(lapic_create(cpu), 0);
		vm->vcpus[i] = cpu;
		vm->nvcpus = i + 1;
	}
	return vm;
}

u32 mmio_get(unsigned cpu, unsigned reg)
{
	u32 v = 0;

	assert_true(lapic_mmio_read(fake_cpu(cpu), LAPIC_DEFAULT_BASE + reg * 16, &v, 4));
	return v;
}

void mmio_put(unsigned cpu, unsigned reg, u32 v)
{
	assert_true(lapic_mmio_write(fake_cpu(cpu), LAPIC_DEFAULT_BASE + reg * 16, &v, 4));
}

u32 ioapic_get_reg(unsigned reg)
{
	u32 v = reg;

	assert_true(ioapic_mmio_write(the_vm(), IOAPIC_BASE, &v, 4));
	assert_true(ioapic_mmio_read(the_vm(), IOAPIC_BASE + 0x10, &v, 4));
	return v;
}

void ioapic_put_reg(unsigned reg, u32 v)
{
	assert_true(ioapic_mmio_write(the_vm(), IOAPIC_BASE, &reg, 4));
	assert_true(ioapic_mmio_write(the_vm(), IOAPIC_BASE + 0x10, &v, 4));
}

void ioapic_redirect(unsigned pin, u64 entry)
{
	ioapic_put_reg(0x11 + 2 * pin, (u32)(entry >> 32));
	ioapic_put_reg(0x10 + 2 * pin, (u32)entry);
}

void out8(u16 port, u8 v)
{
	assert_true(irqchip_pio_write(the_vm(), port, 1, v));
}

u8 in8(u16 port)
{
	u32 v = 0;

	assert_true(irqchip_pio_read(the_vm(), port, 1, &v));
	return (u8)v;
}

void enable_all(void)
{
	for (u32 i = 0; i < the_vm()->nvcpus; i++) {
		mmio_put(i, AR_SPIV, 0x1ff);
		mmio_put(i, AR_LVT_LINT0, LVT_MASKED);
	}
	memset(fake_kicks, 0, sizeof(fake_kicks));
}

int take(unsigned cpu)
{
	return irq_acknowledge(fake_cpu(cpu));
}

void eoi(unsigned cpu)
{
	mmio_put(cpu, AR_EOI, 0);
}
