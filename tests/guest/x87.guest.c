/* x87 and MMX in code that runs often: the pointers and the opcode of the last instruction, exceptions that wait, control words. */
#include "rt.h"

#define TIMES 40 /* enough to be translated, and then some */

u32 env[32];
double two = 2.0, half = 0.5, big[4] = {1, 2, 3, 4};
u64 at1, at2;

static u32 low(const volatile void *p)
{
	return (u32)(u64)p;
}

/* Straight line, registers of the operand's address changed afterwards. */
static void straight(void)
{
	u64 i = 0, ok = 0;

	for (i = 0; i < TIMES; i++) {
		u64 p = (u64)&big[i & 3];

		__asm__ volatile("fninit\n\tlea 1f(%%rip), %%rax\n\tmov %%rax, at1(%%rip)\n\tfldl two(%%rip)\n\tfldl (%0)\n\t"
				 "xor %0, %0\n\t1: faddp\n\tfnstenv env(%%rip)\n\tfninit"
				 : "+r"(p)::"rax", "memory");
		ok += env[3] == (u32)at1 && env[5] == low(&big[i & 3]) && (env[4] >> 16 & 0x7ff) == 0x6c1;
	}
	check("FIP FDP FOP behind a straight line", ok, TIMES);
}

/* The last one before a branch, in either way. */
static void branches(void)
{
	u64 ok = 0;

	for (u64 i = 0; i < TIMES; i++) {
		__asm__ volatile("fninit\n\tlea 1f(%%rip), %%rax\n\tmov %%rax, at1(%%rip)\n\tlea 2f(%%rip), %%rax\n\tmov %%rax, at2(%%rip)\n\t"
				 "1: fldl two(%%rip)\n\ttest $1, %0\n\tjz 3f\n\t2: fldl half(%%rip)\n\tnop\n\tjmp 3f\n\tnop\n\t"
				 "3: nop\n\tfnstenv env(%%rip)\n\tfninit"
				 :
				 : "r"((u32)i)
				 : "rax", "memory", "cc");
		ok += i & 1 ? env[3] == (u32)at2 && env[5] == low(&half) : env[3] == (u32)at1 && env[5] == low(&two);
	}
	check("FIP FDP across branches", ok, TIMES);
}

/* A loop whose head has an x87 instruction before it in the same block. */
static void loops(void)
{
	u64 ok = 0;

	for (u64 i = 0; i < TIMES; i++) {
		u32 n = i & 1 ? 3 : 1;

		__asm__ volatile("fninit\n\tlea 1f(%%rip), %%rax\n\tmov %%rax, at1(%%rip)\n\tlea 2f(%%rip), %%rax\n\tmov %%rax, at2(%%rip)\n\t"
				 "1: fldz\n\tnop\n\t3: dec %0\n\tjz 4f\n\t2: faddl half(%%rip)\n\tjmp 3b\n\t"
				 "4: fnstenv env(%%rip)\n\tfninit"
				 : "+r"(n)::"rax", "memory", "cc");
		ok += env[3] == (u32)(i & 1 ? at2 : at1);
	}
	check("FIP at the head of a loop", ok, TIMES);
}

/* Control instructions leave the pointers alone; FNINIT clears them. */
static void controls(void)
{
	u64 ok = 0, cleared = 0;
	u16 cw, sw;

	for (u64 i = 0; i < TIMES; i++) {
		__asm__ volatile("fninit\n\tlea 1f(%%rip), %%rax\n\tmov %%rax, at1(%%rip)\n\t1: fldl two(%%rip)\n\tfnstcw %0\n\t"
				 "fldcw %0\n\tfnstsw %1\n\tfnstsw %%ax\n\tfwait\n\tfnclex\n\tfnstenv env(%%rip)\n\t"
				 : "=m"(cw), "=m"(sw)::"rax", "memory");
		ok += env[3] == (u32)at1 && cw == 0x37f && sw == 0x3800;
		__asm__ volatile("fldl two(%%rip)\n\tfninit\n\tfnstenv env(%%rip)" ::: "memory");
		cleared += !env[3] && !env[5] && !(env[4] >> 16);
		__asm__ volatile("fninit");
	}
	check("control instructions", ok, TIMES);
	check("FNINIT clears the pointers", cleared, TIMES);
}

static volatile u64 mf_count, mf_rip, mf_fip;

static int on_mf(struct frame *f)
{
	mf_count++;
	mf_rip = f->rip;
	__asm__ volatile("fnstenv env(%%rip)\n\tfnclex" ::: "memory");
	mf_fip = env[3];
	return 1;
}

/* An exception waits for the next waiting instruction: #MF there, FIP of the one that raised it. */
static void waiting(void)
{
	static const u16 unmasked = 0x37b;
	handler_fn *old = handlers[16];
	u64 ok = 0;

	handlers[16] = on_mf;
	mf_count = 0;
	for (u64 i = 0; i < TIMES; i++) {
		__asm__ volatile("fninit\n\tlea 1f(%%rip), %%rax\n\tmov %%rax, at1(%%rip)\n\tlea 2f(%%rip), %%rax\n\tmov %%rax, at2(%%rip)\n\t"
				 "fldcw %0\n\tfld1\n\tfldz\n\t1: fdivrp\n\tnop\n\tfnstsw %%ax\n\t2: fldl two(%%rip)\n\tfninit"
				 :
				 : "m"(unmasked)
				 : "rax", "memory");
		ok += mf_count == i + 1 && mf_rip == at2 && mf_fip == (u32)at1;
	}
	check("#MF at the next waiting instruction", ok, TIMES);
	handlers[16] = old;
}

/* A page fault of an operand leaves the pointers of the instruction before it. */
static volatile u64 pf_fip, pf_fdp;

static int on_pf(struct frame *f)
{
	__asm__ volatile("fnstenv env(%%rip)" ::: "memory");
	pf_fip = env[3];
	pf_fdp = env[5];
	f->rip = at2;
	return 1;
}

static void faults(void)
{
	handler_fn *old = handlers[14];
	u64 ok = 0;

	handlers[14] = on_pf;
	for (u64 i = 0; i < TIMES; i++) {
		__asm__ volatile("fninit\n\tlea 1f(%%rip), %%rax\n\tmov %%rax, at1(%%rip)\n\tlea 2f(%%rip), %%rax\n\tmov %%rax, at2(%%rip)\n\t"
				 "fldl half(%%rip)\n\t1: fldl two(%%rip)\n\tmov $0x7ffffffff000, %%rax\n\tfldl (%%rax)\n\t2: fninit" ::
				     : "rax", "memory");
		ok += pf_fip == (u32)at1 && pf_fdp == low(&two);
	}
	check("#PF leaves the pointers", ok, TIMES);
	handlers[14] = old;
}

static void mmx(void)
{
	u64 ok = 0, v = 0;

	for (u64 i = 0; i < TIMES; i++) {
		u64 a = i * 0x0101010101010101, r = 0;

		__asm__ volatile("fninit\n\tmovq %1, %%mm0\n\tpaddb %%mm0, %%mm0\n\tpxor %2, %%mm0\n\tmovq %%mm0, %0\n\temms"
				 : "=m"(r)
				 : "r"(a), "m"(v));
		ok += r == i * 2 * 0x0101010101010101;
	}
	check("MMX", ok, TIMES);
}

void guest_main(void)
{
	straight();
	branches();
	loops();
	controls();
	waiting();
	faults();
	mmx();
}
