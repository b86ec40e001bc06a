/*
 * Privileged instructions in line: those whose effect is a few words of struct vcpu, once the mode is known. What the mode key
 * does not say is tested without touching the flags, and the interpreter's handler does the rest.
 *
 * IF, AC and DF of the guest are words of their own while translated code runs (run.c, enter()): CLI is one store.
 */
#include "engine/translate/tr_int.h"

static bool kernel64(const struct build *b)
{
	return b->mode64 && key_cpl(b->key) == 0;
}

static void raw(struct build *b, const void *bytes, unsigned n)
{
	emit_bytes(&b->e, bytes, n);
}

/* ---- flags ---- */

static void set_word(struct build *b, struct hostmem word, u32 v)
{
	emit_store_imm(&b->e, &word, (s32)v, 4);
}

/* An interrupt that waits is taken behind the next instruction: the run loop's business. Nothing looks at attention
 * before that one has executed, if it is in this block. */
static bool gen_sti(struct build *b)
{
	struct hostmem waits = MEM_VCPU(irq_window), nmi = MEM_VCPU(nmi_pending), fl_if = MEM_VCPU(tr.fl_if),
		       sum = {.base = S0, .index = S1};

	if (!build_next_follows(b))
		return false;
	build_room(b, 64);
	emit_load(&b->e, S0, &waits, 1);
	emit_load(&b->e, S1, &nmi, 1);
	emit_lea(&b->e, S0, &sum, 4);
	gen_emulate_unless_zero(b);
	set_word(b, fl_if, FL_IF);
	return true;
}

static bool gen_cld(struct build *b)
{
	struct hostmem df = MEM_VCPU(tr.fl_df);

	build_room(b, 48);
	emit_load(&b->e, S0, &df, 4);
	gen_emulate_unless_zero(b);
	return true;
}

/* From here on in this block data accesses use the other tables. */
static bool gen_ac(struct build *b, bool set)
{
	enum mmu_idx idx = set ? MMU_KERNEL_AC : MMU_KERNEL;
	struct hostmem now = MEM_VCPU(mode.mmu_idx), fl_ac = MEM_VCPU(tr.fl_ac);

	if (!(b->key & MODE_KEY_SMAP) || tr_jc_class(b->key) == JC_NONE)
		return false;
	set_word(b, fl_ac, set ? FL_AC : 0);
	emit_store_imm(&b->e, &now, idx, 1);
	build_set_key(b, key_with_idx(b->key, idx));
	return true;
}

/* RFLAGS into tr.value: host flags by LAHF and SETO, the rest from memory. */
static void flags_to_value(struct build *b)
{
	static const u8 save[] = {0x9f, 0x0f, 0x90, 0xc0,  /* lahf; seto al */
				  0x0f, 0xb6, 0xcc};       /* movzx ecx, ah */
	struct hostmem rax = mem_gs(offsetof(struct vcpu, gpr)), value = MEM_VCPU(tr.value);
	struct hostmem parts[] = {MEM_VCPU(tr.fl_if), MEM_VCPU(tr.fl_ac), MEM_VCPU(tr.fl_rest)};
	struct hostmem sum = {.base = S0, .index = H_AX};

	emit_store(&b->e, &rax, H_AX, 8);
	raw(b, save, sizeof(save));
	emit_movzx8(&b->e, H_AX, H_AX);
	emit_rorx(&b->e, H_AX, H_AX, 64 - 11);
	emit_lea(&b->e, S0, &sum, 8);
	for (unsigned i = 0; i < ARRAY_SIZE(parts); i++) {
		emit_load(&b->e, H_AX, &parts[i], 4);
		emit_lea(&b->e, S0, &sum, 8);
	}
	emit_load(&b->e, H_AX, &rax, 8);
	emit_store(&b->e, &value, S0, 8);
}

static bool gen_pushf(struct build *b)
{
	struct hostmem at = {.base = H_SP, .index = S0, .disp = -8}, value = MEM_VCPU(tr.value), less = mem_at(H_SP, -8);

	if (!b->mode64 || b->in.opsize != 8)
		return false;
	build_islands(b);
	flags_to_value(b);
	gen_access_at(b, R_SP, -8, 8, true);
	emit_load(&b->e, S1, &value, 8);
	gen_mark(b);
	emit_store(&b->e, &at, S1, 8);
	emit_lea(&b->e, H_SP, &less, 8);
	return true;
}

/* ---- segments ---- */

#define MEM_SEG(n, field) mem_gs(offsetof(struct vcpu, seg) + (n) * sizeof(struct segment) + offsetof(struct segment, field))

static bool gen_swapgs(struct build *b)
{
	struct hostmem base = MEM_SEG(SEG_GS, base), other = MEM_VCPU(kernel_gs_base);

	emit_load(&b->e, S0, &base, 8);
	emit_load(&b->e, S1, &other, 8);
	emit_store(&b->e, &other, S0, 8);
	emit_store(&b->e, &base, S1, 8);
	return true;
}

static bool gen_base(struct build *b)
{
	bool write = b->in.id == INSN_WRFSBASE || b->in.id == INSN_WRGSBASE;
	bool fs = b->in.id == INSN_RDFSBASE || b->in.id == INSN_WRFSBASE;
	struct hostmem base = MEM_SEG(fs ? SEG_FS : SEG_GS, base), diff = {.base = S0, .index = S1, .disp = 1};
	/* mov r15d, 16; shlx rcx, rcx, r15; sarx rcx, rcx, r15; not rcx */
	static const u8 canonical[] = {0x41, 0xbf, 16, 0, 0, 0, 0xc4, 0xe2, 0x81, 0xf7, 0xc9,
				       0xc4, 0xe2, 0x82, 0xf7, 0xc9, 0x48, 0xf7, 0xd1};
	unsigned size = b->in.op[0].size, reg = b->in.op[0].reg;

	if (!(b->key & MODE_KEY_FSGSBASE))
		return false;
	if (!write) {
		emit_load(&b->e, S0, &base, size);
		gen_put(b, reg, S0);
		return true;
	}
	gen_get(b, S1, reg);
	if (size == 4) {
		emit_mov(&b->e, S1, S1, 4);
	} else {
		build_islands(b);
		emit_mov(&b->e, S0, S1, 8);
		raw(b, canonical, sizeof(canonical));
		gen_get(b, S1, reg);
		emit_lea(&b->e, S0, &diff, 8);
		gen_emulate_unless_zero(b);
	}
	emit_store(&b->e, &base, S1, 8);
	return true;
}

static bool gen_read_sreg(struct build *b)
{
	const struct insn_operand *to = &b->in.op[0];
	struct hostmem sel = MEM_SEG(b->in.op[1].reg, sel), m;

	if (to->kind == OPK_MEM) {
		if (!gen_addressable(b))
			return false;
		gen_access(b, 2, true);
		gen_operand_in_s0(b);
		emit_load(&b->e, S1, &sel, 2);
		m = mem_at(S0, 0);
		gen_mark(b);
		emit_store(&b->e, &m, S1, 2);
		return true;
	}
	emit_load(&b->e, S0, &sel, 2);
	if (to->size >= 4) {
		gen_put(b, to->reg, S0);
	} else if (is_spilled(to->reg)) {
		m = mem_gs(offsetof(struct vcpu, gpr) + 8 * to->reg);
		emit_store(&b->e, &m, S0, 2);
	} else {
		emit_mov(&b->e, host_of(to->reg), S0, 2);
	}
	return true;
}

/* A null selector over a null selector changes nothing. */
static bool gen_write_sreg(struct build *b)
{
	unsigned seg = b->in.op[0].reg;
	struct hostmem sel = MEM_SEG(seg, sel), unusable = MEM_SEG(seg, unusable), sum = {.base = S0, .index = S1},
		       less = {.base = S0, .index = S1, .disp = -0x100000};

	if (b->in.op[1].kind != OPK_GPR || (seg != SEG_DS && seg != SEG_ES))
		return false;
	build_islands(b);
	gen_get(b, S1, b->in.op[1].reg);
	emit_movzx16(&b->e, S1, S1);
	emit_load(&b->e, S0, &sel, 2);
	emit_lea(&b->e, S0, &sum, 8);
	emit_load(&b->e, S1, &unusable, 1);
	emit_rorx(&b->e, S1, S1, 64 - 20);
	emit_lea(&b->e, S0, &less, 8);
	gen_emulate_unless_zero(b);
	return true;
}

/* ---- control registers, reading ---- */

static bool gen_read_cr(struct build *b)
{
	static const size_t at[] = {[0] = offsetof(struct vcpu, cr0), [2] = offsetof(struct vcpu, cr2),
				    [3] = offsetof(struct vcpu, cr3), [4] = offsetof(struct vcpu, cr4)};
	unsigned n = b->in.op[1].reg;
	struct hostmem cr;

	if (b->in.op[1].kind != OPK_CR || n >= ARRAY_SIZE(at) || !at[n])
		return false;
	cr = mem_gs(at[n]);
	emit_load(&b->e, S0, &cr, 8);
	gen_put(b, b->in.op[0].reg, S0);
	return true;
}

/* ---- time ---- */

static bool gen_rdtsc(struct build *b)
{
	static const u8 rdtsc[] = {0x0f, 0x31};
	struct hostmem offset = MEM_VCPU(tsc_offset), aux = MEM_VCPU(tsc_aux), sum = {.base = H_AX, .index = H_DX},
		       more = {.base = H_AX, .index = S0};

	if (b->key & MODE_KEY_TSD && key_cpl(b->key))
		return false;
	raw(b, rdtsc, sizeof(rdtsc));
	emit_rorx(&b->e, H_DX, H_DX, 32);
	emit_load(&b->e, S0, &offset, 8);
	emit_lea(&b->e, H_AX, &sum, 8);
	emit_lea(&b->e, H_DX, &more, 8);
	emit_mov(&b->e, H_AX, H_DX, 4);
	emit_rorx(&b->e, H_DX, H_DX, 32);
	emit_mov(&b->e, H_DX, H_DX, 4);
	if (b->in.id == INSN_RDTSCP)
		emit_load(&b->e, HOST_CX, &aux, 4);
	return true;
}

static bool gen_lfence(struct build *b)
{
	static const u8 lfence[] = {0x0f, 0xae, 0xe8};

	raw(b, lfence, sizeof(lfence));
	return true;
}

bool is_special(const struct insn *in)
{
	if (in->desc->cls == IC_SYS)
		return true;
	switch (in->id) {
	case INSN_CLD:
	case INSN_PUSHF:
	case INSN_CLI:
	case INSN_STI:
	case INSN_LFENCE:
	case INSN_CMPXCHG8B:
	case INSN_CMPXCHG16B:
	case INSN_MOVS:
	case INSN_STOS:
		return true;
	case INSN_BT:
	case INSN_BTS:
	case INSN_BTR:
	case INSN_BTC:
		return in->op[0].kind == OPK_MEM && in->op[1].kind == OPK_GPR;
	default:
		return false;
	}
}

bool gen_sys(struct build *b)
{
	const struct insn *in = &b->in;

	if (in->desc->feature != FEAT_NONE && !cpu_has(b->cpu, in->desc->feature))
		return false;
	switch (in->id) {
	case INSN_RDTSC:
	case INSN_RDTSCP:
		return gen_rdtsc(b);
	case INSN_LFENCE:
		return gen_lfence(b);
	case INSN_RDFSBASE:
	case INSN_RDGSBASE:
	case INSN_WRFSBASE:
	case INSN_WRGSBASE:
		return gen_base(b);
	case INSN_PUSHF:
		return gen_pushf(b);
	case INSN_CLD:
		return gen_cld(b);
	case INSN_MOV_SREG:
		if (!b->mode64)
			return false;
		return in->op[0].kind == OPK_SREG ? gen_write_sreg(b) : gen_read_sreg(b);
	default:
		break;
	}
	if (!kernel64(b))
		return false;
	switch (in->id) {
	case INSN_SWAPGS:
		return gen_swapgs(b);
	case INSN_CLI:
		set_word(b, (struct hostmem)MEM_VCPU(tr.fl_if), 0);
		return true;
	case INSN_STI:
		return gen_sti(b);
	case INSN_MOV_CR:
		return gen_read_cr(b);
	case INSN_STAC:
	case INSN_CLAC:
		return gen_ac(b, in->id == INSN_STAC);
	default:
		return false;
	}
}
