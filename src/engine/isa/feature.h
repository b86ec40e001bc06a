/*
 * CPUID features instructions depend on, and where CPUID reports them (SDM 2A CPUID, APM 3 appendix E).
 */
#ifndef ENGINE_ISA_FEATURE_H
#define ENGINE_ISA_FEATURE_H

#include "base/types.h"

enum cpuid_reg { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

/* FEATURE(name, leaf, subleaf, register, bit); bit 0xff: no CPUID bit, always there */
/* clang-format off */
#define INSN_FEATURES(FEATURE) \
	FEATURE(NONE, 0, 0, EAX, 0xff) \
	FEATURE(SSE3, 1, 0, ECX, 0) \
	FEATURE(PCLMULQDQ, 1, 0, ECX, 1) \
	FEATURE(MONITOR, 1, 0, ECX, 3) \
	FEATURE(SSSE3, 1, 0, ECX, 9) \
	FEATURE(FMA, 1, 0, ECX, 12) \
	FEATURE(CX16, 1, 0, ECX, 13) \
	FEATURE(SSE41, 1, 0, ECX, 19) \
	FEATURE(SSE42, 1, 0, ECX, 20) \
	FEATURE(MOVBE, 1, 0, ECX, 22) \
	FEATURE(POPCNT, 1, 0, ECX, 23) \
	FEATURE(AES, 1, 0, ECX, 25) \
	FEATURE(XSAVE, 1, 0, ECX, 26) \
	FEATURE(AVX, 1, 0, ECX, 28) \
	FEATURE(F16C, 1, 0, ECX, 29) \
	FEATURE(RDRAND, 1, 0, ECX, 30) \
	FEATURE(X87, 1, 0, EDX, 0) \
	FEATURE(TSC, 1, 0, EDX, 4) \
	FEATURE(MSR, 1, 0, EDX, 5) \
	FEATURE(CMPXCHG8B, 1, 0, EDX, 8) \
	FEATURE(SEP, 1, 0, EDX, 11) \
	FEATURE(CMOV, 1, 0, EDX, 15) \
	FEATURE(CLFLUSH, 1, 0, EDX, 19) \
	FEATURE(MMX, 1, 0, EDX, 23) \
	FEATURE(FXSR, 1, 0, EDX, 24) \
	FEATURE(SSE, 1, 0, EDX, 25) \
	FEATURE(SSE2, 1, 0, EDX, 26) \
	FEATURE(FSGSBASE, 7, 0, EBX, 0) \
	FEATURE(BMI1, 7, 0, EBX, 3) \
	FEATURE(AVX2, 7, 0, EBX, 5) \
	FEATURE(BMI2, 7, 0, EBX, 8) \
	FEATURE(INVPCID, 7, 0, EBX, 10) \
	FEATURE(RDSEED, 7, 0, EBX, 18) \
	FEATURE(ADX, 7, 0, EBX, 19) \
	FEATURE(SMAP, 7, 0, EBX, 20) \
	FEATURE(CLFLUSHOPT, 7, 0, EBX, 23) \
	FEATURE(CLWB, 7, 0, EBX, 24) \
	FEATURE(SHA, 7, 0, EBX, 29) \
	FEATURE(GFNI, 7, 0, ECX, 8) \
	FEATURE(VAES, 7, 0, ECX, 9) \
	FEATURE(VPCLMULQDQ, 7, 0, ECX, 10) \
	FEATURE(RDPID, 7, 0, ECX, 22) \
	FEATURE(CLDEMOTE, 7, 0, ECX, 25) \
	FEATURE(MOVDIRI, 7, 0, ECX, 27) \
	FEATURE(MOVDIR64B, 7, 0, ECX, 28) \
	FEATURE(SERIALIZE, 7, 0, EDX, 14) \
	FEATURE(XSAVEOPT, 13, 1, EAX, 0) \
	FEATURE(XSAVEC, 13, 1, EAX, 1) \
	FEATURE(XSAVES, 13, 1, EAX, 3) \
	FEATURE(LAHF64, 0x80000001, 0, ECX, 0) \
	FEATURE(LZCNT, 0x80000001, 0, ECX, 5) \
	FEATURE(PREFETCHW, 0x80000001, 0, ECX, 8) \
	FEATURE(SYSCALL, 0x80000001, 0, EDX, 11) \
	FEATURE(RDTSCP, 0x80000001, 0, EDX, 27) \
	FEATURE(WBNOINVD, 0x80000008, 0, EBX, 9) \
	FEATURE(RDPMC, 0, 0, EAX, 0xff)
/* clang-format on */

enum insn_feature {
#define FEATURE(name, leaf, subleaf, reg, bit) FEAT_##name,
	INSN_FEATURES(FEATURE)
#undef FEATURE
	FEAT_COUNT
};

#define FEATURE_ALWAYS 0xff

struct insn_feature_bit {
	u32 leaf;
	u8 subleaf;
	u8 reg; /* enum cpuid_reg */
	u8 bit; /* or FEATURE_ALWAYS */
};

/* Indexed by enum insn_feature. */
extern const struct insn_feature_bit insn_feature_bits[FEAT_COUNT];

const char *insn_feature_name(enum insn_feature feature);

#endif
