/*
 * The re-encoder against Zydis: instructions of all forms and random bytes, in 64-, 32- and 16-bit mode, with
 * random register maps and memory operands. What comes out must decode in 64-bit mode to the same instruction
 * with the registers renamed and the memory operand replaced. The register sets (insn_gprs_read,
 * insn_gprs_written) are held against Zydis' operand actions.
 *
 *   reencode_zydis [--count N] [--seed S] [--verbose 1]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <Zydis/Zydis.h>

#include "engine/translate/reencode.h"

#define MAX_REPORTS 60
#define OPS         ZYDIS_MAX_OPERAND_COUNT

struct decoded {
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[OPS];
};

/* One re-encoding: what was given, and what came out. */
struct trial {
	const struct insn *in;
	const struct decoded *guest;
	enum insn_mode mode;
	u8 map[16];
	struct hostmem m;
	u8 out[32];
	unsigned n;
};

struct tally {
	u64 accepted, refused, unexpected;
	u8 cls;
	bool covered;
};

static struct {
	ZydisDecoder decoder[3];
	u64 valid, accepted, refused, passed, failed;
	struct tally by_id[INSN_COUNT];
	struct {
		const char *what;
		u32 key;
		u64 count;
	} reports[MAX_REPORTS];
	unsigned nreports;
	u64 random;
} t;

static u64 random64(void)
{
	u64 z = t.random += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static bool zydis_decode(struct decoded *d, enum insn_mode mode, const u8 *p, size_t n)
{
	ZydisDecoderContext ctx;

	return ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&t.decoder[mode], &ctx, p, n, &d->z)) &&
	       ZYAN_SUCCESS(
		   ZydisDecoderDecodeOperands(&t.decoder[mode], &ctx, &d->z, d->ops, d->z.operand_count));
}

/* ---- registers ---- */

/* Number of a general register, AH counting as AX; high tells. */
static u8 gpr_number(ZydisRegister reg, bool *high)
{
	*high = reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
	if (*high)
		return (u8)(reg - ZYDIS_REGISTER_AH);
	if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_BL)
		return (u8)(reg - ZYDIS_REGISTER_AL);
	if (reg >= ZYDIS_REGISTER_SPL && reg <= ZYDIS_REGISTER_R15B)
		return (u8)(reg - ZYDIS_REGISTER_SPL + 4);
	return (u8)ZydisRegisterGetId(reg);
}

static bool is_gpr(const ZydisDecodedOperand *o)
{
	ZydisRegisterClass c = ZYDIS_REGCLASS_INVALID;

	if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return false;
	c = ZydisRegisterGetClass(o->reg.value);
	return c == ZYDIS_REGCLASS_GPR8 || c == ZYDIS_REGCLASS_GPR16 || c == ZYDIS_REGCLASS_GPR32 ||
	       c == ZYDIS_REGCLASS_GPR64;
}

static bool is_encoded_gpr(const ZydisDecodedOperand *o)
{
	return is_gpr(o) && o->encoding != ZYDIS_OPERAND_ENCODING_NONE;
}

/* ---- comparison of guest and host instruction ---- */

static const char *compare_reg(const struct trial *r, const ZydisDecodedOperand *g,
			       const ZydisDecodedOperand *h)
{
	ZydisRegister gr = g->reg.value, hr = h->reg.value;
	ZydisRegisterClass cls = ZydisRegisterGetClass(gr);
	bool ghigh = false, hhigh = false;
	u8 gn = 0, hn = 0;

	if (cls == ZYDIS_REGCLASS_FLAGS || cls == ZYDIS_REGCLASS_IP)
		return NULL; /* named by mode */
	if (cls != ZydisRegisterGetClass(hr))
		return "register class";
	if (!is_gpr(g))
		return gr == hr ? NULL : "register";
	gn = gpr_number(gr, &ghigh);
	hn = gpr_number(hr, &hhigh);
	if (ghigh != hhigh)
		return "high byte register";
	return hn == (is_encoded_gpr(g) ? r->map[gn] : gn) ? NULL : "renamed register";
}

static ZydisRegister reg64(u8 n)
{
	return n == H_NONE ? ZYDIS_REGISTER_NONE : ZYDIS_REGISTER_RAX + n;
}

static const char *compare_mem(const struct hostmem *m, const ZydisDecodedOperand *g,
			       const ZydisDecodedOperand *h)
{
	bool ss = m->base == H_SP || m->base == H_BP;

	if (g->mem.type != h->mem.type || (g->mem.type != ZYDIS_MEMOP_TYPE_AGEN && g->size != h->size))
		return "memory size";
	if (h->mem.base != reg64(m->base))
		return "base";
	if (h->mem.index != reg64(m->index))
		return "index";
	if (m->index != H_NONE && h->mem.scale != 1 << m->shift)
		return "scale";
	if (h->mem.disp.value != m->disp)
		return "displacement";
	if (h->mem.type != ZYDIS_MEMOP_TYPE_AGEN && h->mem.segment != (m->gs ? ZYDIS_REGISTER_GS
								       : ss  ? ZYDIS_REGISTER_SS
									     : ZYDIS_REGISTER_DS))
		return "segment";
	return NULL;
}

static u64 mask_to(u64 v, unsigned bits)
{
	return bits < 64 ? v & ((1ull << bits) - 1) : v;
}

static const char *compare_operand(const struct trial *r, const ZydisDecodedOperand *g,
				   const ZydisDecodedOperand *h)
{
	if (g->type != h->type)
		return "operand type";
	if (g->actions != h->actions)
		return "operand action";
	switch (g->type) {
	case ZYDIS_OPERAND_TYPE_REGISTER:
		return compare_reg(r, g, h);
	case ZYDIS_OPERAND_TYPE_MEMORY:
		return compare_mem(&r->m, g, h);
	case ZYDIS_OPERAND_TYPE_IMMEDIATE:
		if (g->size != h->size)
			return "immediate size";
		return mask_to(g->imm.value.u, g->size) == mask_to(h->imm.value.u, h->size) ? NULL
											    : "immediate";
	default:
		return "pointer";
	}
}

static const char *compare(const struct trial *r, const struct decoded *host)
{
	const ZydisDecodedInstruction *g = &r->guest->z, *h = &host->z;
	u64 kept = ZYDIS_ATTRIB_HAS_LOCK | ZYDIS_ATTRIB_HAS_VEX;

	if (r->in->id == INSN_NOP)
		return h->mnemonic == ZYDIS_MNEMONIC_NOP ? NULL : "no NOP";
	if (h->mnemonic != g->mnemonic && g->mnemonic != ZYDIS_MNEMONIC_PAUSE)
		return "mnemonic";
	if ((g->attributes ^ h->attributes) & kept)
		return "prefixes";
	if (h->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPNE | ZYDIS_ATTRIB_HAS_XACQUIRE |
			     ZYDIS_ATTRIB_HAS_XRELEASE | ZYDIS_ATTRIB_HAS_ADDRESSSIZE))
		return "superfluous prefix";
	if (g->avx.vector_length != h->avx.vector_length)
		return "vector length";
	if (g->operand_count != h->operand_count)
		return "operand count";
	for (unsigned i = 0; i < g->operand_count; i++) {
		const char *what = compare_operand(r, &r->guest->ops[i], &host->ops[i]);

		if (what)
			return what;
	}
	return NULL;
}

/* ---- what may be refused ---- */

static bool is_covered(const struct insn *in)
{
	u32 attr = in->desc->attr;

	switch (in->id) {
	case INSN_XLAT:
	case INSN_MASKMOVQ:
	case INSN_MASKMOVDQU:
	case INSN_MOVDIR64B:
	case INSN_PUSH:
	case INSN_POP:
	case INSN_ENTER:
	case INSN_LEAVE:
	case INSN_PUSHA:
	case INSN_POPA:
	case INSN_BOUND:
	case INSN_AAA:
	case INSN_AAS:
	case INSN_AAM:
	case INSN_AAD:
	case INSN_DAA:
	case INSN_DAS:
	case INSN_SALC:
		return false;
	default:
		return in->desc->cls != IC_SYS && !(attr & (IA_BRANCH | IA_STRING)) && !in->mem.vsib;
	}
}

/* AH CH DH BH are no operand with whatever needs a REX prefix. */
static bool high8_conflict(const struct trial *r)
{
	bool high8 = false, rex = r->in->opsize == 8;

	for (unsigned i = 0; i < r->guest->z.operand_count; i++) {
		const ZydisDecodedOperand *o = &r->guest->ops[i];
		bool high = false;

		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
			rex |= (r->m.base != H_NONE && r->m.base > 7) ||
			       (r->m.index != H_NONE && r->m.index > 7);
		if (!is_encoded_gpr(o))
			continue;
		u8 to = r->map[gpr_number(o->reg.value, &high)];

		high8 |= high;
		rex |= high ? to > 3 : to > 7 || (o->size == 8 && to > 3);
	}
	return high8 && rex;
}

/* ---- register sets ---- */

static const char *compare_sets(const struct trial *r)
{
	u32 read = 0, written = 0, fields = 0;
	bool high = false, any_high = false;

	for (unsigned i = 0; i < r->guest->z.operand_count; i++) {
		const ZydisDecodedOperand *o = &r->guest->ops[i];

		if (!is_encoded_gpr(o) || r->in->id == INSN_NOP)
			continue;
		u32 bit = BIT(gpr_number(o->reg.value, &high));

		any_high |= high;
		if (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
			read |= bit;
		if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			written |= bit;
		/* Zydis has BSF and BSR write their register always. */
		if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE &&
		    (o->size < 32 || o->actions & ZYDIS_OPERAND_ACTION_CONDWRITE || r->in->id == INSN_BSF ||
		     r->in->id == INSN_BSR))
			read |= bit;
		fields |= o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG  ? GF_REG
			  : o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM ? GF_RM
			  : o->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD   ? GF_VVVV
									   : GF_OPCODE;
	}
	if (insn_gpr_fields(r->in) != fields)
		return "fields";
	if (insn_gprs_read(r->in) != read)
		return "registers read";
	if (insn_gprs_written(r->in) != written)
		return "registers written";
	return r->in->id == INSN_NOP || insn_has_high8(r->in) == any_high ? NULL : "high8";
}

/* ---- one case ---- */

static void report(const char *what, const struct trial *r)
{
	u32 key = r->in->id;
	char text[128] = "";

	t.failed++;
	for (unsigned i = 0; i < t.nreports; i++) {
		if (t.reports[i].what == what && t.reports[i].key == key) {
			t.reports[i].count++;
			return;
		}
	}
	if (t.nreports == MAX_REPORTS)
		return;
	t.reports[t.nreports].what = what;
	t.reports[t.nreports].key = key;
	t.reports[t.nreports++].count = 1;
	insn_format(r->in, 0, text, sizeof(text));
	printf("%-20s mode %d '%s' (%s), bytes", what, 16 << r->mode, text,
	       ZydisMnemonicGetString(r->guest->z.mnemonic));
	for (unsigned i = 0; i < r->in->len; i++)
		printf(" %02x", r->in->bytes[i]);
	printf(", base %d index %d disp %x gs %d, out", (s8)r->m.base, (s8)r->m.index, r->m.disp, r->m.gs);
	for (unsigned i = 0; i < r->n; i++)
		printf(" %02x", r->out[i]);
	printf(", map");
	for (unsigned i = 0; i < 16; i++)
		printf(" %d", r->map[i]);
	printf("\n");
}

/* Identity, the translator's own, a permutation, or anything. */
static void random_map(u8 map[16])
{
	u64 r = random64();

	for (unsigned i = 0; i < 16; i++)
		map[i] = (u8)i;
	if (r & 1) {
		map[H_CX] = H_14;
		map[H_14] = r & 2 ? H_8 : H_CX;
	}
	if ((r & 12) == 4)
		for (unsigned i = 0; i < 16; i++)
			map[i] = random64() & 15;
	if ((r & 12) == 8) {
		for (unsigned i = 15; i; i--) {
			unsigned j = (unsigned)(random64() % (i + 1));
			u8 was = map[i];

			map[i] = map[j];
			map[j] = was;
		}
	}
}

static void random_mem(struct hostmem *m)
{
	u64 r = random64();

	m->base = r & 0x70 ? r & 15 : H_NONE;
	m->index = r & 0x80 ? r >> 8 & 15 : H_NONE;
	if (m->index == H_SP)
		m->index = H_NONE;
	m->shift = r >> 12 & 3;
	m->gs = r >> 14 & 1;
	m->disp = (s32)(r >> 32);
	if (r & 0x10000)
		m->disp = r & 0x20000 ? (s8)m->disp : 0;
}

static const char *run(struct trial *r)
{
	struct emit e = {.p = r->out, .end = r->out + sizeof(r->out)};
	struct tally *tally = &t.by_id[r->in->id];
	struct decoded host;
	const char *what = compare_sets(r);
	bool has_mem = false, ok = false;

	for (unsigned i = 0; i < r->in->nops; i++)
		has_mem |= r->in->op[i].kind == OPK_MEM;
	tally->cls = r->in->desc->cls;
	tally->covered |= is_covered(r->in);
	if (what)
		return what;
	ok = reencode(&e, r->in, r->map, has_mem ? &r->m : NULL, true);
	r->n = (unsigned)(e.p - r->out);
	if (!ok) {
		t.refused++;
		tally->refused++;
		if (r->n)
			return "refused, yet emitted";
		if (is_covered(r->in) && !high8_conflict(r)) {
			tally->unexpected++;
			return "refused";
		}
		return NULL;
	}
	t.accepted++;
	tally->accepted++;
	if (!is_covered(r->in) || high8_conflict(r))
		return "not refused";
	if (!zydis_decode(&host, INSN_MODE_64, r->out, r->n))
		return "invalid";
	if (host.z.length != r->n)
		return "length";
	return compare(r, &host);
}

/* Zydis and the CPU: see decode_zydis. And Zydis heeds VEX.W also outside 64-bit mode in PCMPESTRI and
 * PCMPESTRM. */
static bool decoders_differ(const struct insn *in, const ZydisDecodedInstruction *z, enum insn_mode mode)
{
	bool vex_w = in->prefixes & PFX_VEX && in->rex & 8;

	return z->length != in->len || (in->id == INSN_XCHG && z->mnemonic == ZYDIS_MNEMONIC_PAUSE) ||
	       (mode != INSN_MODE_64 && vex_w && (in->id == INSN_PCMPESTRI || in->id == INSN_PCMPESTRM));
}

static void check(const u8 *p, enum insn_mode mode)
{
	struct trial r = {.mode = mode};
	struct decoded guest;
	struct insn in;
	const char *what = NULL;

	if (insn_decode(p, INSN_MAX_LEN, mode, &in) != INSN_OK)
		return;
	if (!zydis_decode(&guest, mode, p, INSN_MAX_LEN) || decoders_differ(&in, &guest.z, mode))
		return;
	t.valid++;
	r.in = &in;
	r.guest = &guest;
	random_map(r.map);
	random_mem(&r.m);
	what = run(&r);
	if (what)
		report(what, &r);
	else
		t.passed++;
}

/* ---- sources ---- */

static void random_bytes(u8 *p, unsigned n)
{
	for (unsigned i = 0; i < n; i += 8) {
		u64 r = random64();

		memcpy(p + i, &r, 8);
	}
}

static enum insn_mode random_mode(void)
{
	static const enum insn_mode modes[8] = {INSN_MODE_64, INSN_MODE_64, INSN_MODE_64, INSN_MODE_64,
						INSN_MODE_32, INSN_MODE_32, INSN_MODE_32, INSN_MODE_16};

	return modes[random64() & 7];
}

/* Prefixes (REX last), map or VEX, and whatever follows. */
static void random_case(void)
{
	static const u8 prefixes[] = {0x66, 0xf2, 0xf3, 0xf0, 0x67, 0x64, 0x66, 0xf0};
	enum insn_mode mode = random_mode();
	u64 r = random64();
	u8 code[48], *p = code;

	random_bytes(code, sizeof(code));
	for (unsigned n = r & 3; n && r & 4; n--, r >>= 3)
		*p++ = prefixes[r >> 8 & 7];
	if (mode == INSN_MODE_64 && r & 0x1000000)
		*p++ = 0x40 | (r >> 28 & 15);
	switch (r >> 32 & 7) {
	case 0:
	case 1:
	case 2:
		*p++ = 0x0f;
		break;
	case 3:
		*p++ = 0x0f;
		*p++ = r & 0x1000000000 ? 0x38 : 0x3a;
		break;
	case 4: /* VEX, free of the prefixes it does not stand */
		p = code;
		*p++ = 0xc5;
		*p++ |= mode == INSN_MODE_64 ? 0 : 0xc0;
		break;
	case 5:
		p = code;
		*p++ = 0xc4;
		*p = (u8)((*p & 0xe0) | (1 + (r >> 40) % 3));
		*p++ |= mode == INSN_MODE_64 ? 0 : 0xc0;
		break;
	}
	check(code, mode);
}

/* Every opcode with every ModRM byte and all the prefixes that matter, now and then. */
static void grid_legacy(u64 i)
{
	static const char *const heads[] = {"",     "\x66", "\xf3", "\xf2",     "\x48",     "\x66\x48",
					    "\xf0", "\x41", "\x40", "\xf3\x4c", "\x66\xf2", "\xf0\x66"};
	static const char *const maps[] = {"", "\x0f", "\x0f\x38", "\x0f\x3a"};
	u8 code[48];
	int n = 0;

	random_bytes(code, sizeof(code));
	n = sprintf((char *)code, "%s%s", heads[i / 65536 % 12], maps[i / 65536 / 12 % 4]);
	code[n] = (u8)(i >> 8);
	code[n + 1] = (u8)i;
	check(code, (enum insn_mode)(i / 65536 / 48 % 3));
}
#define GRID_LEGACY (65536ull * 48 * 3)

static void grid_vex(u64 i)
{
	u64 k = i >> 16;
	u8 code[48];

	random_bytes(code, sizeof(code));
	code[0] = 0xc4;
	code[1] = (u8)((k / 96 % 2 ? 0xe0 : code[1] & 0xe0) | (1 + k / 32 % 3));
	code[2] = (u8)((k & 7) | (k & 8) << 4 | (k & 16 ? 0x78 : (code[2] & 0x78)));
	code[3] = (u8)(i >> 8);
	code[4] = (u8)i;
	check(code, k / 96 % 2 ? INSN_MODE_32 : INSN_MODE_64);
}
#define GRID_VEX (65536ull * 96 * 2)

static void init_decoders(void)
{
	static const ZydisMachineMode modes[3] = {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_MACHINE_MODE_LEGACY_32,
						  ZYDIS_MACHINE_MODE_LONG_64};
	static const ZydisStackWidth widths[3] = {ZYDIS_STACK_WIDTH_16, ZYDIS_STACK_WIDTH_32,
						  ZYDIS_STACK_WIDTH_64};

	for (unsigned i = 0; i < 3; i++) {
		ZydisDecoderInit(&t.decoder[i], modes[i], widths[i]);
		ZydisDecoderEnableMode(&t.decoder[i], ZYDIS_DECODER_MODE_AMD_BRANCHES, ZYAN_TRUE);
		ZydisDecoderEnableMode(&t.decoder[i], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
		ZydisDecoderEnableMode(&t.decoder[i], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
		ZydisDecoderEnableMode(&t.decoder[i], ZYDIS_DECODER_MODE_KNC, ZYAN_FALSE);
	}
}

static void summary(bool verbose)
{
	for (unsigned i = 0; i < INSN_COUNT; i++) {
		if (t.by_id[i].covered && !t.by_id[i].accepted) {
			printf("never re-encoded: %s\n", insn_name(i));
			t.failed++;
		}
	}
	for (unsigned i = 0; i < t.nreports; i++)
		printf("%8llu x %s %s\n", (unsigned long long)t.reports[i].count, t.reports[i].what,
		       insn_name(t.reports[i].key));
	for (unsigned i = 0; verbose && i < INSN_COUNT; i++)
		if (t.by_id[i].refused && t.by_id[i].cls != IC_SYS)
			printf("refused %-12s %8llu of %8llu, %llu of them wrongly\n", insn_name(i),
			       (unsigned long long)t.by_id[i].refused,
			       (unsigned long long)(t.by_id[i].refused + t.by_id[i].accepted),
			       (unsigned long long)t.by_id[i].unexpected);
	for (unsigned i = 1; verbose && i < INSN_COUNT; i++)
		if (!t.by_id[i].accepted && !t.by_id[i].refused)
			printf("never met: %s\n", insn_name(i));
	printf("%llu instructions, %llu re-encoded, %llu refused\n", (unsigned long long)t.valid,
	       (unsigned long long)t.accepted, (unsigned long long)t.refused);
	printf("%llu passed, %llu failed\n", (unsigned long long)t.passed, (unsigned long long)t.failed);
}

int main(int argc, char **argv)
{
	u64 count = 5000000;
	bool verbose = false;

	t.random = 1;
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--count"))
			count = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--seed"))
			t.random = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--verbose"))
			verbose = true;
		else
			return 2;
	}
	init_decoders();
	for (u64 i = 0; i < GRID_LEGACY; i += count >= 20000000 ? 1 : 7)
		grid_legacy(i);
	for (u64 i = 0; i < GRID_VEX; i += count >= 20000000 ? 1 : 7)
		grid_vex(i);
	while (t.valid < count)
		random_case();
	summary(verbose);
	return t.failed != 0;
}
