/* What `monitor` shows of the machine: interrupt controllers, exits. */
#include <inttypes.h>
#include <string.h>
#include "kvm/chan.h"
#include "kvm/stats.h"
#include "vmm/debugger.h"
#include "vmm/insight.h"

/* ---- interrupt controllers (SDM 3A 10.4 to 10.8) ---- */
static u32 apic_reg(const struct kvm_lapic_state *s, u32 offset)
{
	u32 v = 0;

	memcpy(&v, s->regs + offset, sizeof(v));
	return v;
}

static void vectors(FILE *out, const char *name, const struct kvm_lapic_state *s, u32 offset)
{
	fprintf(out, "  %s", name);
	for (u32 v = 0; v < 256; v++)
		if (apic_reg(s, offset + v / 32 * 16) >> (v % 32) & 1)
			fprintf(out, " %02x", v);
	fprintf(out, "\n");
}

static void entry(FILE *out, const char *name, u32 v)
{
	static const char *const modes[] = {"fixed", "lowest", "SMI", "?", "NMI", "INIT", "?", "ExtINT"};

	fprintf(out, "  %-7s %08x vector %02x %s%s%s%s\n", name, v, v & 0xff, modes[v >> 8 & 7], v >> 15 & 1 ? " level" : " edge",
		v >> 12 & 1 ? " pending" : "", v >> 16 & 1 ? " masked" : "");
}

static void show_lapic(struct vcpu_thread *v, FILE *out)
{
	struct kvm_lapic_state s;

	if (kvm_ioctl(v->kvm, KVM_GET_LAPIC, &s) < 0) {
		fprintf(out, "local APIC: cannot be read\n");
		return;
	}
	fprintf(out, "local APIC of vCPU %u: ID %08x, TPR %02x, PPR %02x, SVR %08x\n", v->index, apic_reg(&s, 0x20),
		apic_reg(&s, 0x80), apic_reg(&s, 0xa0), apic_reg(&s, 0xf0));
	vectors(out, "in service", &s, 0x100);
	vectors(out, "requested ", &s, 0x200);
	entry(out, "timer", apic_reg(&s, 0x320));
	entry(out, "LINT0", apic_reg(&s, 0x350));
	entry(out, "LINT1", apic_reg(&s, 0x360));
}

static void show_ioapic(struct machine *m, FILE *out)
{
	struct kvm_irqchip c = {.chip_id = KVM_IRQCHIP_IOAPIC};
	char name[8];

	if (kvm_ioctl(m->vm, KVM_GET_IRQCHIP, &c) < 0)
		return;
	fprintf(out, "I/O APIC, pins in use:\n");
	for (u32 i = 0; i < KVM_IOAPIC_NUM_PINS; i++) {
		u64 e = c.chip.ioapic.redirtbl[i].bits;

		if (e >> 16 & 1)
			continue;
		snprintf(name, sizeof(name), "pin %u", i);
		entry(out, name, (u32)e);
	}
}

/* ---- exits ---- */
static const char *const exit_names[MACHINE_EXITS] = {
	[KVM_EXIT_IO] = "port I/O", [KVM_EXIT_MMIO] = "MMIO", [KVM_EXIT_HLT] = "HLT", [KVM_EXIT_INTR] = "kicked",
	[KVM_EXIT_DEBUG] = "debug", [KVM_EXIT_SHUTDOWN] = "triple fault", [KVM_EXIT_SYSTEM_EVENT] = "system event",
};
static const char *const counter_names[] = {
#define X(name, text) text,
	VCPU_STATS(X)
#undef X
};

static void show_exits(struct vcpu_thread *v, FILE *out)
{
	struct doppel_stats s = {0};

	fprintf(out, "vCPU %u\n", v->index);
	for (u32 i = 0; i < MACHINE_EXITS; i++)
		if (v->exits[i] && exit_names[i])
			fprintf(out, "%14" PRIu64 "  exits: %s\n", v->exits[i], exit_names[i]);
		else if (v->exits[i])
			fprintf(out, "%14" PRIu64 "  exits: reason %u\n", v->exits[i], i);
	if (kvm_ioctl(v->kvm, DOPPEL_GET_STATS, &s) < 0)
		return; /* a kernel KVM */
	for (u32 i = 0; i < MIN(s.count, (u32)ARRAY_SIZE(counter_names)); i++)
		if (s.value[i])
			fprintf(out, "%14" PRIu64 "  %s\n", s.value[i], counter_names[i]);
}

/* ---- calls ---- */
bool debugger_symbol(void *machine, u32 cpu, const char *name, u64 *addr)
{
	struct machine *m = machine;
	const struct symbols *s = NULL;
	struct insight_vcpu v;

	if (insight_vcpu(&m->cpu[cpu], &v) == 0)
		s = insight_symbols(m, &v);
	return s && symbols_find(s, name, addr);
}

static void show_stack(struct vcpu_thread *v, FILE *out)
{
	static const char *const how[] = {[UNWIND_HERE] = "", [UNWIND_ORC] = "", [UNWIND_FP] = "", [UNWIND_FOUND] = " (found on the stack)"};
	struct unwind_frame f[UNWIND_MAX];
	struct insight_vcpu i;
	const struct symbols *s = NULL;
	char text[SYMBOL_TEXT];
	u32 n = 0;

	if (insight_vcpu(v, &i)) {
		fprintf(out, "The vCPU cannot be asked.\n");
		return;
	}
	s = insight_symbols(v->m, &i);
	n = insight_stack(v->m, &i, f, UNWIND_MAX);
	for (u32 k = 0; k < n; k++)
		fprintf(out, "#%-2u 0x%016" PRIx64 " %s%s\n", k, f[k].pc, s ? symbols_text(s, f[k].pc, text, sizeof(text)) : "",
			how[f[k].how]);
}

bool debugger_monitor(void *machine, u32 cpu, const char *what, FILE *out)
{
	struct machine *m = machine;

	if (!strcmp(what, "irqs")) {
		show_lapic(&m->cpu[cpu], out);
		show_ioapic(m, out);
		return true;
	}
	if (!strcmp(what, "backtrace") || !strcmp(what, "bt")) {
		show_stack(&m->cpu[cpu], out);
		return true;
	}
	if (strcmp(what, "exits") != 0)
		return false;
	show_exits(&m->cpu[cpu], out);
	return true;
}
