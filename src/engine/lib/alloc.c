/* Bump allocation from the VM arena: what is allocated lives as long as the VM, that is the process. */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "engine/lib/arena.h"
#include "engine/lib/lib.h"
#include "engine/vm.h"

_Static_assert(sizeof(struct vm) <= ARENA_HEAP - ENG_VM_BASE, "struct vm fits before the heap");

int eng_arena_init(void)
{
	long r = sys_call(SYS_mmap, ENG_VM_BASE, ARENA_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (r < 0)
		return (int)r;
	if ((u64)r != ENG_VM_BASE) { /* kernel before 4.17 took the address as a hint */
		sys_call(SYS_munmap, r, ARENA_SIZE);
		return -EEXIST;
	}
	the_arena()->next = ALIGN_UP(ARENA_HEAP + sizeof(struct arena), 64);
	return 0;
}

void *vm_alloc(size_t size)
{
	u64 at = 0, end = ENG_VM_BASE + ARENA_SIZE;

	if (size > ARENA_SIZE)
		return NULL;
	size = ALIGN_UP(size, 64);
	at = __atomic_load_n(&the_arena()->next, __ATOMIC_RELAXED);
	do {
		if (size > end - at)
			return NULL;
	} while (!__atomic_compare_exchange_n(&the_arena()->next, &at, at + size, false, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	return (void *)at;
}
