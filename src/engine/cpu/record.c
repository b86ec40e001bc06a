/* Recording. */
#include "engine/cpu/cpu.h"
#include "engine/cpu/record.h"
#include "engine/interp/interp.h"
#include "engine/lib/lib.h"
#include "engine/vm.h"
#include "kvm/chan.h"

void record_get(const struct vcpu *cpu, struct doppel_record *out)
{
	u32 n = MIN(cpu->record.events, (u32)DOPPEL_EVENTS);

	memset(out, 0, sizeof(*out));
	out->nevents = n;
	for (u32 i = 0; i < n; i++)
		out->event[i] = cpu->record.event[(cpu->record.events - n + i) % DOPPEL_EVENTS];
	out->arrivals = !!(cpu->mode.key & MODE_KEY_ARRIVALS);
	for (u32 i = 0; i < DOPPEL_ARRIVALS; i++)
		out->at[i] = cpu->record.at[(u8)(cpu->record.next + i)];
}

/* ---- coverage: one list for the VM, in memory of its own (layout.h) ---- */
struct coverage {
	u32 n, lost;
	u64 entry[(ENG_COVERAGE_SIZE - 8) / 8]; /* RIP in 48 bits, length in 16 */
};

static struct coverage *coverage(void)
{
	return (struct coverage *)ENG_COVERAGE_BASE;
}

void record_coverage(struct vcpu *cpu, u64 rip, u32 bytes)
{
	struct coverage *c = coverage();
	u32 i = 0;

	if (cpu->mode.cpl)
		return;
	if (__atomic_load_n(&c->n, __ATOMIC_RELAXED) >= ARRAY_SIZE(c->entry)) {
		__atomic_fetch_add(&c->lost, 1, __ATOMIC_RELAXED);
		return;
	}
	i = __atomic_fetch_add(&c->n, 1, __ATOMIC_RELAXED); /* past the end by as many as there are vCPUs at most */
	if (i < ARRAY_SIZE(c->entry))
		c->entry[i] = (rip & (BIT64(48) - 1)) | (u64)bytes << 48;
}

static void clear(struct vm *vm, void *arg)
{
	struct coverage *c = coverage();

	c->n = c->lost = 0;
	code_flush_all();
	for (u32 i = 0; i < vm->nvcpus; i++)
		interp_forget_lookups(vm->vcpus[i]);
}

void record_clear_coverage(struct vcpu *cpu)
{
	vm_safepoint(cpu->vm, cpu, clear, NULL);
}

void record_get_coverage(struct doppel_coverage *out)
{
	const struct coverage *c = coverage();
	u32 n = MIN(__atomic_load_n(&c->n, __ATOMIC_ACQUIRE), (u32)ARRAY_SIZE(c->entry));

	out->total = n;
	out->lost = c->lost;
	out->count = out->from < n ? MIN(n - out->from, (u32)DOPPEL_COVERAGE) : 0;
	memcpy(out->entry, c->entry + out->from, out->count * sizeof(out->entry[0]));
}

void record_set(struct vcpu *cpu, u32 what)
{
	cpu->record.key = (what & DOPPEL_RECORD_ARRIVALS ? MODE_KEY_ARRIVALS : 0) |
			  (what & DOPPEL_RECORD_COVERAGE ? MODE_KEY_COVERAGE : 0);
	cpu_update_mode(cpu);
}
