/* Memory of user code that may run on the host's CPU as it is: faults, A and D, what INVLPG and CR3 end, code that changes. */
#include "cells.h"

#define W 2ul
#define P 5ul /* present, user */
#define NX (1ul << 63)
#define PAGE(n) (DATA + (n) * 0x1000ul)

static u64 *mem(u64 frame, u64 offset) { return (u64 *)(FRAME(frame) + offset); }

static void map(u64 a, u64 pte)
{
	*wpte(a) = pte;
	invlpg(a);
}

U(u_load, "mov (%rdi), %rax");
U(u_store, "mov %rsi, (%rdi)");
U(u_add, "add %rsi, (%rdi)");
U(u_push, "push %rax");
U(u_call, "call u_load");
U(u_call_mem, "call *(%rdi)");
U(u_pop, "pop (%rdi)");
U(u_jump, "jmp *%rdi");
U(u_jump_called, "call *%rdi");
U(u_movups, "movups %xmm0, (%rdi)");
U(u_xchg, "xchg %rsi, (%rdi)");
U(u_cmpxchg, "lock cmpxchg %rsi, (%rdi)");

static void fault(const char *name, const u8 *code, u64 error, u64 cr2)
{
	event(name, code, 14, error, 0, 0);
	check("  cr2", out_cr2 - cr2, 0);
}

static void fault_at(const char *name, const u8 *code, u64 a, u64 error, u64 cr2)
{
	in.r[DI] = a;
	fault(name, code, error, cr2);
}

U(u_count_jump, "incq (%rsi); jmp *%rdi");

/* What has been done before is done once, though the page of RSI is mapped for it and the cell stands where it maps. */
static void jump_once(void)
{
	map(PAGE(1), FRAME(17) | P | W | NX | 0x60);
	*mem(17, 0) = 0;
	in.r[SI] = PAGE(1);
	in.r[DI] = 0x6ffff0000000;
	check("jump there after a write", run(u_count_jump), 14);
	check("  cr2", out_cr2 - 0x6ffff0000000, 0);
	check("  written once", *mem(17, 0), 1);
	map(PAGE(1), 0);
	fresh();
}

/* The event is that of the address jumped to. */
static void jump(const char *name, u64 a, u64 error)
{
	in.r[DI] = a;
	check(name, run(u_jump), 14);
	check("  error", out.error, error);
	check("  cr2", out_cr2 - a, 0);
	check("  rip", out.rip - a, 0);
	check("  changed", changed(), 0);
	fresh();
}

static void faults(void)
{
	map(PAGE(1), 0);
	map(PAGE(2), FRAME(18) | P | NX);
	map(PAGE(3), FRAME(19) | 3 | NX);
	fault_at("read, absent", u_load, PAGE(1) + 8, 4, PAGE(1) + 8);
	fault_at("write, absent", u_store, PAGE(1) + 8, 6, PAGE(1) + 8);
	fault_at("write, read-only", u_store, PAGE(2) + 8, 7, PAGE(2) + 8);
	in.r[DI] = PAGE(2);
	event("  after a read", u_load, DONE, 0, 4, M(AX));
	fault_at("  again", u_add, PAGE(2) + 8, 7, PAGE(2) + 8);
	fault_at("  xchg", u_xchg, PAGE(2) + 8, 7, PAGE(2) + 8);
	fault_at("  cmpxchg", u_cmpxchg, PAGE(2) + 8, 7, PAGE(2) + 8);
	fault_at("  movups", u_movups, PAGE(2) + 8, 7, PAGE(2) + 8);
	fault_at("  pop", u_pop, PAGE(2) + 8, 7, PAGE(2) + 8);
	fault_at("read, the kernel's", u_load, PAGE(3) + 8, 5, PAGE(3) + 8);
	fault_at("write, the kernel's", u_store, PAGE(3) + 8, 7, PAGE(3) + 8);
	fault_at("read, upper half", u_load, 0xffffffff81000000, 4, 0xffffffff81000000);
	fault_at("call through absent", u_call_mem, PAGE(1), 4, PAGE(1));
	jump("jump, NX", PAGE(2), 0x15);
	jump("jump, absent", PAGE(1) + 4, 0x14);
	jump("jump, the kernel's", PAGE(3), 0x15);
	jump("jump, upper half", 0xffffffff81000000, 0x14);
	jump("jump, where cells have their stub", 0x6ffff0000000, 0x14);
	jump("jump, where they have their list", 0x6ffff0001000, 0x14);
	jump("jump, behind it", 0x6ffff0000800, 0x14);
	jump_once();
	jump("jump, last page", 0x7ffffffff000, 0x14);
	fault_at("write, where cells have their stub", u_store, 0x6ffff0000000, 6, 0x6ffff0000000);
	fault_at("write, where they have their list", u_store, 0x6ffff0001000, 6, 0x6ffff0001000);
	in.rsp = PAGE(1) + 0x1000;
	fault("push, absent", u_push, 6, PAGE(1) + 0xff8);
	in.rsp = PAGE(1) + 0x1000;
	fault("call, absent", u_call, 6, PAGE(1) + 0xff8);
	in.rsp = PAGE(2) + 0x800;
	fault("push, read-only", u_push, 7, PAGE(2) + 0x7f8);
	in.rsp = PAGE(1) + 0x10;
	fault_at("pop, absent", u_pop, DATA, 4, PAGE(1) + 0x10);
	/* the host emulates calls there: RAX must stay */
	in.r[DI] = 0xffffffffff600400;
	check("call into the vsyscall page", run(u_jump_called), 14);
	check("  error", out.error, 0x14);
	check("  rip", out.rip, 0xffffffffff600400);
	check("  rsp", in.rsp - out.rsp, 8);
	check("  changed", changed(), M(SP));
	fresh();
}

static void crossing(void)
{
	*wpte(PAGE(4)) = FRAME(20) | P | W | NX;
	*wpte(PAGE(5)) = 0;
	flush();
	*mem(20, 0xff8) = 0x1122334455667788;
	fault_at("read across into absent", u_load, PAGE(5) - 4, 4, PAGE(5));
	fault_at("write across into absent", u_store, PAGE(5) - 4, 6, PAGE(5));
	check("  nothing written", *mem(20, 0xff8), 0x1122334455667788);
	in.rsp = PAGE(5) + 4;
	fault("push across into absent", u_push, 6, PAGE(5));
	check("  nothing written", *mem(20, 0xff8), 0x1122334455667788);
	fault_at("movups across into absent", u_movups, PAGE(5) - 8, 6, PAGE(5));
	check("  nothing written", *mem(20, 0xff8), 0x1122334455667788);
	map(PAGE(5), FRAME(25) | P | W | NX);
	in.r[DI] = PAGE(5) - 4;
	in.r[SI] = 0xaabbccdd11223344;
	event("write across into another frame", u_store, DONE, 0, 4, 0);
	check("  one half", *mem(20, 0xff8) >> 32, 0x11223344);
	check("  the other", *mem(25, 0) & 0xffffffff, 0xaabbccdd);
	*wpte(PAGE(4)) = FRAME(20) | P | NX;
	flush();
	fault_at("write across from read-only", u_store, PAGE(5) - 4, 7, PAGE(5) - 4);
}

/* The handler maps what is missing; the instruction is done again. */
static u64 mapped, map_to;
static int on_map(struct frame *f)
{
	if (f->vector != 14)
		return 0;
	f->rflags &= ~RF; /* it ends with the instruction, but the engine lets it stay */
	mapped++;
	*wpte(out_cr2) = map_to;
	map_to += 0x1000;
	return 1;
}

U(u_movs, "rep movsb");
U(u_sum, "1: add (%rdi), %rax; add $4096, %rdi; dec %rcx; jnz 1b");

static void restarts(void)
{
	for (u64 i = 0; i < 32; i++) {
		*mem(32 + i, 0) = 1ul << i;
		*wpte(PAGE(32 + i)) = 0;
	}
	flush();
	resume = on_map;
	map_to = FRAME(32) | P | W | NX;
	in.r[DI] = PAGE(32);
	in.r[CX] = 32;
	in.r[AX] = 0;
	event("pages on demand", u_sum, DONE, 0, 16, M(AX) | M(CX) | M(DI) | ANY_ARITH);
	check("  sum", out.r[AX], 0xffffffff);
	check("  faults", mapped, 32);
	/* a string operation over pages of which the last is missing, and then is not */
	for (u64 i = 0; i < 0x800; i++)
		((u8 *)FRAME(20))[i] = (u8)(i * 7), ((u8 *)FRAME(33))[i] = 0;
	*wpte(PAGE(6)) = FRAME(32) | P | W | NX;
	*wpte(PAGE(7)) = 0;
	flush();
	resume = 0;
	in.r[DI] = PAGE(7) - 0x345;
	in.r[SI] = PAGE(4) + 3;
	in.r[CX] = 0x700;
	check("REP MOVSB into absent", run(u_movs), 14);
	check("  error", out.error, 6);
	check("  cr2", out_cr2 - PAGE(7), 0);
	check("  rip", out.rip - at(u_movs), 0);
	check("  rcx", out.r[CX], 0x700 - 0x345);
	check("  rsi", out.r[SI] - PAGE(4), 3 + 0x345);
	check("  rdi", out.r[DI] - PAGE(7), 0);
	resume = on_map;
	map_to = FRAME(33) | P | W | NX;
	fresh();
	in.r[DI] = PAGE(7) - 0x345;
	in.r[SI] = PAGE(4) + 3;
	in.r[CX] = 0x700;
	event("  and on", u_movs, DONE, 0, 3, M(CX) | M(DI) | M(SI));
	rt_ret = 0;
	for (u64 i = 0; i < 0x700; i++)
		rt_ret += *(u8 *)(FRAME(33) - 0x345 + i) != (u8)((i + 3) * 7);
	check("  copied", rt_ret, 0);
	check("  no further", *(u8 *)(FRAME(33) - 0x345 + 0x700), 0);
	resume = 0;
	in.rflags |= 0x400;
	in.r[DI] = PAGE(6) + 0x10;
	in.r[SI] = PAGE(4) + 0x100;
	in.r[CX] = 0x50;
	*wpte(PAGE(5)) = 0;
	flush();
	check("REP MOVSB downwards", run(u_movs), 14);
	check("  cr2", out_cr2 - PAGE(6), -1ul);
	check("  rcx", out.r[CX], 0x50 - 0x11);
	check("  rsi", out.r[SI] - PAGE(4), 0x100 - 0x11);
	check("  rdi", out.r[DI] - PAGE(6), -1ul);
	check("  DF", out.rflags & 0x400, 0x400);
	fresh();
}

static void user_does(const u8 *code, u64 a, u64 v)
{
	in.r[DI] = a;
	in.r[SI] = v;
	if (run(code) != DONE)
		check("user code ends", out.vector, DONE);
	fresh();
}

static void accessed_dirty(void)
{
	u64 *pte = wpte(PAGE(8));

	map(PAGE(8), FRAME(24) | P | W | NX);
	user_does(u_load, PAGE(8), 0);
	check("read sets A", *pte & 0x60, 0x20);
	user_does(u_load, PAGE(8), 0);
	user_does(u_load, PAGE(8), 0);
	check("  and no more", *pte & 0x60, 0x20);
	user_does(u_store, PAGE(8), 5);
	check("write sets D", *pte & 0x60, 0x60);
	user_does(u_store, PAGE(8), 6);
	map(PAGE(8), *pte & ~0x40ul);
	user_does(u_load, PAGE(8), 0);
	check("D cleared: a read leaves it", *pte & 0x60, 0x20);
	user_does(u_store, PAGE(8), 7);
	check("  a write sets it", *pte & 0x60, 0x60);
	map(PAGE(8), *pte & ~0x60ul);
	user_does(u_load, PAGE(8), 0);
	check("A and D cleared: a read sets A", *pte & 0x60, 0x20);
	map(PAGE(8), *pte & ~0x60ul);
	user_does(u_add, PAGE(8), 1);
	check("  a write both", *pte & 0x60, 0x60);
	*pte &= ~0x60ul;
	flush();
	user_does(u_store, PAGE(8) + 8, 1);
	check("  by CR3", *pte & 0x60, 0x60);
	check("  written", *mem(24, 0), 8);
	map(PAGE(9), FRAME(25) | P | W | NX);
	*wpte(PAGE(8)) &= ~0x40ul;
	invlpg(PAGE(8));
	user_does(u_store, PAGE(9) - 4, 1);
	check("write across sets both", (*pte & *wpte(PAGE(9))) & 0x60, 0x60);
	*wpte(at(u_load)) &= ~0x20ul;
	invlpg(at(u_load));
	user_does(u_load, PAGE(8), 0);
	check("execution sets A", *wpte(at(u_load)) & 0x60, 0x20);
}

static u64 loaded(u64 a)
{
	u64 v;

	in.r[DI] = a;
	v = run(u_load) == DONE ? out.r[AX] : 0xdead0000 + out.vector;
	fresh();
	return v;
}

static void remapping(void)
{
	u64 wrong = 0;

	for (u64 i = 0; i < 16; i++)
		*mem(64 + i, 0) = 100 + i;
	for (u64 i = 0; i < 16; i++) {
		map(PAGE(10), FRAME(64 + i) | P | NX);
		wrong += loaded(PAGE(10)) != 100 + i;
	}
	check("another frame by INVLPG", wrong, 0);
	map(PAGE(10), 0);
	fault_at("unmapped by INVLPG", u_load, PAGE(10), 4, PAGE(10));
	map(PAGE(10), FRAME(64) | P | W | NX);
	user_does(u_store, PAGE(10) + 8, 1);
	map(PAGE(10), FRAME(64) | 0x60 | P | NX);
	fault_at("read-only by INVLPG", u_store, PAGE(10) + 8, 7, PAGE(10) + 8);
	map(PAGE(10), FRAME(64) | 0x63 | NX);
	fault_at("the kernel's by INVLPG", u_load, PAGE(10) + 8, 5, PAGE(10) + 8);
	for (u64 i = 0; i < 8; i++) {
		*wpte(PAGE(10 + i)) = FRAME(64 + i) | P | W | NX;
		user_does(u_store, PAGE(10 + i) + 16, i);
	}
	*wpte(PAGE(10)) = FRAME(71) | P | NX;
	*wpte(PAGE(11)) = 0;
	*wpte(PAGE(12)) = FRAME(66) | 0x60 | P | NX;
	*wpte(PAGE(13)) = FRAME(72) | P | W | NX;
	flush();
	check("by CR3: another frame", loaded(PAGE(10)), 107);
	fault_at("  unmapped", u_load, PAGE(11), 4, PAGE(11));
	fault_at("  read-only", u_store, PAGE(12), 7, PAGE(12));
	check("  read", loaded(PAGE(12)), 102);
	check("  another frame", loaded(PAGE(13)), 108);
	check("  the same", loaded(PAGE(14)), 104);
	user_does(u_store, PAGE(13), 9);
	check("  written", *mem(72, 0), 9);
	*mem(72, 0) = 108;
	/* two addresses of one frame; and the kernel's writes are seen */
	map(PAGE(18), FRAME(72) | P | NX);
	user_does(u_store, PAGE(13), 12);
	check("one frame twice", loaded(PAGE(18)), 12);
	*mem(72, 0) = 108;
	check("written by the kernel", loaded(PAGE(18)), 108);
}

/* More pages than a list of changes takes, in an order that leaves no two neighbours together. */
static void many(void)
{
	u64 wrong = 0;

	for (u64 turn = 0; turn < 4; turn++) {
		for (u64 i = 0; i < 256; i++) {
			*wpte(PAGE(i)) = FRAME(64 + ((i * 3 + turn) & 15)) | P | W | NX | (turn & 1 ? 0x60 : 0);
			if (turn)
				invlpg(PAGE(i));
		}
		if (!turn)
			flush();
		in.r[DI] = PAGE(0);
		in.r[CX] = 256;
		in.r[AX] = 0;
		wrong += run(u_sum) != DONE || out.r[AX] != 16 * (1600 + 120);
		wrong += loaded(PAGE(17)) != 100 + ((17 * 3 + turn) & 15);
		fresh();
	}
	check("many pages", wrong, 0);
	for (u64 i = 0; i < 256; i++)
		*wpte(PAGE(i)) = 0;
	*wpte(DATA) = DATA_FRAME | P | W | NX;
	flush();
}

/* ---- large pages, low pages ---- */

static void large(void)
{
	u64 a = WINDOW + (1 << 21);

	*mem(512, 0x5678) = 0x12345;
	wpd[1] = FRAME(512) | 0x80 | P | W | NX;
	flush();
	check("2 MiB page", loaded(a + 0x5678), 0x12345);
	check("  A", wpd[1] & 0x60, 0x20);
	user_does(u_store, a + 0x5680, 0x777);
	check("  D", wpd[1] & 0x60, 0x60);
	check("  written", *mem(512, 0x5680), 0x777);
	wpd[1] = FRAME(0) | 0x80 | P | NX;
	invlpg(a + 0x100000);
	*mem(5, 0x678) = 0x54321;
	check("  another by INVLPG", loaded(a + 0x5678), 0x54321);
	fault_at("  read-only", u_store, a + 0x5678, 7, a + 0x5678);
	*(u64 *)0x5008 = 0x1111;
	check("a low page", loaded(0x5008), 0x1111);
	user_does(u_store, 0x5008, 0x2222);
	check("  written", *(u64 *)0x5008, 0x2222);
}

/* ---- address spaces ---- */

#define SPACES 6 /* more than a vCPU has cells */
static struct {
	u64 pml4[512], pdpt[512], pd[512], pt[512];
} space[SPACES] __attribute__((aligned(4096)));

static void go(u64 pml4)
{
	WRITE_CR(3, pml4);
}

static void spaces(const char *name, u64 n, u64 rounds)
{
	u64 wrong = 0;

	for (u64 s = 0; s < n; s++) {
		for (u64 i = 0; i < 512; i++) {
			space[s].pml4[i] = rt_pml4[i];
			space[s].pdpt[i] = 0;
			space[s].pd[i] = 0;
			space[s].pt[i] = wpt[i];
		}
		space[s].pml4[2] = (u64)space[s].pdpt | 7;
		space[s].pdpt[0] = (u64)space[s].pd | 7;
		space[s].pd[0] = (u64)space[s].pt | 7;
		space[s].pt[PAGE(20) >> 12 & 511] = FRAME(64 + s) | P | W | NX;
		space[s].pt[PAGE(21) >> 12 & 511] = s & 1 ? 0 : FRAME(72) | P | NX;
		*mem(64 + s, 0) = 1000 * s;
	}
	*mem(72, 0) = 72;
	for (u64 r = 0; r < rounds; r++) {
		for (u64 s = 0; s < n; s++) {
			go((u64)space[s].pml4);
			wrong += loaded(PAGE(20)) != 1000 * s + r;
			user_does(u_add, PAGE(20), 1);
			wrong += loaded(PAGE(20)) != 1000 * s + r + 1;
			wrong += loaded(PAGE(21)) != (s & 1 ? 0xdead000e : 72);
		}
	}
	check(name, wrong, 0);
	for (u64 s = 0; s < n; s++)
		wrong += *mem(64 + s, 0) != 1000 * s + rounds;
	check("  written", wrong, 0);
	go((u64)rt_pml4);
}

/* ---- code that changes ---- */

#define JIT PAGE(40)
#define JIT_FRAME 120

/* mov $v, %eax; int3 */
static void emit(u64 frame, u64 offset, u32 v)
{
	volatile u8 *p = (u8 *)mem(frame, offset);

	p[0] = 0xb8;
	*(volatile u32 *)(p + 1) = v;
	p[5] = 0xcc;
}

static u64 result(u64 a)
{
	u64 v = run_at(a) == DONE ? out.r[AX] : 0xdead0000 + out.vector;

	fresh();
	return v;
}

/* From the page it writes to: the immediate of the MOV at its end. */
U(u_write_run, "mov %esi, 1(%rdi); call *%rdi");
U(u_write_own, "1: mov %esi, 2f+1(%rip)\n2: mov $0, %eax; add %rax, %rbx; dec %esi; jnz 1b\n u_write_own_end:");
extern u8 u_write_own_end[];

static void code_changes(void)
{
	u64 wrong = 0;

	map(JIT, FRAME(JIT_FRAME) | P | W);
	for (u32 i = 0; i < 20; i++) {
		emit(JIT_FRAME, 0x100, i);
		wrong += result(JIT + 0x100) != i;
	}
	check("rewritten by the kernel", wrong, 0);
	for (u32 i = 0; i < 20; i++) {
		user_does(u_store, JIT + 0x200, 0xcc00000000b8ul | (u64)i << 8);
		wrong += result(JIT + 0x200) != i;
	}
	check("rewritten by user code", wrong, 0);
	emit(JIT_FRAME, 0x300, 1);
	for (u32 i = 0; i < 20; i++) {
		in.r[DI] = JIT + 0x300;
		in.r[SI] = 7 * i;
		wrong += run(u_write_run) != DONE || out.r[AX] != 7 * i || out.rip != JIT + 0x306;
		fresh();
	}
	check("written and run at once", wrong, 0);
	for (u8 *p = u_write_own; p < u_write_own_end + 1; p++)
		((u8 *)mem(JIT_FRAME, 0x400))[p - u_write_own] = *p;
	in.r[SI] = 50;
	in.r[BX] = 0;
	check("code that writes to its own page", run_at(JIT + 0x400), DONE);
	check("  sum", out.r[BX], 50 * 51 / 2);
	fresh();
	/* two views of a frame, one writable and one executable, as runtimes have them */
	map(JIT, FRAME(JIT_FRAME) | P);
	map(PAGE(41), FRAME(JIT_FRAME) | P | W | NX);
	for (u32 i = 0; i < 20; i++) {
		user_does(u_store, PAGE(41) + 0x500, 0xcc00000000b8ul | (u64)i << 8);
		wrong += result(JIT + 0x500) != i;
	}
	check("written elsewhere", wrong, 0);
	/* by turns writable and executable */
	for (u32 i = 0; i < 10; i++) {
		map(JIT, FRAME(JIT_FRAME) | P | W | NX);
		user_does(u_store, JIT + 0x600, 0xcc00000000b8ul | (u64)i << 8);
		map(JIT, FRAME(JIT_FRAME) | P);
		wrong += result(JIT + 0x600) != i;
	}
	check("writable, then executable", wrong, 0);
	for (u32 i = 0; i < 10; i++) {
		emit(JIT_FRAME + 1 + i, 0x600, 50 + i);
		map(JIT, FRAME(JIT_FRAME + 1 + i) | P);
		wrong += result(JIT + 0x600) != 50 + i;
	}
	check("another frame", wrong, 0);
}

static u64 cpuid_result(u64 a)
{
	u64 v;

	in.r[CX] = 0;
	v = run_at(a) == DONE ? (out.r[CX] << 32 | out.r[BX]) - ((u64)cpuid(7, 0).c << 32 | cpuid(7, 0).b) : 0xdead0000 + out.vector;
	fresh();
	return v;
}

/* mov $7, %eax; cpuid; int3: a store of eight bytes, and the page must not run as it is */
static void code_becomes_unfit(void)
{
	static const u8 code[] = {0xb8, 7, 0, 0, 0, 0x0f, 0xa2, 0xcc};

	map(JIT, FRAME(JIT_FRAME) | P | W);
	emit(JIT_FRAME, 0x700, 3);
	check("without CPUID", result(JIT + 0x700), 3);
	user_does(u_store, JIT + 0x700, *(const u64 *)code);
	check("CPUID written by user code", cpuid_result(JIT + 0x700), 0);
	emit(JIT_FRAME, 0x700, 4);
	check("gone by the kernel", result(JIT + 0x700), 4);
	/* across the end of a page */
	*mem(JIT_FRAME, 0x700) = 0;
	map(JIT + 0x1000, FRAME(JIT_FRAME + 1) | P);
	for (u64 i = 0; i < 6; i++)
		((u8 *)mem(JIT_FRAME, 0xffa))[i] = code[i];
	((u8 *)mem(JIT_FRAME + 1, 0))[0] = code[6];
	((u8 *)mem(JIT_FRAME + 1, 0))[1] = code[7];
	map(JIT, FRAME(JIT_FRAME) | P);
	check("CPUID across pages", cpuid_result(JIT + 0xffa), 0);
	map(JIT + 0x1000, 0);
	in.r[AX] = 0;
	check("CPUID across into absent", run_at(JIT + 0xffa), 14);
	check("  error", out.error, 0x14);
	check("  cr2", out_cr2 - JIT, 0x1000);
	check("  rip", out.rip - JIT, 0xfff);
	fresh();
	/* an instruction just before a page that it writes to */
	map(JIT + 0x1000, FRAME(JIT_FRAME + 1) | P | W);
	for (u8 *p = u_store, *to = (u8 *)mem(JIT_FRAME, 0xffd); p < u_store + 3; p++)
		*to++ = *p;
	in.r[DI] = JIT + 0x1000;
	in.r[SI] = 0xcccc;
	check("a write to what comes next", run_at(JIT + 0xffd), DONE);
	check("  rip", out.rip - JIT, 0x1001);
	fresh();
}

U_END;

void guest_main(void)
{
	user_begin();
	faults();
	crossing();
	restarts();
	accessed_dirty();
	remapping();
	many();
	large();
	spaces("two address spaces", 2, 20);
	spaces("six address spaces", SPACES, 4);
	code_changes();
	code_becomes_unfit();
}
