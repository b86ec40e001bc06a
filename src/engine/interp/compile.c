/* From struct insn to struct iop: what is decided once, when code is decoded. */
#include "engine/interp/interp_int.h"
#include "engine/trace/trace.h"

void op_raise_ud(struct vcpu *cpu, const struct iop *op) { cpu_raise(cpu, EXC_UD); }
void op_raise_nm(struct vcpu *cpu, const struct iop *op) { cpu_raise(cpu, EXC_NM); }
void op_raise_gp(struct vcpu *cpu, const struct iop *op) { cpu_raise_gp(cpu, 0); }
void op_nop(struct vcpu *cpu, const struct iop *op) { NEXT(cpu, op); }

gva_t iop_ea_slow(struct vcpu *cpu, const struct iop *op, unsigned size, bool write)
{
	return iop_linear(cpu, op, iop_ea_offset(cpu, op), size, write);
}

gva_t iop_linear(struct vcpu *cpu, const struct iop *op, u64 off, unsigned size, bool write)
{
	if (op->flags & IOP_SEGBASE)
		return off + cpu->seg[op->seg].base;
	if (op->flags & IOP_SEGCHECK)
		return seg_linear(cpu, op->seg, off, size, write);
	if (unlikely(off + size > BIT64(32)) && !cpu->mode.long64)
		return seg_linear(cpu, op->seg, off, size, write); /* a flat segment too ends at 4 GiB */
	return off;
}

/* Should the access leave for the VMM with the lock held, the unwinding gives it back (run.c). */
u64 rmw_begin(struct vcpu *cpu, gva_t a, unsigned size, bool locked)
{
	mmu_probe(cpu, a, size, ACC_WRITE, cpu->mode.mmu_idx);
	if (locked) {
		vm_split_lock(cpu->vm);
		cpu->icache->split_locked = true;
	}
	return mem_read(cpu, a, size);
}

void rmw_end(struct vcpu *cpu, gva_t a, u64 v, unsigned size, bool locked)
{
	mem_write(cpu, a, v, size);
	if (locked) {
		cpu->icache->split_locked = false;
		vm_split_unlock(cpu->vm);
	}
}

/* clang-format off */
static int_compiler *const compilers[INSN_COUNT] = {
	[INSN_ADD] = compile_alu, [INSN_OR] = compile_alu, [INSN_ADC] = compile_alu, [INSN_SBB] = compile_alu,
	[INSN_AND] = compile_alu, [INSN_SUB] = compile_alu, [INSN_XOR] = compile_alu, [INSN_CMP] = compile_alu,
	[INSN_TEST] = compile_alu,
	[INSN_NOT] = compile_unary, [INSN_NEG] = compile_unary, [INSN_INC] = compile_unary, [INSN_DEC] = compile_unary,
	[INSN_ROL] = compile_shift, [INSN_ROR] = compile_shift, [INSN_RCL] = compile_shift, [INSN_RCR] = compile_shift,
	[INSN_SHL] = compile_shift, [INSN_SHR] = compile_shift, [INSN_SAR] = compile_shift,
	[INSN_SHLD] = compile_shift, [INSN_SHRD] = compile_shift,
	[INSN_MUL] = compile_muldiv, [INSN_IMUL] = compile_muldiv, [INSN_DIV] = compile_muldiv,
	[INSN_IDIV] = compile_muldiv,
	[INSN_BT] = compile_bit, [INSN_BTS] = compile_bit, [INSN_BTR] = compile_bit, [INSN_BTC] = compile_bit,
	[INSN_BSF] = compile_bmi, [INSN_BSR] = compile_bmi, [INSN_TZCNT] = compile_bmi, [INSN_LZCNT] = compile_bmi,
	[INSN_POPCNT] = compile_bmi, [INSN_ANDN] = compile_bmi, [INSN_BEXTR] = compile_bmi, [INSN_BLSI] = compile_bmi,
	[INSN_BLSMSK] = compile_bmi, [INSN_BLSR] = compile_bmi, [INSN_BZHI] = compile_bmi, [INSN_MULX] = compile_bmi,
	[INSN_PDEP] = compile_bmi, [INSN_PEXT] = compile_bmi, [INSN_RORX] = compile_bmi, [INSN_SARX] = compile_bmi,
	[INSN_SHLX] = compile_bmi, [INSN_SHRX] = compile_bmi, [INSN_ADCX] = compile_bmi, [INSN_ADOX] = compile_bmi,
	[INSN_CRC32] = compile_bmi,
	[INSN_MOV] = compile_mov, [INSN_LEA] = compile_mov, [INSN_MOVNTI] = compile_mov, [INSN_MOVDIRI] = compile_mov,
	[INSN_MOVZX] = compile_ext, [INSN_MOVSX] = compile_ext, [INSN_MOVSXD] = compile_ext, [INSN_CBW] = compile_ext,
	[INSN_CWD] = compile_ext, [INSN_BSWAP] = compile_ext, [INSN_MOVBE] = compile_ext, [INSN_XLAT] = compile_ext,
	[INSN_MOVDIR64B] = compile_ext,
	[INSN_CMOVCC] = compile_cmov, [INSN_SETCC] = compile_cmov,
	[INSN_PUSH] = compile_stack, [INSN_POP] = compile_stack, [INSN_PUSHA] = compile_stack,
	[INSN_POPA] = compile_stack, [INSN_ENTER] = compile_stack, [INSN_LEAVE] = compile_stack,
	[INSN_PUSH_SREG] = compile_stack, [INSN_POP_SREG] = compile_stack,
	[INSN_JCC] = compile_branch, [INSN_JMP] = compile_branch, [INSN_CALL] = compile_branch,
	[INSN_RET] = compile_branch, [INSN_LOOP] = compile_branch, [INSN_LOOPE] = compile_branch,
	[INSN_LOOPNE] = compile_branch, [INSN_JRCXZ] = compile_branch,
	[INSN_MOVS] = compile_string, [INSN_CMPS] = compile_string, [INSN_STOS] = compile_string,
	[INSN_LODS] = compile_string, [INSN_SCAS] = compile_string,
	[INSN_CLC] = compile_flags, [INSN_STC] = compile_flags, [INSN_CMC] = compile_flags, [INSN_CLD] = compile_flags,
	[INSN_STD] = compile_flags, [INSN_LAHF] = compile_flags, [INSN_SAHF] = compile_flags,
	[INSN_SALC] = compile_flags, [INSN_NOP] = compile_flags, [INSN_PAUSE] = compile_flags,
	[INSN_PREFETCH] = compile_flags, [INSN_PREFETCHW] = compile_flags, [INSN_CLDEMOTE] = compile_flags,
	[INSN_LFENCE] = compile_flags, [INSN_MFENCE] = compile_flags, [INSN_SFENCE] = compile_flags,
	[INSN_XADD] = compile_atomic, [INSN_CMPXCHG] = compile_atomic, [INSN_CMPXCHG8B] = compile_atomic,
	[INSN_CMPXCHG16B] = compile_atomic, [INSN_XCHG] = compile_atomic,
	[INSN_AAA] = compile_legacy, [INSN_AAD] = compile_legacy, [INSN_AAM] = compile_legacy, [INSN_AAS] = compile_legacy,
	[INSN_DAA] = compile_legacy, [INSN_DAS] = compile_legacy, [INSN_BOUND] = compile_legacy,
	[INSN_ARPL] = compile_legacy,
	[INSN_JMP_FAR] = compile_sys_far, [INSN_CALL_FAR] = compile_sys_far, [INSN_RET_FAR] = compile_sys_far,
	[INSN_IRET] = compile_sys_far, [INSN_INT] = compile_sys_far, [INSN_INT1] = compile_sys_far,
	[INSN_INT3] = compile_sys_far, [INSN_INTO] = compile_sys_far, [INSN_SYSCALL] = compile_sys_far,
	[INSN_SYSRET] = compile_sys_far, [INSN_SYSENTER] = compile_sys_far, [INSN_SYSEXIT] = compile_sys_far,
	[INSN_VMCALL] = compile_sys_misc, [INSN_VMMCALL] = compile_sys_misc,
	[INSN_CLI] = compile_sys_reg, [INSN_STI] = compile_sys_reg, [INSN_PUSHF] = compile_sys_reg,
	[INSN_POPF] = compile_sys_reg, [INSN_CLAC] = compile_sys_reg, [INSN_STAC] = compile_sys_reg,
	[INSN_MOV_CR] = compile_sys_reg, [INSN_MOV_DR] = compile_sys_reg, [INSN_CLTS] = compile_sys_reg,
	[INSN_LMSW] = compile_sys_reg, [INSN_SMSW] = compile_sys_reg,
	[INSN_RDMSR] = compile_sys_misc, [INSN_WRMSR] = compile_sys_misc, [INSN_XGETBV] = compile_sys_misc,
	[INSN_XSETBV] = compile_sys_misc, [INSN_RDFSBASE] = compile_sys_reg, [INSN_RDGSBASE] = compile_sys_reg,
	[INSN_WRFSBASE] = compile_sys_reg, [INSN_WRGSBASE] = compile_sys_reg, [INSN_SWAPGS] = compile_sys_reg,
	[INSN_MOV_SREG] = compile_sys_desc, [INSN_LDS] = compile_sys_desc, [INSN_LES] = compile_sys_desc,
	[INSN_LFS] = compile_sys_desc, [INSN_LGS] = compile_sys_desc, [INSN_LSS] = compile_sys_desc,
	[INSN_LGDT] = compile_sys_desc, [INSN_SGDT] = compile_sys_desc, [INSN_LIDT] = compile_sys_desc,
	[INSN_SIDT] = compile_sys_desc, [INSN_LLDT] = compile_sys_desc, [INSN_SLDT] = compile_sys_desc,
	[INSN_LTR] = compile_sys_desc, [INSN_STR] = compile_sys_desc, [INSN_VERR] = compile_sys_desc,
	[INSN_VERW] = compile_sys_desc, [INSN_LAR] = compile_sys_desc, [INSN_LSL] = compile_sys_desc,
	[INSN_IN] = compile_sys_io, [INSN_OUT] = compile_sys_io, [INSN_INS] = compile_sys_io, [INSN_OUTS] = compile_sys_io,
	[INSN_HLT] = compile_sys_misc, [INSN_CPUID] = compile_sys_misc, [INSN_RDTSC] = compile_sys_misc,
	[INSN_RDTSCP] = compile_sys_misc, [INSN_RDPMC] = compile_sys_misc, [INSN_RDRAND] = compile_sys_misc,
	[INSN_RDSEED] = compile_sys_misc, [INSN_RDPID] = compile_sys_misc, [INSN_INVD] = compile_sys_misc,
	[INSN_WBINVD] = compile_sys_misc, [INSN_WBNOINVD] = compile_sys_misc, [INSN_INVLPG] = compile_sys_misc,
	[INSN_INVPCID] = compile_sys_misc, [INSN_MONITOR] = compile_sys_misc, [INSN_MWAIT] = compile_sys_misc,
	[INSN_CLFLUSH] = compile_sys_misc, [INSN_CLFLUSHOPT] = compile_sys_misc, [INSN_CLWB] = compile_sys_misc,
	[INSN_SERIALIZE] = compile_sys_misc,
};
/* clang-format on */

bool int_compile(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	int_compiler *c = compilers[in->id];

	return c && c(cpu, in, op);
}

/* Save areas of the vector state: class IC_SYS, but made by those who know the state. */
static bool is_vector_state(u16 id)
{
	return id >= INSN_FXSAVE && id <= INSN_STMXCSR;
}

static void compile_address(const struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	const struct insn_mem *m = &in->mem;
	bool fsgs = m->seg == SEG_FS || m->seg == SEG_GS;

	op->has_mem = true;
	op->seg = m->seg;
	op->base = m->rip_relative ? IOP_BASE_RIP : m->base;
	op->index = m->index;
	op->shift = m->scale ? __builtin_ctz(m->scale) : 0;
	op->disp = m->disp + (m->rip_relative ? in->len : 0);
	if (cpu->mode.long64)
		op->flags |= fsgs ? IOP_SEGBASE : 0;
	else if (!cpu->mode.flat || fsgs || m->seg == SEG_CS)
		op->flags |= IOP_SEGCHECK;
	if (op->asize != 8 || op->flags || m->vsib)
		return;
	if (op->base == INSN_NO_REG)
		return;
	op->ea_base = op->base == IOP_BASE_RIP ? 16 : op->base;
	op->ea_kind = op->index == INSN_NO_REG ? EA_BASE : EA_BASE_INDEX;
}

/* Faults that are the same whenever the code runs in this mode. NULL: none. */
static iop_fn *fixed_fault(const struct vcpu *cpu, const struct insn *in)
{
	const struct insn_desc *d = in->desc;
	const struct cpu_mode *m = &cpu->mode;

	if (d->feature != FEAT_NONE && d->feature != FEAT_RDPMC && !cpu_has(cpu, d->feature))
		return op_raise_ud;
	if ((d->attr & IA_NOPE) && (!m->pe || m->vm86))
		return op_raise_ud;
	if (d->attr & IA_PRIV) {
		/* CLAC and STAC are #UD rather than #GP(0) above CPL 0, SYSRET is #UD without SCE first */
		if (m->cpl != 0 && (in->id == INSN_CLAC || in->id == INSN_STAC))
			return op_raise_ud;
		if (m->cpl != 0 && in->id != INSN_SYSRET)
			return op_raise_gp;
	}
	return NULL;
}

static bool is_vector_class(u8 cls)
{
	return cls == IC_X87 || cls == IC_MMX || cls == IC_SSE || cls == IC_AVX;
}

static void compile_insn(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	bool ok = false;

	op->len = in->len;
	op->desc = in->desc;
	op->asize = in->adsize;
	op->base = op->index = INSN_NO_REG;
	op->size = in->opsize;
	if (in->prefixes & PFX_LOCK)
		op->flags |= IOP_LOCK;
	op->seg = SEG_DS;
	for (unsigned i = 0; i < in->nops; i++)
		if (in->op[i].kind == OPK_MEM)
			compile_address(cpu, in, op);
	op->fn = fixed_fault(cpu, in);
	if (op->fn)
		return;
	if (is_vector_class(in->desc->cls) || is_vector_state(in->id))
		ok = vec_compile(cpu, in, op);
	else
		ok = int_compile(cpu, in, op);
	if (!ok)
		op->fn = op_raise_ud;
}

void iop_compile(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	compile_insn(cpu, in, op);
	if (unlikely(cpu->mode.key & MODE_KEY_TRACE))
		trace_compile(in, op);
}

void iop_compile_error(const struct insn *in, enum insn_error err, struct iop *op)
{
	op->len = in->len;
	op->fn = err == INSN_TOO_LONG ? op_raise_gp : op_raise_ud;
}

/* Handlers of these change nothing that decoded code depends on, or leave the block by themselves if they do. */
static bool harmless(u16 id)
{
	return id == INSN_CLAC || id == INSN_STAC || id == INSN_SWAPGS || id == INSN_WRFSBASE ||
	       id == INSN_WRGSBASE || id == INSN_STI || id == INSN_POPF;
}

bool insn_ends_block(const struct insn *in)
{
	u32 attr = in->desc->attr;

	if ((attr & IA_BRANCH) && !(attr & IA_COND))
		return true;
	return (attr & IA_ENDBLOCK) && !harmless(in->id);
}
