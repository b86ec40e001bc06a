/*
 * Compiles vector and x87 instructions for the interpreter: they execute themselves on the host CPU, on the
 * guest's live registers, in a stub (stub.h). Here: what may run, plain shapes. x87: vec_x87.c; FXSAVE and
 * XSAVE: vec_state.c; gathers and masked moves: vec_mask.c.
 */
#include "engine/interp/vec_int.h"
#include "engine/lib/lib.h"

#define CR0_MP   BIT(1)
#define CR0_EM   BIT(2)
#define CR0_TS   BIT(3)
#define MXCSR_MM BIT(17)

/* ---- unavailable: decided when it runs, the block key holds only that it is ---- */
static void h_unavail(struct vcpu *cpu, const struct iop *op)
{
	bool em = cpu->cr0 & CR0_EM, ts = cpu->cr0 & CR0_TS;
	bool ud = false;

	switch (op->aux[AUX_UNAVAIL]) {
	case VU_X87:
		break;
	case VU_MMX:
		ud = em;
		break;
	case VU_SSE:
		ud = em || !(cpu->cr4 & BIT(9));
		break;
	case VU_AVX:
		ud = !(cpu->cr4 & BIT(18)) || (cpu->xcr0 & (XS_SSE | XS_AVX)) != (XS_SSE | XS_AVX) || !ts;
		break;
	}
	cpu_raise(cpu, ud ? EXC_UD : EXC_NM);
}

/* ---- plain shapes ---- */
static void h_reg(struct vcpu *cpu, const struct iop *op)
{
	stub_run(op->ptr, NULL);
	NEXT(cpu, op);
}

static void h_load(struct vcpu *cpu, const struct iop *op)
{
	gva_t a = iop_ea(cpu, op, op->size, false);

	vec_check_align(cpu, a, (u32)op->imm);
	stub_run(op->ptr, vec_read(cpu, a, op->size));
	NEXT(cpu, op);
}

/* Operand not aligned to its size: #GP(0), but for loads with AMD's MXCSR.MM, which are then subject to #AC
 * (APM 1 4.3.2). Moves that say "aligned" always fault. */
static __attribute__((noinline)) void misaligned(struct vcpu *cpu, const struct iop *op, gva_t a)
{
	u32 mxcsr = 0;

	__asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
	if (!(mxcsr & MXCSR_MM) || (op->desc->attr & IA_ALIGN_ANY))
		cpu_raise_gp(cpu, 0);
	vec_check_align(cpu, a, op->size);
}

static void h_load_aligned(struct vcpu *cpu, const struct iop *op)
{
	gva_t a = iop_ea(cpu, op, op->size, false);

	if (unlikely(a & (op->size - 1)))
		misaligned(cpu, op, a);
	stub_run(op->ptr, vec_read(cpu, a, op->size));
	NEXT(cpu, op);
}

static inline void store_to(struct vcpu *cpu, const struct iop *op, gva_t a)
{
	void *p = mmu_ptr(cpu, a, op->size, ACC_WRITE, cpu->mode.mmu_idx);

	if (likely(p != NULL))
		stub_run(op->ptr, p);
	else
		vec_store_slow(cpu, op, a);
}

static void h_store(struct vcpu *cpu, const struct iop *op)
{
	gva_t a = iop_ea(cpu, op, op->size, true);

	vec_check_align(cpu, a, (u32)op->imm);
	store_to(cpu, op, a);
	NEXT(cpu, op);
}

static void h_store_aligned(struct vcpu *cpu, const struct iop *op)
{
	gva_t a = iop_ea(cpu, op, op->size, true);

	if (unlikely(a & (op->size - 1)))
		cpu_raise_gp(cpu, 0);
	store_to(cpu, op, a);
	NEXT(cpu, op);
}

/* MMX with memory: a pending x87 exception comes before any fault of the access. */
static inline gva_t mmx_ea(struct vcpu *cpu, const struct iop *op, bool write)
{
	gva_t a = 0;

	if (unlikely(op->flags & IOP_SEGCHECK))
		stub_run(vs_of(cpu)->fwait, NULL);
	a = iop_ea(cpu, op, op->size, write);
	if (unlikely(!vec_tlb_hit(cpu, a, op->size, write) || (cpu->rflags & FL_AC)))
		stub_run(vs_of(cpu)->fwait, NULL);
	if (unlikely(op->size == 16 && (a & 15))) { /* CVTPD2PI, CVTTPD2PI */
		stub_run(vs_of(cpu)->fwait, NULL);
		misaligned(cpu, op, a);
	}
	vec_check_align(cpu, a, (u32)op->imm);
	return a;
}

static void h_mmx_load(struct vcpu *cpu, const struct iop *op)
{
	gva_t a = mmx_ea(cpu, op, false);

	stub_run(op->ptr, vec_read(cpu, a, op->size));
	NEXT(cpu, op);
}

static void h_mmx_store(struct vcpu *cpu, const struct iop *op)
{
	store_to(cpu, op, mmx_ea(cpu, op, true));
	NEXT(cpu, op);
}

/* ---- with general registers or flags ---- */
static void h_gpr_in(struct vcpu *cpu, const struct iop *op)
{
	stub_run_gpr(op->ptr, NULL, 0, cpu->gpr[op->src]);
	NEXT(cpu, op);
}

static void h_gpr_out_reg(struct vcpu *cpu, const struct iop *op)
{
	cpu->gpr[op->dst] = stub_run_gpr(op->ptr, NULL, 0, 0);
	NEXT(cpu, op);
}

static void h_gpr_out_rm(struct vcpu *cpu, const struct iop *op)
{
	u64 rax = 0, rcx = 0;

	__asm__ volatile("call *%[stub]" : "+a"(rax), "+c"(rcx) : [stub] "r"(op->ptr) : "memory", "cc");
	cpu->gpr[op->src] = rcx;
	NEXT(cpu, op);
}

static void h_gpr_out_load(struct vcpu *cpu, const struct iop *op)
{
	gva_t a = iop_ea(cpu, op, op->size, false);

	vec_check_align(cpu, a, (u32)op->imm);
	cpu->gpr[op->dst] = stub_run_gpr(op->ptr, vec_read(cpu, a, op->size), 0, 0);
	NEXT(cpu, op);
}

/* COMISx, PTEST, TESTPx: all arithmetic flags are written, OF SF AF with 0. */
static inline void set_flags(struct vcpu *cpu, u64 flags)
{
	cpu->rflags = (cpu->rflags & ~(u64)FL_ARITH) | (flags & FL_ARITH);
}

static void h_flags(struct vcpu *cpu, const struct iop *op)
{
	set_flags(cpu, stub_run_flags(op->ptr, NULL));
	NEXT(cpu, op);
}

static void h_flags_load(struct vcpu *cpu, const struct iop *op)
{
	gva_t a = iop_ea(cpu, op, op->size, false);

	if (unlikely(op->aux[AUX_ALIGNED] && (a & (op->size - 1))))
		misaligned(cpu, op, a);
	vec_check_align(cpu, a, (u32)op->imm);
	set_flags(cpu, stub_run_flags(op->ptr, vec_read(cpu, a, op->size)));
	NEXT(cpu, op);
}

/* PCMPxSTRx: lengths in (R)AX and (R)DX, index out in ECX, flags. */
static void h_pcmpstr(struct vcpu *cpu, const struct iop *op)
{
	void *p = NULL;
	u64 rcx = cpu->gpr[R_CX], flags = 0;

	if (op->size) {
		gva_t a = iop_ea(cpu, op, op->size, false);

		vec_check_align(cpu, a, op->size);
		p = vec_read(cpu, a, op->size);
	}
	__asm__ volatile("call *%[stub]\n\tpushfq\n\tpop %[flags]"
			 : "+c"(rcx), [flags] "=&r"(flags)
			 : [stub] "r"(op->ptr), "S"(p), "a"(cpu->gpr[R_AX]), "d"(cpu->gpr[R_DX])
			 : "memory", "cc");
	cpu->gpr[R_CX] = rcx;
	set_flags(cpu, flags);
	NEXT(cpu, op);
}

/* VZEROALL, VZEROUPPER outside 64-bit mode: registers 8-15 keep their values (SDM 2C). */
static __attribute__((noinline)) void zero_low(struct vcpu *cpu, const struct iop *op)
{
	u8 kept[8][32];

	for (unsigned i = 0; i < 8; i++)
		vec_reg_get(cpu, 8 + i, kept[i]);
	stub_run(op->ptr, NULL);
	for (unsigned i = 0; i < 8; i++)
		vec_reg_set(cpu, 8 + i, kept[i]);
}

static void h_zero_low(struct vcpu *cpu, const struct iop *op)
{
	zero_low(cpu, op);
	NEXT(cpu, op);
}

/* ---- choosing ---- */
static bool uses_kind(const struct insn *in, unsigned kind)
{
	for (unsigned i = 0; i < in->nops; i++)
		if (in->op[i].kind == kind)
			return true;
	return false;
}

static bool is_pcmpstr(u16 id)
{
	return id == INSN_PCMPESTRI || id == INSN_PCMPESTRM || id == INSN_PCMPISTRI || id == INSN_PCMPISTRM;
}

static bool writes_flags(const struct insn *in)
{
	return in->desc->flags_written || in->desc->flags_undef;
}

/* MMX instructions that work on XMM registers too, or were made with SSE's floating point, follow SSE's
 * rules. */
static enum vec_unavail unavail_rules(const struct insn *in)
{
	if (in->prefixes & PFX_VEX)
		return VU_AVX;
	if (in->desc->cls == IC_X87)
		return VU_X87;
	return uses_kind(in, OPK_XMM) || uses_kind(in, OPK_YMM) ||
		       !(uses_kind(in, OPK_MMX) || in->id == INSN_EMMS)
		   ? VU_SSE
		   : VU_MMX;
}

static bool available(const struct vcpu *cpu, enum vec_unavail rules)
{
	switch (rules) {
	case VU_AVX:
		return cpu->mode.avx_ok;
	case VU_SSE:
		return cpu->mode.sse_ok;
	default:
		return cpu->mode.fpu_ok;
	}
}

/* Natural alignment that #AC asks for (SDM 3A table 6-7). */
static unsigned ac_align(unsigned size)
{
	return size == 10 ? 8 : size & (size - 1) ? 1 : size ? MIN(size, 16u) : 1;
}

/* SHA operands need no alignment on AMD. */
static bool needs_alignment(const struct vcpu *cpu, const struct insn *in)
{
	u32 attr = in->desc->attr;

	if (in->desc->feature == FEAT_SHA && vs_of(cpu)->amd)
		return false;
	return attr & IA_ALIGN_ANY || ((attr & IA_ALIGN16) && !(in->prefixes & PFX_VEX));
}

static iop_fn *reg_shape(const struct insn *in, struct iop *op)
{
	unsigned gpr = stub_gpr_fields(in);

	op->dst = (in->modrm >> 3 & 7) | (in->rex & 4) << 1;
	op->src = (in->modrm & 7) | (in->rex & 1) << 3;
	if (gpr & STUB_GPR_REG)
		return h_gpr_out_reg;
	if (gpr & STUB_GPR_RM)
		return in->op[0].kind == OPK_GPR ? h_gpr_out_rm : h_gpr_in;
	return writes_flags(in) ? h_flags : h_reg;
}

static iop_fn *mem_shape(const struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	bool mmx = uses_kind(in, OPK_MMX), store = in->op[0].kind == OPK_MEM;

	op->imm = ac_align(op->size);
	op->dst = (in->modrm >> 3 & 7) | (in->rex & 4) << 1;
	if (stub_gpr_fields(in) & STUB_GPR_REG)
		return h_gpr_out_load;
	if (mmx)
		return store ? h_mmx_store : h_mmx_load;
	if (writes_flags(in)) {
		op->aux[AUX_ALIGNED] = needs_alignment(cpu, in);
		return h_flags_load;
	}
	if (needs_alignment(cpu, in))
		return store ? h_store_aligned : h_load_aligned;
	return store ? h_store : h_load;
}

static bool compile_plain(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	bool mem = uses_kind(in, OPK_MEM);

	op->size = mem ? (u8)in->mem.size : 0;
	if (mem && (in->mem.size == 0 || in->mem.size > 64))
		return false;
	if ((in->id == INSN_ZEROALL || in->id == INSN_ZEROUPPER) && cpu->mode.code != INSN_MODE_64)
		op->fn = h_zero_low;
	else if (is_pcmpstr(in->id))
		op->fn = h_pcmpstr;
	else
		op->fn = mem ? mem_shape(cpu, in, op) : reg_shape(in, op);
	return true;
}

/*
 * Stubs that found no room: the word travels in op->ptr, the handler in the high half of op->imm (the text
 * lies below 4 GiB), and the stub is written out before each run. Only a guest that runs a million distinct
 * encodings comes here.
 */
static void h_end(struct vcpu *cpu, const struct iop *op) {}

static __attribute__((noinline)) void run_spilled(struct vcpu *cpu, const struct iop *op)
{
	struct iop one[2] = {*op, {.fn = h_end}};

	one[0].fn = (iop_fn *)(op->imm >> 32);
	one[0].ptr = stub_scratch(cpu, (u64)op->ptr);
	one[0].imm = (u32)op->imm;
	one[0].fn(cpu, one);
}

static void h_spilled(struct vcpu *cpu, const struct iop *op)
{
	const struct iop *next = op + 1;

	run_spilled(cpu, op); /* RIP is behind the instruction now */
	next->fn(cpu, next);
}

static bool attach_stub(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	u64 word = stub_encode(in, cpu->mode.code == INSN_MODE_64);

	if (!word)
		return false;
	op->ptr = stub_get(word);
	if (unlikely(!op->ptr)) {
		op->ptr = (void *)word;
		op->imm = (u32)op->imm | (u64)op->fn << 32;
		op->fn = h_spilled;
	}
	return true;
}

bool vec_compile(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	enum vec_unavail rules = unavail_rules(in);

	if (!cpu_has(cpu, in->desc->feature) && in->desc->feature != FEAT_NONE)
		return false;
	if (rules == VU_AVX && (!cpu->mode.pe || cpu->mode.vm86))
		return false;
	if (in->map == 3 && (in->opcode == 0x16 || in->opcode == 0x22) && (in->prefixes & PFX_VEX) &&
	    (in->rex & 8) && cpu->mode.code != INSN_MODE_64)
		return false; /* VPEXTRQ, VPINSRQ: AMD does not ignore W here */
	vec_state(cpu);
	if (vec_compile_state(cpu, in, op)) /* they have rules of their own */
		return true;
	if (!available(cpu, rules) && in->id != INSN_FWAIT) {
		op->fn = h_unavail;
		op->aux[AUX_UNAVAIL] = rules;
		return true;
	}
	if (!vec_compile_x87(cpu, in, op) && !vec_compile_masked(cpu, in, op) && !compile_plain(cpu, in, op))
		return false;
	return attach_stub(cpu, in, op);
}
