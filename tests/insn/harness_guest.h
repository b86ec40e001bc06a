/* Between the two halves of the harness. */
#ifndef TESTS_INSN_HARNESS_GUEST_H
#define TESTS_INSN_HARNESS_GUEST_H

#include "tests/insn/harness.h"

bool guest_init(void);
u8 *guest_code(void);

#endif
