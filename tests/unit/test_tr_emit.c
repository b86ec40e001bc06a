/*
 * The emitter: every primitive decoded back with Zydis, with all registers and kinds of memory operand; none
 * touches flags; room, alignment and branches. And the re-encoder's special forms by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include <Zydis/Zydis.h>

#include "engine/translate/reencode.h"

#define RX_DISTANCE 0x100000 /* pretended, of the executable view from the writable one */

static u8 code[256];
static ZydisDecodedInstruction z;
static ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];

static struct emit start(void)
{
	memset(code, 0xcc, sizeof(code));
	return (struct emit){.p = code, .end = code + sizeof(code), .rx = RX_DISTANCE};
}

static void decode_at(const u8 *p, size_t n)
{
	static ZydisDecoder d;
	const ZydisAccessedFlags *f = NULL;

	ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, p, n, &z, ops)))
		fail_msg("not an instruction: %02x %02x %02x %02x", p[0], p[1], p[2], p[3]);
	f = z.cpu_flags;
	if (f && (f->modified | f->set_0 | f->set_1 | f->undefined))
		fail_msg("%s changes flags", ZydisMnemonicGetString(z.mnemonic));
}

/* The one instruction that e has taken. */
static void decode(const struct emit *e, ZydisMnemonic mnemonic)
{
	assert_false(e->full);
	decode_at(code, (size_t)(e->p - code));
	assert_int_equal(z.length, e->p - code);
	assert_int_equal(z.mnemonic, mnemonic);
}

static ZydisRegister reg_of(unsigned n, unsigned size)
{
	switch (size) {
	case 1:
		return n < 4 ? ZYDIS_REGISTER_AL + n : ZYDIS_REGISTER_SPL + n - 4;
	case 2:
		return ZYDIS_REGISTER_AX + n;
	case 4:
		return ZYDIS_REGISTER_EAX + n;
	default:
		return ZYDIS_REGISTER_RAX + n;
	}
}

static void is_reg(unsigned operand, unsigned n, unsigned size)
{
	assert_int_equal(ops[operand].type, ZYDIS_OPERAND_TYPE_REGISTER);
	assert_int_equal(ops[operand].reg.value, reg_of(n, size));
}

static void is_mem(unsigned operand, const struct hostmem *m, unsigned size)
{
	const ZydisDecodedOperandMem *got = &ops[operand].mem;

	assert_int_equal(ops[operand].type, ZYDIS_OPERAND_TYPE_MEMORY);
	assert_int_equal(got->base, m->base == H_NONE ? ZYDIS_REGISTER_NONE : reg_of(m->base, 8));
	assert_int_equal(got->index, m->index == H_NONE ? ZYDIS_REGISTER_NONE : reg_of(m->index, 8));
	if (m->index != H_NONE)
		assert_int_equal(got->scale, 1 << m->shift);
	assert_int_equal(got->disp.value, m->disp);
	if (got->type == ZYDIS_MEMOP_TYPE_MEM) {
		assert_int_equal(ops[operand].size, size * 8);
		assert_int_equal(got->segment == ZYDIS_REGISTER_GS, m->gs);
	}
}

/* Calls check for every shape of memory operand. */
static void all_mems(void (*check)(const struct hostmem *m), bool gs)
{
	static const s32 disps[] = {0, 1, -128, 127, 128, -129, INT32_MIN, INT32_MAX};
	struct hostmem m;

	for (unsigned base = 0; base <= 16; base++) {
		for (unsigned index = 0; index <= 16; index++) {
			for (unsigned i = 0; i < 4 * ARRAY_SIZE(disps); i++) {
				m = (struct hostmem){.base = base < 16 ? base : H_NONE,
						     .index = index < 16 ? index : H_NONE,
						     .shift = i & 3,
						     .gs = gs && (base ^ i) & 1,
						     .disp = disps[i / 4]};
				if (index != H_SP)
					check(&m);
			}
		}
	}
}

/* ---- moves ---- */

static void check_load(const struct hostmem *m)
{
	for (unsigned k = 0; k < 64; k++) {
		unsigned reg = k & 15, size = 1 << (k >> 4);
		struct emit e = start();

		emit_load(&e, reg, m, size);
		decode(&e, size < 4 ? ZYDIS_MNEMONIC_MOVZX : ZYDIS_MNEMONIC_MOV);
		is_reg(0, reg, size < 4 ? 4 : size);
		is_mem(1, m, size);
	}
}

static void check_store(const struct hostmem *m)
{
	for (unsigned k = 0; k < 64; k++) {
		unsigned reg = k & 15, size = 1 << (k >> 4);
		struct emit e = start();

		emit_store(&e, m, reg, size);
		decode(&e, ZYDIS_MNEMONIC_MOV);
		is_mem(0, m, size);
		is_reg(1, reg, size);
	}
}

static void check_store_imm(const struct hostmem *m)
{
	static const s32 imms[] = {0, 1, -1, 0x12345678, INT32_MIN};

	for (unsigned k = 0; k < 4 * ARRAY_SIZE(imms); k++) {
		unsigned size = 1 << (k & 3);
		u64 mask = size == 8 ? ~0ull : (1ull << 8 * size) - 1;
		struct emit e = start();

		emit_store_imm(&e, m, imms[k / 4], size);
		decode(&e, ZYDIS_MNEMONIC_MOV);
		is_mem(0, m, size);
		assert_true(((ops[1].imm.value.u ^ (u64)(s64)imms[k / 4]) & mask) == 0);
	}
}

static void check_lea(const struct hostmem *m)
{
	for (unsigned k = 0; k < 32; k++) {
		unsigned reg = k & 15, size = k & 16 ? 8 : 4;
		struct emit e = start();

		emit_lea(&e, reg, m, size);
		decode(&e, ZYDIS_MNEMONIC_LEA);
		is_reg(0, reg, size);
		is_mem(1, m, size);
	}
}

static void check_jmp_mem(const struct hostmem *m)
{
	struct emit e = start();

	emit_jmp_mem(&e, m);
	decode(&e, ZYDIS_MNEMONIC_JMP);
	is_mem(0, m, 8);
}

static void test_memory(void **state)
{
	all_mems(check_load, true);
	all_mems(check_store, true);
	all_mems(check_store_imm, true);
	all_mems(check_lea, false);
	all_mems(check_jmp_mem, true);
}

static void test_registers(void **state)
{
	for (unsigned k = 0; k < 256; k++) {
		unsigned dst = k >> 4, src = k & 15;
		struct emit e = start();

		emit_mov(&e, dst, src, 4);
		decode(&e, ZYDIS_MNEMONIC_MOV);
		is_reg(0, dst, 4);
		is_reg(1, src, 4);
		e = start();
		emit_mov(&e, dst, src, 8);
		decode(&e, ZYDIS_MNEMONIC_MOV);
		is_reg(0, dst, 8);
		is_reg(1, src, 8);
		e = start();
		emit_movzx16(&e, dst, src);
		decode(&e, ZYDIS_MNEMONIC_MOVZX);
		is_reg(0, dst, 4);
		is_reg(1, src, 2);
		e = start();
		emit_movzx8(&e, dst, src);
		decode(&e, ZYDIS_MNEMONIC_MOVZX);
		is_reg(0, dst, 4);
		is_reg(1, src, 1);
		e = start();
		emit_rorx(&e, dst, src, k & 63);
		decode(&e, ZYDIS_MNEMONIC_RORX);
		is_reg(0, dst, 8);
		is_reg(1, src, 8);
		assert_int_equal(ops[2].imm.value.u, k & 63);
		e = start();
		emit_pext(&e, dst, src, &(struct hostmem){.base = H_NONE, .index = H_NONE, .gs = true, .disp = 0x803048});
		decode(&e, ZYDIS_MNEMONIC_PEXT);
		is_reg(0, dst, 4);
		is_reg(1, src, 4);
		assert_int_equal(ops[2].mem.segment, ZYDIS_REGISTER_GS);
		assert_int_equal(ops[2].mem.disp.value, 0x803048);
		e = start();
		emit_load(&e, dst, &(struct hostmem){.base = H_NONE, .index = src == H_SP ? H_CX : (u8)src, .shift = 3, .fs = true, .disp = 0x1000}, 8);
		decode(&e, ZYDIS_MNEMONIC_MOV);
		assert_int_equal(ops[1].mem.segment, ZYDIS_REGISTER_FS);
		assert_int_equal(ops[1].mem.scale, 8);
	}
}

static void test_mov_imm(void **state)
{
	static const struct {
		u64 imm;
		unsigned len; /* for the low registers, without REX where one is not needed for W */
	} cases[] = {{0, 5},
		     {1, 5},
		     {0x7fffffff, 5},
		     {0x80000000, 5},
		     {0xffffffff, 5},
		     {0x100000000, 10},
		     {~0ull, 7},
		     {0xffffffff80000000, 7},
		     {0xffffffff7fffffff, 10},
		     {1ull << 63, 10},
		     {0x123456789, 10}};

	for (unsigned reg = 0; reg < 16; reg++) {
		for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
			struct emit e = start();
			u64 got = 0;

			emit_mov_imm(&e, reg, cases[i].imm);
			decode(&e, ZYDIS_MNEMONIC_MOV);
			assert_int_equal(z.length, cases[i].len + (reg > 7 && cases[i].len == 5));
			got = ops[1].imm.value.u;
			if (z.operand_width == 32)
				got = (u32)got;
			is_reg(0, reg, z.operand_width / 8);
			assert_true(got == cases[i].imm);
		}
	}
}

/* ---- branches ---- */

static u64 target_of(const struct emit *e)
{
	return emit_here(e) + ops[0].imm.value.u;
}

static void test_branches(void **state)
{
	static const ZydisMnemonic jcc[16] = {
	    ZYDIS_MNEMONIC_JO, ZYDIS_MNEMONIC_JNO, ZYDIS_MNEMONIC_JB,  ZYDIS_MNEMONIC_JNB,
	    ZYDIS_MNEMONIC_JZ, ZYDIS_MNEMONIC_JNZ, ZYDIS_MNEMONIC_JBE, ZYDIS_MNEMONIC_JNBE,
	    ZYDIS_MNEMONIC_JS, ZYDIS_MNEMONIC_JNS, ZYDIS_MNEMONIC_JP,  ZYDIS_MNEMONIC_JNP,
	    ZYDIS_MNEMONIC_JL, ZYDIS_MNEMONIC_JNL, ZYDIS_MNEMONIC_JLE, ZYDIS_MNEMONIC_JNLE};
	struct emit e = start();
	u64 far = emit_here(&e) + 0x7fffff00, near = emit_here(&e) + 2;

	emit_jmp(&e, far);
	decode(&e, ZYDIS_MNEMONIC_JMP);
	assert_int_equal(z.length, 5);
	assert_true(target_of(&e) == far);
	for (unsigned cond = 0; cond < 16; cond++) {
		e = start();
		emit_jcc(&e, cond, near);
		decode(&e, jcc[cond]);
		assert_int_equal(z.length, 6);
		assert_true(target_of(&e) == near);
	}
	for (unsigned reg = 0; reg < 16; reg++) {
		e = start();
		emit_jmp_reg(&e, reg);
		decode(&e, ZYDIS_MNEMONIC_JMP);
		is_reg(0, reg, 8);
	}
	e = start();
	emit_jmp(&e, emit_here(&e) + 0x80000005);
	assert_true(e.full); /* out of reach */
	e = start();
	emit_jmp(&e, emit_here(&e) + 0x80000004);
	decode(&e, ZYDIS_MNEMONIC_JMP);
	e = start();
	emit_jcc(&e, 0, emit_here(&e) - 0x80000000 + 5);
	assert_true(e.full);
}

static void test_patch(void **state)
{
	for (unsigned at = 0; at < 8; at++) {
		struct emit e = start();
		u64 end = 0;

		e.p += at;
		emit_jmp(&e, emit_here(&e));
		end = emit_here(&e);
		emit_patch_rel32(e.rx, end, end - 0x1234567);
		decode_at(code + at, 5);
		assert_true(target_of(&e) == end - 0x1234567);
		assert_int_equal(code[at + 5], 0xcc);
	}
}

/* A rel32 behind some bytes of opcode lies in one aligned quadword, wherever the instruction begins, with nothing but NOPs before it. */
static void test_unsplit(void **state)
{
	static _Alignas(8) u8 room[64];

	for (unsigned ahead = 1; ahead <= 2; ahead++) {
		for (unsigned at = 0; at < 8; at++) {
			struct emit e = {.p = room + at, .end = room + sizeof(room), .rx = RX_DISTANCE};
			unsigned gap = 0;

			memset(room, 0xcc, sizeof(room));
			emit_unsplit(&e, ahead);
			gap = (unsigned)(e.p - (room + at));
			assert_true(((emit_here(&e) + ahead) & 7) <= 4);
			assert_true(gap <= 3);
			assert_true(gap == 0 || ((at + ahead) & 7) > 4);
			if (gap) {
				decode_at(room + at, gap);
				assert_int_equal(z.mnemonic, ZYDIS_MNEMONIC_NOP);
				assert_int_equal(z.length, gap);
			}
			assert_int_equal(*e.p, 0xcc);
		}
	}
}

static u8 *short_branch(struct emit *e, unsigned kind)
{
	return kind == 0 ? emit_jrcxz(e) : kind == 1 ? emit_jmp_short(e) : emit_jcc_short(e, kind - 2);
}

static void test_short(void **state)
{
	for (unsigned kind = 0; kind < 18; kind++) {
		for (unsigned gap = 0; gap < 140; gap++) {
			struct emit e = start();
			u8 *place = short_branch(&e, kind);

			assert_int_equal(e.p - code, 2);
			for (unsigned i = 0; i < gap; i++)
				emit_u8(&e, 0x90);
			emit_short_here(&e, place);
			assert_int_equal(e.full, gap > 127);
			if (e.full)
				continue;
			decode_at(code, 2);
			assert_int_equal(ops[0].imm.value.u, gap);
			if (kind < 2)
				assert_int_equal(z.mnemonic,
						 kind ? ZYDIS_MNEMONIC_JMP : ZYDIS_MNEMONIC_JRCXZ);
			else
				assert_int_equal(code[0], 0x70 + kind - 2);
		}
	}
}

/* ---- room ---- */

static void test_align(void **state)
{
	for (unsigned to = 1; to <= 64; to *= 2) {
		for (unsigned at = 0; at < 64; at++) {
			struct emit e = start();
			u8 *p = e.p += at;

			e.rx = 0x7fff000 - (s64)(uintptr_t)code;
			emit_align(&e, to);
			assert_false(e.full);
			assert_int_equal(emit_here(&e) % to, 0);
			assert_in_range(e.p - p, 0, to - 1);
			for (; p < e.p; p += z.length) {
				decode_at(p, (size_t)(e.p - p));
				assert_int_equal(z.mnemonic, ZYDIS_MNEMONIC_NOP);
			}
			assert_ptr_equal(p, e.p);
			assert_int_equal(*p, 0xcc);
		}
	}
}

static void test_full(void **state)
{
	struct hostmem m = {.base = H_12, .index = H_13, .gs = true, .disp = 0x1000};

	for (unsigned room = 0; room < 32; room++) {
		struct emit e = start();
		u8 *end = e.end = code + room, *place = NULL;

		emit_load(&e, H_9, &m, 8);
		emit_store_imm(&e, &m, 1, 4);
		assert_int_equal(e.full, room < 9 + 13);
		place = emit_jrcxz(&e);
		emit_align(&e, 64);
		emit_short_here(&e, place);
		if (room < 22) {
			assert_true(e.full);
			assert_ptr_equal(e.p, room < 9 ? code : code + 9);
		}
		/* Sticky: what would fit is dropped too. */
		if (e.full) {
			u8 *p = e.p;

			emit_u8(&e, 1);
			emit_u32(&e, 1);
			assert_ptr_equal(e.p, p);
		}
		for (u8 *p = end; p < code + sizeof(code); p++)
			assert_int_equal(*p, 0xcc);
	}
}

/* Through two views: written in one, run in the other, with flags that must survive. */
static void test_runs(void **state)
{
	struct hostmem at = {.base = H_DI, .index = H_SI, .shift = 3, .disp = 8};
	u64 data[4] = {1, 2, 0x1122334455667788, 4};
	int fd = memfd_create("code", 0);
	u8 *w = NULL, *x = NULL, *skip = NULL;
	struct emit e;
	u64 (*fn)(u64 *, u64) = NULL;

	assert_int_equal(ftruncate(fd, 4096), 0);
	w = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	x = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	assert_true(w != MAP_FAILED && x != MAP_FAILED);
	e = (struct emit){.p = w, .end = w + 4096, .rx = x - w};
	emit_u8(&e, 0xf9); /* STC */
	emit_load(&e, H_AX, &at, 8);
	emit_rorx(&e, H_CX, H_AX, 56); /* CL = 0x11 */
	emit_store(&e, &at, H_CX, 1);
	emit_movzx16(&e, H_DX, H_CX);
	emit_mov_imm(&e, H_CX, 0);
	skip = emit_jrcxz(&e);
	emit_mov_imm(&e, H_AX, 0);
	emit_short_here(&e, skip);
	emit_u8(&e, 0x48); /* ADC RAX, RDX */
	emit_u8(&e, 0x11);
	emit_u8(&e, 0xd0);
	emit_u8(&e, 0xc3);
	assert_false(e.full);
	*(void **)&fn = x;
	assert_true(fn(data, 1) == 0x1122334455667788 + 0x8811 + 1);
	assert_true(data[2] == 0x1122334455667711);
	munmap(w, 4096);
	munmap(x, 4096);
	close(fd);
}

/* ---- re-encoded by hand ---- */

struct form {
	enum insn_mode mode;
	const char *guest, *host; /* hex; host NULL: refused */
	s8 from, to;              /* one register renamed */
};

static size_t parse_hex(const char *s, u8 *out)
{
	size_t n = 0;

	for (unsigned v = 0; sscanf(s, "%2x", &v) == 1; s += s[2] ? 3 : 2)
		out[n++] = (u8)v;
	return n;
}

static void test_forms(void **state)
{
	static const struct form forms[] = {
	    {INSN_MODE_64, "48 89 c8", "4c 89 f0", H_CX, H_14},    /* mov rax, rcx */
	    {INSN_MODE_64, "88 cc", NULL, H_CX, H_14},             /* mov ah, cl: needs REX */
	    {INSN_MODE_64, "88 ec", NULL, H_CX, H_14},             /* mov ah, ch: r14 has no high byte */
	    {INSN_MODE_64, "88 dc", "88 dc", H_CX, H_14},          /* mov ah, bl */
	    {INSN_MODE_64, "88 d9", "40 88 de", H_CX, H_SI},       /* mov cl, bl */
	    {INSN_MODE_64, "40 88 f9", "88 d9", H_DI, H_BX},       /* mov cl, dil */
	    {INSN_MODE_32, "88 c1", "41 88 c6", H_CX, H_14},       /* mov cl, al */
	    {INSN_MODE_32, "41", "41 ff c6", H_CX, H_14},          /* inc ecx */
	    {INSN_MODE_32, "66 48", "66 ff c8", H_CX, H_14},       /* dec ax */
	    {INSN_MODE_16, "40", "66 ff c0", H_CX, H_14},          /* inc ax */
	    {INSN_MODE_32, "82 c1 05", "41 80 c6 05", H_CX, H_14}, /* add cl, 5 */
	    {INSN_MODE_64, "91", "41 96", H_CX, H_14},             /* xchg ecx, eax */
	    {INSN_MODE_64, "41 90", "87 c0", H_8, H_AX},           /* xchg r8d, eax: no NOP */
	    {INSN_MODE_64, "f3 41 90", "91", H_8, H_CX},           /* xchg r8d, eax: F3 means nothing */
	    {INSN_MODE_64, "f3 90", "f3 90", H_CX, H_14},          /* pause */
	    {INSN_MODE_64, "f3 0f 1e fa", "90", H_CX, H_14},       /* endbr64 */
	    {INSN_MODE_64, "0f c9", "41 0f ce", H_CX, H_14},       /* bswap ecx */
	    {INSN_MODE_64, "48 b9 08 07 06 05 04 03 02 01", "49 be 08 07 06 05 04 03 02 01", H_CX, H_14},
	    {INSN_MODE_64, "b5 07", NULL, H_CX, H_14},    /* mov ch, 7 */
	    {INSN_MODE_64, "b5 07", "b6 07", H_CX, H_DX}, /* mov ch, 7: dh */
	    {INSN_MODE_64, "48 05 01 02 03 04", "48 05 01 02 03 04", H_CX, H_14},
	    {INSN_MODE_16, "98", "66 98", H_CX, H_14},          /* cbw */
	    {INSN_MODE_16, "0f ae f0", "0f ae f0", H_CX, H_14}, /* mfence: 66 would make it another */
	    {INSN_MODE_64, "c4 e2 70 f2 d1", "c4 c2 08 f2 d6", H_CX, H_14}, /* andn edx, ecx, ecx */
	    {INSN_MODE_64, "c5 f1 ef c2", "c5 f1 ef c2", H_CX, H_14}, /* vpxor: vvvv is no general register */
	    {INSN_MODE_64, "c5 f9 6e c1", "c4 c1 79 6e c6", H_CX, H_14},    /* vmovd xmm0, ecx */
	    {INSN_MODE_32, "c4 e1 f9 6e c1", "c4 c1 79 6e c6", H_CX, H_14}, /* the same: W says nothing */
	    {INSN_MODE_32, "c4 e3 71 4a c2 f0", "c4 e3 71 4a c2 70", H_CX,
	     H_14},                                                      /* is4: bit 7 says nothing */
	    {INSN_MODE_64, "f3 0f b8 c9", "f3 45 0f b8 f6", H_CX, H_14}, /* popcnt ecx, ecx */
	    {INSN_MODE_64, "66 f3 0f b8 c9", "66 f3 45 0f b8 f6", H_CX, H_14},
	    {INSN_MODE_64, "f2 48 0f 38 f0 d5", "f2 48 0f 38 f0 d5", H_CX, H_14}, /* crc32 rdx, bpl */
	    {INSN_MODE_64, "f2 01 c8", "44 01 f0", H_CX, H_14},                   /* F2 means nothing */
	    {INSN_MODE_64, "d9 c1", "d9 c1", H_CX, H_14},                         /* fld st1 */
	    {INSN_MODE_64, "df e0", "df e0", H_AX, H_14},                         /* fnstsw ax: implicit */
	    {INSN_MODE_64, "d3 e1", "41 d3 e6", H_CX, H_14},                      /* shl ecx, cl: CL stays */
	    {INSN_MODE_64, "51", NULL, H_CX, H_14},                               /* push */
	    {INSN_MODE_64, "a4", NULL, H_CX, H_14},                               /* movsb */
	    {INSN_MODE_64, "0f 31", NULL, H_CX, H_14},                            /* rdtsc */
	    {INSN_MODE_64, "eb 00", NULL, H_CX, H_14},                            /* jmp */
	    {INSN_MODE_32, "37", NULL, H_CX, H_14},                               /* aaa */
	};

	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		const struct form *f = &forms[i];
		u8 guest[32] = {0}, host[32] = {0}, map[16];
		size_t n = parse_hex(f->guest, guest), want = f->host ? parse_hex(f->host, host) : 0;
		struct emit e = start();
		struct insn in;
		bool ok = false;

		for (unsigned r = 0; r < 16; r++)
			map[r] = (u8)(r == (unsigned)f->from ? f->to : (s8)r);
		assert_int_equal(insn_decode(guest, n, f->mode, &in), INSN_OK);
		ok = reencode(&e, &in, map, NULL, true);
		if (ok != !!f->host || (size_t)(e.p - code) != want || memcmp(code, host, want))
			fail_msg("%s: got %d, %02x %02x %02x %02x %02x", f->guest, ok, code[0], code[1],
				 code[2], code[3], code[4]);
	}
}

struct mem_form {
	enum insn_mode mode;
	const char *guest, *host; /* host: with gs:[r12 + 8] */
};

static void test_mem_forms(void **state)
{
	static const struct mem_form forms[] = {
	    {INSN_MODE_64, "8b 05 10 00 00 00", "65 41 8b 44 24 08"},             /* mov eax, [rip + 16] */
	    {INSN_MODE_64, "48 a1 01 02 03 04 05 06 07 08", "65 49 8b 44 24 08"}, /* mov rax, moffs */
	    {INSN_MODE_32, "a2 01 02 03 04", "65 41 88 44 24 08"},                /* mov moffs, al */
	    {INSN_MODE_16, "a3 01 02", "65 66 41 89 44 24 08"},                   /* mov moffs, ax */
	    {INSN_MODE_32, "66 a1 01 02 03 04", "65 66 41 8b 44 24 08"},          /* mov ax, moffs */
	    {INSN_MODE_64, "f0 83 00 01", "f0 65 41 83 44 24 08 01"},             /* lock add */
	    {INSN_MODE_32, "64 67 81 07 01 02 03 04",
	     "65 41 81 44 24 08 01 02 03 04"},                        /* add fs:[bx], imm32 */
	    {INSN_MODE_64, "88 20", NULL},                            /* mov [rax], ah */
	    {INSN_MODE_64, "0f 1f 00", "90"},                         /* nop [rax] */
	    {INSN_MODE_64, "0f c7 08", "65 41 0f c7 4c 24 08"},       /* cmpxchg8b */
	    {INSN_MODE_64, "48 0f c7 08", "65 49 0f c7 4c 24 08"},    /* cmpxchg16b */
	    {INSN_MODE_64, "66 d9 30", "65 66 41 d9 74 24 08"},       /* fnstenv, 14 bytes */
	    {INSN_MODE_64, "66 d9 28", "65 41 d9 6c 24 08"},          /* fldcw */
	    {INSN_MODE_64, "c5 fd 6f 07", "65 c4 c1 7d 6f 44 24 08"}, /* vmovdqa ymm0, [rdi] */
	    {INSN_MODE_64, "c4 e2 69 90 04 08", NULL},                /* vpgatherdd */
	    {INSN_MODE_64, "d7", NULL},                               /* xlat */
	    {INSN_MODE_64, "0f f7 c1", NULL},                         /* maskmovq */
	};
	struct hostmem m = {.base = H_12, .index = H_NONE, .gs = true, .disp = 8};
	u8 map[16];

	for (unsigned r = 0; r < 16; r++)
		map[r] = (u8)r;
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		u8 guest[32] = {0}, host[32] = {0};
		size_t n = parse_hex(forms[i].guest, guest);
		size_t want = forms[i].host ? parse_hex(forms[i].host, host) : 0;
		struct emit e = start();
		struct insn in;
		bool ok = false;

		assert_int_equal(insn_decode(guest, n, forms[i].mode, &in), INSN_OK);
		ok = reencode(&e, &in, map, &m, true);
		if (ok != !!forms[i].host || (size_t)(e.p - code) != want || memcmp(code, host, want))
			fail_msg("%s: got %d, %02x %02x %02x %02x %02x %02x", forms[i].guest, ok, code[0],
				 code[1], code[2], code[3], code[4], code[5]);
		if (ok && in.id != INSN_NOP)
			assert_false(reencode(&e, &in, map, NULL, true));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_memory),   cmocka_unit_test(test_registers), cmocka_unit_test(test_mov_imm),
	    cmocka_unit_test(test_branches), cmocka_unit_test(test_patch),     cmocka_unit_test(test_short),
	    cmocka_unit_test(test_unsplit),
	    cmocka_unit_test(test_align),    cmocka_unit_test(test_full),      cmocka_unit_test(test_runs),
	    cmocka_unit_test(test_forms),    cmocka_unit_test(test_mem_forms),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
