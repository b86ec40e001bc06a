/* CPUID, time stamps, MSRs, XCR0, random numbers, TLB and cache control, HLT, hypercalls. */
#include "engine/interp/hostop.h"
#include "engine/interp/interp_int.h"

#define CR4_TSD     BIT(2)
#define CR4_OSXSAVE BIT(18)

static void hlt(struct vcpu *cpu, const struct iop *op)
{
	cpu_hlt(cpu);
	cpu->rip += op->len;
	return iop_return(cpu, op, true);
}

static void cpuid(struct vcpu *cpu, const struct iop *op)
{
	cpu_cpuid(cpu);
	NEXT(cpu, op);
}

static void check_tsd(struct vcpu *cpu)
{
	if ((cpu->cr4 & CR4_TSD) && cpu->mode.cpl && cpu->mode.pe)
		cpu_raise_gp(cpu, 0);
}

static void put_edx_eax(struct vcpu *cpu, u64 v)
{
	WR32(cpu, R_AX, v);
	WR32(cpu, R_DX, v >> 32);
}

static u64 get_edx_eax(const struct vcpu *cpu)
{
	return (u64)RD32(cpu, R_DX) << 32 | RD32(cpu, R_AX);
}

static void rdtsc(struct vcpu *cpu, const struct iop *op)
{
	check_tsd(cpu);
	put_edx_eax(cpu, cpu_rdtsc(cpu));
	NEXT(cpu, op);
}

static void rdtscp(struct vcpu *cpu, const struct iop *op)
{
	check_tsd(cpu);
	put_edx_eax(cpu, cpu_rdtsc(cpu));
	WR32(cpu, R_CX, cpu->tsc_aux);
	NEXT(cpu, op);
}

/* There is no performance counter to read. */
static void rdpmc(struct vcpu *cpu, const struct iop *op)
{
	cpu_raise_gp(cpu, 0);
}

static void rdpid(struct vcpu *cpu, const struct iop *op)
{
	gpr_write(cpu, op->dst, cpu->tsc_aux, op->size);
	NEXT(cpu, op);
}

static void rdmsr(struct vcpu *cpu, const struct iop *op)
{
	u64 v = 0;

	if (!msr_read(cpu, RD32(cpu, R_CX), &v, false))
		cpu_raise_gp(cpu, 0);
	put_edx_eax(cpu, v);
	NEXT(cpu, op);
}

static void wrmsr(struct vcpu *cpu, const struct iop *op)
{
	if (!msr_write(cpu, RD32(cpu, R_CX), get_edx_eax(cpu), false))
		cpu_raise_gp(cpu, 0);
	cpu->rip += op->len;
	return iop_return(cpu, op, false);
}

static void check_osxsave(struct vcpu *cpu)
{
	if (!(cpu->cr4 & CR4_OSXSAVE))
		cpu_raise(cpu, EXC_UD);
}

static void xgetbv(struct vcpu *cpu, const struct iop *op)
{
	check_osxsave(cpu);
	put_edx_eax(cpu, cpu_xgetbv(cpu, RD32(cpu, R_CX)));
	NEXT(cpu, op);
}

static void xsetbv(struct vcpu *cpu, const struct iop *op)
{
	check_osxsave(cpu);
	cpu_xsetbv(cpu, RD32(cpu, R_CX), get_edx_eax(cpu));
	cpu->rip += op->len;
	return iop_return(cpu, op, false);
}

/* ---- random numbers: CF says whether there was one; the other flags are cleared ---- */

#define HOST_RANDOM(insn, v, ok) __asm__ volatile(insn " %0\n\tsetc %1" : "=r"(v), "=q"(ok) : : "cc")

static void random_op(struct vcpu *cpu, const struct iop *op)
{
	u64 v = 0;
	bool ok = false;

	if (op->aux[0])
		HOST_RANDOM("rdseed", v, ok);
	else
		HOST_RANDOM("rdrand", v, ok);
	gpr_write(cpu, op->dst, ok ? v : 0, op->size);
	cpu->rflags = (cpu->rflags & ~(u64)FL_ARITH) | ok;
	NEXT(cpu, op);
}

/* ---- TLB and caches ---- */

static void invlpg(struct vcpu *cpu, const struct iop *op)
{
	gva_t a = iop_ea_offset(cpu, op);

	if (!cpu->mode.long64)
		a = (u32)(a + cpu->seg[op->seg].base);
	else if (op->flags & IOP_SEGBASE)
		a += cpu->seg[op->seg].base;
	if (is_canonical(a)) {
		mmu_invlpg(cpu, a);
		interp_forget_page(cpu, a);
	}
	cpu->rip += op->len;
	return iop_return(cpu, op, false);
}

static void invpcid(struct vcpu *cpu, const struct iop *op)
{
	gva_t a = iop_ea(cpu, op, 16, false);
	u64 pcid = mmu_read64(cpu, a), linear = mmu_read64(cpu, a + 8), type = gpr_read(cpu, op->dst, op->size);

	if (type > 3 || (pcid >> 12 && type < 2) || (type == 0 && !is_canonical(linear)))
		cpu_raise_gp(cpu, 0);
	if (pcid && type < 2 && !(cpu->cr4 & BIT(17)))
		cpu_raise_gp(cpu, 0);
	mmu_invpcid(cpu, (unsigned)type, (u16)pcid, linear);
	if (type == 0)
		interp_forget_page(cpu, linear);
	else
		interp_forget_lookups(cpu);
	cpu->rip += op->len;
	return iop_return(cpu, op, false);
}

/* CLFLUSH and kin: caches are coherent; only the access check is left. */
static void clflush(struct vcpu *cpu, const struct iop *op)
{
	mmu_probe(cpu, iop_ea(cpu, op, 1, false), 1, ACC_READ, cpu->mode.mmu_idx);
	NEXT(cpu, op);
}

static void monitor(struct vcpu *cpu, const struct iop *op)
{
	u64 off = gpr_read(cpu, R_AX, op->asize);
	gva_t a = cpu->mode.long64 ? off + (op->seg >= SEG_FS ? cpu->seg[op->seg].base : 0)
				   : seg_linear(cpu, op->seg, off, 1, false);

	if (RD32(cpu, R_CX))
		cpu_raise_gp(cpu, 0);
	mmu_probe(cpu, a, 1, ACC_READ, cpu->mode.mmu_idx);
	NEXT(cpu, op);
}

/* An MWAIT may return for any reason; it does so at once. */
static void mwait(struct vcpu *cpu, const struct iop *op)
{
	__asm__ volatile("pause");
	NEXT(cpu, op);
}

static void hypercall(struct vcpu *cpu, const struct iop *op)
{
	cpu_hypercall(cpu);
	cpu->rip += op->len;
	return iop_return(cpu, op, false);
}

static void serialize(struct vcpu *cpu, const struct iop *op)
{
	cpu->rip += op->len;
	return iop_return(cpu, op, false);
}

static iop_fn *const misc_ops[INSN_COUNT] = {
	[INSN_HLT] = hlt, [INSN_CPUID] = cpuid, [INSN_RDTSC] = rdtsc, [INSN_RDTSCP] = rdtscp, [INSN_RDPMC] = rdpmc,
	[INSN_RDPID] = rdpid, [INSN_RDMSR] = rdmsr, [INSN_WRMSR] = wrmsr, [INSN_XGETBV] = xgetbv,
	[INSN_XSETBV] = xsetbv, [INSN_RDRAND] = random_op, [INSN_RDSEED] = random_op, [INSN_INVLPG] = invlpg,
	[INSN_INVPCID] = invpcid, [INSN_INVD] = op_nop, [INSN_WBINVD] = op_nop, [INSN_WBNOINVD] = op_nop,
	[INSN_CLFLUSH] = clflush, [INSN_CLFLUSHOPT] = clflush, [INSN_CLWB] = clflush, [INSN_MONITOR] = monitor,
	[INSN_MWAIT] = mwait, [INSN_VMCALL] = hypercall, [INSN_VMMCALL] = hypercall, [INSN_SERIALIZE] = serialize,
};

bool compile_sys_misc(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	op->size = in->nops ? in->op[0].size : in->opsize;
	op->dst = in->nops ? in->op[0].reg : 0;
	op->aux[0] = in->id == INSN_RDSEED;
	if (in->id == INSN_MONITOR)
		op->seg = in->mem.seg;
	op->fn = misc_ops[in->id];
	return true;
}
