/* A trace begins and ends. Main thread; the rings come and go while no vCPU is between instructions. */
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/lib/lib.h"
#include "engine/mmu/mmu.h"
#include "engine/trace/trace.h"
#include "engine/translate/check.h"
#include "engine/vm.h"
#include "kvm/chan.h"

struct start {
	const struct doppel_trace *t;
	int fd, ret;
};

static struct trace_ring *ring_of(u32 i)
{
	return (struct trace_ring *)(ENG_TRACE_BASE + TRACE_HEADER_SIZE) + i;
}

static bool is_running(const struct vm *vm)
{
	return vm->nvcpus && vm->vcpus[0]->trace.ring;
}

static void begin(struct vcpu *cpu, const struct doppel_trace *t, u32 i)
{
	struct trace_state *s = &cpu->trace;

	*s = (struct trace_state){.ring = ring_of(i), .lo = t->lo, .hi = t->hi, .cpls = t->cpls, .wait = t->wait,
				  .counting = s->counting};
	s->kinds = t->cpus >> i & 1 ? t->kinds : 0;
	if (s->kinds & (BIT(TRACE_INSN) | BIT(TRACE_PT)))
		s->key = MODE_KEY_TRACE;
	if (s->kinds & BIT(TRACE_PT)) /* walks find the tables again */
		vcpu_kick(cpu, ATT_FLUSH);
	vcpu_kick(cpu, ATT_TRACE);
}

static void start(struct vm *vm, void *arg)
{
	struct start *q = arg;
	u64 size = TRACE_SIZE(vm->nvcpus);
	struct trace_header *h = (void *)ENG_TRACE_BASE;
	void *p = mmap((void *)ENG_TRACE_BASE, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, q->fd, 0);

	if (p != (void *)ENG_TRACE_BASE) {
		q->ret = -ENOMEM;
		return;
	}
	h->tsc_khz = vm->tsc_khz;
	h->start_tsc = eng_rdtsc();
	for (u32 i = 0; i < vm->nvcpus; i++)
		begin(vm->vcpus[i], q->t, i);
}

int trace_start(struct vm *vm, const struct doppel_trace *t, int fd)
{
	struct start q = {.t = t, .fd = fd};
	struct stat st;

	if (fd < 0)
		return -EBADF;
	if (!vm->nvcpus || !t->kinds || t->kinds & ~TRACE_ALL || fstat(fd, &st) < 0 || (u64)st.st_size < TRACE_SIZE(vm->nvcpus))
		q.ret = -EINVAL;
	else if (tr_checking())
		q.ret = -EOPNOTSUPP; /* each turn runs twice */
	else if (is_running(vm))
		q.ret = -EBUSY;
	else
		vm_safepoint(vm, NULL, start, &q);
	close(fd);
	return q.ret;
}

/* Stores to page tables go the fast way again, as their pages get writable entries. */
static void forget_tables(struct vm *vm)
{
	for (u32 i = 0; i < VM_MAX_SLOTS; i++) {
		const struct vm_slot *s = &vm->slots[i];

		for (u64 n = 0; s->used && n < s->size; n += PAGE_SIZE)
			if (__atomic_load_n(page_attr(s->gpa + n), __ATOMIC_RELAXED) & PA_TABLE)
				__atomic_fetch_and(page_attr(s->gpa + n), (u8)~PA_TABLE, __ATOMIC_SEQ_CST);
	}
}

static void stop(struct vm *vm, void *arg)
{
	for (u32 i = 0; i < vm->nvcpus; i++) {
		vm->vcpus[i]->trace = (struct trace_state){.counting = vm->vcpus[i]->trace.counting};
		vcpu_kick(vm->vcpus[i], ATT_TRACE);
	}
	munmap((void *)ENG_TRACE_BASE, TRACE_SIZE(vm->nvcpus));
	forget_tables(vm);
}

int trace_stop(struct vm *vm)
{
	if (!is_running(vm))
		return -ESRCH;
	vm_safepoint(vm, NULL, stop, NULL);
	return 0;
}
