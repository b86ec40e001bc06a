/* How the translator can be made to do rare things often: for tests, see CONTRIBUTING.md. */
#ifndef ENGINE_TRANSLATE_STRESS_H
#define ENGINE_TRANSLATE_STRESS_H

#include "base/types.h"

struct vcpu;

struct tr_stress {
	u32 hot;       /* executions before a block is translated; 0: as run.c has it */
	u32 max_insns; /* of a block */
	u64 code_size; /* of the code cache */
	bool miss;     /* an address table holds one entry only */
	bool check;    /* all pages are PAGE_CHECKED: interp_int.h */
	u32 record;    /* bits of mode.key: MODE_KEY_ARRIVALS, MODE_KEY_COVERAGE */
	bool nopext;   /* as on a host whose PEXT is slow */
	bool cell;     /* user code runs in cells whenever it can */
	bool flush;    /* jump caches, tables, blocks and the whole cache go at random */
};
const struct tr_stress *tr_stress(void);

/* So many bytes of code are kept; before tr_init(), after tr_stress_parse(). */
void tr_code_size(u64 size);

/* Words hot, one, tiny, miss, flush, check, arrivals, coverage, nopext, cell, separated by commas; before tr_init(). False: another word. */
bool tr_stress_parse(const char *words);

/* Called before translated code is entered; between says that no place in it is being held on to. */
void tr_stress_flush(struct vcpu *cpu, bool between);

#endif
