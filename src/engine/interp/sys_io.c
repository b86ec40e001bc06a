/* IN OUT INS OUTS. The CPU room unwinds to the VMM where it must; the instruction is then restarted and finds the answer. */
#include "engine/interp/interp_int.h"

/* imm: the port, or aux[0] set: DX */
static u16 port_of(const struct vcpu *cpu, const struct iop *op)
{
	return op->aux[0] ? RD16(cpu, R_DX) : (u8)op->imm;
}

static void in(struct vcpu *cpu, const struct iop *op)
{
	u16 port = port_of(cpu, op);

	cpu_check_io(cpu, port, op->size);
	gpr_write(cpu, R_AX, cpu_in(cpu, port, op->size), op->size);
	cpu->rip += op->len;
	return iop_return(cpu, op, false);
}

static void out(struct vcpu *cpu, const struct iop *op)
{
	u16 port = port_of(cpu, op);

	cpu_check_io(cpu, port, op->size);
	cpu_out(cpu, port, op->size, gpr_read(cpu, R_AX, op->size));
	cpu->rip += op->len;
	return iop_return(cpu, op, false);
}

/* ---- strings ---- */

#define IO_BATCH 1024 /* bytes: what the PIO page protocol moves at once */

static gva_t io_linear(struct vcpu *cpu, const struct iop *op, unsigned reg, bool write)
{
	u64 off = gpr_read(cpu, reg, op->asize);
	unsigned seg = write ? SEG_ES : op->seg;

	if (!cpu->mode.long64)
		return seg_linear(cpu, seg, off, op->size, write);
	return seg >= SEG_FS ? off + cpu->seg[seg].base : off;
}

/* How many items one go moves: those in the page of the first, if the direction and mode are the simple ones. The same for
 * the first attempt and the restarted one. */
static u32 io_items(const struct vcpu *cpu, const struct iop *op, gva_t a, u64 count)
{
	u64 room = MIN(PAGE_SIZE - (a & ~PAGE_MASK), IO_BATCH) / op->size;

	if ((cpu->rflags & (FL_DF | FL_TF)) || !cpu->mode.flat || op->asize != (cpu->mode.long64 ? 8 : 4) || !room)
		return 1;
	return (u32)MIN(count, room);
}

static void io_advance(struct vcpu *cpu, const struct iop *op, unsigned reg, u32 items)
{
	u64 bytes = (u64)items * op->size;

	gpr_write(cpu, reg, cpu->gpr[reg] + (cpu->rflags & FL_DF ? -bytes : bytes), op->asize);
}

static u32 ins_some(struct vcpu *cpu, const struct iop *op, u64 count)
{
	gva_t a = io_linear(cpu, op, R_DI, true);
	u32 n = io_items(cpu, op, a, count);
	u8 buf[IO_BATCH];

	mmu_probe(cpu, a, n * op->size, ACC_WRITE, cpu->mode.mmu_idx);
	n = cpu_in_string(cpu, RD16(cpu, R_DX), op->size, n, buf);
	for (u32 i = 0; i < n; i++) {
		u32 v = 0;

		memcpy(&v, buf + i * op->size, op->size);
		mem_write(cpu, a + i * op->size, v, op->size);
	}
	io_advance(cpu, op, R_DI, n);
	return n;
}

static u32 outs_some(struct vcpu *cpu, const struct iop *op, u64 count)
{
	gva_t a = io_linear(cpu, op, R_SI, false);
	u32 n = io_items(cpu, op, a, count);
	u8 buf[IO_BATCH];

	for (u32 i = 0; i < n; i++) {
		u32 v = (u32)mem_read(cpu, a + i * op->size, op->size);

		memcpy(buf + i * op->size, &v, op->size);
	}
	n = cpu_out_string(cpu, RD16(cpu, R_DX), op->size, n, buf);
	io_advance(cpu, op, R_SI, n);
	return n;
}

/* aux[1]: repeated. Leaves after each batch, so that the run loop sees attention and restarts are exact. */
static void io_string(struct vcpu *cpu, const struct iop *op, u32 (*some)(struct vcpu *, const struct iop *, u64))
{
	u64 count = op->aux[1] ? gpr_read(cpu, R_CX, op->asize) : 1;

	if (count) {
		cpu_check_io(cpu, RD16(cpu, R_DX), op->size);
		count -= some(cpu, op, count);
		if (op->aux[1])
			gpr_write(cpu, R_CX, count, op->asize);
		if (count)
			return iop_again(cpu, op);
	}
	cpu->rip += op->len;
	return iop_return(cpu, op, false);
}

static void ins(struct vcpu *cpu, const struct iop *op)
{
	return io_string(cpu, op, ins_some);
}

static void outs(struct vcpu *cpu, const struct iop *op)
{
	return io_string(cpu, op, outs_some);
}

bool compile_sys_io(struct vcpu *cpu, const struct insn *in_, struct iop *op)
{
	bool is_in = in_->id == INSN_IN;
	const struct insn_operand *data = &in_->op[!is_in], *port = &in_->op[is_in];

	if (in_->id == INSN_INS || in_->id == INSN_OUTS) {
		op->size = in_->opsize;
		op->seg = in_->mem.seg;
		op->aux[1] = !!(in_->prefixes & (PFX_REP | PFX_REPNE));
		op->fn = in_->id == INSN_INS ? ins : outs;
		return true;
	}
	op->size = data->size;
	op->aux[0] = port->kind == OPK_GPR;
	op->imm = in_->imm;
	op->fn = is_in ? in : out;
	return true;
}
