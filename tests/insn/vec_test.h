/* Shared by vec_host.c and its fakes. */
#ifndef TESTS_INSN_VEC_TEST_H
#define TESTS_INSN_VEC_TEST_H

#include "engine/interp/vec_int.h"

/* Guest memory of the test: none, 2 pages read-write, one read-only, none. */
#define ARENA       0xa8000000ull /* sums of small multiples, cut to 32 bits too, hit nothing */
#define ARENA_PAGES 5u

enum { PAGE_NONE, PAGE_RW, PAGE_RO };

static inline int vec_page_rights(u64 a)
{
	u64 page = (a - ARENA) >> PAGE_SHIFT;

	return page == 1 || page == 2 ? PAGE_RW : page == 3 ? PAGE_RO : PAGE_NONE;
}

struct vec_outcome {
	unsigned vector; /* NO_FAULT: none */
	u32 error;
	u64 cr2;
};

#define NO_FAULT 256u

#define RESTART 257u

extern struct vec_outcome vec_ours;
extern bool vec_leave_once;

#endif
