/*
 * Programs of 1 to 20 random instructions, three ways: on the host CPU in this process, in the interpreter, in the
 * translator, from the same state to, byte for byte, the same state. Programs have branches both ways, bounded loops, calls, indirect
 * jumps; their memory operands lie about page borders, on read-only pages, nowhere; each is executed from several states.
 */
#ifndef TESTS_INSN_THREE_H
#define TESTS_INSN_THREE_H

#include "engine/vcpu.h"

#define W_CODE_VA  0x20000000ull
#define W_CODE_SIZE (2 * PAGE_SIZE)
#define W_FILL     0x0f /* 0F 0F ... is an invalid opcode everywhere */
#define W_DATA_VA  0x30000000ull /* nothing before it; two pages, one read-only, nothing */
#define W_DATA_RW  (2 * PAGE_SIZE)
#define W_DATA_SIZE (3 * PAGE_SIZE)
#define W_COUNT_VA 0x38000000ull /* loop counters, then tables of jump targets */
#define W_COUNT_SIZE PAGE_SIZE
#define W_TABLES   64u
#define W_HIGH     0xffff800000000000ull

#define W_MAX_SLOTS 64 /* instructions, those that make up branches included */
#define W_STATES   4

enum world {
	WORLD_USER64, WORLD_COMPAT, WORLD_KERNEL64, WORLD_SMAP, WORLD_HIGH, WORLD_KERNEL32, WORLD_USER32, WORLDS
};

struct world_facts {
	const char *name;
	bool mode64, cpl3, lma, host; /* host: comparable with it */
};
extern const struct world_facts world_facts[WORLDS];

struct vec {
	u8 xmm[16][16] __attribute__((aligned(16))), ymm_high[16][16];
	u8 x87[24], st[128]; /* as FXSAVE has them; not loaded on the host */
	u32 mxcsr;
};

struct state {
	u64 gpr[16];
	u64 rip, rflags;
	u64 fs_base, gs_base;
	struct vec vec;
};

struct memory {
	u8 data[W_DATA_SIZE] __attribute__((aligned(64)));
	u8 count[W_COUNT_SIZE] __attribute__((aligned(64)));
};

struct result {
	struct state after;
	struct memory mem;
	int vector; /* -1: came to its end */
	u32 error;
	u64 cr2;
	bool late;       /* did not end in time */
	bool wrote_code;
};

struct slot {
	struct insn in;
	u16 off;
	u64 undefined; /* flags that may be anything before it */
};

struct program {
	enum world world;
	u8 bytes[W_MAX_SLOTS * 16];
	unsigned len, at; /* at: offset in the code pages */
	unsigned nslots, nwanted;
	struct slot slot[W_MAX_SLOTS + 1];
	u32 pointers, smalls; /* registers that hold addresses of the data, and indexes */
	bool x87;               /* uses x87 or MMX: not comparable with the host */
	unsigned nloops, ntables;
	u8 table[8];         /* slots that jumps through memory lead to */
};

u64 three_random(u64 *state);
unsigned below(u64 *rnd, unsigned n);

/* three_gen.c */
void generate(struct program *p, u64 *rnd, enum world w, bool (*has)(unsigned feature));
u64 code_base(const struct program *p);

/* three_state.c */
void generate_state(const struct program *p, struct state *s, struct memory *m, u64 *rnd);

/* three_host.c */
bool three_host_init(const struct memory *m); /* m: what the read-only page holds */
void three_run_host(const struct program *p, const struct state *s, const struct memory *m, struct result *r);
bool three_in_own(u64 a); /* on the host, an address there would touch this process */

/* three_guest.c */
bool three_guest_init(void);
bool three_guest_has(unsigned feature);
void three_guest_load(const struct program *p);
void three_guest_flush(void); /* TLB */
void three_run_guest(const struct program *p, const struct state *s, const struct memory *m, struct result *r, bool translate);
bool three_guest_signal(int sig, void *ucontext);
void three_guest_expire(void);
u64 three_guest_blocks(void); /* translated so far */

#endif
