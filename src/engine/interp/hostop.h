/*
 * Arithmetic by the host's own instructions, so that results and flags, the undefined ones too, are those of the
 * CPU. Each host_* takes RFLAGS by pointer and replaces its arithmetic flags.
 *
 * LAHF and SETO measured cheaper than PUSHF and POP. Loading flags is the reverse: AL = OF, AH = the rest; adding 0x7f
 * to AL overflows exactly if it was 1.
 */
#ifndef ENGINE_INTERP_HOSTOP_H
#define ENGINE_INTERP_HOSTOP_H

#include "engine/vcpu.h"

static inline u64 flags_merge(u64 fl, u32 ax)
{
	return (fl & ~(u64)FL_ARITH) | (ax >> 8 & 0xd5) | (ax & 1) << 11;
}

static inline u32 flags_to_ax(u64 fl)
{
	return ((u32)fl & 0xd5) << 8 | ((u32)fl >> 11 & 1);
}

#define SAVE_FLAGS "lahf\n\tseto %%al"
#define LOAD_FLAGS "addb $0x7f, %%al\n\tsahf\n\t"

/* r = a op b, all flags written, none read */
#define HOST_BINARY(name, bits, insn)                                                                            \
	static inline u##bits host_##name##bits(u64 *fl, u##bits a, u##bits b)                                   \
	{                                                                                                        \
		u32 ax;                                                                                          \
		__asm__(insn " %2, %1\n\t" SAVE_FLAGS : "=&a"(ax), "+r"(a) : "r"(b) : "cc");                      \
		*fl = flags_merge(*fl, ax);                                                                      \
		return a;                                                                                        \
	}                                                                                                        \
	static inline void host_lock_##name##bits(u64 *fl, u##bits *p, u##bits b)                                \
	{                                                                                                        \
		u32 ax;                                                                                          \
		__asm__ volatile("lock " insn " %2, %1\n\t" SAVE_FLAGS : "=&a"(ax), "+m"(*p) : "r"(b)             \
				 : "cc", "memory");                                                              \
		*fl = flags_merge(*fl, ax);                                                                      \
	}

/* r = a op b with flags loaded first */
#define HOST_BINARY_C(name, bits, insn)                                                                          \
	static inline u##bits host_##name##bits(u64 *fl, u##bits a, u##bits b)                                   \
	{                                                                                                        \
		u32 ax = flags_to_ax(*fl);                                                                       \
		__asm__(LOAD_FLAGS insn " %2, %1\n\t" SAVE_FLAGS : "+&a"(ax), "+r"(a) : "r"(b) : "cc");           \
		*fl = flags_merge(*fl, ax);                                                                      \
		return a;                                                                                        \
	}                                                                                                        \
	static inline void host_lock_##name##bits(u64 *fl, u##bits *p, u##bits b)                                \
	{                                                                                                        \
		u32 ax = flags_to_ax(*fl);                                                                       \
		__asm__ volatile(LOAD_FLAGS "lock " insn " %2, %1\n\t" SAVE_FLAGS                                \
				 : "+&a"(ax), "+m"(*p) : "r"(b) : "cc", "memory");                               \
		*fl = flags_merge(*fl, ax);                                                                      \
	}

/* comparison: no result */
#define HOST_COMPARE(name, bits, insn)                                                                           \
	static inline void host_##name##bits(u64 *fl, u##bits a, u##bits b)                                      \
	{                                                                                                        \
		u32 ax;                                                                                          \
		__asm__(insn " %2, %1\n\t" SAVE_FLAGS : "=&a"(ax) : "r"(a), "r"(b) : "cc");                       \
		*fl = flags_merge(*fl, ax);                                                                      \
	}

#define HOST_UNARY(name, bits, insn)                                                                             \
	static inline u##bits host_##name##bits(u64 *fl, u##bits a)                                              \
	{                                                                                                        \
		u32 ax = flags_to_ax(*fl);                                                                       \
		__asm__(LOAD_FLAGS insn " %1\n\t" SAVE_FLAGS : "+&a"(ax), "+r"(a) : : "cc");                      \
		*fl = flags_merge(*fl, ax);                                                                      \
		return a;                                                                                        \
	}                                                                                                        \
	static inline void host_lock_##name##bits(u64 *fl, u##bits *p)                                           \
	{                                                                                                        \
		u32 ax = flags_to_ax(*fl);                                                                       \
		__asm__ volatile(LOAD_FLAGS "lock " insn " %1\n\t" SAVE_FLAGS : "+&a"(ax), "+m"(*p) : : "cc",     \
				 "memory");                                                                      \
		*fl = flags_merge(*fl, ax);                                                                      \
	}

/* r = a shifted by CL, flags loaded first: a count of 0 leaves them alone */
#define HOST_SHIFT(name, bits, insn)                                                                             \
	static inline u##bits host_##name##bits(u64 *fl, u##bits a, u8 n)                                        \
	{                                                                                                        \
		u32 ax = flags_to_ax(*fl);                                                                       \
		__asm__(LOAD_FLAGS insn " %%cl, %1\n\t" SAVE_FLAGS : "+&a"(ax), "+r"(a) : "c"(n) : "cc");         \
		*fl = flags_merge(*fl, ax);                                                                      \
		return a;                                                                                        \
	}

/* one source, result replaces dst (which may survive: BSF, BSR of 0) */
#define HOST_SCAN(name, bits, insn)                                                                              \
	static inline u##bits host_##name##bits(u64 *fl, u##bits dst, u##bits src)                               \
	{                                                                                                        \
		u32 ax = flags_to_ax(*fl);                                                                       \
		__asm__(LOAD_FLAGS insn " %2, %1\n\t" SAVE_FLAGS : "+&a"(ax), "+r"(dst) : "r"(src) : "cc");       \
		*fl = flags_merge(*fl, ax);                                                                      \
		return dst;                                                                                      \
	}

#define HOST_ALL(M, name, insn)   M(name, 8, insn "b") M(name, 16, insn "w") M(name, 32, insn "l") M(name, 64, insn "q")
#define HOST_WIDE(M, name, insn)  M(name, 16, insn "w") M(name, 32, insn "l") M(name, 64, insn "q")

HOST_ALL(HOST_BINARY, add, "add")
HOST_ALL(HOST_BINARY, or, "or")
HOST_ALL(HOST_BINARY, and, "and")
HOST_ALL(HOST_BINARY, sub, "sub")
HOST_ALL(HOST_BINARY, xor, "xor")
HOST_ALL(HOST_BINARY_C, adc, "adc")
HOST_ALL(HOST_BINARY_C, sbb, "sbb")
HOST_ALL(HOST_COMPARE, cmp, "cmp")
HOST_ALL(HOST_COMPARE, test, "test")
HOST_ALL(HOST_UNARY, inc, "inc")
HOST_ALL(HOST_UNARY, dec, "dec")
HOST_ALL(HOST_UNARY, neg, "neg")
HOST_ALL(HOST_UNARY, not, "not")
HOST_ALL(HOST_SHIFT, rol, "rol")
HOST_ALL(HOST_SHIFT, ror, "ror")
HOST_ALL(HOST_SHIFT, rcl, "rcl")
HOST_ALL(HOST_SHIFT, rcr, "rcr")
HOST_ALL(HOST_SHIFT, shl, "shl")
HOST_ALL(HOST_SHIFT, shr, "shr")
HOST_ALL(HOST_SHIFT, sar, "sar")

#endif
