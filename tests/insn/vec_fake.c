/*
 * The rest of the engine as the vector unit sees it, for the differential test: guest linear addresses are
 * host addresses, four pages with fixed rights; raising unwinds to the test.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "tests/insn/vec_test.h"

struct vec_outcome vec_ours;
bool vec_leave_once;

/* Vector state is live: nothing of libc. */
void *memcpy(void *restrict d, const void *restrict s, size_t n)
{
	void *ret = d;

	__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	return ret;
}

void *memset(void *d, int c, size_t n)
{
	void *ret = d;

	__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
	return ret;
}

void eng_lock(u32 *word)
{
	*word = 1;
}
void eng_unlock(u32 *word)
{
	*word = 0;
}
void cpu_update_mode(struct vcpu *cpu)
{
	(void)cpu;
}

_Noreturn void eng_panic(const char *fmt, ...)
{
	puts(fmt);
	exit(1);
}

void *vm_alloc(size_t size)
{
	void *p = aligned_alloc(64, ALIGN_UP(size, 64));

	memset(p, 0, size);
	return p;
}

static _Noreturn void raise_with(struct vcpu *cpu, unsigned vector, u32 err, u64 cr2)
{
	vec_ours.vector = vector;
	vec_ours.error = err;
	vec_ours.cr2 = cr2;
	__builtin_longjmp(cpu->unwind, 1);
}

_Noreturn void cpu_raise(struct vcpu *cpu, unsigned vector)
{
	raise_with(cpu, vector, 0, 0);
}
_Noreturn void cpu_raise_err(struct vcpu *cpu, unsigned vector, u32 err)
{
	raise_with(cpu, vector, err, 0);
}
_Noreturn void cpu_raise_gp(struct vcpu *cpu, u32 err)
{
	raise_with(cpu, EXC_GP, err, 0);
}

static void check_byte(struct vcpu *cpu, gva_t a, bool write)
{
	int page = vec_page_rights(a);

	if ((s64)(a << 16) >> 16 != (s64)a)
		raise_with(cpu, EXC_GP, 0, 0);
	if (page == PAGE_NONE)
		raise_with(cpu, EXC_PF, PF_U | (write ? PF_W : 0), a);
	if (page == PAGE_RO && write)
		raise_with(cpu, EXC_PF, PF_U | PF_W | PF_P, a);
}

void mmu_probe(struct vcpu *cpu, gva_t a, unsigned size, enum access_type t, enum mmu_idx idx)
{
	gva_t last = a + size - 1;

	check_byte(cpu, a, t == ACC_WRITE);
	if ((last ^ a) & PAGE_MASK)
		check_byte(cpu, last & PAGE_MASK, t == ACC_WRITE);
}

void *mmu_ptr_slow(struct vcpu *cpu, gva_t a, unsigned size, enum access_type t, enum mmu_idx idx)
{
	if (((a + size - 1) ^ a) & PAGE_MASK)
		return NULL;
	mmu_probe(cpu, a, size, t, idx);
	return cpu->vm ? NULL : (void *)a; /* vm set: plays a page that is never plain RAM */
}

void mmu_read_slow(struct vcpu *cpu, gva_t a, void *buf, unsigned size, enum mmu_idx idx)
{
	mmu_probe(cpu, a, size, ACC_READ, idx);
	memcpy(buf, (void *)a, size);
}

void mmu_write_slow(struct vcpu *cpu, gva_t a, const void *buf, unsigned size, enum mmu_idx idx)
{
	mmu_probe(cpu, a, size, ACC_WRITE, idx);
	if (vec_leave_once) { /* as a write to a device: out, and the instruction starts again */
		vec_leave_once = false;
		raise_with(cpu, RESTART, 0, 0);
	}
	memcpy((void *)a, buf, size);
}

gva_t iop_ea_slow(struct vcpu *cpu, const struct iop *op, unsigned size, bool write)
{
	return iop_ea_offset(cpu, op);
}

gva_t iop_linear(struct vcpu *cpu, const struct iop *op, u64 off, unsigned size, bool write)
{
	return off;
}

void interp_stop_after(struct vcpu *cpu, const struct iop *op)
{
	exit(1);
}
