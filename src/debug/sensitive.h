/*
 * Popek and Goldberg's classes (Formal Requirements for Virtualizable Third Generation Architectures, 1974) of x86's instructions, how
 * doppel treats each, and where the manual has it: what doppel explain tells.
 */
#ifndef DEBUG_SENSITIVE_H
#define DEBUG_SENSITIVE_H

#include "kvm/trace.h"

enum sensitive_bits {
	SENS_PRIV = 0x01,    /* traps unless CPL is 0 */
	SENS_IOPL = 0x02,    /* traps if CPL is above IOPL */
	SENS_CONTROL = 0x04, /* changes the state of the machine: control-sensitive */
	SENS_BEHAVE = 0x08,  /* what it does or shows depends on that state: behaviour-sensitive */
	SENS_CLASSIC = 0x10, /* sensitive but unprivileged: one of the seventeen of Robin and Irvine (2000) */
};

struct sensitive {
	u8 bits;             /* 0: innocuous */
	const char *why;     /* it is in that class */
	const char *in_line; /* what translated code does by itself, and when; NULL: never */
	const char *manual;  /* Intel SDM, volume and section */
};

const struct sensitive *sensitive_of(enum trace_insn what);
/* "control-sensitive, unprivileged: ..." */
void sensitive_class_text(const struct sensitive *s, char *buf, size_t n);

#endif
