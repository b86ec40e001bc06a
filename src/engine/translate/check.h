/*
 * Lock-step of translator and interpreter (--engine check). A turn is the translated code from where it is entered to where it leaves,
 * which in this mode is at each jump. The interpreter then does the same from the same state; both must agree.
 */
#ifndef ENGINE_TRANSLATE_CHECK_H
#define ENGINE_TRANSLATE_CHECK_H

#include "base/types.h"

struct vcpu;
struct insn;

void tr_check_start(void); /* once, before tr_init() */
bool tr_checking(void);

/* In place of tr_enter(): one turn, done twice. Returns the site where it ended; the state is that of the site. */
u32 check_enter(struct vcpu *cpu, u64 host);
/* At the head of the loop: a turn in which the interpreter faulted has not come to its end. */
void check_unwound(struct vcpu *cpu);
/* Executing it twice does the same as once. What is not goes to its handler, between turns. */
bool check_repeatable(const struct insn *in);

#endif
