/* Re-encoding of a decoded data instruction into a stub word. See stub.h. */
#include "engine/interp/stub.h"

#define STUB_BASE_RSI 6 /* ModRM.rm with mod 0: [rsi], in no mode a SIB or a displacement */
#define STUB_REG_RAX  0
#define STUB_REG_RCX  1

/* ModRM.reg is the general register: map 0F opcodes; everywhere else it is ModRM.rm. */
static bool gpr_in_reg_field(const struct insn *in)
{
	static const u8 opcodes[] = {0x2c, 0x2d, 0x50, 0xc5, 0xd7};

	for (unsigned i = 0; in->map == 1 && i < sizeof(opcodes); i++)
		if (in->opcode == opcodes[i])
			return true;
	return false;
}

unsigned stub_gpr_fields(const struct insn *in)
{
	bool mem = in->modrm < 0xc0;

	for (unsigned i = 0; i < in->nops && in->map; i++)
		if (in->op[i].kind == OPK_GPR && !in->op[i].implicit)
			return mem || gpr_in_reg_field(in) ? STUB_GPR_REG : STUB_GPR_RM;
	return 0;
}

/* W chooses between a 32- and a 64-bit integer: outside 64-bit mode it is ignored there (SDM 2A 2.3.6). */
static bool w_is_integer_size(const struct insn *in)
{
	if (in->map == 1)
		return in->opcode == 0x6e || in->opcode == 0x2a || in->opcode == 0x2c || in->opcode == 0x2d ||
		       (in->opcode == 0x7e && in->pp <= 1);
	return in->map == 3 &&
	       (in->opcode == 0x16 || in->opcode == 0x22 || (in->opcode >= 0x60 && in->opcode <= 0x63));
}

static unsigned put_vex(u8 *b, const struct insn *in, u8 rex, bool mode64)
{
	u8 vvvv = mode64 ? in->vvvv : in->vvvv & 7;

	b[0] = 0xc4;
	b[1] = (u8)((~rex & 7) << 5 | in->map);
	b[2] = (u8)((rex & 8) << 4 | (~vvvv & 15) << 3 | (in->vl & 1) << 2 | in->pp);
	b[3] = in->opcode;
	return 4;
}

static unsigned put_legacy(u8 *b, const struct insn *in, u8 rex)
{
	static const u8 mandatory[4] = {0, 0x66, 0xf3, 0xf2};
	unsigned n = 0;

	if (in->map && in->pp)
		b[n++] = mandatory[in->pp];
	if (in->map && rex)
		b[n++] = 0x40 | rex;
	if (in->map)
		b[n++] = 0x0f;
	if (in->map >= 2)
		b[n++] = in->map == 2 ? 0x38 : 0x3a;
	b[n++] = in->opcode;
	return n;
}

/* ModRM as the stub has it, and the REX bits that go with it. */
static u8 stub_modrm(const struct insn *in, u8 *rex)
{
	unsigned gpr = stub_gpr_fields(in);
	u8 reg = in->modrm >> 3 & 7, rm = in->modrm & 7, mod = in->modrm >> 6;

	*rex &= ~2u; /* X: no index */
	if (gpr & STUB_GPR_REG) {
		reg = STUB_REG_RAX;
		*rex &= ~4u;
	}
	if (mod != 3) {
		mod = 0;
		rm = STUB_BASE_RSI;
		*rex &= ~1u;
	} else if (gpr & STUB_GPR_RM) {
		rm = STUB_REG_RCX;
		*rex &= ~1u;
	}
	return (u8)(mod << 6 | reg << 3 | rm);
}

u64 stub_encode(const struct insn *in, bool mode64)
{
	u8 b[16] = {0xc3};
	u8 rex = mode64 ? in->rex & 15 : in->rex & 8;
	u8 modrm = 0;
	unsigned n = 0;
	u64 word = 0;

	if (in->modrm_off)
		modrm = stub_modrm(in, &rex);
	if (!mode64 && w_is_integer_size(in))
		rex &= ~8u;
	n = in->prefixes & PFX_VEX ? put_vex(b, in, rex, mode64) : put_legacy(b, in, rex);
	if (in->modrm_off)
		b[n++] = modrm;
	/* All immediates are one byte, but for the two of EXTRQ and INSERTQ. */
	for (unsigned i = 0; i < in->imm_len && n < 8; i++)
		b[n++] = in->bytes[in->imm_off + i];
	if (!mode64 && in->map == 3 && (in->prefixes & PFX_VEX) && in->opcode >= 0x4a && in->opcode <= 0x4c)
		b[n - 1] &= 0x7f; /* is4: bit 7 ignored (SDM 2A 2.3.8) */
	for (unsigned i = n; i < 8; i++)
		b[i] = i == n ? 0xc3 : 0xcc;
	for (unsigned i = 0; i < 8; i++)
		word |= (u64)b[i] << (8 * i);
	return n < 8 ? word : 0; /* 0: no such instruction fits */
}
