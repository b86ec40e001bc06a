/* What tests ask of the translator through DOPPEL_TR_STRESS. */
#include "engine/lib/lib.h"
#include "engine/translate/stress.h"
#include "engine/translate/tr_int.h"

#define TINY_CODE 0x10000u

static struct tr_stress stress = {.max_insns = TR_MAX_INSNS, .code_size = TR_CODE_SIZE};
static u64 random_state = 0x9e3779b97f4a7c15ull;

const struct tr_stress *tr_stress(void)
{
	return &stress;
}

static bool take_word(const char *w, unsigned n)
{
	static const char *const words[] = {"hot", "one", "tiny", "miss", "flush", "check", "arrivals", "coverage", "nopext", "cell"};
	unsigned i = 0;

	while (i < ARRAY_SIZE(words) && (strlen(words[i]) != n || memcmp(words[i], w, n) != 0))
		i++;
	switch (i) {
	case 0: stress.hot = 1; return true;
	case 1: stress.max_insns = 1; return true;
	case 2: stress.code_size = TINY_CODE; return true;
	case 3: stress.miss = true; return true;
	case 4: stress.flush = true; return true;
	case 5: stress.check = true; return true;
	case 6: stress.record |= MODE_KEY_ARRIVALS; return true;
	case 7: stress.record |= MODE_KEY_COVERAGE; return true;
	case 8: stress.nopext = true; return true;
	case 9: stress.cell = true; return true;
	default: return false;
	}
}

void tr_code_size(u64 size)
{
	if (stress.code_size == TR_CODE_SIZE) /* a test may ask for less */
		stress.code_size = size;
}

bool tr_stress_parse(const char *words)
{
	while (words && *words) {
		unsigned n = 0;

		while (words[n] && words[n] != ',')
			n++;
		if (!take_word(words, n))
			return false;
		words += n + (words[n] == ',');
	}
	return true;
}

static u32 draw(void)
{
	random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
	return (u32)(random_state >> 33);
}

static void flush_all(struct vm *vm, void *arg)
{
	(void)arg;
	code_flush_all();
	for (u32 i = 0; i < vm->nvcpus; i++)
		interp_forget_lookups(vm->vcpus[i]);
}

static void kill_here(struct vcpu *cpu)
{
	const struct tlb_entry *e = &cpu->tlb.e[cpu->mode.cpl == 3 ? MMU_USER : MMU_KERNEL][tlb_index(code_linear(cpu))];

	if (e->tag_x != TLB_INVALID_TAG)
		code_invalidate((e->tag_x & PAGE_MASK) + e->addend - ENG_RAM_BASE, PAGE_SIZE);
}

void tr_stress_flush(struct vcpu *cpu, bool between)
{
	u32 r = draw();

	if (!stress.flush)
		return;
	if (r % 16 == 0)
		tr_forget_targets(cpu);
	if (r % 16 == 1)
		tr_tlb_drop_range(cpu);
	if (r % 32 == 4) /* as one who asked for attention that was taken before */
		__atomic_store_n(&cpu->chan->calm, 0, __ATOMIC_SEQ_CST);
	if (between && r % 64 == 2)
		kill_here(cpu);
	if (between && r % 4096 == 3)
		vm_safepoint(cpu->vm, cpu, flush_all, NULL);
}
