/* Host instructions that the translator makes by itself. See emit.h. */
#include "engine/translate/encode.h"
#include "engine/lib/lib.h"

/* ---- bytes ---- */

void emit_bytes(struct emit *e, const void *bytes, unsigned n)
{
	if (e->full || (size_t)(e->end - e->p) < n) {
		e->full = true;
		return;
	}
	memcpy(e->p, bytes, n);
	e->p += n;
}

void emit_u8(struct emit *e, u8 v)
{
	emit_bytes(e, &v, sizeof(v));
}

void emit_u32(struct emit *e, u32 v)
{
	emit_bytes(e, &v, sizeof(v));
}

/* The recommended NOPs of each length (SDM 2B, NOP). */
static const u8 nops[][9] = {
    {0x90},
    {0x66, 0x90},
    {0x0f, 0x1f, 0x00},
    {0x0f, 0x1f, 0x40, 0x00},
    {0x0f, 0x1f, 0x44, 0x00, 0x00},
    {0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00},
    {0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00},
    {0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
    {0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
};

void emit_align(struct emit *e, unsigned to)
{
	unsigned gap = -(unsigned)emit_here(e) & (to - 1);

	while (gap && !e->full) {
		unsigned n = MIN(gap, ARRAY_SIZE(nops));

		emit_bytes(e, nops[n - 1], n);
		gap -= n;
	}
}

void emit_align_end(struct emit *e, unsigned bytes, unsigned to)
{
	unsigned gap = -(unsigned)(emit_here(e) + bytes) & (to - 1);

	if (gap)
		emit_bytes(e, nops[gap - 1], gap);
}

void emit_unsplit(struct emit *e, unsigned ahead)
{
	unsigned at = (unsigned)(emit_here(e) + ahead) & 7;

	if (at > 4)
		emit_bytes(e, nops[7 - at], 8 - at);
}

/* ---- one instruction ---- */

unsigned mem_encode(u8 *b, unsigned reg, const struct hostmem *m)
{
	bool based = m->base != H_NONE, indexed = m->index != H_NONE;
	bool sib = indexed || !based || (m->base & 7) == H_SP;
	u8 base = based ? m->base & 7 : H_BP; /* with mod 0: no base, disp32 */
	u8 mod = 0;
	unsigned n = 1;

	if (based && m->disp == (s8)m->disp)
		mod = m->disp || base == H_BP ? 1 : 0;
	else if (based)
		mod = 2;
	b[0] = (u8)(mod << 6 | (reg & 7) << 3 | (sib ? 4 : base));
	if (sib)
		b[n++] = (u8)((indexed ? m->shift << 6 | (m->index & 7) << 3 : 4 << 3) | base);
	if (mod == 1) {
		b[n++] = (u8)m->disp;
	} else if (mod == 2 || !based) {
		memcpy(b + n, &m->disp, 4);
		n += 4;
	}
	return n;
}

/* An instruction under construction: prefixes of its operand size, REX, one opcode byte or 0F and one. */
struct op {
	u8 b[ENCODE_MAX];
	unsigned n;
};

enum { OP_0F = 0x100 }; /* or'd to the opcode byte: map 0F */

static void put_segment(struct op *o, const struct hostmem *m)
{
	if (m->gs || m->fs)
		o->b[o->n++] = m->gs ? PREFIX_GS : PREFIX_FS;
}

static void put_head(struct op *o, unsigned opcode, unsigned size, u8 rex)
{
	if (size == 2)
		o->b[o->n++] = PREFIX_66;
	if (size == 8)
		rex |= REX | REX_W;
	if (rex)
		o->b[o->n++] = rex | REX;
	if (opcode & OP_0F)
		o->b[o->n++] = 0x0f;
	o->b[o->n++] = (u8)opcode;
}

static void put_mem(struct op *o, unsigned opcode, unsigned reg, const struct hostmem *m, unsigned size)
{
	u8 rex = mem_rex(m) | (reg & 8 ? REX_R : 0);

	if (size == 1 && byte_reg_needs_rex(reg))
		rex |= REX;
	put_segment(o, m);
	put_head(o, opcode, size, rex);
	o->n += mem_encode(o->b + o->n, reg, m);
}

static void put_reg(struct op *o, unsigned opcode, unsigned reg, unsigned rm, unsigned size, u8 rex)
{
	put_head(o, opcode, size, rex | (reg & 8 ? REX_R : 0) | (rm & 8 ? REX_B : 0));
	o->b[o->n++] = (u8)(0xc0 | (reg & 7) << 3 | (rm & 7));
}

static void put_imm(struct op *o, u64 imm, unsigned size)
{
	memcpy(o->b + o->n, &imm, size);
	o->n += size;
}

static void flush(struct emit *e, const struct op *o)
{
	emit_bytes(e, o->b, o->n);
}

/* ---- moves ---- */

void emit_load(struct emit *e, unsigned reg, const struct hostmem *m, unsigned size)
{
	struct op o = {.n = 0};

	e->written |= 1u << reg;
	if (size <= 2)
		put_mem(&o, OP_0F | (size == 1 ? 0xb6 : 0xb7), reg, m, 4);
	else
		put_mem(&o, 0x8b, reg, m, size);
	flush(e, &o);
}

void emit_store(struct emit *e, const struct hostmem *m, unsigned reg, unsigned size)
{
	struct op o = {.n = 0};

	put_mem(&o, size == 1 ? 0x88 : 0x89, reg, m, size);
	flush(e, &o);
}

void emit_store_imm(struct emit *e, const struct hostmem *m, s32 imm, unsigned size)
{
	struct op o = {.n = 0};

	put_mem(&o, size == 1 ? 0xc6 : 0xc7, 0, m, size);
	put_imm(&o, (u32)imm, MIN(size, 4u));
	flush(e, &o);
}

void emit_mov(struct emit *e, unsigned dst, unsigned src, unsigned size)
{
	struct op o = {.n = 0};

	e->written |= 1u << dst;
	put_reg(&o, 0x89, src, dst, size, 0);
	flush(e, &o);
}

/* Never XOR: it would change flags. */
void emit_mov_imm(struct emit *e, unsigned reg, u64 imm)
{
	struct op o = {.n = 0};

	e->written |= 1u << reg;
	if (imm != (u32)imm && imm == (u64)(s64)(s32)imm) {
		put_reg(&o, 0xc7, 0, reg, 8, 0);
		put_imm(&o, imm, 4);
	} else {
		unsigned size = imm == (u32)imm ? 4 : 8;

		put_head(&o, 0xb8 | (reg & 7), size, reg & 8 ? REX_B : 0);
		put_imm(&o, imm, size);
	}
	flush(e, &o);
}

void emit_lea(struct emit *e, unsigned reg, const struct hostmem *m, unsigned size)
{
	struct op o = {.n = 0};

	e->written |= 1u << reg;
	put_mem(&o, 0x8d, reg, m, size);
	flush(e, &o);
}

/* VEX.LZ.F2.0F3A.W1 F0 /r ib */
void emit_rorx(struct emit *e, unsigned dst, unsigned src, unsigned count)
{
	u8 b[] = {0xc4,
		  (u8)((dst & 8 ? 0 : 0x80) | 0x40 | (src & 8 ? 0 : 0x20) | 3),
		  0xfb,
		  0xf0,
		  (u8)(0xc0 | (dst & 7) << 3 | (src & 7)),
		  (u8)count};

	e->written |= 1u << dst;
	emit_bytes(e, b, sizeof(b));
}

/* VEX.LZ.F3.0F38.W0 F5 /r */
void emit_pext(struct emit *e, unsigned dst, unsigned src, const struct hostmem *mask)
{
	struct op o = {.n = 0};

	e->written |= 1u << dst;
	put_segment(&o, mask);
	o.b[o.n++] = 0xc4;
	o.b[o.n++] = (u8)(((dst & 8 ? REX_R : 0) | mem_rex(mask)) << 5 ^ 0xe0) | 2;
	o.b[o.n++] = (u8)((~src & 15) << 3 | 2);
	o.b[o.n++] = 0xf5;
	o.n += mem_encode(o.b + o.n, dst, mask);
	flush(e, &o);
}

void emit_movzx16(struct emit *e, unsigned dst, unsigned src)
{
	struct op o = {.n = 0};

	e->written |= 1u << dst;
	put_reg(&o, OP_0F | 0xb7, dst, src, 4, 0);
	flush(e, &o);
}

void emit_movzx8(struct emit *e, unsigned dst, unsigned src)
{
	struct op o = {.n = 0};

	e->written |= 1u << dst;
	put_reg(&o, OP_0F | 0xb6, dst, src, 4, byte_reg_needs_rex(src) ? REX : 0);
	flush(e, &o);
}

/* ---- branches ---- */

/* Opcode bytes and the distance from their end. A target out of reach counts as no room: the code must not
 * run. */
static void branch(struct emit *e, const u8 *opcode, unsigned n, u64 target)
{
	s64 rel = (s64)(target - (emit_here(e) + n + 4));
	u8 b[6];

	if (rel != (s32)rel) {
		e->full = true;
		return;
	}
	memcpy(b, opcode, n);
	memcpy(b + n, &rel, 4);
	emit_bytes(e, b, n + 4);
}

void emit_jmp(struct emit *e, u64 target)
{
	branch(e, (const u8[]){0xe9}, 1, target);
}

void emit_jcc(struct emit *e, unsigned cond, u64 target)
{
	branch(e, (const u8[]){0x0f, (u8)(0x80 | cond)}, 2, target);
}

void emit_jmp_mem(struct emit *e, const struct hostmem *m)
{
	struct op o = {.n = 0};

	put_mem(&o, 0xff, 4, m, 4);
	flush(e, &o);
}

void emit_jmp_reg(struct emit *e, unsigned reg)
{
	struct op o = {.n = 0};

	put_reg(&o, 0xff, 4, reg, 4, 0);
	flush(e, &o);
}

/* Opcode and a distance to be filled in; the place is the distance's byte. */
static u8 *short_branch(struct emit *e, u8 opcode)
{
	u8 b[] = {opcode, 0};

	emit_bytes(e, b, sizeof(b));
	return e->p - 1;
}

u8 *emit_jrcxz(struct emit *e)
{
	return short_branch(e, 0xe3);
}

void emit_jrcxz_back(struct emit *e, const u8 *to)
{
	s64 distance = to - (e->p + 2);

	if (distance < -128)
		e->full = true;
	emit_bytes(e, (const u8[]){0xe3, (u8)distance}, 2);
}

u8 *emit_jmp_short(struct emit *e)
{
	return short_branch(e, 0xeb);
}

u8 *emit_jcc_short(struct emit *e, unsigned cond)
{
	return short_branch(e, (u8)(0x70 | cond));
}

void emit_short_here(struct emit *e, u8 *place)
{
	size_t distance = (size_t)(e->p - (place + 1));

	if (distance > 127)
		e->full = true;
	if (!e->full)
		*place = (u8)distance;
}

void emit_patch_rel32(s64 rx, u64 end, u64 target)
{
	typedef u32 __attribute__((aligned(1))) unaligned_u32;

	*(volatile unaligned_u32 *)(end - 4 - (u64)rx) = (u32)(target - end);
}
