/* Memory operands of vector instructions off the fast path, and floating-point exceptions out of stubs. */
#include "engine/interp/vec_int.h"
#include "engine/lib/lib.h"

#define COPY_MAX 64u /* what mmu_read_slow takes at once */

/* A non-canonical address faults as such: the access itself will. */
void vec_raise_ac(struct vcpu *cpu, gva_t a)
{
	unsigned unused = cpu->cr4 & BIT(12) ? 64 - 57 : 64 - 48;

	if (cpu->mode.long64 && (u64)((s64)(a << unused) >> unused) != a)
		return;
	cpu_raise_err(cpu, EXC_AC, 0);
}

void *vec_read_slow(struct vcpu *cpu, gva_t a, unsigned size)
{
	void *p = mmu_ptr_slow(cpu, a, size, ACC_READ, cpu->mode.mmu_idx);

	if (p)
		return p;
	p = vs_of(cpu)->bounce;
	mmu_read_slow(cpu, a, p, size, cpu->mode.mmu_idx);
	return p;
}

void vec_store_slow(struct vcpu *cpu, const struct iop *op, gva_t a)
{
	u8 *bounce = vs_of(cpu)->bounce;

	mmu_probe(cpu, a, op->size, ACC_WRITE, cpu->mode.mmu_idx);
	stub_run(op->ptr, bounce);
	mmu_write_slow(cpu, a, bounce, op->size, cpu->mode.mmu_idx);
}

void vec_copy_in(struct vcpu *cpu, gva_t a, void *buf, unsigned size)
{
	void *whole = mmu_hit(cpu, a, size, false, cpu->mode.mmu_idx);

	if (whole) {
		memcpy(buf, whole, size);
		return;
	}
	for (unsigned i = 0, n = 0; i < size; i += n) {
		void *p = NULL;

		n = MIN(size - i, COPY_MAX - (unsigned)((a + i) & (COPY_MAX - 1)));
		p = mmu_ptr(cpu, a + i, n, ACC_READ, cpu->mode.mmu_idx);
		if (p)
			memcpy((u8 *)buf + i, p, n);
		else
			mmu_read_slow(cpu, a + i, (u8 *)buf + i, n, cpu->mode.mmu_idx);
	}
}

void vec_copy_out(struct vcpu *cpu, gva_t a, const void *buf, unsigned size)
{
	void *whole = mmu_hit(cpu, a, size, true, cpu->mode.mmu_idx);

	if (whole) {
		memcpy(whole, buf, size);
		return;
	}
	for (unsigned i = 0, n = 0; i < size; i += n) {
		void *p = NULL;

		n = MIN(size - i, COPY_MAX - (unsigned)((a + i) & (COPY_MAX - 1)));
		p = mmu_ptr(cpu, a + i, n, ACC_WRITE, cpu->mode.mmu_idx);
		if (p)
			memcpy(p, (const u8 *)buf + i, n);
		else
			mmu_write_slow(cpu, a + i, (const u8 *)buf + i, n, cpu->mode.mmu_idx);
	}
}

/* [V]MOVDQU between [rsi] and a register. */
static void reg_move(struct vcpu *cpu, unsigned reg, bool store, const void *mem)
{
	struct insn in = {.map = 1,
			  .opcode = store ? 0x7f : 0x6f,
			  .pp = 2,
			  .modrm_off = 3,
			  .modrm = (u8)((reg & 7) << 3 | 6),
			  .rex = reg & 8 ? 4 : 0};
	u64 word = 0;
	void *stub = NULL;

	if (vs_of(cpu)->has_avx) {
		in.prefixes = PFX_VEX;
		in.vl = 1;
	}
	word = stub_encode(&in, true);
	stub = stub_get(word);
	stub_run(stub ? stub : stub_scratch(cpu, word), mem);
}

void vec_reg_get(struct vcpu *cpu, unsigned reg, void *to)
{
	reg_move(cpu, reg, true, to);
}

void vec_reg_set(struct vcpu *cpu, unsigned reg, const void *from)
{
	reg_move(cpu, reg, false, from);
}

void vec_mmx_get(struct vcpu *cpu, unsigned reg, void *to)
{
	struct insn in = {.map = 1, .opcode = 0x7f, .modrm_off = 2, .modrm = (u8)(reg << 3 | 6)};
	u64 word = stub_encode(&in, true);
	void *stub = stub_get(word);

	stub_run(stub ? stub : stub_scratch(cpu, word), to);
}

/*
 * The stub has pushed nothing and the handler holds nothing, so the thread can go on as if the handler had
 * called cpu_raise(). An unmasked SIMD exception without CR4.OSXMMEXCPT is #UD (SDM 3A 2.5). CR0.NE = 0: #MF
 * all the same, there is no FERR# pin.
 */
bool vec_handle_sigfpe(struct vcpu *cpu, ucontext_t *uc)
{
	greg_t *r = uc->uc_mcontext.gregs;
	unsigned vector = (unsigned)r[REG_TRAPNO];

	if (!stub_contains((u64)r[REG_RIP]) || (vector != EXC_MF && vector != EXC_XM))
		return false;
	if (vector == EXC_XM && !(cpu->cr4 & BIT(10)))
		vector = EXC_UD;
	r[REG_RDI] = (greg_t)cpu;
	r[REG_RSI] = vector;
	r[REG_RIP] = (greg_t)cpu_raise;
	r[REG_RSP] = (r[REG_RSP] & ~15ll) - 8; /* as after a call */
	r[REG_EFL] &= ~(greg_t)(FL_DF | FL_TF | FL_AC);
	return true;
}
