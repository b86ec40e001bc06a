/* The disassembler's answers in all widths, and that no bytes and no buffer make it stumble. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "debug/disasm.h"

static void known(void **state)
{
	static const struct {
		unsigned bits;
		u8 code[DISASM_BYTES];
		u8 n;
		u64 pc;
		int len;
		const char *text;
	} cases[] = {
		{64, {0x48, 0x89, 0xd8}, 3, 0x1000, 3, "mov rax, rbx"},
		{64, {0xe8, 0xfb, 0xff, 0xff, 0xff}, 5, 0xffffffff81000000, 5, "call 0xffffffff81000000"},
		{64, {0x0f, 0x0b}, 2, 0, 2, "ud2"},
		{64, {0x8b, 0x05, 0x10, 0, 0, 0}, 6, 0x2000, 6, "mov eax, [0x2016]"},
		{64, {0x65, 0x48, 0x8b, 0x04, 0x25, 0, 0xfc, 1, 0}, 9, 0, 9, "mov rax, gs:[0x1fc00]"},
		{32, {0x66, 0xb8, 0x34, 0x12}, 4, 0, 4, "mov ax, 0x1234"},
		{16, {0xb8, 0x34, 0x12}, 3, 0x7c00, 3, "mov ax, 0x1234"},
		{16, {0xea, 0, 0, 0xff, 0xff}, 5, 0, 5, "jmp far 0xffff:0x0000"},
		{64, {0x06}, 1, 0, 0, "(bad)"},
		{64, {0x48, 0x8b}, 2, 0, 0, "(bad)"},
		{64, {0}, 0, 0, 0, "(bad)"},
		{48, {0x90}, 1, 0, 0, "(bad)"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char text[DISASM_TEXT];

		assert_int_equal(disasm_one(cases[i].bits, cases[i].code, cases[i].n, cases[i].pc, text, sizeof(text)), cases[i].len);
		assert_string_equal(text, cases[i].text);
	}
}

static void anything(void **state)
{
	u32 seed = 1;

	for (u32 i = 0; i < 200000; i++) {
		char text[DISASM_TEXT + 1];
		u8 code[24];
		size_t n = i % sizeof(code), room = i % 7 ? DISASM_TEXT : i % 40;
		int len = 0;

		for (size_t k = 0; k < sizeof(code); k++)
			code[k] = (u8)((seed = seed * 1103515245 + 12345) >> 16);
		text[room] = 'x';
		len = disasm_one(16u << i % 3, code, n, (u64)seed << 32, text, room);
		assert_in_range(len, 0, n < DISASM_BYTES ? n : DISASM_BYTES);
		assert_int_equal(text[room], 'x');
		if (room)
			assert_true(memchr(text, 0, room) != NULL);
		if (room == DISASM_TEXT)
			assert_string_not_equal(text, "(too long to print)");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(known), cmocka_unit_test(anything)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
