/* Between the two halves of the harness. */
#ifndef TESTS_INSN_HARNESS_GUEST_H
#define TESTS_INSN_HARNESS_GUEST_H

#include "tests/insn/harness.h"

bool guest_init(void);
u8 *guest_code(void);
/* A signal in translated code or in a vector stub: arranged that the guest goes on. */
bool guest_signal(int sig, void *ucontext);

#endif
