/* Leaving to the VMM: MMIO and port I/O, with the restart protocol of struct mmio_replay (vcpu.h). */
#include "engine/cpu/cpu.h"
#include "engine/irqchip/irqchip.h"
#include "engine/lib/lib.h"
#include "engine/mmu/mmu.h"
#include "engine/trace/trace.h"
#include "engine/vm.h"
#include "kvm/chan.h"

_Noreturn void cpu_exit_to_vmm(struct vcpu *cpu, u32 reason)
{
	cpu->chan->run.exit_reason = reason;
	cpu->exit_pending = true;
	__builtin_longjmp(cpu->unwind, 1);
}

_Noreturn void cpu_exit_emulation(struct vcpu *cpu)
{
	struct kvm_run *run = &cpu->chan->run;

	run->internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
	run->internal.ndata = 2;
	run->internal.data[0] = cpu->rip;
	run->internal.data[1] = cpu->seg[SEG_CS].base;
	cpu_exit_to_vmm(cpu, KVM_EXIT_INTERNAL_ERROR);
}

/* The next answered access of the instruction being restarted, if it is this one. */
static struct mmio_frag *mmio_next(struct vcpu *cpu, gpa_t a, unsigned len, bool write)
{
	struct mmio_replay *m = &cpu->mmio;
	struct mmio_frag *f;

	if (m->pos >= m->n)
		return NULL;
	f = &m->frag[m->pos];
	if (f->gpa != a || f->len != len || f->write != write) {
		/* the instruction takes another way now (another vCPU changed memory): what it did is done */
		m->n = m->pos;
		return NULL;
	}
	m->pos++;
	return f;
}

static _Noreturn void mmio_exit(struct vcpu *cpu, gpa_t a, const void *data, unsigned len, bool write)
{
	struct mmio_replay *m = &cpu->mmio;
	struct kvm_run *run = &cpu->chan->run;

	if (m->n == MMIO_FRAGS)
		cpu_exit_emulation(cpu);
	m->frag[m->n] = (struct mmio_frag){.gpa = a, .len = (u8)len, .write = write};
	m->waiting = true;
	run->mmio.phys_addr = a;
	run->mmio.len = len;
	run->mmio.is_write = write;
	memset(run->mmio.data, 0, sizeof(run->mmio.data));
	if (write)
		memcpy(run->mmio.data, data, len);
	cpu->stats.exit_mmio++;
	cpu_exit_to_vmm(cpu, KVM_EXIT_MMIO);
}

/*
 * On a VM's only vCPU the LOCK prefix orders accesses for nobody but devices, whose processes run beside it. A program whose driver is in
 * user mode reaches the device first to set it up; from then on LOCK stays in all programs.
 */
static void meet_device(struct vcpu *cpu)
{
	if (cpu->mode.cpl != 3 || likely(cpu->met_device))
		return;
	cpu->met_device = true;
	cpu_update_mode(cpu);
}

void cpu_mmio_read(struct vcpu *cpu, gpa_t a, void *data, unsigned len)
{
	struct mmio_frag *f;

	meet_device(cpu);
	if (cpu->vm->irqchip &&
	    (lapic_mmio_read(cpu, a, data, len) || ioapic_mmio_read(cpu->vm, a, data, len))) {
		if (TRACING(cpu, MMIO))
			trace_mmio(cpu, false, a, data, len, TWHO_IRQCHIP);
		return;
	}
	f = mmio_next(cpu, a, len, false);
	if (!f)
		mmio_exit(cpu, a, NULL, len, false);
	memcpy(data, f->data, len);
	if (TRACING(cpu, MMIO) && cpu->mmio.pos == cpu->mmio.n) /* answered just now, not replayed */
		trace_mmio(cpu, false, a, data, len, TWHO_VMM);
}

void cpu_mmio_write(struct vcpu *cpu, gpa_t a, const void *data, unsigned len)
{
	u64 v = 0;

	meet_device(cpu);
	if (cpu->vm->irqchip &&
	    (lapic_mmio_write(cpu, a, data, len) || ioapic_mmio_write(cpu->vm, a, data, len))) {
		if (TRACING(cpu, MMIO))
			trace_mmio(cpu, true, a, data, len, TWHO_IRQCHIP);
		return;
	}
	if (mmio_next(cpu, a, len, true)) {
		if (TRACING(cpu, MMIO) && cpu->mmio.pos == cpu->mmio.n)
			trace_mmio(cpu, true, a, data, len, TWHO_VMM);
		return;
	}
	memcpy(&v, data, len);
	if (vm_ioeventfd_write(cpu, false, a, len, v)) {
		if (TRACING(cpu, MMIO))
			trace_mmio(cpu, true, a, data, len, TWHO_IOEVENTFD);
		return;
	}
	mmio_exit(cpu, a, data, len, true);
}

/* ---- port I/O ---- */

static u8 *pio_data(struct vcpu *cpu)
{
	return cpu->chan->pio_page;
}

static _Noreturn void pio_exit(struct vcpu *cpu, bool in, u16 port, unsigned size, u32 count)
{
	struct kvm_run *run = &cpu->chan->run;

	cpu->pio.waiting = true;
	cpu->pio.answered = false;
	cpu->pio.in = in;
	cpu->pio.size = (u8)size;
	cpu->pio.count = count;
	cpu->pio.port = port;
	run->io.direction = in ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT;
	run->io.size = (u8)size;
	run->io.port = port;
	run->io.count = count;
	run->io.data_offset = 4096;
	cpu->stats.exit_io++;
	cpu_exit_to_vmm(cpu, KVM_EXIT_IO);
}

/* True: the VMM has answered just this access; the answer is used up. */
static bool pio_take(struct vcpu *cpu, bool in, u16 port, unsigned size)
{
	bool hit = cpu->pio.answered && cpu->pio.in == in && cpu->pio.port == port && cpu->pio.size == size;

	cpu->pio.answered = false;
	return hit;
}

/* An access of count items is done; v: the first. */
static void pio_done(struct vcpu *cpu, bool write, u16 port, unsigned size, u32 count, const void *v, enum trace_who who)
{
	u64 first = 0;

	if (!TRACING(cpu, PIO))
		return;
	memcpy(&first, v, size);
	trace_pio(cpu, write, port, size, count, first, who);
}

/* All of the access meets ports that neither a device of the client nor an ioeventfd (the caller has looked) decodes. */
static bool pio_is_open(struct vcpu *cpu, u16 port, unsigned size, u32 count)
{
	if (port + size > 0x10000)
		return false; /* the client says what lies behind the last port */
	for (u32 p = port; p < port + size; p++)
		if (!(__atomic_load_n(&cpu->vm->open_ports[p / 64], __ATOMIC_RELAXED) >> p % 64 & 1))
			return false;
	cpu->stats.open_ports += count;
	return true;
}

u32 cpu_in(struct vcpu *cpu, u16 port, unsigned size)
{
	u32 v = 0;

	meet_device(cpu);
	if (pio_take(cpu, true, port, size)) {
		memcpy(&v, pio_data(cpu), size);
		pio_done(cpu, false, port, size, 1, &v, TWHO_VMM);
		return v;
	}
	if (cpu->vm->irqchip && irqchip_pio_read(cpu->vm, port, size, &v)) {
		pio_done(cpu, false, port, size, 1, &v, TWHO_IRQCHIP);
		return v;
	}
	if (pio_is_open(cpu, port, size, 1)) {
		v = ~0u;
		pio_done(cpu, false, port, size, 1, &v, TWHO_NOBODY);
		return v;
	}
	pio_exit(cpu, true, port, size, 1);
}

/* Whether something in the engine has taken the write. */
static bool pio_write_here(struct vcpu *cpu, u16 port, unsigned size, u32 v)
{
	bool chip = cpu->vm->irqchip && irqchip_pio_write(cpu->vm, port, size, v);

	if (!chip && !vm_ioeventfd_write(cpu, true, port, size, v))
		return false;
	pio_done(cpu, true, port, size, 1, &v, chip ? TWHO_IRQCHIP : TWHO_IOEVENTFD);
	return true;
}

void cpu_out(struct vcpu *cpu, u16 port, unsigned size, u32 v)
{
	meet_device(cpu);
	if (pio_take(cpu, false, port, size)) {
		pio_done(cpu, true, port, size, 1, &v, TWHO_VMM);
		return;
	}
	if (pio_write_here(cpu, port, size, v))
		return;
	if (pio_is_open(cpu, port, size, 1)) {
		pio_done(cpu, true, port, size, 1, &v, TWHO_NOBODY);
		return;
	}
	memcpy(pio_data(cpu), &v, size);
	pio_exit(cpu, false, port, size, 1);
}

u32 cpu_in_string(struct vcpu *cpu, u16 port, unsigned size, u32 count, void *buf)
{
	u32 n = MIN(count, 1024 / size), v = 0;

	meet_device(cpu);
	if (pio_take(cpu, true, port, size)) {
		n = MIN(n, cpu->pio.count);
		memcpy(buf, pio_data(cpu), (size_t)n * size);
		pio_done(cpu, false, port, size, n, buf, TWHO_VMM);
		return n;
	}
	if (cpu->vm->irqchip && irqchip_pio_read(cpu->vm, port, size, &v)) {
		memcpy(buf, &v, size);
		pio_done(cpu, false, port, size, 1, buf, TWHO_IRQCHIP);
		return 1;
	}
	if (pio_is_open(cpu, port, size, n)) {
		memset(buf, 0xff, (size_t)n * size);
		pio_done(cpu, false, port, size, n, buf, TWHO_NOBODY);
		return n;
	}
	pio_exit(cpu, true, port, size, n);
}

u32 cpu_out_string(struct vcpu *cpu, u16 port, unsigned size, u32 count, const void *buf)
{
	u32 n = MIN(count, 1024 / size), v = 0;

	meet_device(cpu);
	if (pio_take(cpu, false, port, size)) {
		n = MIN(n, cpu->pio.count);
		pio_done(cpu, true, port, size, n, buf, TWHO_VMM);
		return n;
	}
	memcpy(&v, buf, size);
	if (pio_write_here(cpu, port, size, v))
		return 1;
	if (pio_is_open(cpu, port, size, n)) {
		pio_done(cpu, true, port, size, n, buf, TWHO_NOBODY);
		return n;
	}
	memcpy(pio_data(cpu), buf, (size_t)n * size);
	pio_exit(cpu, false, port, size, n);
}

void cpu_hlt(struct vcpu *cpu)
{
	cpu->halted_by_hlt = true;
	vcpu_kick(cpu, ATT_IRQ); /* the run loop looks when the instruction has committed */
}
