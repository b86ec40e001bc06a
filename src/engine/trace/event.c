/* Events other than instructions. */
#include "engine/lib/lib.h"
#include "engine/mmu/mmu_int.h"
#include "engine/trace/trace.h"
#include "kvm/chan.h"

void trace_exception(struct vcpu *cpu, const struct exception *e)
{
	struct trace_event t = trace_event_here(cpu, TRACE_EXC, e->vector);

	if (cpu->trace.insn.active)
		trace_insn_faulted(cpu, e);
	t.data[0] = e->error;
	t.data[1] = e->vector == EXC_PF ? e->cr2 : e->vector == EXC_DB ? e->dr6 : 0;
	trace_emit(cpu, &t);
}

void trace_irq(struct vcpu *cpu, unsigned vector, enum trace_who who)
{
	struct trace_event t = trace_event_here(cpu, TRACE_IRQ, vector);

	t.data[0] = who;
	trace_emit(cpu, &t);
}

void trace_mmio(struct vcpu *cpu, bool write, gpa_t a, const void *data, unsigned len, enum trace_who who)
{
	struct trace_event t = trace_event_here(cpu, TRACE_MMIO, write ? TIO_WRITE : TIO_READ);

	t.data[0] = a;
	memcpy(&t.data[1], data, MIN(len, 8u));
	t.data[2] = len;
	t.data[3] = who;
	trace_emit(cpu, &t);
}

void trace_pio(struct vcpu *cpu, bool write, u16 port, unsigned size, u32 items, u64 value, enum trace_who who)
{
	struct trace_event t = trace_event_here(cpu, TRACE_PIO, write ? TIO_WRITE : TIO_READ);

	t.data[0] = port;
	t.data[1] = size < 8 ? value & (BIT64(size * 8) - 1) : value;
	t.data[2] = size | (u64)items << 8;
	t.data[3] = who;
	trace_emit(cpu, &t);
}

void trace_code_store(struct vcpu *cpu, gpa_t a, unsigned size)
{
	struct trace_event t = trace_event_here(cpu, TRACE_CODE, 0);

	t.data[0] = a;
	t.data[1] = size;
	trace_emit(cpu, &t);
}

void trace_halt(struct vcpu *cpu, u64 begin)
{
	struct trace_event t = trace_event_here(cpu, TRACE_HALT, 0);

	t.tsc = begin;
	t.data[0] = eng_rdtsc();
	trace_emit(cpu, &t);
}

/* ---- exits: told when they are over ---- */

void trace_leave(struct vcpu *cpu)
{
	cpu->trace.left = eng_rdtsc();
	cpu->trace.insn.active = false;
}

void trace_return(struct vcpu *cpu)
{
	const struct kvm_run *run = &cpu->chan->run;
	struct trace_event t = trace_event_here(cpu, TRACE_EXIT, (u16)run->exit_reason);

	t.tsc = cpu->trace.left;
	t.data[0] = eng_rdtsc();
	if (run->exit_reason == KVM_EXIT_IO) {
		t.data[1] = cpu->pio.port;
		t.data[2] = cpu->pio.size;
		t.data[3] = !cpu->pio.in;
	} else if (run->exit_reason == KVM_EXIT_MMIO && cpu->mmio.n < MMIO_FRAGS) {
		t.data[1] = cpu->mmio.frag[cpu->mmio.n].gpa;
		t.data[2] = cpu->mmio.frag[cpu->mmio.n].len;
		t.data[3] = cpu->mmio.frag[cpu->mmio.n].write;
	}
	cpu->trace.left = 0;
	trace_emit(cpu, &t);
}

/* ---- page tables ---- */

/*
 * Other vCPUs lose their writable entries at their next look at attention: a store within the microsecond of the first walk may be
 * missed. A safe point would be exact, but the walk may be in the middle of an instruction that holds pointers.
 */
void trace_mark_table(struct vcpu *cpu, gpa_t page)
{
	u8 *attr = page_attr(page);

	if ((__atomic_load_n(attr, __ATOMIC_RELAXED) & (PA_RAM | PA_TABLE)) != PA_RAM)
		return;
	__atomic_fetch_or(attr, PA_TABLE, __ATOMIC_SEQ_CST);
	tlb_drop_writes(cpu, page);
	for (u32 i = 0; i < cpu->vm->nvcpus; i++)
		if (cpu->vm->vcpus[i] != cpu)
			vcpu_kick(cpu->vm->vcpus[i], ATT_FLUSH);
}

/*
 * What no page table is stored to like is a page that was given back and serves something else now: it is left alone until a walk finds
 * a table there again. Reserved bits of a present entry: SDM 3A table 4-14 ff.
 */
static bool like_an_entry(gpa_t a, u64 value, unsigned size)
{
	if ((size != 8 && size != 4) || a & (size - 1))
		return false;
	return size == 4 || !(value & 1) || !(value & 0x000fffffffffffffull & ~(ENG_GPA_LIMIT - 1));
}

static void store_event(struct vcpu *cpu, struct trace_event *t, gpa_t a, u64 old, u64 new, unsigned size)
{
	t->data[0] = a;
	t->data[1] = old;
	t->data[2] = new;
	t->data[3] = size;
	trace_emit(cpu, t);
}

void trace_table_store(struct vcpu *cpu, gpa_t a, u64 old, u64 new, unsigned size, bool walker)
{
	struct trace_event t = trace_event_here(cpu, TRACE_PT, walker ? TPT_WALKER : TPT_STORE);

	if (!walker && !like_an_entry(a, new, size)) {
		__atomic_fetch_and(page_attr(a), (u8)~PA_TABLE, __ATOMIC_SEQ_CST);
		return;
	}
	store_event(cpu, &t, a, old, new, size);
}

static u64 value_at(gpa_t a, unsigned size)
{
	return size == 8 ? *(volatile u64 *)gpa_to_hva(a) : *(volatile u32 *)gpa_to_hva(a);
}

void trace_table_late(struct vcpu *cpu)
{
	u64 a = cpu->trace.late.gpa;
	unsigned size = cpu->trace.late.size;
	struct trace_event t = {.kind = TRACE_PT, .what = TPT_STORE, .tsc = cpu->trace.late.tsc, .rip = cpu->trace.late.rip,
				.cpl = cpu->trace.late.cpl, .bits = cpu->trace.late.bits};

	cpu->trace.late.size = 0;
	/* the instruction may have faulted instead */
	if (phys_is_ram(a) && value_at(a, size) != cpu->trace.late.old)
		store_event(cpu, &t, a, cpu->trace.late.old, value_at(a, size), size);
}

void trace_table_pointer(struct vcpu *cpu, gpa_t a, unsigned size)
{
	struct trace_event t = trace_event_here(cpu, TRACE_PT, TPT_STORE);

	if (cpu->trace.late.size) /* an earlier instruction of this block: its store is done */
		trace_table_late(cpu);
	if (!like_an_entry(a, 0, size)) {
		__atomic_fetch_and(page_attr(a), (u8)~PA_TABLE, __ATOMIC_SEQ_CST);
		return;
	}
	cpu->trace.late.gpa = a;
	cpu->trace.late.size = (u8)size;
	cpu->trace.late.rip = cpu->rip;
	cpu->trace.late.tsc = eng_rdtsc();
	cpu->trace.late.old = value_at(a, size);
	cpu->trace.late.cpl = t.cpl;
	cpu->trace.late.bits = t.bits;
	vcpu_kick(cpu, ATT_IRQ);
}
