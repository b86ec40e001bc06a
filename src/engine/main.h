/* Start-up steps of the engine process, in order. */
#ifndef ENGINE_MAIN_H
#define ENGINE_MAIN_H

#include "base/types.h"

int eng_arena_init(void);
void eng_time_init(void);
int stub_init(void);
int loop_init(void);
int loop_run(void);

/* What the client asked for on the command line: written once at start. */
struct engine_options {
	bool translate;
	bool direct; /* user code may run in cells */
};
const struct engine_options *engine_options(void);

/* lowmem.c: continues in fn on a stack below 8 TiB; then gives back every mapping above. */
_Noreturn void lowmem_switch_stack(void (*fn)(void));
void lowmem_leave_top(void);

/* signals.c: handlers of all threads. */
void signals_init(void);

/* sandbox.c: no new privileges, seccomp filter. Threads made later inherit it. */
void sandbox_enter(void);

#endif
