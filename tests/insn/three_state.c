/* Makes states that programs begin with. See three.h. */
#include <string.h>

#include "tests/insn/three.h"

static u64 value(u64 *rnd)
{
	static const u64 special[] = {0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000,
				      0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, ~0ull};

	switch (below(rnd, 8)) {
	case 0:
		return special[below(rnd, ARRAY_SIZE(special))];
	case 1:
		return below(rnd, 256);
	case 2:
		return three_random(rnd) >> 32;
	default:
		return three_random(rnd);
	}
}

static void generate_vec(struct vec *v, u64 *rnd)
{
	static const u32 floats[] = {0, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001,
				     1, 0x007fffff, 0x00800000, 0x7f7fffff};

	u64 *w = (u64 *)(void *)v->xmm;

	for (unsigned i = 0; i < 64; i++) {
		u64 r = three_random(rnd);

		w[i] = r;
		if (r >> 62 == 0) {
			memcpy(&w[i], &floats[(r >> 8) % ARRAY_SIZE(floats)], 4);
			memcpy((u8 *)&w[i] + 4, &floats[(r >> 16) % ARRAY_SIZE(floats)], 4);
		}
	}
	memset(v->x87, 0, sizeof(v->x87));
	v->x87[0] = below(rnd, 4) ? 0x7f : 0x40 | (u8)below(rnd, 64);
	v->x87[1] = (u8)(3 | below(rnd, 4) << 2);
	v->x87[3] = (u8)(below(rnd, 8) << 3);
	v->x87[4] = below(rnd, 3) ? 0x3f : (u8)three_random(rnd);
	for (unsigned i = 0; i < 128; i++)
		v->st[i] = i % 16 < 10 ? (u8)three_random(rnd) : 0;
	for (unsigned i = 0; i < 8; i++) { /* mostly normal numbers of moderate size */
		v->st[16 * i + 7] |= below(rnd, 8) ? 0x80 : 0;
		v->st[16 * i + 9] = below(rnd, 4) ? 0x3f : v->st[16 * i + 9];
	}
	/* rounding; now and then DAZ and FZ; exceptions mostly masked */
	v->mxcsr = (below(rnd, 6) ? 0x1f80u : below(rnd, 64) << 7) | below(rnd, 4) << 13 | (below(rnd, 8) ? 0 : 0x8040);
}

void generate_state(const struct program *p, struct state *s, struct memory *m, u64 *rnd)
{
	bool wide = world_facts[p->world].mode64;
	u64 high = p->world == WORLD_HIGH ? W_HIGH : 0;

	for (unsigned i = 0; i < 16; i++) {
		s->gpr[i] = value(rnd);
		if (p->smalls >> i & 1)
			s->gpr[i] = below(rnd, 64);
		if (p->pointers >> i & 1)
			s->gpr[i] = high + W_DATA_VA + PAGE_SIZE + (below(rnd, 2) ? 0 : below(rnd, 64) - 32ull);
		if (p->pointers >> i & 1 && below(rnd, 100) == 0)
			s->gpr[i] = below(rnd, 2) ? BIT64(47) + below(rnd, 4096) : BIT64(62);
		/* shares its entry of an address table with the data; low enough not to be in this process' own */
		else if (p->pointers >> i & 1 && below(rnd, 80) == 0)
			s->gpr[i] += (below(rnd, 2) ? 1ull + below(rnd, 14) : 16ull + below(rnd, 0x1fff0)) << 43;
		if (!wide)
			s->gpr[i] = i < 8 ? (u32)s->gpr[i] : 0;
	}
	if (below(rnd, 3) && !(p->pointers >> R_CX & 1))
		s->gpr[R_CX] = below(rnd, 70);
	s->rip = code_base(p) + p->at;
	s->rflags = (three_random(rnd) & (FL_ARITH | (below(rnd, 8) ? 0 : FL_DF))) | FL_ONE;
	s->fs_base = below(rnd, 4) ? below(rnd, 64) : below(rnd, 8192);
	s->gs_base = below(rnd, 2) ? (wide ? (u64)0 - below(rnd, 64) : below(rnd, 16))
				   : high + W_DATA_VA + PAGE_SIZE + below(rnd, 64);
	generate_vec(&s->vec, rnd);
	for (unsigned i = 0; i < 16; i++)
		m->data[(three_random(rnd) >> 8) % W_DATA_RW] = (u8)(three_random(rnd) >> 17);
	for (unsigned i = 0; i < 8; i++) {
		u32 n = 1 + below(rnd, below(rnd, 4) ? 3 : 24);
		u64 to = code_base(p) + p->at + p->slot[p->table[i]].off;

		memcpy(m->count + 4 * i, &n, 4);
		memcpy(m->count + W_TABLES + 8 * i, &to, 8);
	}
}
