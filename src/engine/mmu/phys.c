/* Physical memory from anywhere in the engine, and the marking of pages that hold decoded code. */
#include "engine/interp/interp.h"
#include "engine/mmu/mmu_int.h"

/* All of it has this of PA_RAM and PA_RO. */
static bool all_are(gpa_t a, u64 n, u8 mask)
{
	if (!n || a >= ENG_GPA_LIMIT || n > ENG_GPA_LIMIT - a)
		return false;
	for (gpa_t p = a & PAGE_MASK; p < a + n; p += PAGE_SIZE)
		if ((__atomic_load_n(page_attr(p), __ATOMIC_RELAXED) & mask) != PA_RAM)
			return false;
	return true;
}

bool phys_read(gpa_t a, void *buf, u64 n)
{
	if (!all_are(a, n, PA_RAM))
		return false;
	memcpy(buf, gpa_to_hva(a), n);
	return true;
}

bool phys_write(gpa_t a, const void *buf, u64 n)
{
	if (!all_are(a, n, PA_RAM | PA_RO))
		return false;
	memcpy(gpa_to_hva(a), buf, n);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (gpa_t p = a; p < a + n; p = (p & PAGE_MASK) + PAGE_SIZE)
		mmu_note_write(NULL, p, (unsigned)MIN(a + n - p, PAGE_SIZE - (p & ~PAGE_MASK)));
	return true;
}

bool phys_exchange8(gpa_t a, u8 value, u8 *old)
{
	if (!all_are(a, 1, PA_RAM | PA_RO))
		return false;
	*old = __atomic_exchange_n((u8 *)gpa_to_hva(a), value, __ATOMIC_SEQ_CST);
	mmu_note_write(NULL, a, 1);
	return true;
}

static void drop_writes_everywhere(struct vm *vm, void *arg)
{
	gpa_t page = *(gpa_t *)arg;

	__atomic_fetch_or(page_attr(page), PA_CODE, __ATOMIC_SEQ_CST);
	for (u32 i = 0; i < vm->nvcpus; i++)
		tlb_drop_writes(vm->vcpus[i], page);
}

void mmu_mark_code(struct vcpu *cpu, gpa_t page)
{
	if (__atomic_load_n(page_attr(page), __ATOMIC_RELAXED) & PA_CODE)
		return;
	if (cpu->vm->nvcpus > 1) {
		vm_safepoint(cpu->vm, cpu, drop_writes_everywhere, &page);
		return;
	}
	__atomic_fetch_or(page_attr(page), PA_CODE, __ATOMIC_SEQ_CST);
	tlb_drop_writes(cpu, page);
}

void mmu_clear_code(gpa_t page)
{
	__atomic_fetch_and(page_attr(page), (u8)~PA_CODE, __ATOMIC_SEQ_CST);
}

bool mmu_watched_page(const struct vcpu *cpu, gva_t page)
{
	u64 dr7 = cpu->guest_debug & KVM_GUESTDBG_USE_HW_BP ? cpu->guest_debug_dr[7] : cpu->dr7;
	const u64 *dr = cpu->guest_debug & KVM_GUESTDBG_USE_HW_BP ? cpu->guest_debug_dr : cpu->dr;

	for (unsigned i = 0; unlikely(dr7 & 0xff) && i < 4; i++)
		if (dr7 >> (i * 2) & 3 && dr7 >> (16 + i * 4) & 1 && (dr[i] & PAGE_MASK) == page)
			return true;
	return false;
}
