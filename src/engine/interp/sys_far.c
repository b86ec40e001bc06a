/* Far transfers, interrupts, system calls and returns: thin callers of the CPU room, which sets RIP. */
#include "engine/interp/interp_int.h"

static u64 next_ip(const struct vcpu *cpu, const struct iop *op)
{
	u64 next = cpu->rip + op->len;

	return cpu->mode.long64 ? next : (u32)next;
}

/* Flags, mode and RIP may all be new. */
static void after_transfer(struct vcpu *cpu, const struct iop *op, u64 old_flags)
{
	if (flags_want_loop(cpu, old_flags))
		return iop_return(cpu, op, true);
	return iop_goto(cpu, op);
}

/* aux[0]: bytes of the offset in memory, 0 for the immediate form (src: the selector in aux[2..3]) */
static u64 far_pointer(struct vcpu *cpu, const struct iop *op, u16 *sel)
{
	unsigned n = op->aux[0];
	gva_t a;
	u64 off;

	if (!n) {
		*sel = op->aux[2] | op->aux[3] << 8;
		return op->imm;
	}
	a = iop_ea(cpu, op, n + 2, false);
	off = mem_read(cpu, a, n);
	*sel = mmu_read16(cpu, a + n);
	return off;
}

static void jmp_far(struct vcpu *cpu, const struct iop *op)
{
	u16 sel = 0;
	u64 off = far_pointer(cpu, op, &sel);

	cpu_far_jump(cpu, sel, off, op->size, next_ip(cpu, op));
	return after_transfer(cpu, op, cpu->rflags);
}

static void call_far(struct vcpu *cpu, const struct iop *op)
{
	u16 sel = 0;
	u64 off = far_pointer(cpu, op, &sel);

	cpu_far_call(cpu, sel, off, op->size, next_ip(cpu, op));
	return after_transfer(cpu, op, cpu->rflags);
}

static void ret_far(struct vcpu *cpu, const struct iop *op)
{
	cpu_far_ret(cpu, op->size, op->imm);
	return after_transfer(cpu, op, cpu->rflags);
}

static void iret(struct vcpu *cpu, const struct iop *op)
{
	u64 old = cpu->rflags;

	cpu_iret(cpu, op->size);
	return after_transfer(cpu, op, old);
}

static void int_n(struct vcpu *cpu, const struct iop *op)
{
	cpu_interrupt(cpu, op->imm, INT_SOFT, false, 0, next_ip(cpu, op));
	return iop_return(cpu, op, false);
}

/* A debugger's breakpoint is the run loop's to report, as an exception not delivered. */
static void int3(struct vcpu *cpu, const struct iop *op)
{
	if (cpu->guest_debug & KVM_GUESTDBG_USE_SW_BP)
		cpu_raise(cpu, EXC_BP);
	cpu_interrupt(cpu, EXC_BP, INT_INT3, false, 0, next_ip(cpu, op));
	return iop_return(cpu, op, false);
}

static void into(struct vcpu *cpu, const struct iop *op)
{
	if (!(cpu->rflags & FL_OF))
		NEXT(cpu, op);
	cpu_interrupt(cpu, EXC_OF, INT_INTO, false, 0, next_ip(cpu, op));
	return iop_return(cpu, op, false);
}

static void int1(struct vcpu *cpu, const struct iop *op)
{
	cpu_interrupt(cpu, EXC_DB, INT_ICEBP, false, 0, next_ip(cpu, op));
	return iop_return(cpu, op, false);
}

static void syscall(struct vcpu *cpu, const struct iop *op)
{
	u64 old = cpu->rflags;

	cpu_syscall(cpu, next_ip(cpu, op));
	return after_transfer(cpu, op, old);
}

static void sysret(struct vcpu *cpu, const struct iop *op)
{
	u64 old = cpu->rflags;

	cpu_sysret(cpu, op->size);
	return after_transfer(cpu, op, old);
}

static void sysenter(struct vcpu *cpu, const struct iop *op)
{
	cpu_sysenter(cpu);
	return after_transfer(cpu, op, cpu->rflags);
}

static void sysexit(struct vcpu *cpu, const struct iop *op)
{
	cpu_sysexit(cpu, op->size);
	return after_transfer(cpu, op, cpu->rflags);
}

static iop_fn *const far_ops[INSN_COUNT] = {
	[INSN_JMP_FAR] = jmp_far, [INSN_CALL_FAR] = call_far, [INSN_RET_FAR] = ret_far, [INSN_IRET] = iret,
	[INSN_INT] = int_n, [INSN_INT1] = int1, [INSN_INT3] = int3, [INSN_INTO] = into,
	[INSN_SYSCALL] = syscall, [INSN_SYSRET] = sysret, [INSN_SYSENTER] = sysenter, [INSN_SYSEXIT] = sysexit,
};

bool compile_sys_far(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	op->size = in->opsize;
	op->imm = in->nops ? in->imm : 0;
	if (in->nops && in->op[0].kind == OPK_MEM)
		op->aux[0] = in->mem.size - 2;
	op->aux[2] = in->imm2;
	op->aux[3] = in->imm2 >> 8;
	op->fn = far_ops[in->id];
	return true;
}
