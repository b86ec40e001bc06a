/* The VM arena: struct vm in its first MiB, then the control block of the allocator, then what vm_alloc gave
 * out. */
#ifndef ENGINE_LIB_ARENA_H
#define ENGINE_LIB_ARENA_H

#include "engine/layout.h"

#define ARENA_HEAP (ENG_VM_BASE + 0x100000ull)
#define ARENA_SIZE 0x80000000ull /* 2 GiB of address space, backed as it is touched */

struct main_loop;

struct arena {
	u64 next; /* first free address; any thread, atomic */
	struct main_loop *loop;
};

static inline struct arena *the_arena(void)
{
	return (struct arena *)ARENA_HEAP;
}

#endif
