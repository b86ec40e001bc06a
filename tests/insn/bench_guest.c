/* How fast the interpreter runs: loops of typical code, guest instructions per second. Built like the engine. */
#include "engine/cpu/cpu.h"
#include "engine/cpu/run.h"
#include "engine/interp/interp.h"
#include "engine/lib/lib.h"
#include "kvm/chan.h"
#include "tests/insn/harness_guest.h"

static __attribute__((noinline)) void run(struct vcpu *cpu)
{
	if (__builtin_setjmp(cpu->unwind))
		return;
	for (;;) {
		/* what the run loop does for a write to code through a pointer */
		cpu->chan->attention = 0;
		if (cpu->late_size)
			code_invalidate(cpu->late_gpa, cpu->late_size);
		cpu->late_size = 0;
		interp_run(cpu);
	}
}

/* Runs the code from the code page with RSP in the data pages until it faults. */
u64 bench_run_at(const void *code, unsigned len, unsigned at)
{
	struct vcpu *cpu = (struct vcpu *)ENG_VCPU_LOW;
	u64 before = cpu->insn_count;

	memset(guest_code(), 0xf4, 2 * PAGE_SIZE);
	memcpy(guest_code() + at, code, len);
	code_invalidate(0x100000, 2 * PAGE_SIZE);
	memset(cpu->gpr, 0, sizeof(cpu->gpr));
	cpu->gpr[R_SP] = T_DATA_VA + 2 * PAGE_SIZE;
	cpu->gpr[R_SI] = cpu->gpr[R_DI] = T_DATA_VA;
	cpu->rip = T_CODE_VA + at;
	cpu->rflags = FL_ONE | FL_IF;
	cpu->exc.pending = false;
	run(cpu);
	return cpu->insn_count - before;
}

u64 bench_run(const void *code, unsigned len)
{
	return bench_run_at(code, len, 0);
}

u64 guest_gpr(unsigned n)
{
	return ((struct vcpu *)ENG_VCPU_LOW)->gpr[n];
}

u64 guest_rip(void)
{
	return ((struct vcpu *)ENG_VCPU_LOW)->rip;
}
