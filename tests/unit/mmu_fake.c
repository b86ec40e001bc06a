/* Fakes of the rooms around the MMU. */
#include "engine/translate/tr.h"
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include "mmu_fake.h"
#include "engine/cell/cell.h"
#include "engine/trace/trace.h"
#include "engine/interp/interp.h"

struct fake fake;
static struct vcpu vcpu;
static u64 seed = 88172645463325252ull;

u64 fake_rnd(u64 n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed >> 11) % n;
}

static _Noreturn void unwind(int event, unsigned vector, u32 error)
{
	fake.event = event;
	fake.vector = vector;
	fake.error = error;
	longjmp(fake.back, 1);
}

_Noreturn void cpu_raise_gp(struct vcpu *cpu, u32 err) { unwind(EV_EXC, EXC_GP, err); }
_Noreturn void cpu_raise_err(struct vcpu *cpu, unsigned vector, u32 err) { unwind(EV_EXC, vector, err); }
_Noreturn void cpu_raise_pf(struct vcpu *cpu, gva_t a, u32 err)
{
	fake.cr2 = a;
	unwind(EV_EXC, EXC_PF, err);
}
_Noreturn void cpu_exit_emulation(struct vcpu *cpu) { unwind(EV_EMULATION, 0, 0); }

static void record(bool write, gpa_t a, u64 data, unsigned len)
{
	assert_true(fake.nmmio < ARRAY_SIZE(fake.mmio));
	fake.mmio[fake.nmmio++] = (struct mmio_record){write, a, len, data};
}

void cpu_mmio_read(struct vcpu *cpu, gpa_t a, void *data, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		((u8 *)data)[i] = (u8)(a + i); /* every byte reads as its address */
	record(false, a, 0, len);
}

void cpu_mmio_write(struct vcpu *cpu, gpa_t a, const void *data, unsigned len)
{
	u64 v = 0;

	memcpy(&v, data, len);
	record(true, a, v, len);
}

void code_invalidate(gpa_t a, u64 n)
{
	fake.ninval++;
	fake.inval_gpa = a;
	fake.inval_size = n;
	memcpy(&fake.inval_saw, gpa_to_hva(a), MIN(n, 8));
}
void code_flush_all(void) { fake.nflush_code++; }
void interp_forget_lookups(struct vcpu *cpu) { fake.nforget++; }
void interp_forget_page(struct vcpu *cpu, gva_t a) { fake.nforget++; }
void vcpu_kick(struct vcpu *cpu, unsigned attention) { fake.nkick++; }

__attribute__((weak)) int loop_add(int fd, void (*fn)(void *arg), void *arg) { return 0; }
__attribute__((weak)) void loop_del(int fd) {}

void fake_go_on(void)
{
	if (fake.cpu->memory_seen == fake.vm.memory_changes)
		return;
	fake.cpu->memory_seen = fake.vm.memory_changes;
	mmu_flush_all(fake.cpu);
}

void vm_safepoint(struct vm *vm, struct vcpu *cpu, void (*fn)(struct vm *vm, void *arg), void *arg)
{
	fake.nsafe++;
	fn(vm, arg);
}

_Noreturn void eng_panic(const char *fmt, ...)
{
	fprintf(stderr, "eng_panic: %s\n", fmt);
	abort();
}

static void reserve(u64 base, u64 size, int prot)
{
	void *p = mmap((void *)base, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

	assert_ptr_equal(p, (void *)base);
}

int fake_fd(u64 size)
{
	int fd = memfd_create("ram", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

struct vcpu *fake_start(void)
{
	struct kvm_userspace_memory_region r = {.slot = 0, .memory_size = FAKE_RAM, .userspace_addr = 0x10000000};

	for (unsigned i = 0; i < VM_MAX_SLOTS; i++)
		if (fake.vm.slots[i].used)
			close(fake.vm.slots[i].fd);
	reserve(ENG_RAM_BASE, ENG_GPA_LIMIT, PROT_NONE);
	reserve(ENG_ATTR_BASE, ENG_ATTR_SIZE, PROT_READ | PROT_WRITE);
	memset(&fake, 0, sizeof(fake));
	memset(&vcpu, 0, sizeof(vcpu));
	fake.cpu = &vcpu;
	fake.vm.nvcpus = 1;
	fake.vm.vcpus[0] = &vcpu;
	vcpu.vm = &fake.vm;
	vcpu.dr7 = 0x400;
	vcpu.mode.mmu_idx = MMU_KERNEL;
	mmu_reset(&vcpu);
	assert_int_equal(mmu_set_region(&fake.vm, &r, fake_fd(FAKE_RAM), 0), 0);
	return &vcpu;
}

/* No translator here. */
void tr_tlb_reset(struct vcpu *cpu) { (void)cpu; }
void tr_tlb_low_changed(struct vcpu *cpu) { (void)cpu; }
void tr_tlb_high_changed(struct vcpu *cpu) { (void)cpu; }
void tr_tlb_drop_range(struct vcpu *cpu) { (void)cpu; }
void tr_tlb_drop_page(struct vcpu *cpu, u64 a) { (void)cpu; (void)a; }
void tr_tlb_drop_writes(struct vcpu *cpu, u64 gpa) { (void)cpu; (void)gpa; }
void cell_contexts_reset(struct vcpu *cpu) { (void)cpu; }
void cell_space_changed(struct vcpu *cpu) { (void)cpu; }
void cell_drop_page(struct vcpu *cpu, gva_t a) { (void)cpu; (void)a; }
void cell_drop_range(struct vcpu *cpu) { (void)cpu; }
void cell_drop_writes(struct vcpu *cpu, gpa_t gpa) { (void)cpu; (void)gpa; }

/* ---- tracing is off ---- */
void trace_mark_table(struct vcpu *cpu, gpa_t page)
{
}

void trace_table_store(struct vcpu *cpu, gpa_t a, u64 old, u64 new, unsigned size, bool walker)
{
}

void trace_code_store(struct vcpu *cpu, gpa_t a, unsigned size)
{
}

void trace_table_pointer(struct vcpu *cpu, gpa_t a, unsigned size)
{
}
