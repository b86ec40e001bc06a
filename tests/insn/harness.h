/*
 * Differential testing of instructions, single or in short programs: each case runs once on the host CPU, in this process,
 * and once in the interpreter, on equal registers and memory at equal addresses, CPL 3, 64-bit or compatibility mode. What
 * comes out must be equal.
 *
 * The host side is entered and left by signals: the handler of SIGUSR1 loads the registers, a breakpoint after the
 * instruction (or the fault it raises) brings them back.
 */
#ifndef TESTS_INSN_HARNESS_H
#define TESTS_INSN_HARNESS_H

#include "engine/vcpu.h"

#define T_CODE_VA 0x20000000ull /* the first of two pages, filled with INT3 or HLT around the code */
#define T_CODE_SIZE (2 * PAGE_SIZE)
#define T_DATA_VA 0x30000000ull /* T_DATA_PAGES pages between unmapped ones */
#define T_DATA_PAGES 3
#define T_DATA_SIZE (T_DATA_PAGES * PAGE_SIZE)

#define T_MAX_INSNS 20

/* Selectors of the host's system, which the guest's descriptor table repeats. */
#define T_CS32 0x23
#define T_CS64 0x33
#define T_DS   0x2b

struct insn_state {
	u64 gpr[16];
	u64 rip, rflags;
	u64 fs_base, gs_base;
	u16 sel[6]; /* after only */
};

struct insn_case {
	u8 bytes[T_MAX_INSNS * 16];
	unsigned len;
	bool compat; /* 32-bit code under a 64-bit system */
	unsigned at; /* offset in the code page */
	struct insn in;
	unsigned count;                 /* a program has more than one; in is not used then */
	struct {
		struct insn in;
		u16 off;
		u64 undefined;          /* flags that may be anything before it */
	} prog[T_MAX_INSNS + 1];
	struct insn_state before;
};

struct insn_result {
	struct insn_state after;
	int vector; /* exception, or -1 */
	u32 error;
	u64 cr2;
	bool wrote_code; /* of the interpreter: a program wrote into the code pages */
};

/* xorshift64*: the state is the seed, never 0 */
u64 test_random(u64 *state);

/* One of the values that make instructions go wrong. */
u64 test_interesting(u64 *state);

/* Guest with memory, page tables and segments; signal handlers. False with a message if the host cannot. */
bool harness_init(void);

/* Makes registers and addresses for c->in so that most memory operands lie in the data pages; rewrites displacements. */
void harness_prepare(struct insn_case *c, u64 *rnd);
/* Random bytes that decode to an instruction for which want() is true; then prepared. */
void harness_generate(struct insn_case *c, u64 *rnd, bool (*want)(const struct insn *in));

/* A program of 1 to T_MAX_INSNS such instructions, branches only forward and inside of it. */
void harness_generate_block(struct insn_case *c, u64 *rnd, bool (*want)(const struct insn *in));

/* The interpreter's result shows that on the host the case would touch this process, or it changes itself. */
bool harness_unsafe(const struct insn_result *guest);

void harness_run_host(const struct insn_case *c, struct insn_result *r);
/* TRANSLATE: as a block, several times, so that the translator gets at it. */
enum harness_mode { HARNESS_STEP, HARNESS_BLOCK, HARNESS_TRANSLATE };
void harness_run_interp(const struct insn_case *c, struct insn_result *r, enum harness_mode mode);

/* Both memories, for comparison and for making them equal again. */
u8 *harness_host_data(void);
u8 *harness_guest_data(void);

/* RFLAGS bits to compare: those the table defines for this instruction and operands, or at the end of the program. */
u64 harness_flag_mask(const struct insn_case *c, const struct insn_result *r);
/* False, with a report on stdout, if the results differ. */
bool harness_compare(const struct insn_case *c, const struct insn_result *host, const struct insn_result *guest, u64 flags);

#endif
