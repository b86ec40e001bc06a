/*
 * x87 on the host's x87. The instruction, data pointer and opcode of the last non-control instruction are the
 * guest's, kept in vec_state (SDM 1 8.1.8), written after the stub has run: an instruction that raises #MF
 * leaves the old ones.
 */
#include "engine/interp/vec_int.h"
#include "engine/lib/lib.h"

#define FSW_IE BIT(0)
#define FSW_OE BIT(3)
#define FSW_UE BIT(4)
#define CR0_MP BIT(1)
#define CR0_TS BIT(3)

static inline void track(struct vcpu *cpu, const struct iop *op)
{
	struct vec_state *vs = vs_of(cpu);

	vs->fip = cpu->rip;
	vs->fcs = cpu->seg[SEG_CS].sel;
	vs->fop = op->imm & 0x7ff;
}

static inline void track_data(struct vcpu *cpu, const struct iop *op, u64 offset)
{
	struct vec_state *vs = vs_of(cpu);

	track(cpu, op);
	vs->fdp = offset;
	vs->fds = cpu->seg[op->seg].sel;
}

/* A pending exception comes before the faults of this instruction's own operand. */
static inline gva_t waiting_ea(struct vcpu *cpu, const struct iop *op, bool write)
{
	gva_t a = 0;

	if (unlikely(op->flags & IOP_SEGCHECK))
		stub_run(vs_of(cpu)->fwait, NULL);
	a = iop_ea(cpu, op, op->size, write);
	if (unlikely(!vec_tlb_hit(cpu, a, op->size, write) || (cpu->rflags & FL_AC)))
		stub_run(vs_of(cpu)->fwait, NULL);
	vec_check_align(cpu, a, op->aux[AUX_ELEM]);
	return a;
}

static void h_reg(struct vcpu *cpu, const struct iop *op)
{
	stub_run(op->ptr, NULL);
	track(cpu, op);
	NEXT(cpu, op);
}

static void h_load(struct vcpu *cpu, const struct iop *op)
{
	u64 offset = iop_ea_offset(cpu, op);

	stub_run(op->ptr, vec_read(cpu, waiting_ea(cpu, op, false), op->size));
	track_data(cpu, op, offset);
	NEXT(cpu, op);
}

/* An unmasked invalid operation, overflow or underflow stores nothing (SDM 1 8.5). */
static bool result_withheld(void)
{
	u16 fcw = 0, fsw = 0;

	__asm__ volatile("fnstcw %0\n\tfnstsw %1" : "=m"(fcw), "=m"(fsw));
	return fsw & ~fcw & (FSW_IE | FSW_OE | FSW_UE);
}

/*
 * A write that must leave to the VMM unwinds and the instruction is started again, but these stores change
 * the x87 state (they pop, FNSAVE resets). So while the write is under way the old state is in the registers.
 */
#define OLD_STATE 1024 /* in the bounce buffer */
#define NEW_STATE 1536

static void remember_state(struct vcpu *cpu)
{
	__asm__ volatile("fxsave64 %0" : "=m"(*(struct fx_area *)(vs_of(cpu)->bounce + OLD_STATE)));
}

static void write_result(struct vcpu *cpu, gva_t a, const void *result, unsigned size)
{
	struct fx_area *old = (struct fx_area *)(vs_of(cpu)->bounce + OLD_STATE);
	struct fx_area *new = (struct fx_area *)(vs_of(cpu)->bounce + NEW_STATE);

	__asm__ volatile("fxsave64 %0\n\tfxrstor64 %1" : "=m"(*new) : "m"(*old));
	vec_copy_out(cpu, a, result, size);
	__asm__ volatile("fxrstor64 %0" : : "m"(*new));
}

static void store_slow(struct vcpu *cpu, const struct iop *op, gva_t a)
{
	u8 *bounce = vs_of(cpu)->bounce;

	mmu_probe(cpu, a, op->size, ACC_WRITE, cpu->mode.mmu_idx);
	remember_state(cpu);
	stub_run(op->ptr, bounce);
	if (!result_withheld())
		write_result(cpu, a, bounce, op->size);
}

static void h_store(struct vcpu *cpu, const struct iop *op)
{
	u64 offset = iop_ea_offset(cpu, op);
	gva_t a = waiting_ea(cpu, op, true);
	void *p = mmu_ptr(cpu, a, op->size, ACC_WRITE, cpu->mode.mmu_idx);

	if (likely(p != NULL))
		stub_run(op->ptr, p);
	else
		store_slow(cpu, op, a);
	track_data(cpu, op, offset);
	NEXT(cpu, op);
}

/* FCMOVcc reads, FCOMI & co. write RFLAGS. */
static void h_fcmov(struct vcpu *cpu, const struct iop *op)
{
	__asm__ volatile("push %[flags]\n\tpopfq\n\tcall *%[stub]"
			 :
			 : [flags] "r"((cpu->rflags & FL_ARITH) | FL_ONE | FL_IF), [stub] "r"(op->ptr)
			 : "memory", "cc");
	track(cpu, op);
	NEXT(cpu, op);
}

/* Of the flags, AF is left alone where the host leaves it: the guest's goes in and comes out. */
static void h_fcomi(struct vcpu *cpu, const struct iop *op)
{
	u64 flags = (cpu->rflags & FL_ARITH) | FL_ONE | FL_IF;

	__asm__ volatile("push %[flags]\n\tpopfq\n\tcall *%[stub]\n\tpushfq\n\tpop %[flags]"
			 : [flags] "+r"(flags)
			 : [stub] "r"(op->ptr)
			 : "memory", "cc");
	cpu->rflags = (cpu->rflags & ~(u64)FL_ARITH) | (flags & FL_ARITH);
	track(cpu, op);
	NEXT(cpu, op);
}

/* ---- control instructions: leave the pointers alone ---- */
static void h_control(struct vcpu *cpu, const struct iop *op)
{
	stub_run(op->ptr, NULL);
	NEXT(cpu, op);
}

static void h_fninit(struct vcpu *cpu, const struct iop *op)
{
	struct vec_state *vs = vs_of(cpu);

	stub_run(op->ptr, NULL);
	vs->fip = 0;
	vs->fdp = 0;
	vs->fop = 0;
	vs->fcs = 0;
	vs->fds = 0;
	NEXT(cpu, op);
}

/* WAIT heeds TS only together with MP, and EM not at all (SDM 3A 2.5). */
static void h_fwait(struct vcpu *cpu, const struct iop *op)
{
	if (unlikely((cpu->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS)))
		cpu_raise(cpu, EXC_NM);
	stub_run(op->ptr, NULL);
	NEXT(cpu, op);
}

static void h_fnstsw_ax(struct vcpu *cpu, const struct iop *op)
{
	cpu->gpr[R_AX] = stub_run_gpr(op->ptr, NULL, cpu->gpr[R_AX], 0);
	NEXT(cpu, op);
}

static void h_fldcw(struct vcpu *cpu, const struct iop *op)
{
	stub_run(op->ptr, vec_read(cpu, waiting_ea(cpu, op, false), op->size));
	NEXT(cpu, op);
}

/* FNSTCW, FNSTSW: never wait. */
static void h_store_word(struct vcpu *cpu, const struct iop *op)
{
	gva_t a = iop_ea(cpu, op, op->size, true);
	void *p = NULL;

	vec_check_align(cpu, a, 2);
	p = mmu_ptr(cpu, a, op->size, ACC_WRITE, cpu->mode.mmu_idx);
	if (likely(p != NULL))
		stub_run(op->ptr, p);
	else
		vec_store_slow(cpu, op, a);
	NEXT(cpu, op);
}

/* ---- environment in memory: four formats (SDM 1 figures 8-9 to 8-12) ---- */
#define ENV32       28u
#define ENV16       14u
#define STACK_BYTES 80u

struct env32 {
	u32 fcw, fsw, ftw, fip, fcs_fop, fdp, fds;
};

static bool real_format(const struct vcpu *cpu)
{
	return !cpu->mode.pe || cpu->mode.vm86;
}

static u32 env_size(const struct iop *op)
{
	return op->aux[AUX_ELEM] == 2 ? ENV16 : ENV32;
}

/* Linear-address form of real mode: 20 bits and more. */
static u64 real_pointer(u16 sel, u64 off)
{
	return ((u64)sel << 4) + off;
}

static void env_store16(const struct vec_state *vs, const struct env32 *e, bool real, u16 *out)
{
	u64 ip = real_pointer(vs->fcs, vs->fip), dp = real_pointer(vs->fds, vs->fdp);

	out[0] = (u16)e->fcw;
	out[1] = (u16)e->fsw;
	out[2] = (u16)e->ftw;
	out[3] = (u16)(real ? ip : vs->fip);
	out[4] = real ? (u16)((ip >> 16 & 0xf) << 12 | (vs->fop & 0x7ff)) : vs->fcs;
	out[5] = (u16)(real ? dp : vs->fdp);
	out[6] = real ? (u16)((dp >> 16 & 0xf) << 12) : vs->fds;
}

static void env_store32(const struct vec_state *vs, struct env32 *e, bool real)
{
	u64 ip = real_pointer(vs->fcs, vs->fip), dp = real_pointer(vs->fds, vs->fdp);

	e->fip = real ? 0xffff0000u | (u16)ip : (u32)vs->fip;
	e->fcs_fop = real ? (u32)((ip >> 16 & 0xffff) << 12 | (vs->fop & 0x7ff))
			  : (u32)vs->fop << 16 | (vs->saves_selectors ? vs->fcs : 0);
	e->fdp = real ? 0xffff0000u | (u16)dp : (u32)vs->fdp;
	e->fds = real ? (u32)((dp >> 16 & 0xffff) << 12) : 0xffff0000u | (vs->saves_selectors ? vs->fds : 0);
}

/* Back: real-mode forms give a linear address, kept with selector 0. */
static void env_load(struct vec_state *vs, const u8 *in, bool wide, bool real, struct env32 *e)
{
	const u16 *w = (const u16 *)in;

	if (wide) {
		memcpy(e, in, sizeof(*e));
		vs->fop = (real ? e->fcs_fop : e->fcs_fop >> 16) & 0x7ff;
		vs->fcs = real ? 0 : (u16)e->fcs_fop;
		vs->fds = real ? 0 : (u16)e->fds;
		vs->fip = real ? (e->fip & 0xffff) | (e->fcs_fop >> 12 & 0xffff) << 16 : e->fip;
		vs->fdp = real ? (e->fdp & 0xffff) | (e->fds >> 12 & 0xffff) << 16 : e->fdp;
		return;
	}
	*e = (struct env32){.fcw = w[0], .fsw = w[1], .ftw = w[2]};
	vs->fip = real ? w[3] | (u32)(w[4] >> 12) << 16 : w[3];
	vs->fdp = real ? w[5] | (u32)(w[6] >> 12) << 16 : w[5];
	vs->fcs = real ? 0 : w[4];
	vs->fds = real ? 0 : w[6];
	vs->fop = real ? w[4] & 0x7ff : 0;
}

/* FNSTENV and FNSAVE: all memory is proved writable before the host instruction changes the FPU. */
static __attribute__((noinline)) void do_store_env(struct vcpu *cpu, const struct iop *op)
{
	struct vec_state *vs = vs_of(cpu);
	unsigned env = env_size(op), size = env + (op->aux[AUX_VL] ? STACK_BYTES : 0);
	gva_t a = iop_ea(cpu, op, size, true);
	u8 *image = vs->bounce + 256;
	struct env32 e;

	vec_check_align(cpu, a, op->aux[AUX_ELEM]);
	mmu_probe(cpu, a, size, ACC_WRITE, cpu->mode.mmu_idx);
	remember_state(cpu);
	stub_run(op->ptr, image); /* always the 32-bit form */
	memcpy(&e, image, ENV32);
	if (env == ENV32) {
		env_store32(vs, &e, real_format(cpu));
		memcpy(image, &e, ENV32);
	} else {
		image += ENV32 - ENV16; /* the registers follow */
		env_store16(vs, &e, real_format(cpu), (u16 *)image);
	}
	write_result(cpu, a, image, size);
	if (op->aux[AUX_VL]) { /* FNSAVE ends with FNINIT */
		vs->fip = 0;
		vs->fdp = 0;
		vs->fop = 0;
		vs->fcs = 0;
		vs->fds = 0;
	}
}

static __attribute__((noinline)) void do_load_env(struct vcpu *cpu, const struct iop *op)
{
	struct vec_state *vs = vs_of(cpu);
	unsigned env = env_size(op), size = env + (op->aux[AUX_VL] ? STACK_BYTES : 0);
	u8 *image = vs->bounce + 256;
	u8 *host = image + ENV16; /* the host's image ends where the guest's does */
	gva_t a = 0;
	struct env32 e;

	stub_run(vs->fwait, NULL);
	a = iop_ea(cpu, op, size, false);
	vec_check_align(cpu, a, op->aux[AUX_ELEM]);
	image = host + ENV32 - env;
	vec_copy_in(cpu, a, image, size);
	env_load(vs, image, env == ENV32, real_format(cpu), &e);
	memcpy(host, &e, ENV32);
	stub_run(op->ptr, host);
}

/* Handlers proper: see vec_mask.c. */
static void h_store_env(struct vcpu *cpu, const struct iop *op)
{
	do_store_env(cpu, op);
	NEXT(cpu, op);
}

static void h_load_env(struct vcpu *cpu, const struct iop *op)
{
	do_load_env(cpu, op);
	NEXT(cpu, op);
}

/* ---- choosing ---- */
static const struct {
	u16 id;
	iop_fn *reg, *mem;
} specials[] = {
    {INSN_FNINIT, h_fninit, NULL},
    {INSN_FNCLEX, h_control, NULL},
    {INSN_FNENI, h_control, NULL},
    {INSN_FNDISI, h_control, NULL},
    {INSN_FNSETPM, h_control, NULL},
    {INSN_FWAIT, h_fwait, NULL},
    {INSN_FNSTSW, h_fnstsw_ax, h_store_word},
    {INSN_FNSTCW, NULL, h_store_word},
    {INSN_FLDCW, NULL, h_fldcw},
    {INSN_FNSTENV, NULL, h_store_env},
    {INSN_FNSAVE, NULL, h_store_env},
    {INSN_FLDENV, NULL, h_load_env},
    {INSN_FRSTOR, NULL, h_load_env},
    {INSN_FCMOVCC, h_fcmov, NULL},
    {INSN_FCOMI, h_fcomi, NULL},
    {INSN_FCOMIP, h_fcomi, NULL},
    {INSN_FUCOMI, h_fcomi, NULL},
    {INSN_FUCOMIP, h_fcomi, NULL},
};

static bool stores(u16 id)
{
	return id == INSN_FST || id == INSN_FSTP || id == INSN_FIST || id == INSN_FISTP ||
	       id == INSN_FISTTP || id == INSN_FBSTP;
}

bool vec_compile_x87(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	bool mem = in->modrm_off && in->modrm < 0xc0;

	if (in->desc->cls != IC_X87)
		return false;
	op->imm = (in->opcode & 7) << 8 | in->modrm;
	op->size = mem ? (u8)in->mem.size : 0;
	op->aux[AUX_ELEM] = in->mem.size == 10 ? 8 : (u8)in->mem.size; /* alignment */
	op->aux[AUX_VL] = in->id == INSN_FNSAVE || in->id == INSN_FRSTOR;
	if (op->aux[AUX_VL] || in->id == INSN_FNSTENV || in->id == INSN_FLDENV)
		op->aux[AUX_ELEM] = in->opsize == 2 ? 2 : 4;
	op->fn = mem ? (stores(in->id) ? h_store : h_load) : h_reg;
	for (unsigned i = 0; i < ARRAY_SIZE(specials); i++)
		if (specials[i].id == in->id)
			op->fn = mem ? specials[i].mem : specials[i].reg;
	return op->fn != NULL;
}
