/*
 * Code in pages that are written all the time: data beside it, constants that change, code generated again and again in the same
 * place, stores to the block that runs.
 */
#include "rt.h"

static u8 *const c = (u8 *)PAGE_OF_TESTS;
static u8 *const d = (u8 *)PAGE_OF_TESTS + 0x800; /* data in the same page */

static void put_bytes(u8 *p, const void *s, u64 n)
{
	for (u64 i = 0; i < n; i++)
		((volatile u8 *)p)[i] = ((const u8 *)s)[i];
}

static void put32(u8 *p, u32 v)
{
	*(volatile u32 *)p = v;
}

static u64 run(u8 *p, u64 di)
{
	u64 v = 0xdeadbeefcafe;

	__asm__ volatile("call *%[p]" : "+a"(v), "+D"(di) : [p] "r"(p) : "memory", "cc", "rcx", "rdx", "rsi", "r8", "r14", "r15");
	return v;
}

/* Until the page is known for its stores. */
static void mix(void)
{
	static const u8 ret[] = {0xc3};

	put_bytes(c + 0x700, ret, 1);
	for (u32 i = 0; i < 1000; i++) {
		run(c + 0x700, 0);
		put32(d, i);
		put32(d + 64, i);
	}
}

static void beside(void)
{
	/* mov d(%rip), %eax; add %edi, %eax; mov %eax, d(%rip); ret */
	static const u8 code[] = {0x8b, 0x05, 0, 0, 0, 0, 0x01, 0xf8, 0x89, 0x05, 0, 0, 0, 0, 0xc3};
	u32 want = 5;
	u64 bad = 0;

	put_bytes(c, code, sizeof(code));
	put32(c + 2, 0x800 - 6);
	put32(c + 10, 0x800 - 14);
	put32(d, want);
	for (u32 i = 0; i < 1000; i++) {
		want += i;
		bad += run(c, i) != want || *(volatile u32 *)d != want;
	}
	check("code and the data it works on in one page", bad, 0);
}

/* One instruction with a constant at c: `head` bytes, then the constant of `size`, then tail. */
static u64 constants(const void *head, u32 n, u32 size, const void *tail, u32 m, u64 (*want)(u64 v, u64 di))
{
	u64 bad = 0;

	put_bytes(c, head, n);
	put_bytes(c + n + size, tail, m);
	for (u64 i = 0; i < 300; i++) {
		u64 v = (i * 0x9e3779b97f4a7c15) ^ i << 7, di = v >> 11, sx;

		put_bytes(c + n, &v, size);
		sx = size == 8 ? v : size == 4 ? (u64)(long)(int)v : (u64)(long)(signed char)v;
		bad += run(c, di) != want(sx, di);
		bad += run(c, di) != want(sx, di);
	}
	return bad;
}

static u64 w_mov32(u64 v, u64 di) { (void)di; return (u32)v; }
static u64 w_mov64(u64 v, u64 di) { (void)di; return v; }
static u64 w_add32(u64 v, u64 di) { return (u32)(di + v); }
static u64 w_sub64(u64 v, u64 di) { return di - v; }
static u64 w_cmp(u64 v, u64 di) { return (u32)di < (u32)v; }
static u64 w_xor(u64 v, u64 di) { return di ^ v; }
static u64 w_sbb(u64 v, u64 di) { return (u32)(di - v - 1); }

static void all_constants(void)
{
	static const u8 ret[] = {0xc3}, r14[] = {0x4c, 0x89, 0xf0, 0xc3}, setb[] = {0x0f, 0x92, 0xc0, 0x0f, 0xb6, 0xc0, 0xc3};
	static const u8 r15[] = {0x4c, 0x89, 0xf8, 0xc3};

	check("mov eax", constants("\xb8", 1, 4, ret, 1, w_mov32), 0);
	check("mov rax, 64 bits", constants("\x48\xb8", 2, 8, ret, 1, w_mov64), 0);
	check("mov rax, sign-extended", constants("\x48\xc7\xc0", 3, 4, ret, 1, w_mov64), 0);
	check("mov r14", constants("\x49\xbe", 2, 8, r14, 4, w_mov64), 0);
	check("mov r15d", constants("\x41\xbf", 2, 4, r15, 4, w_mov32), 0);
	check("add eax", constants("\x89\xf8\x05", 3, 4, ret, 1, w_add32), 0);
	check("sub rax", constants("\x48\x89\xf8\x48\x2d", 5, 4, ret, 1, w_sub64), 0);
	check("add r14d", constants("\x49\x89\xfe\x41\x81\xc6", 6, 4, r14, 4, w_add32), 0);
	check("xor r15, byte", constants("\x49\x89\xff\x49\x83\xf7", 6, 1, r15, 4, w_xor), 0);
	check("cmp edi", constants("\x81\xff", 2, 4, setb, 7, w_cmp), 0);
	check("stc; sbb eax", constants("\x89\xf8\xf9\x1d", 4, 4, ret, 1, w_sbb), 0);
}

/* A pointer is moved by a constant that changes, between two accesses through it. */
static void moved_pointer(void)
{
	static const u8 add[] = {0x8b, 0x0f, 0x48, 0x81, 0xc7, 0, 0, 0, 0, 0x8b, 0x07, 0x01, 0xc8, 0xc3};
	u64 bad = 0;

	for (u32 i = 0; i < 64; i++)
		*(volatile u32 *)(c + 0x10000 + i * 0x400) = i * 3;
	put_bytes(c, add, sizeof(add)); /* mov (%rdi), %ecx; add $imm, %rdi; mov (%rdi), %eax; add %ecx, %eax; ret */
	for (u32 i = 0; i < 600; i++) {
		u32 to = i * 7 % 64;

		put32(c + 5, to * 0x400);
		bad += run(c, (u64)c + 0x10000) != to * 3;
	}
	check("a constant that moves a pointer", bad, 0);
}

/* Instructions of other lengths in the same place. */
static void layouts(void)
{
	static const struct { u8 n, b[12]; u32 want; } form[] = {
		{6, {0xb8, 1, 0, 0, 0, 0xc3}, 1},
		{3, {0x31, 0xc0, 0xc3}, 0},
		{8, {0x31, 0xc0, 0x83, 0xc0, 9, 0xff, 0xc0, 0xc3}, 10},
		{4, {0x8d, 0x47, 3, 0xc3}, 10},
		{9, {0x90, 0xb8, 4, 0, 0, 0, 0x01, 0xf8, 0xc3}, 11},
		{11, {0x85, 0xff, 0xb8, 1, 0, 0, 0, 0x75, 0x01, 0x90, 0xc3}, 1},
	};
	u64 bad = 0;

	for (u32 i = 0; i < 600; i++) {
		u32 k = i * 7 % 6;

		put_bytes(c, form[k].b, form[k].n);
		bad += run(c, 7) != form[k].want;
	}
	check("other code in the same place", bad, 0);
}

static void same_block(void)
{
	/* movb $2, 1f+1(%rip); 1: mov $1, %eax; ret: the store is to an instruction behind it */
	static const u8 code[] = {0xc6, 0x05, 1, 0, 0, 0, 2, 0xb8, 1, 0, 0, 0, 0xc3};
	/* mov $3, %ecx; 1: incb 2f+1(%rip); 2: mov $0, %eax; dec %ecx; jnz 1b; ret */
	static const u8 loop[] = {0xb9, 3, 0, 0, 0, 0xfe, 0x05, 1, 0, 0, 0, 0xb8, 0, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf1, 0xc3};
	/* mov $3, %ecx; 1: xor $3, 2f+1-1(rip); the second operand byte of: 2: add $imm8, %eax */
	static const u8 push[] = {0x31, 0xc0, 0x48, 0x89, 0xe2, 0x48, 0x8d, 0x25, 9, 0, 0, 0, /* lea 9(%rip), %rsp */
				  0x57, 0x48, 0x89, 0xd4, /* push %rdi; mov %rdx, %rsp */
				  0x90, 0x90, 0x90, 0x90, 0x90, 0xb0, 1, 0xc3};
	u64 bad = 0;

	for (u32 i = 0; i < 50; i++) {
		put_bytes(c, code, sizeof(code));
		bad += run(c, 0) != 2 || run(c, 0) != 2;
	}
	check("store to the next instruction", bad, 0);
	bad = 0;
	for (u32 i = 0; i < 50; i++) {
		put_bytes(c, loop, sizeof(loop));
		bad += run(c, 0) != 3 || run(c, 0) != 6;
	}
	check("a loop that changes itself", bad, 0);
	bad = 0;
	for (u64 i = 0; i < 50; i++) {
		put_bytes(c, push, sizeof(push));
		/* the pushed 8 bytes end at lea's target, 12 + 9: nop nop nop nop nop over 13..20: mov rdx,rsp stays */
		bad += run(c, 0x90909090d4894890 | 0) != 1;
	}
	check("push over the instructions behind it", bad, 0);
}

static void calls(void)
{
	/* call rel32 out of the page, whose distance changes */
	static const u8 callee[2][6] = {{0xb8, 1, 0, 0, 0, 0xc3}, {0xb8, 2, 0, 0, 0, 0xc3}};
	u64 bad = 0;

	put_bytes(c + 0x3000, callee[0], 6);
	put_bytes(c + 0x4000, callee[1], 6);
	c[0] = 0xe8;
	c[5] = 0xc3;
	for (u32 i = 0; i < 300; i++) {
		u32 k = i / 3 & 1;

		put32(c + 1, (k ? 0x4000u : 0x3000u) - 5);
		bad += run(c, 0) != k + 1;
	}
	check("a call that is patched", bad, 0);
}

static void later(void)
{
	u64 start = rdtsc(), bad = 0;

	put_bytes(c, "\xb8\1\0\0\0\xc3", 6);
	while (rdtsc() - start < 3500000000)
		bad += run(c, 0) != 1;
	put32(c + 1, 2);
	bad += run(c, 0) != 2;
	check("when the stores have ended for seconds", bad, 0);
}

void guest_main(void)
{
	mix();
	beside();
	all_constants();
	moved_pointer();
	layouts();
	same_block();
	calls();
	later();
	mix();
	beside();
}
