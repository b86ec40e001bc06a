/* Self-test of the built-in guest: one check of each kind of instruction whose result is known. */
#include "guest/builtin.h"

static u32 test_mul(void)
{
	u32 lo, hi;

	asm volatile("mull %3" : "=a"(lo), "=d"(hi) : "0"(0x89abcdefu), "r"(0xfedcba98u) : "cc");
	return lo == 0xad05ebe8 && hi == 0x890f2a50;
}

static u32 test_div(void)
{
	u32 q, r;

	asm volatile("divl %4" : "=a"(q), "=d"(r) : "0"(0x9abcdef0u), "1"(0x12345678u), "r"(0x87654321u) : "cc");
	return q == 0x226b9022 && (u64)q * 0x87654321u + r == 0x123456789abcdef0ull;
}

static u32 test_bits(void)
{
	u32 high, low, set;

	asm volatile("bsrl %1, %0" : "=r"(high) : "r"(0x00500a00u) : "cc");
	asm volatile("bsfl %1, %0" : "=r"(low) : "r"(0x00500a00u) : "cc");
	asm volatile("popcntl %1, %0" : "=r"(set) : "r"(0xf0f0a501u) : "cc");
	return high == 22 && low == 9 && (!(cpuid(1).c & 1u << 23) || set == 13);
}

static u32 test_string(void)
{
	static u8 from[256], to[256];
	const u8 *s = from;
	u8 *d = to;
	u32 n = sizeof(to);

	for (u32 i = 0; i < sizeof(from); i++)
		from[i] = (u8)(i * 7);
	asm volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(n) : : "memory");
	if (n || d != to + sizeof(to))
		return 0;
	for (u32 i = 0; i < sizeof(to); i++)
		if (to[i] != (u8)(i * 7))
			return 0;
	return 1;
}

static u32 test_atomic(void)
{
	u32 v = 5, old = 3;
	u64 wide = 0x1122334455667788ull;
	u32 lo = 0x55667788, hi = 0x11223344;
	u8 ok;

	asm volatile("lock xaddl %0, %1" : "+r"(old), "+m"(v) : : "memory", "cc");
	asm volatile("lock cmpxchg8b %1; setz %0"
		     : "=q"(ok), "+m"(wide), "+a"(lo), "+d"(hi)
		     : "b"(0xddu), "c"(0xccu)
		     : "memory", "cc");
	return old == 5 && v == 8 && ok && wide == 0xcc000000ddull;
}

/* The words are IEEE single precision: {1.5, -2, 0.25, 1e10} + {2.5, 2, 0.5, 1e10} */
static u32 test_sse(void)
{
	static const u32 a[4] __attribute__((aligned(16))) = {0x3fc00000, 0xc0000000, 0x3e800000, 0x501502f9};
	static const u32 b[4] __attribute__((aligned(16))) = {0x40200000, 0x40000000, 0x3f000000, 0x501502f9};
	static const u32 sum[4] = {0x40800000, 0, 0x3f400000, 0x509502f9};
	u32 r[4] __attribute__((aligned(16)));

	asm volatile("movaps %1, %%xmm0; addps %2, %%xmm0; movaps %%xmm0, %0" : "=m"(r) : "m"(a), "m"(b) : "memory");
	for (u32 i = 0; i < 4; i++)
		if (r[i] != sum[i])
			return 0;
	return 1;
}

/* sqrt(2) in double precision is 3ff6a09e667f3bcd; pi in extended precision is 4000 c90fdaa22168c235. */
static u32 test_x87(void)
{
	u32 two = 2;
	u64 root;
	struct {
		u64 mantissa;
		u16 exponent;
	} __attribute__((packed)) pi;

	asm volatile("fildl %1; fsqrt; fstpl %0" : "=m"(root) : "m"(two) : "memory");
	asm volatile("fldpi; fstpt %0" : "=m"(pi) : : "memory");
	return root == 0x3ff6a09e667f3bcdull && pi.mantissa == 0xc90fdaa22168c235ull && pi.exponent == 0x4000;
}

u32 self_test(void)
{
	static const struct {
		const char *name;
		u32 (*run)(void);
	} tests[] = {{"mul", test_mul}, {"div", test_div}, {"bsr", test_bits}, {"rep-movs", test_string},
		     {"atomic", test_atomic}, {"sse", test_sse}, {"x87", test_x87}};
	u32 failed = 0, n = sizeof(tests) / sizeof(tests[0]);

	print("test    ");
	for (u32 i = 0; i < n; i++) {
		u32 ok = tests[i].run();

		print(" %s%s", tests[i].name, ok ? "" : "=WRONG");
		failed += !ok;
	}
	print(": %u passed, %u failed\n", n - failed, failed);
	return failed;
}
