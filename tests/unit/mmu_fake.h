/* The MMU room over real arenas (guest RAM, attribute bytes), with fakes of the rooms around it. */
#ifndef TESTS_MMU_FAKE_H
#define TESTS_MMU_FAKE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "engine/mmu/mmu_int.h"

#define FAKE_RAM 0x4000000ull /* 64 MiB of RAM at 0 in slot 0 */

enum { EV_NONE, EV_EXC, EV_EMULATION };

struct mmio_record {
	bool write;
	gpa_t gpa;
	unsigned len;
	u64 data;
};

struct fake {
	struct vcpu *cpu;
	struct vm vm;
	jmp_buf back;
	/* the last event that unwound */
	int event;
	unsigned vector;
	u32 error;
	u64 cr2;
	/* what left to the VMM */
	struct mmio_record mmio[16];
	unsigned nmmio;
	/* invalidations of code */
	unsigned ninval;
	gpa_t inval_gpa;
	u64 inval_size, inval_saw; /* the first 8 bytes there at that moment */
	unsigned nflush_code, nforget, nsafe, nkick;
};

extern struct fake fake;

struct vcpu *fake_start(void); /* fresh vCPU, RAM zeroed, paging off */
void fake_go_on(void);         /* as vcpu_enter_guest() does */
int fake_fd(u64 size);         /* memfd */
u64 fake_rnd(u64 n);           /* 0..n-1, reproducible */

static inline u64 ram64(gpa_t a) { return *(u64 *)gpa_to_hva(a); }
static inline void set64(gpa_t a, u64 v) { *(u64 *)gpa_to_hva(a) = v; }

/* Runs stmt; EV_NONE if it came back, else what it raised. */
#define TRY(stmt)                                                                                                \
	({                                                                                                       \
		fake.event = EV_NONE;                                                                            \
		if (!setjmp(fake.back)) {                                                                        \
			stmt;                                                                                    \
		}                                                                                                \
		fake.event;                                                                                      \
	})
#define assert_fault(stmt, vec, err)                                                                             \
	do {                                                                                                     \
		assert_int_equal(TRY(stmt), EV_EXC);                                                             \
		assert_int_equal(fake.vector, vec);                                                              \
		assert_int_equal(fake.error, err);                                                               \
	} while (0)

#define P  0x01ull
#define W  0x02ull
#define U  0x04ull
#define A  0x20ull
#define D  0x40ull
#define PS 0x80ull
#define G  0x100ull
#define NX BIT64(63)

#endif
