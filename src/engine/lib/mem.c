/*
 * memcpy & co. without vector registers: the guest's are live in them while engine code runs. They also
 * replace glibc's in the static executable, so calls that the compiler makes are safe. String instructions
 * are fast for long runs (ERMS); short ones, the usual case, take overlapping word moves.
 */
#include "engine/lib/lib.h"

typedef u64 word_t __attribute__((may_alias, aligned(1)));
typedef u32 half_t __attribute__((may_alias, aligned(1)));
typedef u16 quarter_t __attribute__((may_alias, aligned(1)));

/* n <= 16; all loads come before the stores, so overlap is harmless. */
static inline void copy_short(u8 *d, const u8 *s, size_t n)
{
	if (n >= 8) {
		u64 a = *(const word_t *)s, b = *(const word_t *)(s + n - 8);

		*(word_t *)d = a;
		*(word_t *)(d + n - 8) = b;
	} else if (n >= 4) {
		u32 a = *(const half_t *)s, b = *(const half_t *)(s + n - 4);

		*(half_t *)d = a;
		*(half_t *)(d + n - 4) = b;
	} else if (n >= 2) {
		u16 a = *(const quarter_t *)s, b = *(const quarter_t *)(s + n - 2);

		*(quarter_t *)d = a;
		*(quarter_t *)(d + n - 2) = b;
	} else if (n) {
		*d = *s;
	}
}

/* 16 < n <= 32 */
static inline void copy_medium(u8 *d, const u8 *s, size_t n)
{
	u64 a = *(const word_t *)s, b = *(const word_t *)(s + 8);
	u64 y = *(const word_t *)(s + n - 16), z = *(const word_t *)(s + n - 8);

	*(word_t *)d = a;
	*(word_t *)(d + 8) = b;
	*(word_t *)(d + n - 16) = y;
	*(word_t *)(d + n - 8) = z;
}

void *memcpy(void *restrict dst, const void *restrict src, size_t n)
{
	void *d = dst;
	const void *s = src;

	if (likely(n <= 16))
		copy_short(d, s, n);
	else if (n <= 32)
		copy_medium(d, s, n);
	else
		__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	return dst;
}

void *memmove(void *dst, const void *src, size_t n)
{
	u8 *d = dst;
	const u8 *s = src;

	if (likely(n <= 16)) {
		copy_short(d, s, n);
	} else if (n <= 32) {
		copy_medium(d, s, n);
	} else if ((size_t)(d - s) >= n) { /* forward is right: dst before src, or no overlap */
		__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	} else {
		for (; n >= 8; n -= 8)
			*(word_t *)(d + n - 8) = *(const word_t *)(s + n - 8);
		for (; n; n--)
			*(volatile u8 *)(d + n - 1) = s[n - 1];
	}
	return dst;
}

void *memset(void *dst, int c, size_t n)
{
	u8 *d = dst;
	u64 w = (u8)c * 0x0101010101010101ull;

	if (n > 32) {
		void *p = dst;

		__asm__ volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(c) : "memory");
	} else if (n >= 8) {
		u8 *last = d + n - 8;

		for (; d < last; d += 8)
			*(volatile word_t *)d = w;
		*(volatile word_t *)last = w;
	} else {
		while (n--)
			*(volatile u8 *)d++ = (u8)c;
	}
	return dst;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *p = a, *q = b;

	for (; n >= 8; n -= 8, p += 8, q += 8) {
		u64 x = *(const word_t *)p, y = *(const word_t *)q;

		if (x != y)
			return __builtin_bswap64(x) < __builtin_bswap64(y) ? -1 : 1;
	}
	for (; n; n--, p++, q++)
		if (*p != *q)
			return *p < *q ? -1 : 1;
	return 0;
}

/* clang asks for bcmp when only equality counts. */
int bcmp(const void *a, const void *b, size_t n) __attribute__((alias("memcmp")));
