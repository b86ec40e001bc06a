/* Address spaces of guests that map code at one address to several places. Each has a window of its own, and all one in the upper half. */
#ifndef SPACES_H
#define SPACES_H

#include "rt.h"

#define SPACES 6 /* more than the translator keeps apart */
#define WINDOW 0x10000000000ul     /* pml4[2] */
#define HIGH   0xffffff8000000000ul /* pml4[511] */

struct space {
	u64 pml4[512], pdpt[512], pd[512], pt[512];
} __attribute__((aligned(4096)));
static struct space space[SPACES];
static u64 pcid_on;

static void go(unsigned s)
{
	WRITE_CR(3, (u64)space[s].pml4 | (pcid_on ? (s + 1) | 1ul << 63 : 0));
}

/* The rest of the guest's memory as it is, the window by a page table of its own, the upper half by the first space's. */
static void space_tables(struct space *sp)
{
	for (unsigned i = 0; i < 512; i++)
		sp->pml4[i] = rt_pml4[i];
	sp->pml4[2] = (u64)sp->pdpt | 7;
	sp->pml4[511] = (u64)space[0].pdpt | 7;
	sp->pdpt[0] = (u64)sp->pd | 7;
	sp->pd[0] = (u64)sp->pt | 7;
}

#endif
