/*
 * The decoder on hand-picked encodings: prefixes, sizes, addressing, VEX rules, errors, table properties.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "engine/isa/insn.h"

#define M16 INSN_MODE_16
#define M32 INSN_MODE_32
#define M64 INSN_MODE_64

struct text_case {
	enum insn_mode mode;
	const char *bytes; /* hex */
	const char *text;  /* NULL: #UD */
};

static size_t parse_hex(const char *s, u8 *out)
{
	size_t n = 0;

	for (unsigned v = 0; sscanf(s, "%2x", &v) == 1; s += s[2] ? 3 : 2)
		out[n++] = (u8)v;
	return n;
}

static struct insn decode_ok(enum insn_mode mode, const char *hex)
{
	u8 bytes[32] = {0};
	size_t n = parse_hex(hex, bytes);
	struct insn in;

	if (insn_decode(bytes, n, mode, &in) != INSN_OK)
		fail_msg("%s does not decode", hex);
	assert_int_equal(in.len, n);
	return in;
}

static void test_text(void **state)
{
	static const struct text_case cases[] = {
	    {M64, "48 89 e5", "mov rbp, rsp"},
	    {M64, "40 88 e0", "mov al, spl"},
	    {M64, "88 e0", "mov al, ah"},
	    {M64, "41 b4 07", "mov r12b, 0x7"},
	    {M64, "48 b8 88 77 66 55 44 33 22 11", "mov rax, 0x1122334455667788"},
	    {M64, "48 83 c0 ff", "add rax, 0xffffffffffffffff"},
	    {M64, "8b 05 10 00 00 00", "mov eax, dword ptr [rip+0x10] ; 0x1016"},
	    {M64, "8b 04 25 10 00 00 00", "mov eax, dword ptr [0x10]"},
	    {M64, "8b 44 8d fc", "mov eax, dword ptr [rbp+rcx*4-0x4]"},
	    {M64, "65 48 8b 04 25 28 00 00 00", "mov rax, qword ptr gs:[0x28]"},
	    {M64, "67 8b 00", "mov eax, dword ptr [eax]"},
	    {M64, "41 90", "xchg r8d, eax"},
	    {M64, "90", "nop"},
	    {M64, "f3 90", "pause"},
	    {M64, "f3 0f 1e fa", "nop edx, edi"},
	    {M64, "66 48 41 90", "xchg r8w, ax"},
	    {M64, "48 66 90", "nop"},
	    {M64, "f3 48 ab", "rep stosq"},
	    {M64, "f3 a6", "repe cmpsb"},
	    {M64, "f0 48 0f c7 0f", "lock cmpxchg16b xmmword ptr [rdi]"},
	    {M64, "63 c8", "movsxd ecx, eax"},
	    {M32, "63 c8", "arpl ax, cx"},
	    {M64, "0f 20 d8", "mov rax, cr3"},
	    {M64, "44 0f 22 c0", "mov cr8, rax"},
	    {M64, "0f 20 c8", NULL},
	    {M64, "0f 23 f8", "mov dr7, rax"},
	    {M64, "8e c8", NULL},
	    {M64, "8e d8", "mov ds, ax"},
	    {M64, "48 cf", "iretq"},
	    {M64, "06", NULL},
	    {M64, "82 c0 01", NULL},
	    {M64, "d6", NULL},
	    {M32, "d6", "salc"},
	    {M16, "ea 5b e0 00 f0", "jmp far 0xf000:0xe05b"},
	    {M16, "66 ea 00 00 10 00 08 00", "jmp far 0x8:0x100000"},
	    {M16, "8b 46 00", "mov ax, word ptr [bp]"},
	    {M16, "8b 06 34 12", "mov ax, word ptr [0x1234]"},
	    {M16, "67 8b 44 24 04", "mov ax, word ptr [esp+0x4]"},
	    {M16, "66 0f 01 16 00 10", "lgdt fword ptr [0x1000]"},
	    {M16, "0f 22 c0", "mov cr0, eax"},
	    {M32, "62 08", "bound ecx, qword ptr [eax]"},
	    {M32, "62 c8", NULL},
	    {M64, "62 f1 7c 48 58 c1", NULL},
	    {M32, "c4 01", "les eax, fword ptr [ecx]"},
	    {M32, "c5 f9 6f c1", "vmovdqa xmm0, xmm1"},
	    {M64, "c5 f9 6f c1", "vmovdqa xmm0, xmm1"},
	    {M64, "c5 f5 fe c2", "vpaddd ymm0, ymm1, ymm2"},
	    {M64, "66 c5 f9 6f c1", NULL},
	    {M64, "48 c5 f9 6f c1", NULL},
	    {M64, "f0 c5 f9 6f c1", NULL},
	    {M64, "c5 f1 6f c1", NULL},
	    {M64, "c4 e2 71 90 04 00", NULL},
	    {M64, "c4 e2 71 90 14 08", NULL},
	    {M64, "c4 e2 71 90 14 18", "vpgatherdd xmm2, dword ptr [rax+vr3], xmm1"},
	    {M64, "c4 e2 78 f2 c1", "andn eax, eax, ecx"},
	    {M64, "c4 e3 71 4a c2 30", "vblendvps xmm0, xmm1, xmm2, xmm3"},
	    {M64, "f3 0f 7e c1", "movq xmm0, xmm1"},
	    {M64, "66 48 0f 6e c0", "movq xmm0, rax"},
	    {M64, "f2 0f 10 00", "movsd xmm0, qword ptr [rax]"},
	    {M64, "66 f2 0f 10 00", "movsd xmm0, qword ptr [rax]"},
	    {M64, "d8 c1", "fadd st(0), st(1)"},
	    {M64, "df e0", "fnstsw ax"},
	    {M64, "f0 01 c0", NULL},
	    {M64, "f0 8b 00", NULL},
	    {M64, "8f 40 00", "pop qword ptr [rax]"},
	    {M64, "8f e9 78 e1 c0", NULL},
	    {M64, "0f 0f c1 9e", NULL},
	    {M64, "0f 0d c0", NULL},
	    {M64, "0f 01 d9", "vmmcall"},
	    {M64, "c8 10 00 01", "enter 0x10, 0x1"},
	    {M64, "66 0f 38 f0 00", "movbe ax, word ptr [rax]"},
	    {M64, "66 f2 0f 38 f1 c1", "crc32 eax, cx"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct text_case *c = &cases[i];
		char text[128] = "";
		u8 bytes[32] = {0};
		size_t n = parse_hex(c->bytes, bytes);
		struct insn in;
		enum insn_error err = insn_decode(bytes, n, c->mode, &in);

		if (c->text && err == INSN_OK)
			insn_format(&in, 0x1000, text, sizeof(text));
		if (err != (c->text ? INSN_OK : INSN_UD) ||
		    (c->text && (in.len != n || strcmp(text, c->text))))
			fail_msg("%s: error %d, length %u, '%s', want '%s'", c->bytes, err, in.len, text,
				 c->text ? c->text : "#UD");
	}
}

static void test_near_branch_66(void **state)
{
	struct insn in = decode_ok(M64, "66 e9 fe ff");

	assert_int_equal(in.opsize, 2);
	assert_int_equal((s64)in.imm, -2);
	in = decode_ok(M64, "66 48 e9 fe ff ff ff");
	assert_int_equal(in.opsize, 8);
	assert_int_equal(decode_ok(M64, "66 c3").opsize, 2);
	assert_int_equal(decode_ok(M64, "c3").opsize, 8);
	assert_int_equal(decode_ok(M64, "ff 10").mem.size, 8);
}

static void test_segments(void **state)
{
	assert_int_equal(decode_ok(M64, "8b 04 24").mem.seg, SEG_SS);
	assert_int_equal(decode_ok(M64, "41 8b 04 24").mem.seg, SEG_DS);
	assert_int_equal(decode_ok(M64, "8b 45 00").mem.seg, SEG_SS);
	assert_int_equal(decode_ok(M64, "3e 8b 45 00").mem.seg, SEG_SS);
	assert_int_equal(decode_ok(M64, "64 2e 8b 00").mem.seg, SEG_FS);
	assert_int_equal(decode_ok(M32, "2e 8b 45 00").mem.seg, SEG_CS);
	assert_int_equal(decode_ok(M16, "8b 02").mem.seg, SEG_SS);
	assert_int_equal(decode_ok(M32, "26 a4").mem.seg, SEG_ES);
	assert_int_equal(decode_ok(M64, "65 ac").mem.seg, SEG_GS);
	assert_int_equal(decode_ok(M64, "65 aa").mem.seg, SEG_ES);
}

static void test_fields(void **state)
{
	struct insn in = decode_ok(M64, "4c 81 84 8b 78 56 34 12 f0 de bc 0a");

	assert_int_equal(in.rex, 12);
	assert_int_equal(in.modrm_off, 2);
	assert_int_equal(in.disp_off, 4);
	assert_int_equal(in.disp_len, 4);
	assert_int_equal(in.imm_off, 8);
	assert_int_equal(in.imm_len, 4);
	assert_int_equal(in.mem.disp, 0x12345678);
	assert_int_equal(in.op[0].access, OPA_READ | OPA_WRITE);
	assert_int_equal(in.op[1].access, OPA_READ);
	in = decode_ok(M64, "a1 f8 f7 f6 f5 f4 f3 f2 f1");
	assert_true(in.mem.disp == (s64)0xf1f2f3f4f5f6f7f8ull);
	assert_true(in.op[0].implicit);
	in = decode_ok(M64, "0f 4f c1");
	assert_int_equal(in.id, INSN_CMOVCC);
	assert_int_equal(in.cond, 15);
	assert_int_equal(decode_ok(M64, "c1 e0 00").desc->flags_written, 0);
	assert_int_not_equal(decode_ok(M64, "c1 e0 01").desc->flags_written, 0);
	assert_int_equal(decode_ok(M64, "e7 10").opsize, 4);
	assert_int_equal(decode_ok(M64, "48 e7 10").opsize, 4);
}

static void test_attributes(void **state)
{
	assert_true(decode_ok(M64, "0f 30").desc->attr & IA_PRIV);
	assert_true(decode_ok(M64, "0f 22 d8").desc->attr & IA_ENDBLOCK);
	assert_false(decode_ok(M64, "0f 20 d8").desc->attr & IA_ENDBLOCK);
	assert_true(decode_ok(M64, "66 0f 6f 00").desc->attr & IA_ALIGN16);
	assert_false(decode_ok(M64, "f3 0f 6f 00").desc->attr & IA_ALIGN16);
	assert_true(decode_ok(M64, "c5 f9 6f 00").desc->attr & IA_ALIGN_ANY);
	assert_false(decode_ok(M64, "c5 f9 fe 00").desc->attr & IA_ALIGN16);
	assert_true(decode_ok(M64, "75 00").desc->attr & IA_COND);
	assert_int_equal(decode_ok(M64, "74 00").desc->flags_read, 0x40);
	assert_int_equal(decode_ok(M64, "c5 f9 fe 00").desc->feature, FEAT_AVX);
	assert_int_equal(decode_ok(M64, "c5 fd fe 00").desc->feature, FEAT_AVX2);
	assert_int_equal(decode_ok(M64, "c4 e2 7d dc 00").desc->feature, FEAT_VAES);
}

static void test_short_and_long(void **state)
{
	static const u8 nops[32] = {[0 ... 13] = 0x66, 0x90, 0xcc};
	static const u8 add[] = {0x48, 0x81, 0x84, 0x8b, 0x78, 0x56, 0x34, 0x12, 0xf0, 0xde, 0xbc, 0x0a};
	u8 prefixes[32];
	struct insn in;

	for (size_t n = 0; n < sizeof(add); n++)
		assert_int_equal(insn_decode(add, n, M64, &in), INSN_NEED_MORE);
	assert_int_equal(insn_decode(add, sizeof(add), M64, &in), INSN_OK);
	assert_int_equal(insn_decode(nops, 15, M64, &in), INSN_OK);
	assert_int_equal(insn_decode(nops, 14, M64, &in), INSN_NEED_MORE);
	memset(prefixes, 0x66, sizeof(prefixes));
	assert_int_equal(insn_decode(prefixes, 14, M64, &in), INSN_NEED_MORE);
	assert_int_equal(insn_decode(prefixes, 15, M64, &in), INSN_TOO_LONG);
	prefixes[12] = 0x05;
	assert_int_equal(insn_decode(prefixes, 20, M32, &in), INSN_OK);
	prefixes[12] = 0x66;
	prefixes[13] = 0x05;
	assert_int_equal(insn_decode(prefixes, 20, M32, &in), INSN_TOO_LONG);
}

/* A feature table that names a real bit for each feature, and names for all instructions. */
static void test_names(void **state)
{
	for (unsigned i = 0; i < FEAT_COUNT; i++)
		assert_true(insn_feature_bits[i].bit < 32 || insn_feature_bits[i].bit == FEATURE_ALWAYS);
	for (unsigned i = 0; i < INSN_COUNT; i++)
		assert_non_null(insn_name((enum insn_id)i));
	assert_string_equal(insn_feature_name(FEAT_VPCLMULQDQ), "VPCLMULQDQ");
}

static void test_format_truncates(void **state)
{
	struct insn in = decode_ok(M64, "8b 44 8d fc");
	char buf[8];

	memset(buf, 'x', sizeof(buf));
	insn_format(&in, 0, buf, sizeof(buf));
	assert_string_equal(buf, "mov eax");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_text),       cmocka_unit_test(test_near_branch_66),
	    cmocka_unit_test(test_segments),   cmocka_unit_test(test_fields),
	    cmocka_unit_test(test_attributes), cmocka_unit_test(test_short_and_long),
	    cmocka_unit_test(test_names),      cmocka_unit_test(test_format_truncates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
