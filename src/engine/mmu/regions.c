/* Memory slots: the guest's physical memory is mapped at ENG_RAM_BASE + GPA; attribute bytes say what is there. */
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/interp/interp.h"
#include "engine/mmu/mmu_int.h"
#include "engine/mmu/window.h"

void mmu_set_attrs(gpa_t gpa, u64 size, u8 set, u8 clear)
{
	for (gpa_t p = gpa; p < gpa + size; p += PAGE_SIZE) {
		u8 *a = page_attr(p);

		if ((*a & (set | clear)) != set)
			__atomic_store_n(a, (u8)((*a & ~clear) | set), __ATOMIC_RELAXED);
	}
}

static void flush_all(struct vm *vm)
{
	vm->memory_changes++;
	code_flush_all();
}

static void unmap_slot(struct vm_slot *s)
{
	mmu_set_attrs(s->gpa, s->size, 0, 0xff);
	if (mmap(gpa_to_hva(s->gpa), s->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) ==
	    MAP_FAILED)
		eng_panic("doppel-engine: cannot unmap guest memory at %lx", s->gpa);
}

static int map_slot(const struct vm_slot *s)
{
	void *p = mmap(gpa_to_hva(s->gpa), s->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, s->fd,
		       (off_t)s->fd_offset);

	if (p == MAP_FAILED)
		return -errno;
	mmu_set_attrs(s->gpa, s->size,
		  PA_RAM | (s->flags & KVM_MEM_READONLY ? PA_RO : 0) | (s->flags & KVM_MEM_LOG_DIRTY_PAGES ? PA_LOG : 0),
		  PA_RO | PA_LOG | PA_DIRTY);
	return 0;
}

bool mmu_slot_overlaps(const struct vm *vm, gpa_t gpa, u64 size, u32 but)
{
	for (u32 i = 0; i < VM_MAX_SLOTS; i++) {
		const struct vm_slot *s = &vm->slots[i];

		if (s->used && i != but && gpa < s->gpa + s->size && s->gpa < gpa + size)
			return true;
	}
	return false;
}

static int check(const struct vm *vm, const struct kvm_userspace_memory_region *r, int fd, u64 offset)
{
	struct stat st;

	if (r->slot >= VM_MAX_SLOTS || r->flags & ~(u32)(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY))
		return -EINVAL;
	if ((r->guest_phys_addr | r->memory_size | r->userspace_addr) & ~PAGE_MASK)
		return -EINVAL;
	if (r->guest_phys_addr > ENG_GPA_LIMIT || r->memory_size > ENG_GPA_LIMIT - r->guest_phys_addr)
		return -EINVAL;
	if (!r->memory_size)
		return 0;
	if (fd < 0 || offset & ~PAGE_MASK || fstat(fd, &st) < 0 || st.st_size < 0 ||
	    offset > (u64)st.st_size || r->memory_size > (u64)st.st_size - offset)
		return -EINVAL; /* a file shorter than the slot would be a fault waiting to happen */
	if (mmu_slot_overlaps(vm, r->guest_phys_addr, r->memory_size, r->slot) || window_overlaps(vm, r->guest_phys_addr, r->memory_size))
		return -EEXIST;
	return 0;
}

int mmu_set_region(struct vm *vm, const struct kvm_userspace_memory_region *r, int fd, u64 fd_offset)
{
	struct vm_slot *s, next;
	int ret = check(vm, r, fd, fd_offset);

	if (ret < 0)
		return ret;
	s = &vm->slots[r->slot];
	if (!r->memory_size) {
		if (!s->used)
			return -EINVAL;
		unmap_slot(s);
		close(s->fd);
		s->used = false;
		flush_all(vm);
		return 0;
	}
	next = (struct vm_slot){.used = true, .flags = r->flags, .gpa = r->guest_phys_addr, .size = r->memory_size,
				.user_addr = r->userspace_addr, .fd = fd, .fd_offset = fd_offset};
	/* as KVM: an existing slot may move or change its logging, not its size, memory or read-only flag */
	if (s->used && (s->size != next.size || s->user_addr != next.user_addr ||
			(s->flags ^ next.flags) & KVM_MEM_READONLY))
		return -EINVAL;
	if (s->used && s->gpa != next.gpa)
		unmap_slot(s);
	ret = map_slot(&next);
	if (ret < 0) {
		if (s->used && map_slot(s) < 0)
			eng_panic("doppel-engine: cannot map guest memory back");
		return ret;
	}
	if (s->used)
		close(s->fd);
	*s = next;
	flush_all(vm);
	return 0;
}

int mmu_get_dirty_log(struct vm *vm, u32 slot, u64 *bitmap, u64 bitmap_bytes)
{
	const struct vm_slot *s = slot < VM_MAX_SLOTS ? &vm->slots[slot] : NULL;

	if (!s || !s->used || !(s->flags & KVM_MEM_LOG_DIRTY_PAGES))
		return -ENOENT;
	for (u64 i = 0; i < s->size >> PAGE_SHIFT && i / 8 < bitmap_bytes; i++) {
		u8 *a = page_attr(s->gpa + (i << PAGE_SHIFT));

		if (*a & PA_DIRTY) {
			__atomic_fetch_and(a, (u8)~PA_DIRTY, __ATOMIC_RELAXED);
			bitmap[i / 64] |= BIT64(i % 64);
		}
	}
	for (u32 i = 0; i < vm->nvcpus; i++)
		tlb_drop_writes(vm->vcpus[i], ~0ull);
	return 0;
}
