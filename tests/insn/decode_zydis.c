/*
 * The decoder against Zydis: code of ELF files, every opcode with every ModRM byte under a set of prefixes,
 * and seeded random bytes, in 16-, 32- and 64-bit mode. Compared are validity, length, operands (kind,
 * register, size), memory, immediates and operand size.
 *
 *   decode_zydis [--count N] [--seed S] [elf file ...]
 */
#include <elf.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <Zydis/Zydis.h>

#include "engine/isa/insn.h"

#define MAX_REPORTS 60

struct report {
	const char *what;
	u32 key;
	u64 count;
};

static struct {
	ZydisDecoder decoder[3];
	u64 compared, skipped, passed, failed, valid;
	u64 skipped_set[ZYDIS_ISA_SET_MAX_VALUE + 1];
	u64 known;
	struct report reports[MAX_REPORTS];
	unsigned nreports;
} t;

/* ---- what Zydis knows and this decoder does not ---- */

static bool unsupported(const ZydisDecodedInstruction *z)
{
	static const u16 sets[] = {
	    ZYDIS_ISA_SET_AMD3DNOW,
	    ZYDIS_ISA_SET_AMD_INVLPGB,
	    ZYDIS_ISA_SET_AMX_BF16,
	    ZYDIS_ISA_SET_AMX_INT8,
	    ZYDIS_ISA_SET_AMX_TILE,
	    ZYDIS_ISA_SET_AVX_VNNI,
	    ZYDIS_ISA_SET_CET,
	    ZYDIS_ISA_SET_CLZERO,
	    ZYDIS_ISA_SET_ENQCMD,
	    ZYDIS_ISA_SET_FMA4,
	    ZYDIS_ISA_SET_HRESET,
	    ZYDIS_ISA_SET_KEYLOCKER,
	    ZYDIS_ISA_SET_KEYLOCKER_WIDE,
	    ZYDIS_ISA_SET_LWP,
	    ZYDIS_ISA_SET_MCOMMIT,
	    ZYDIS_ISA_SET_MONITORX,
	    ZYDIS_ISA_SET_MPX,
	    ZYDIS_ISA_SET_PADLOCK_ACE,
	    ZYDIS_ISA_SET_PADLOCK_PHE,
	    ZYDIS_ISA_SET_PADLOCK_PMM,
	    ZYDIS_ISA_SET_PADLOCK_RNG,
	    ZYDIS_ISA_SET_PCONFIG,
	    ZYDIS_ISA_SET_PKU,
	    ZYDIS_ISA_SET_PT,
	    ZYDIS_ISA_SET_RDPRU,
	    ZYDIS_ISA_SET_RTM,
	    ZYDIS_ISA_SET_SGX,
	    ZYDIS_ISA_SET_SGX_ENCLV,
	    ZYDIS_ISA_SET_SMX,
	    ZYDIS_ISA_SET_SNP,
	    ZYDIS_ISA_SET_SSE4A,
	    ZYDIS_ISA_SET_TBM,
	    ZYDIS_ISA_SET_TDX,
	    ZYDIS_ISA_SET_TSX_LDTRK,
	    ZYDIS_ISA_SET_UINTR,
	    ZYDIS_ISA_SET_VMFUNC,
	    ZYDIS_ISA_SET_WAITPKG,
	    ZYDIS_ISA_SET_XOP,
	    ZYDIS_ISA_SET_KNCE,
	    ZYDIS_ISA_SET_KNCJKBR,
	    ZYDIS_ISA_SET_KNCSTREAM,
	    ZYDIS_ISA_SET_KNCV,
	    ZYDIS_ISA_SET_KNC_MISC,
	    ZYDIS_ISA_SET_KNC_PF_HINT,
	};

	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ||
	    z->encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX || z->encoding == ZYDIS_INSTRUCTION_ENCODING_XOP ||
	    z->encoding == ZYDIS_INSTRUCTION_ENCODING_3DNOW)
		return true;
	/* The mask instructions of AVX-512 are VEX-encoded. */
	if (z->meta.category == ZYDIS_CATEGORY_KMASK)
		return true;
	/* VMX and SVM are not offered, except the two hypercalls. */
	if (z->meta.isa_set == ZYDIS_ISA_SET_VTX || z->meta.isa_set == ZYDIS_ISA_SET_SVM)
		return z->mnemonic != ZYDIS_MNEMONIC_VMCALL && z->mnemonic != ZYDIS_MNEMONIC_VMMCALL;
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++)
		if (z->meta.isa_set == sets[i])
			return true;
	return false;
}

/* ---- comparison ---- */

static const char *compare_gpr(const struct insn_operand *op, ZydisRegister reg)
{
	static const ZydisRegisterClass cls[9] = {[1] = ZYDIS_REGCLASS_GPR8,
						  [2] = ZYDIS_REGCLASS_GPR16,
						  [4] = ZYDIS_REGCLASS_GPR32,
						  [8] = ZYDIS_REGCLASS_GPR64};
	ZydisRegister want = ZYDIS_REGISTER_NONE;

	if (op->size > 8)
		return "register size";
	if (op->size == 1) {
		if (op->high8)
			want = ZYDIS_REGISTER_AH + op->reg;
		else
			want = op->reg < 4   ? ZYDIS_REGISTER_AL + op->reg
			       : op->reg < 8 ? ZYDIS_REGISTER_SPL + op->reg - 4
					     : ZYDIS_REGISTER_R8B + op->reg - 8;
		return want == reg ? NULL : "byte register";
	}
	if (ZydisRegisterGetClass(reg) != cls[op->size])
		return "register size";
	return ZydisRegisterGetId(reg) == op->reg ? NULL : "register";
}

static const char *compare_reg(const struct insn_operand *op, ZydisRegister reg)
{
	static const ZydisRegisterClass cls[] = {
	    [OPK_SREG] = ZYDIS_REGCLASS_SEGMENT, [OPK_CR] = ZYDIS_REGCLASS_CONTROL,
	    [OPK_DR] = ZYDIS_REGCLASS_DEBUG,     [OPK_MMX] = ZYDIS_REGCLASS_MMX,
	    [OPK_XMM] = ZYDIS_REGCLASS_XMM,      [OPK_YMM] = ZYDIS_REGCLASS_YMM,
	    [OPK_ST] = ZYDIS_REGCLASS_X87,
	};

	if (op->kind == OPK_GPR)
		return compare_gpr(op, reg);
	if (op->kind < OPK_SREG || ZydisRegisterGetClass(reg) != cls[op->kind])
		return "operand kind";
	return ZydisRegisterGetId(reg) == op->reg ? NULL : "register number";
}

static u8 gpr_of(ZydisRegister reg)
{
	if (reg == ZYDIS_REGISTER_NONE || reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP)
		return INSN_NO_REG;
	return (u8)ZydisRegisterGetId(reg);
}

static const char *compare_mem(const struct insn *in, const struct insn_operand *op,
			       const ZydisDecodedOperand *z)
{
	const struct insn_mem *m = &in->mem;
	bool rip = z->mem.base == ZYDIS_REGISTER_RIP || z->mem.base == ZYDIS_REGISTER_EIP;
	u64 mask = in->adsize == 8 ? ~0ull : in->adsize == 4 ? 0xffffffff : 0xffff;

	if (op->kind != OPK_MEM)
		return "memory or not";
	if (m->base != gpr_of(z->mem.base) || m->rip_relative != rip)
		return "base";
	if (m->index != gpr_of(z->mem.index))
		return "index";
	if (m->index != INSN_NO_REG && m->scale != (z->mem.scale ? z->mem.scale : 1))
		return "scale";
	if (((u64)m->disp ^ (u64)z->mem.disp.value) & mask)
		return "displacement";
	if (z->mem.type != ZYDIS_MEMOP_TYPE_AGEN && m->seg != ZydisRegisterGetId(z->mem.segment))
		return "segment";
	/* For the cache line instructions we say one byte. */
	if (z->mem.type == ZYDIS_MEMOP_TYPE_MEM && m->size > 1 && m->size * 8 != z->size)
		return "memory size";
	return NULL;
}

static u64 mask_to(u64 v, u8 size)
{
	return size < 8 ? v & ((1ull << 8 * size) - 1) : v;
}

static const char *compare_imm(const struct insn *in, const struct insn_operand *op,
			       const ZydisDecodedOperand *z, bool second)
{
	u64 value = second ? in->imm2 : in->imm;

	if (op->kind != OPK_IMM && op->kind != OPK_REL)
		return "immediate or not";
	if ((op->kind == OPK_REL) != z->imm.is_relative)
		return "relative";
	if (op->kind == OPK_REL)
		return value == z->imm.value.u ? NULL : "branch distance";
	return mask_to(value, op->size) == mask_to(z->imm.value.u, op->size) ? NULL : "immediate";
}

static const char *compare_operands(const struct insn *in, const ZydisDecodedInstruction *z,
				    const ZydisDecodedOperand *ops)
{
	unsigned n = 0, imms = 0;

	for (unsigned i = 0; i < z->operand_count_visible; i++, n++) {
		const struct insn_operand *op = &in->op[n];
		const char *what = NULL;

		/* ST0 and XMM0 are hidden in some of Zydis' rows. */
		while (in->nops - n > z->operand_count_visible - i && n < in->nops && in->op[n].implicit)
			n++;
		if (n >= in->nops)
			return "operand count";
		op = &in->op[n];
		switch (ops[i].type) {
		case ZYDIS_OPERAND_TYPE_REGISTER:
			what = compare_reg(op, ops[i].reg.value);
			break;
		case ZYDIS_OPERAND_TYPE_MEMORY:
			what = compare_mem(in, op, &ops[i]);
			break;
		case ZYDIS_OPERAND_TYPE_IMMEDIATE:
			what = compare_imm(in, op, &ops[i], imms++ > 0);
			break;
		case ZYDIS_OPERAND_TYPE_POINTER:
			if (op->kind != OPK_FAR || in->imm2 != ops[i].ptr.segment ||
			    in->imm != ops[i].ptr.offset)
				what = "far pointer";
			break;
		default:
			break;
		}
		if (what)
			return what;
	}
	while (n < in->nops && in->op[n].implicit)
		n++;
	return n == in->nops ? NULL : "operand count";
}

/* String instructions and their like: insn.mem instead of operands. Our one description is their first with
 * an overridable segment. */
static const char *compare_implicit(const struct insn *in, const ZydisDecodedInstruction *z,
				    const ZydisDecodedOperand *ops)
{
	for (unsigned i = 0; i < z->operand_count; i++) {
		const ZydisDecodedOperand *o = &ops[i];

		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && gpr_of(o->mem.base) == in->mem.base)
			return in->mem.seg != ZydisRegisterGetId(o->mem.segment) ? "implicit segment"
			       : in->mem.size && in->mem.size * 8 != o->size     ? "implicit size"
										 : NULL;
	}
	return "implicit memory";
}

static bool has_implicit_mem(const struct insn *in)
{
	return in->desc->attr & IA_STRING || in->id == INSN_XLAT || in->id == INSN_MASKMOVQ ||
	       in->id == INSN_MASKMOVDQU;
}

/* Operand size says something where an operand or an implicit register depends on it. */
static bool opsize_matters(const struct insn *in)
{
	if (in->prefixes & PFX_VEX)
		return false;
	switch (in->id) {
	case INSN_DAA:
	case INSN_DAS:
	case INSN_AAA:
	case INSN_AAS:
	case INSN_AAM:
	case INSN_AAD:
	case INSN_LAHF:
	case INSN_SAHF:
	case INSN_SALC:
	case INSN_SYSCALL:
	case INSN_INVLPG:
	case INSN_CMPXCHG8B:
	case INSN_CMPXCHG16B:
	case INSN_CRC32:
	case INSN_MOVDIR64B:
	case INSN_INVPCID:
	case INSN_XLAT:
	case INSN_CLFLUSH:
	case INSN_CLFLUSHOPT:
	case INSN_CLWB:
	case INSN_PREFETCH:
	case INSN_PREFETCHW:
	case INSN_MOVNTI:
	case INSN_ADCX:
	case INSN_ADOX:
	case INSN_RDFSBASE:
	case INSN_RDGSBASE:
	case INSN_WRFSBASE:
	case INSN_WRGSBASE:
	case INSN_MOVDIRI:
		return false;
	default:
		return in->desc->cls == IC_INT || in->desc->cls == IC_SYS;
	}
}

/* Instructions whose operands mean nothing: hints, and those that only raise #UD. */
static bool operands_matter(const struct insn *in)
{
	return in->id != INSN_NOP && in->id != INSN_UD0 && in->id != INSN_UD1;
}

static const char *compare_decoded(const struct insn *in, const ZydisDecodedInstruction *z,
				   const ZydisDecodedOperand *ops)
{
	if (in->len != z->length)
		return "length";
	if (in->adsize * 8 != z->address_width)
		return "address size";
	if (has_implicit_mem(in)) {
		const char *what = compare_implicit(in, z, ops);

		if (what || in->nops == 0)
			return what;
	}
	if (!operands_matter(in))
		return NULL;
	if (opsize_matters(in) && in->opsize * 8 != z->operand_width)
		return "operand size";
	if (in->desc->attr & IA_STRING || in->id == INSN_XLAT)
		return NULL;
	return compare_operands(in, z, ops);
}

/*
 * Where the host CPU differs from Zydis, and we follow the CPU (tried on an AMD family 1Ah): 66h makes all
 * near branches 16-bit, not only those with a 32-bit displacement; 0F0D needs memory; F3 with REX.B 90 is
 * XCHG; far pointers in memory have no 64-bit offsets; REX.B does not give a SIB byte without base a base,
 * also with 67h.
 */
static bool known_difference(const struct insn *in, const ZydisDecodedInstruction *z, enum insn_mode mode)
{
	u32 near = IA_BRANCH | IA_DEF64;

	if (!in->desc)
		return in->map == 1 && in->opcode == 0x0d && in->modrm >= 0xc0;
	if (mode != INSN_MODE_64)
		return false;
	if ((in->desc->attr & near) == near && in->prefixes & PFX_OPSIZE && !(in->rex & 8))
		return true;
	if (in->adsize == 4 && in->rex & 1 && (in->modrm & 0xc7) == 4 && (in->sib & 7) == 5)
		return true;
	if (in->id == INSN_XCHG && z->mnemonic == ZYDIS_MNEMONIC_PAUSE)
		return in->rex & 1;
	return in->rex & 8 && (in->id == INSN_LSS || in->id == INSN_LFS || in->id == INSN_LGS ||
			       in->id == INSN_JMP_FAR || in->id == INSN_CALL_FAR);
}

static void report(const char *what, const struct insn *in, const ZydisDecodedInstruction *z, const u8 *p,
		   enum insn_mode mode, int err)
{
	u32 key = z ? z->mnemonic : 0x10000u | (u32)in->map << 8 | in->opcode;
	char text[128] = "";

	if (z && known_difference(in, z, mode)) {
		t.known++;
		return;
	}
	t.failed++;
	for (unsigned i = 0; i < t.nreports; i++) {
		if (t.reports[i].what == what && t.reports[i].key == key) {
			t.reports[i].count++;
			return;
		}
	}
	if (t.nreports == MAX_REPORTS)
		return;
	t.reports[t.nreports++] = (struct report){what, key, 1};
	if (!err)
		insn_format(in, 0, text, sizeof(text));
	printf("%-16s mode %d ours %d len %d '%s', Zydis len %d %s width %d :", what, 16 << mode, err,
	       in->len, text, z ? z->length : 0, z ? ZydisMnemonicGetString(z->mnemonic) : "-",
	       z ? z->operand_width : 0);
	for (unsigned i = 0; i < INSN_MAX_LEN; i++)
		printf(" %02x", p[i]);
	printf("\n");
}

/* Compares the instruction at p (15 bytes readable); returns its length by Zydis, or 1. */
static unsigned check(const u8 *p, enum insn_mode mode)
{
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction z;
	ZydisDecoderContext ctx;
	const char *what = NULL;
	struct insn in;
	enum insn_error err = insn_decode(p, INSN_MAX_LEN, mode, &in);
	bool ok = ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&t.decoder[mode], &ctx, p, INSN_MAX_LEN, &z));

	if (ok && unsupported(&z)) {
		t.skipped++;
		t.skipped_set[z.meta.isa_set]++;
		return z.length;
	}
	t.compared++;
	if (ok != (err == INSN_OK)) {
		report(ok ? "ours invalid" : "ours valid", &in, ok ? &z : NULL, p, mode, err);
		return ok ? z.length : 1;
	}
	if (!ok) {
		t.passed++;
		return 1;
	}
	t.valid++;
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeOperands(&t.decoder[mode], &ctx, &z, ops, z.operand_count)))
		what = "Zydis operands";
	else
		what = compare_decoded(&in, &z, ops);
	if (!what && (t.valid & 15) == 0) {
		struct insn again;

		if (insn_decode(p, in.len - 1, mode, &again) != INSN_NEED_MORE ||
		    insn_decode(p, in.len, mode, &again) || memcmp(&again, &in, sizeof(in)))
			what = "short input";
	}
	if (what)
		report(what, &in, &z, p, mode, err);
	else
		t.passed++;
	return z.length;
}

/* ---- sources ---- */

static void sweep_section(const u8 *p, size_t size, enum insn_mode mode, u64 limit)
{
	for (size_t at = 0; at + INSN_MAX_LEN <= size && t.compared < limit;)
		at += check(p + at, mode);
}

static void sweep_elf(const char *path, u64 limit)
{
	int fd = open(path, O_RDONLY);
	struct stat st = {0};
	const u8 *map = MAP_FAILED;

	if (fd >= 0 && !fstat(fd, &st) && st.st_size > (off_t)sizeof(Elf64_Ehdr))
		map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (fd >= 0)
		close(fd);
	if (map == MAP_FAILED)
		return;
	const Elf64_Ehdr *eh = (const Elf64_Ehdr *)map;
	u64 size = (u64)st.st_size;

	if (!memcmp(eh->e_ident, ELFMAG, SELFMAG) && eh->e_machine == EM_X86_64 && eh->e_shoff <= size &&
	    eh->e_shnum <= (size - eh->e_shoff) / sizeof(Elf64_Shdr)) {
		const Elf64_Shdr *sh = (const Elf64_Shdr *)(map + eh->e_shoff);

		for (unsigned i = 0; i < eh->e_shnum; i++)
			if (sh[i].sh_flags & SHF_EXECINSTR && sh[i].sh_type == SHT_PROGBITS &&
			    sh[i].sh_offset <= size && sh[i].sh_size <= size - sh[i].sh_offset)
				sweep_section(map + sh[i].sh_offset, sh[i].sh_size, INSN_MODE_64, limit);
	}
	munmap((void *)map, (size_t)st.st_size);
}

static void sweep_files(char **files, int n, u64 limit)
{
	static const char *const patterns[] = {"/usr/bin/*", "/usr/lib/x86_64-linux-gnu/*.so*"};
	glob_t g = {0};

	for (int i = 0; i < n; i++)
		sweep_elf(files[i], limit);
	if (n)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(patterns); i++)
		glob(patterns[i], i ? GLOB_APPEND : 0, NULL, &g);
	/* Each file gives its share, so that all contribute. */
	for (size_t i = 0; i < g.gl_pathc && t.compared < limit; i++)
		sweep_elf(g.gl_pathv[i], MIN(limit, t.compared + limit / 64 + 1));
	globfree(&g);
}

static u64 random_state;

static u64 random64(void)
{
	u64 z = random_state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static void random_bytes(u8 *p)
{
	for (unsigned i = 0; i < 16; i += 8) {
		u64 r = random64();

		memcpy(p + i, &r, 8);
	}
}

static const u8 prefix_pool[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e,
				 0x26, 0x64, 0x65, 0x40, 0x48, 0x4f, 0x44, 0x41};

static u8 *random_head(u8 *p)
{
	u64 r = random64();

	for (unsigned n = r & 3; n && r & 0x10; n--, r >>= 8)
		*p++ = prefix_pool[r >> 20 & 15];
	switch (r >> 56 & 7) {
	case 0:
	case 1:
		*p++ = 0x0f;
		break;
	case 2:
	case 3:
		*p++ = 0x0f;
		*p++ = r & 0x100 ? 0x38 : 0x3a;
		break;
	case 4:
		*p++ = 0xc5;
		*p++ = (u8)(r >> 40) | (r & 0x200 ? 0xf8 : 0);
		break;
	case 5:
		*p++ = 0xc4;
		*p++ = (u8)(0xe0 ^ (r >> 32 & 0xe0)) | (1 + (r >> 16) % 3);
		*p++ = (u8)(r >> 40) | (r & 0x200 ? 0x78 : 0);
		break;
	}
	return p;
}

static void sweep_random(u64 limit)
{
	static const enum insn_mode modes[4] = {INSN_MODE_64, INSN_MODE_32, INSN_MODE_16, INSN_MODE_64};

	while (t.compared < limit) {
		u8 code[40];
		enum insn_mode mode = modes[random64() & 3];

		random_bytes(code);
		random_bytes(code + 16);
		if (random64() & 7) {
			u8 head[16], *end = random_head(head);

			memcpy(code, head, (size_t)(end - head));
		}
		check(code, mode);
	}
}

/* Legacy: prefix set x map x opcode x ModRM x mode. VEX: map x opcode x ModRM x (W, vvvv, L, pp) x mode. */
static void grid_legacy(u64 i)
{
	static const char *const heads[] = {"",         "\x66",     "\xf3",     "\xf2",
					    "\x67",     "\x48",     "\x66\x48", "\xf0",
					    "\x64\x41", "\xf3\x4c", "\x66\xf2", "\xf0\x66"};
	static const char *const maps[] = {"", "\x0f", "\x0f\x38", "\x0f\x3a"};
	u8 code[40];
	int n = 0;

	random_bytes(code);
	random_bytes(code + 16);
	n = sprintf((char *)code, "%s%s", heads[i / 65536 % 12], maps[i / 65536 / 12 % 4]);
	code[n] = (u8)(i >> 8);
	code[n + 1] = (u8)i;
	check(code, (enum insn_mode)(i / 65536 / 48 % 3));
}
#define GRID_LEGACY (65536ull * 48 * 3)

static void grid_vex(u64 i)
{
	u8 code[40];
	u64 k = i >> 16;

	random_bytes(code);
	code[0] = 0xc4;
	code[1] = (u8)(0xe1 + k / 32 % 3);
	code[2] = (u8)((k & 7) | (k & 8) << 4 | (k & 16 ? 0x78 : (random64() & 0x78)));
	code[3] = (u8)(i >> 8);
	code[4] = (u8)i;
	check(code, k / 96 % 2 ? INSN_MODE_32 : INSN_MODE_64);
}
#define GRID_VEX (65536ull * 96 * 2)

static void sweep_grid(u64 stride)
{
	for (u64 i = 0; i < GRID_LEGACY; i += stride)
		grid_legacy(i);
	for (u64 i = 0; i < GRID_VEX; i += stride)
		grid_vex(i);
}

static void init_decoders(void)
{
	static const struct {
		ZydisMachineMode mode;
		ZydisStackWidth width;
	} m[3] = {{ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
		  {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
		  {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64}};

	for (unsigned i = 0; i < 3; i++) {
		ZydisDecoderInit(&t.decoder[i], m[i].mode, m[i].width);
		ZydisDecoderEnableMode(&t.decoder[i], ZYDIS_DECODER_MODE_AMD_BRANCHES, ZYAN_TRUE);
		ZydisDecoderEnableMode(&t.decoder[i], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
		ZydisDecoderEnableMode(&t.decoder[i], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
		ZydisDecoderEnableMode(&t.decoder[i], ZYDIS_DECODER_MODE_KNC, ZYAN_FALSE);
	}
}

static void summary(u64 files)
{
	for (unsigned i = 0; i < t.nreports; i++)
		printf("%8llu x %s (key %x)\n", (unsigned long long)t.reports[i].count, t.reports[i].what,
		       t.reports[i].key);
	printf("%llu compared (%llu of them from files), %llu valid, %llu known to differ from the CPU in "
	       "Zydis,\n%llu skipped as not supported:",
	       (unsigned long long)t.compared, (unsigned long long)files, (unsigned long long)t.valid,
	       (unsigned long long)t.known, (unsigned long long)t.skipped);
	for (unsigned i = 0; i <= ZYDIS_ISA_SET_MAX_VALUE; i++)
		if (t.skipped_set[i])
			printf(" %s %llu", ZydisISASetGetString((ZydisISASet)i),
			       (unsigned long long)t.skipped_set[i]);
	printf("\n%llu passed, %llu failed\n", (unsigned long long)t.passed, (unsigned long long)t.failed);
}

int main(int argc, char **argv)
{
	u64 count = 6000000, files = 0;
	int first = 1;

	random_state = 1;
	for (; first + 1 < argc && argv[first][0] == '-'; first += 2) {
		if (!strcmp(argv[first], "--count"))
			count = strtoull(argv[first + 1], NULL, 0);
		else if (!strcmp(argv[first], "--seed"))
			random_state = strtoull(argv[first + 1], NULL, 0);
		else
			return 2;
	}
	init_decoders();
	sweep_files(argv + first, argc - first, count / 2);
	files = t.compared;
	sweep_grid(count >= 20000000 ? 1 : 11);
	sweep_random(count);
	summary(files);
	return t.failed != 0;
}
