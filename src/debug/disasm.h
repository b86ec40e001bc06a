/* One guest instruction as text, Intel syntax. The bytes are the guest's: anything may stand there. */
#ifndef DEBUG_DISASM_H
#define DEBUG_DISASM_H

#include <stddef.h>
#include "base/types.h"

#define DISASM_BYTES 15  /* longest instruction (SDM 2A 2.3.11) */
#define DISASM_TEXT  128 /* room that any instruction's text has */

/*
 * The instruction at the front of code[n], which executes at pc in code of 16, 32 or 64 bits: its length, its text in text[size].
 * 0: these bytes are none, or it is cut off at n; text is then "(bad)".
 */
int disasm_one(unsigned bits, const u8 *code, size_t n, u64 pc, char *text, size_t size);

#endif
