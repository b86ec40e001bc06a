/*
 * Host stubs: one data instruction of the guest, re-encoded so that it runs on the host, and a RET. Shared by
 * all vCPUs, never changed once made. A stub finds its memory operand at [rsi], its general registers in rax
 * (ModRM.reg) and rcx (ModRM.rm).
 *
 * Every re-encoded instruction is at most 7 bytes (prefix, REX, 0F 3A, opcode, ModRM, imm8), so a stub is one
 * 8-byte word and the word itself is its key.
 */
#ifndef ENGINE_INTERP_STUB_H
#define ENGINE_INTERP_STUB_H

#include "engine/vcpu.h"

#define STUB_REGION  (16ull << 20) /* of ENG_CODE_*, the rest is the translator's */
#define STUB_TEXT    (8ull << 20)  /* executable; behind it the table, in the writable view only */
#define STUB_SCRATCH (64 * 64ull)  /* end of the text: one line per vCPU for stubs that found no room */

/* Maps both views of the region. Once, before the sandbox closes. Returns 0 or -errno. */
int stub_init(void);

/* The stub for this code word; made if new. NULL: no room. Any thread. */
void *stub_get(u64 word);

/* Writes the word to the scratch line of this vCPU and returns its address; valid until the next call. */
void *stub_scratch(struct vcpu *cpu, u64 word);

static inline bool stub_contains(u64 rip)
{
	return rip - ENG_CODE_RX < STUB_TEXT;
}

/* The code word for an instruction; mode64: guest is in 64-bit mode. */
u64 stub_encode(const struct insn *in, bool mode64);

/* Which fields of ModRM name a general register. */
enum { STUB_GPR_REG = 1, STUB_GPR_RM = 2 };
unsigned stub_gpr_fields(const struct insn *in);

/* ---- calling; guest vector state is live ---- */
static inline void stub_run(const void *stub, const void *mem)
{
	__asm__ volatile("call *%0" : : "r"(stub), "S"(mem) : "memory", "cc");
}

static inline u64 stub_run_gpr(const void *stub, const void *mem, u64 rax, u64 rcx)
{
	__asm__ volatile("call *%[stub]"
			 : "+a"(rax), "+c"(rcx)
			 : [stub] "r"(stub), "S"(mem)
			 : "memory", "cc");
	return rax;
}

/* Returns the flags the instruction left. */
static inline u64 stub_run_flags(const void *stub, const void *mem)
{
	u64 flags;

	__asm__ volatile("call *%[stub]\n\tpushfq\n\tpop %[flags]"
			 : [flags] "=&r"(flags)
			 : [stub] "r"(stub), "S"(mem)
			 : "memory", "cc");
	return flags;
}

#endif
