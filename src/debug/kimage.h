/*
 * A copy of the guest kernel's image as it lies at its virtual addresses: what tables of Linux are looked for in. Linux for x86-64
 * is always within [-2 GiB, -1 GiB), wherever KASLR has put it (Documentation/x86/x86_64/mm.rst).
 */
#ifndef DEBUG_KIMAGE_H
#define DEBUG_KIMAGE_H

#include <string.h>
#include "debug/inspect.h"

#define KERNEL_LOWEST  0xffffffff80000000ull
#define KERNEL_END     0xffffffffc0000000ull
#define KIMAGE_MAX     (128ull << 20)
#define MODULES_END    0xffffffffff000000ull

struct kimage {
	u64 base;
	u8 *p; /* what is not mapped reads as 0 */
	u64 n;
};

/* Copies from the first mapped page at or above from on; false: none, or no memory. kimage_free() afterwards. */
bool kimage_copy(const struct inspect *in, u64 from, struct kimage *out);
void kimage_free(struct kimage *k);

/* ---- reads, all bounded: false if not within ---- */
static inline bool kimage_has(const struct kimage *k, u64 off, u64 n)
{
	return off <= k->n && n <= k->n - off;
}
static inline bool kimage_u32(const struct kimage *k, u64 off, u32 *v)
{
	if (!kimage_has(k, off, 4))
		return false;
	memcpy(v, k->p + off, 4);
	return true;
}
static inline bool kimage_u64(const struct kimage *k, u64 off, u64 *v)
{
	if (!kimage_has(k, off, 8))
		return false;
	memcpy(v, k->p + off, 8);
	return true;
}

#endif
