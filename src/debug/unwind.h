/*
 * Whose calls led here: stacks of a stopped guest. A Linux kernel's own ORC tables where they can be read
 * (Documentation/x86/orc-unwinder.rst), frame pointers where they make sense, else the stack is searched for return addresses.
 */
#ifndef DEBUG_UNWIND_H
#define DEBUG_UNWIND_H

#include "debug/symbols.h"

#define UNWIND_MAX 64

enum unwind_how {
	UNWIND_HERE,  /* where the vCPU is */
	UNWIND_ORC,
	UNWIND_FP,
	UNWIND_FOUND, /* found on the stack: may be left over from an earlier call */
};
struct unwind_frame {
	u64 pc, sp; /* sp: as it is when pc goes on */
	enum unwind_how how;
};

struct orc;
/* The kernel's tables; NULL: it has none, or they make no sense. */
struct orc *orc_load(const struct symbols *s, const struct inspect *in);
void orc_free(struct orc *o);
/* A module's table as well; false: it makes no sense. */
bool orc_add(struct orc *o, const struct inspect *in, u64 ip, u64 entry, u32 n);

struct unwinder {
	const struct inspect *in;
	const struct symbols *symbols; /* both may be NULL */
	const struct orc *orc;
};
/* Frames, innermost first; always at least one. User mode has its innermost only. */
u32 unwind(const struct unwinder *u, const struct kvm_regs *regs, struct unwind_frame *out, u32 max);

/* ---- inside: orc.c ---- */
struct unwind_state {
	u64 pc, sp, bp;
	bool exact;          /* pc is an instruction that was interrupted, not one behind a call */
	bool have_regs;      /* these are the interrupted code's */
	struct kvm_regs regs;
};
enum orc_result { ORC_NEXT, ORC_END, ORC_USER, ORC_UNKNOWN };
enum orc_result orc_step(const struct orc *o, const struct inspect *in, struct unwind_state *st);

#endif
