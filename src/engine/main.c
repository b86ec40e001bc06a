/*
 * doppel-engine: KVM in user space. One process, one VM; the VMM's socket is fd 3.
 *
 * Start-up: take the low address space, acquire what is needed, drop authority, serve.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/api/api.h"
#include "engine/cell/cell.h"
#include "engine/lib/lib.h"
#include "engine/lib/loop.h"
#include "engine/main.h"
#include "engine/translate/check.h"
#include "engine/translate/stress.h"
#include "engine/translate/tr.h"

static struct engine_options options;

const struct engine_options *engine_options(void)
{
	return &options;
}

static void arena(u64 base, u64 size)
{
	void *p = mmap((void *)base, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (p != (void *)base)
		eng_panic("engine: cannot map %lx bytes at %lx: %d (is the address space limited?)", size, base, errno);
}

static void acquire(void)
{
	struct rlimit none = {0, 0};

	setrlimit(RLIMIT_CORE, &none);
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TOP_PAD, 1 << 20);
	if (eng_arena_init() < 0)
		eng_panic("engine: cannot map the VM arena");
	arena(ENG_ICACHE_BASE, ENG_ICACHE_SIZE);
	arena(ENG_TCACHE_BASE, ENG_TCACHE_SIZE);
	if (mmap((void *)ENG_RAM_BASE, ENG_GPA_LIMIT, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0) != (void *)ENG_RAM_BASE)
		eng_panic("engine: cannot reserve the guest's address space");
	eng_time_init();
	the_vm()->patient = patience_pays();
	if (stub_init() < 0)
		eng_panic("engine: cannot map the code cache");
	options.translate = options.translate && tr_init();
	options.direct = options.direct && options.translate && cell_init();
	if (api_init(3) < 0 || loop_init() < 0)
		eng_panic("engine: cannot set up the event loop");
	signals_init();
}

/* Runs on the low stack. */
static _Noreturn void engine_main(void)
{
	lowmem_leave_top();
	acquire();
	api_serve();
	sandbox_enter();
	loop_run();
	_exit(0);
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "check") == 0)
		tr_check_start();
	options.direct = argc > 1 && strcmp(argv[1], "direct") == 0;
	options.translate = argc < 2 || strcmp(argv[1], "interp") != 0;
	if (!tr_stress_parse(getenv("DOPPEL_TR_STRESS")))
		eng_panic("doppel-engine: DOPPEL_TR_STRESS: not a list of hot, one, tiny, miss, flush, check");
	if (argc > 2)
		tr_code_size(MAX(1ul << 20, MIN(strtoul(argv[2], NULL, 10), 96ul << 20)));
	if (fcntl(3, F_GETFD) < 0) {
		static const char text[] = "doppel-engine: started by doppel, not by hand: fd 3 must be its socket\n";

		if (write(2, text, sizeof(text) - 1) < 0)
			return 2;
		return 2;
	}
	lowmem_switch_stack(engine_main);
}
