/* Creation of a vCPU, and its thread: waits for requests on the channel, runs the guest. */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/api/api.h"
#include "engine/cell/cell.h"
#include "engine/cpu/cpu.h"
#include "engine/cpu/fpu.h"
#include "engine/cpu/run.h"
#include "engine/irqchip/irqchip.h"
#include "engine/irqchip/timer.h"
#include "engine/lib/lib.h"
#include "engine/main.h"
#include "engine/mmu/mmu.h"
#include "engine/translate/tr.h"

#define SPIN 2000 /* pauses before sleeping between requests: an MMIO exit is usually answered in a few us */

static void wait_request(struct vcpu_chan *c)
{
	for (unsigned i = 0; i < SPIN; i++) {
		if (__atomic_load_n(&c->turn, __ATOMIC_ACQUIRE) == TURN_ENGINE)
			return;
		__builtin_ia32_pause();
	}
	__atomic_store_n(&c->engine_waits, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&c->turn, __ATOMIC_SEQ_CST) == TURN_CLIENT)
		sys_call(SYS_futex, &c->turn, FUTEX_WAIT, TURN_CLIENT, 0);
	__atomic_store_n(&c->engine_waits, 0, __ATOMIC_RELAXED);
}

static void wake_client(struct vcpu *cpu)
{
	int bell = __atomic_load_n(&cpu->bell, __ATOMIC_ACQUIRE);
	const u64 one = 1;

	sys_call(SYS_futex, &cpu->chan->turn, FUTEX_WAKE, 1);
	if (bell)
		sys_call(SYS_write, bell - 1, &one, sizeof(one));
}

static s64 serve(struct vcpu *cpu)
{
	struct vcpu_chan *c = cpu->chan;
	struct api_call call = {.vm = cpu->vm, .cpu = cpu, .arg = c->arg, .buf = c->payload, .size = c->size,
				.room = sizeof(c->payload), .reply_fd = -1};
	s64 ret;

	if (c->ioctl == (u32)KVM_RUN)
		return vcpu_run(cpu);
	if (call.size > call.room)
		return -E2BIG;
	ret = api_dispatch(api_vcpu_rows, api_vcpu_count, c->ioctl, &call);
	if (ret == -ENOTTY)
		ret = api_dispatch(api_state_rows, api_state_count, c->ioctl, &call);
	c->size = call.size;
	return ret;
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *cpu = arg;
	struct vcpu_chan *c = cpu->chan;

	cpu->tid = c->tid = (int)sys_call(SYS_gettid);
	if (vtimer_init(cpu) < 0)
		eng_panic("doppel-engine: cannot make a timer for vCPU %u", cpu->id);
	if (engine_options()->direct)
		cell_start(cpu);
	if (engine_options()->translate)
		tr_vcpu_start(cpu);
	for (;;) {
		wait_request(c);
		c->ret = serve(cpu);
		__atomic_store_n(&c->turn, TURN_CLIENT, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&c->client_waits, __ATOMIC_SEQ_CST))
			wake_client(cpu);
	}
	return NULL;
}

static int start_thread(struct vcpu *cpu, u64 base)
{
	pthread_attr_t attr;
	pthread_t t;
	int r;

	/* the page below the stack is a guard */
	if (mprotect((void *)(base + ENG_VCPU_STACK - PAGE_SIZE), PAGE_SIZE, PROT_NONE) < 0)
		return -errno;
	pthread_attr_init(&attr);
	pthread_attr_setstack(&attr, (void *)(base + ENG_VCPU_STACK), ENG_VCPU_STACK_SIZE);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	r = pthread_create(&t, &attr, vcpu_thread, cpu);
	pthread_attr_destroy(&attr);
	return -r;
}

static int make_channel(u64 base, int *fd_out)
{
	int fd = memfd_create("vcpu", MFD_CLOEXEC);
	void *p;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, KVMW_CHAN_SIZE) < 0) {
		close(fd);
		return -ENOMEM;
	}
	p = mmap((void *)(base + ENG_VCPU_CHAN), KVMW_CHAN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	if (p == MAP_FAILED) {
		close(fd);
		return -ENOMEM;
	}
	*fd_out = fd;
	return 0;
}

int vcpu_create(struct vm *vm, u32 id, int *chan_fd)
{
	u64 base = eng_vcpu_base(vm->nvcpus);
	struct vcpu *cpu = (struct vcpu *)(base + ENG_VCPU_STATE);
	int r;

	_Static_assert(sizeof(struct vcpu) <= ENG_VCPU_CHAN, "struct vcpu fits its arena");
	if (vm->nvcpus >= ENG_MAX_VCPUS || id >= ENG_MAX_VCPUS)
		return -EINVAL;
	for (u32 i = 0; i < vm->nvcpus; i++)
		if (vm->vcpus[i]->id == id)
			return -EEXIST;
	if (mmap((void *)base, ENG_VCPU_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) !=
	    (void *)base)
		return -ENOMEM;
	r = make_channel(base, chan_fd);
	if (r < 0)
		return r;
	cpu->chan = (struct vcpu_chan *)(base + ENG_VCPU_CHAN);
	cpu->vm = vm;
	cpu->id = id;
	patience_init(&cpu->patience);
	cpu->is_bsp = vm->nvcpus == 0;
	mmu_reset(cpu);
	fpu_reset(cpu, false);
	if (vm->irqchip) {
		r = lapic_create(cpu);
		if (r < 0)
			goto fail;
	}
	cpuid_set(cpu, NULL, 0); /* until KVM_SET_CPUID2 */
	cpu_reset(cpu, false);
	if (vm->irqchip)
		lapic_reset(cpu, false);
	cpu->mp_state = cpu->is_bsp || !vm->irqchip ? MP_RUNNABLE : MP_UNINITIALIZED;
	r = start_thread(cpu, base);
	if (r < 0)
		goto fail;
	__atomic_store_n(&vm->vcpus[vm->nvcpus], cpu, __ATOMIC_RELEASE);
	__atomic_store_n(&vm->nvcpus, vm->nvcpus + 1, __ATOMIC_RELEASE);
	return 0;
fail:
	close(*chan_fd);
	*chan_fd = -1;
	return r;
}
