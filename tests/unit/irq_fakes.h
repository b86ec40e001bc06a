/* What the interrupt controllers' tests put in place of the rest of the engine: a clock that stands still,
 * kicks that are only noted, a loop whose timers and watches the test fires itself. */
#ifndef TESTS_UNIT_IRQ_FAKES_H
#define TESTS_UNIT_IRQ_FAKES_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "engine/irqchip/irqchip_int.h"
#include "engine/irqchip/lapic_int.h"
#include "engine/irqchip/timer.h"

#define FAKE_KHZ 1000000u /* 1 tick = 1 ns */

extern u64 fake_now;
extern u8 fake_ram[64]; /* guest memory from 0 */
extern unsigned fake_kicks[ENG_MAX_VCPUS]; /* attention bits by vCPU ID; atomic */
extern struct loop_timer *fake_timer;      /* armed last */
extern struct fake_watch {
	int fd;
	loop_fn *fn;
	void *arg;
} fake_watches[16];

struct vm *fake_vm(unsigned ncpus, bool x2apic_cpuid); /* with irqchip and PIT */
void fake_fire_fd(int fd);
void fake_run_timers(u64 until); /* moves the clock, firing the loop timer on the way */

static inline struct vcpu *fake_cpu(unsigned i)
{
	return the_vm()->vcpus[i];
}
static inline struct lapic *fake_lapic(unsigned i)
{
	return fake_cpu(i)->lapic;
}
u32 mmio_get(unsigned cpu, unsigned reg);
void mmio_put(unsigned cpu, unsigned reg, u32 v);
u32 ioapic_get_reg(unsigned reg);
void ioapic_put_reg(unsigned reg, u32 v);
void ioapic_redirect(unsigned pin, u64 entry);
void out8(u16 port, u8 v);
u8 in8(u16 port);
void enable_all(void);  /* software-enables every LAPIC, masks the PIC's way in */
int take(unsigned cpu); /* irq_acknowledge */
void eoi(unsigned cpu);

#endif
