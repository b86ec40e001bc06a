/* The table of sensitive instructions. */
#include <stdio.h>

#include "debug/sensitive.h"

#define P   SENS_PRIV
#define IO  SENS_IOPL
#define C   SENS_CONTROL
#define B   SENS_BEHAVE
#define X17 SENS_CLASSIC

#define K64 "in 64-bit code of ring 0 "

/* clang-format off */
static const struct sensitive table[TI_COUNT] = {
	[TI_CLI] = {IO | C, "masks interrupts", K64 "one store to the guest's IF", "2A CLI; 3A 6.8.1"},
	[TI_STI] = {IO | C, "unmasks interrupts", K64 "one store to the guest's IF, if no interrupt waits", "2B STI; 3A 6.8.1"},
	[TI_PUSHF] = {B | X17, "shows IF and IOPL, which are the guest's and not the host's", "in 64-bit code flags from host and memory put together", "2B PUSHF; 1 3.4.3"},
	[TI_POPF] = {C | B | X17, "changes IF and IOPL in ring 0, and silently does not elsewhere: it never traps", NULL, "2B POPF; 3A 6.8.1"},
	[TI_IRET] = {C | B | X17, "returns to another ring, with other flags", NULL, "2A IRET; 3A 6.12.1"},
	[TI_MOV_TO_CR] = {P | C, "changes modes, paging, the address space", NULL, "2B MOV (control registers); 3A 2.5"},
	[TI_MOV_FROM_CR] = {P | B, "shows modes and the address space", K64 "a load of the guest's register", "2B MOV (control registers); 3A 2.5"},
	[TI_MOV_TO_DR] = {P | C, "sets breakpoints", NULL, "2B MOV (debug registers); 3B 17.2"},
	[TI_MOV_FROM_DR] = {P | B, "shows breakpoints", NULL, "2B MOV (debug registers); 3B 17.2"},
	[TI_CLTS] = {P | C, "clears CR0.TS", NULL, "2A CLTS; 3A 2.5"},
	[TI_LMSW] = {P | C, "changes CR0", NULL, "2A LMSW; 3A 2.5"},
	[TI_SMSW] = {B | X17, "shows CR0 (traps only with CR4.UMIP)", NULL, "2B SMSW; 3A 2.5"},
	[TI_LGDT] = {P | C, "moves the descriptor table", NULL, "2A LGDT; 3A 3.5.1"},
	[TI_SGDT] = {B | X17, "shows where the descriptor table is (traps only with CR4.UMIP)", NULL, "2B SGDT; 3A 3.5.1"},
	[TI_LIDT] = {P | C, "moves the interrupt table", NULL, "2A LIDT; 3A 6.10"},
	[TI_SIDT] = {B | X17, "shows where the interrupt table is (traps only with CR4.UMIP)", NULL, "2B SIDT; 3A 6.10"},
	[TI_LLDT] = {P | C, "loads the local descriptor table", NULL, "2A LLDT; 3A 3.5.1"},
	[TI_SLDT] = {B | X17, "shows the local descriptor table (traps only with CR4.UMIP)", NULL, "2B SLDT; 3A 3.5.1"},
	[TI_LTR] = {P | C, "loads the task register", NULL, "2A LTR; 3A 7.2.4"},
	[TI_STR] = {B | X17, "shows the task register (traps only with CR4.UMIP)", NULL, "2B STR; 3A 7.2.4"},
	[TI_LAR] = {B | X17, "shows descriptors by the current privilege level", NULL, "2A LAR; 3A 5.10.1"},
	[TI_LSL] = {B | X17, "shows limits by the current privilege level", NULL, "2A LSL; 3A 5.10.3"},
	[TI_VERR] = {B | X17, "tests a segment by the current privilege level", NULL, "2B VERR; 3A 5.10.2"},
	[TI_VERW] = {B | X17, "tests a segment by the current privilege level", NULL, "2B VERW; 3A 5.10.2"},
	[TI_MOV_TO_SREG] = {C | B | X17, "loads a segment, checked against the current privilege level", "a null selector over a null one", "2B MOV; 3A 5.6"},
	[TI_MOV_FROM_SREG] = {B | X17, "CS and SS show the privilege level", "in 64-bit code a load of the guest's selector", "2B MOV; 3A 3.4.3"},
	[TI_PUSH_SREG] = {B | X17, "CS and SS show the privilege level", NULL, "2B PUSH; 3A 3.4.3"},
	[TI_POP_SREG] = {C | B | X17, "loads a segment, checked against the current privilege level", NULL, "2B POP; 3A 5.6"},
	[TI_CALL_FAR] = {C | B | X17, "goes through gates to another ring", NULL, "2A CALL; 3A 5.8"},
	[TI_JMP_FAR] = {C | B | X17, "checked against the current privilege level", NULL, "2A JMP; 3A 5.8"},
	[TI_RET_FAR] = {C | B | X17, "returns to another ring", NULL, "2B RET; 3A 5.8.6"},
	[TI_INT] = {C | B | X17, "goes through the interrupt table to another ring", NULL, "2A INT n; 3A 6.12"},
	[TI_INT3] = {C | B | X17, "goes through the interrupt table to another ring", NULL, "2A INT n; 3A 6.12"},
	[TI_INTO] = {C | B | X17, "goes through the interrupt table to another ring", NULL, "2A INT n; 3A 6.12"},
	[TI_INT1] = {C | B | X17, "goes through the interrupt table to another ring", NULL, "2A INT n; 3A 6.12"},
	[TI_SYSCALL] = {C, "enters ring 0 at an address that the host's kernel has set for itself", NULL, "2B SYSCALL; 3A 5.8.8"},
	[TI_SYSRET] = {P | C, "returns to ring 3", NULL, "2B SYSRET; 3A 5.8.8"},
	[TI_SYSENTER] = {C, "enters ring 0 at an address that the host's kernel has set for itself", NULL, "2B SYSENTER; 3A 5.8.7"},
	[TI_SYSEXIT] = {P | C, "returns to ring 3", NULL, "2B SYSEXIT; 3A 5.8.7"},
	[TI_SWAPGS] = {P | C, "exchanges GS bases", K64 "two loads and two stores", "2B SWAPGS; 3A 5.8.8"},
	[TI_RDFSBASE] = {B, "the host's FS base is the engine's (needs CR4.FSGSBASE)", "a load of the guest's base", "2B RDFSBASE"},
	[TI_RDGSBASE] = {B, "the host's GS base is the engine's (needs CR4.FSGSBASE)", "a load of the guest's base", "2B RDGSBASE"},
	[TI_WRFSBASE] = {C, "the host's FS base is the engine's (needs CR4.FSGSBASE)", "a store to the guest's base", "2D WRFSBASE"},
	[TI_WRGSBASE] = {C, "the host's GS base is the engine's (needs CR4.FSGSBASE)", "a store to the guest's base", "2D WRGSBASE"},
	[TI_STAC] = {P | C, "opens user pages to ring 0", K64 "a store to the guest's AC, and other address tables from there on", "2B STAC; 3A 4.6.1"},
	[TI_CLAC] = {P | C, "closes user pages to ring 0", K64 "a store to the guest's AC, and other address tables from there on", "2A CLAC; 3A 4.6.1"},
	[TI_RDMSR] = {P | B, "shows the machine's own registers", NULL, "2B RDMSR; 4"},
	[TI_WRMSR] = {P | C, "changes the machine's own registers", NULL, "2D WRMSR; 4"},
	[TI_XGETBV] = {B, "shows which vector state the system allows", NULL, "2D XGETBV; 1 13.3"},
	[TI_XSETBV] = {P | C, "changes which vector state there is", NULL, "2D XSETBV; 1 13.3"},
	[TI_CPUID] = {B, "shows the host's processor, not the guest's", NULL, "2A CPUID"},
	[TI_RDTSC] = {B, "shows the host's time, not the guest's (traps only with CR4.TSD)", "the host's RDTSC, and the guest's offset added", "2B RDTSC; 3B 17.17"},
	[TI_RDTSCP] = {B, "shows the host's time, not the guest's (traps only with CR4.TSD)", "the host's RDTSC, and the guest's offset added", "2B RDTSCP; 3B 17.17"},
	[TI_RDPMC] = {B, "shows the host's counters (traps without CR4.PCE)", NULL, "2B RDPMC"},
	[TI_RDPID] = {B, "shows the host's processor number", NULL, "2B RDPID"},
	[TI_HLT] = {P | C, "stops the processor", NULL, "2A HLT"},
	[TI_IN] = {IO | B, "reads a device (I/O bitmap of the TSS)", NULL, "2A IN; 1 19.5"},
	[TI_OUT] = {IO | C, "writes a device (I/O bitmap of the TSS)", NULL, "2B OUT; 1 19.5"},
	[TI_INS] = {IO | B, "reads a device (I/O bitmap of the TSS)", NULL, "2A INS; 1 19.5"},
	[TI_OUTS] = {IO | C, "writes a device (I/O bitmap of the TSS)", NULL, "2B OUTS; 1 19.5"},
	[TI_INVLPG] = {P | C, "makes the TLB forget a page", NULL, "2A INVLPG; 3A 4.10.4"},
	[TI_INVPCID] = {P | C, "makes the TLB forget pages", NULL, "2A INVPCID; 3A 4.10.4"},
	[TI_INVD] = {P | C, "empties caches", NULL, "2A INVD"},
	[TI_WBINVD] = {P | C, "empties caches", NULL, "2D WBINVD"},
	[TI_MONITOR] = {P | C, "arms the monitor hardware", NULL, "2B MONITOR"},
	[TI_MWAIT] = {P | C, "lets the processor wait", NULL, "2B MWAIT"},
	[TI_VMCALL] = {C, "a call to the monitor itself", NULL, "3C VMCALL"},
	[TI_VMMCALL] = {C, "a call to the monitor itself", NULL, "AMD APM 3, VMMCALL"},
};
/* clang-format on */

const struct sensitive *sensitive_of(enum trace_insn what)
{
	return &table[what < TI_COUNT ? what : TI_NONE];
}

void sensitive_class_text(const struct sensitive *s, char *buf, size_t n)
{
	const char *sens = (s->bits & (C | B)) == (C | B) ? "control- and behaviour-sensitive"
			   : s->bits & C		  ? "control-sensitive"
			   : s->bits & B		  ? "behaviour-sensitive"
							  : "innocuous";
	const char *priv = s->bits & P	    ? "privileged"
			   : s->bits & IO   ? "privileged above IOPL"
			   : s->bits & X17  ? "unprivileged: one of the classic seventeen"
					    : "unprivileged";

	snprintf(buf, n, "%s, %s: %s", sens, priv, s->why ? s->why : "");
}
