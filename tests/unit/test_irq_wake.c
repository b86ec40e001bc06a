/* Interrupts by the page that vCPUs are woken by (base/wake.h): none is lost, whatever the moment. */
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "base/wake.h"
#include "irq_fakes.h"
#include "kvm/chan.h"

enum { GSI = 30, VECTOR = 0x51, ROUNDS = 100000 };

static struct wake_page *page; /* as a process maps it */
static u32 taken, by_eventfd, left, stop;

static void route(unsigned to)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry e;
	} r = {.head.nr = 1,
	       .e = {.gsi = GSI, .type = KVM_IRQ_ROUTING_MSI, .u.msi = {.address_lo = 0xfee00000 | to << 12, .data = VECTOR}}};

	assert_int_equal(irqchip_set_routing(the_vm(), &r.head), 0);
}

static int page_fd(u64 size)
{
	int fd = memfd_create("wake", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static bool set_up(unsigned ncpus)
{
	int fd = page_fd(sizeof(*page));
	int ret = 0;

	munmap((void *)ENG_WAKE_BASE, sizeof(*page));
	fake_vm(ncpus, true);
	enable_all();
	ret = wake_set_page(the_vm(), fd);
	if (ret == -ENOSYS) {
		close(fd);
		return false;
	}
	assert_int_equal(ret, 0);
	page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(page != MAP_FAILED);
	page->sources = 1;
	close(fd);
	return true;
}

static void refusals(void **state)
{
	int small = page_fd(4096), fd = page_fd(sizeof(*page));

	if (!set_up(1))
		skip();
	assert_int_equal(wake_set_page(the_vm(), fd), -EEXIST);
	the_vm()->wake = NULL;
	assert_int_equal(wake_set_page(the_vm(), small), -EINVAL);
	assert_int_equal(wake_set_page(the_vm(), -1), -EINVAL);
	close(small);
	close(fd);
}

/* What comes by irqfd tells who is to be woken the next time; nonsense in the page harms nobody. */
static void who_is_woken(void **state)
{
	const struct kvm_irqfd q = {.gsi = GSI};
	int fd = page_fd(0), ev[2];
	u64 one = 1;

	if (!set_up(3))
		skip();
	assert_int_equal(pipe(ev), 0);
	assert_int_equal(irqchip_irqfd(the_vm(), &q, ev[0], -1), 0);
	assert_false(wake_ring(page, 0)); /* not bound */
	assert_false(wake_bind(page, 0, GSI));
	assert_false(wake_ring(page, 0)); /* awake */
	route(2);
	assert_int_equal(write(ev[1], &one, sizeof(one)), sizeof(one));
	fake_fire_fd(ev[0]);
	assert_int_equal(take(2), VECTOR);
	assert_int_equal(page->source[0].cpu, 2);
	page->cpu[2].state = WAKE_ASLEEP;
	assert_true(wake_ring(page, 0));
	assert_int_equal(page->cpu[2].state, WAKE_RUNG);
	assert_true(wake_ring(page, 0)); /* it is on its way */
	assert_true(wake_bind(page, 0, 0)); /* so the VMM has to see to it */
	assert_false(wake_bind(page, 0, 0));
	page->source[0].cpu = 12345;
	page->source[0].gsi = ~0u;
	page->sources = ~0u;
	assert_false(wake_ring(page, 0));
	close(ev[1]);
	close(fd);
}

/* ---- all at once ---- */
static void *vcpu(void *arg)
{
	struct vcpu *cpu = fake_cpu(0);
	u32 turns = 0;

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		int v = -1;

		__atomic_store_n(&cpu->chan->attention, 0, __ATOMIC_SEQ_CST);
		while ((v = take(0)) >= 0) {
			if (v == VECTOR)
				__atomic_fetch_add(&taken, 1, __ATOMIC_RELEASE);
			eoi(0);
		}
		for (u32 i = turns++ % 512; i; i--)
			__builtin_ia32_pause(); /* awake, at something else */
		wake_wait(cpu);
	}
	return NULL;
}

static void rouse(void)
{
	u32 *word = &fake_cpu(0)->chan->attention;

	__atomic_store_n(word, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* As the engine's main thread does. */
static void eventfd_written(void)
{
	__atomic_fetch_add(&by_eventfd, 1, __ATOMIC_RELAXED);
	irq_set_gsi(the_vm(), GSI, true);
	irq_set_gsi(the_vm(), GSI, false);
	rouse();
}

static void *binder(void *arg)
{
	for (u32 i = 0; !__atomic_load_n(&stop, __ATOMIC_ACQUIRE); i++) {
		if (wake_bind(page, 0, 0))
			eventfd_written();
		if (i % 8 == 0)
			sched_yield();
		wake_bind(page, 0, GSI);
		usleep(50);
	}
	return NULL;
}

/* Each is sent when the one before was taken: one that is lost hangs the test. */
static void none_is_lost(void **state)
{
	pthread_t t[2];

	if (!set_up(1))
		skip();
	fake_cpu(0)->chan = aligned_alloc(4096, sizeof(struct vcpu_chan) + 4096 - sizeof(struct vcpu_chan) % 4096);
	assert_non_null(fake_cpu(0)->chan);
	memset(fake_cpu(0)->chan, 0, sizeof(struct vcpu_chan));
	route(0);
	the_vm()->patient = true;
	alarm(60);
	pthread_create(&t[0], NULL, vcpu, NULL);
	pthread_create(&t[1], NULL, binder, NULL);
	for (u32 i = 0; i < ROUNDS; i++) {
		enum wake_how how = i % 2 ? wake_leave(page, 0) : wake_ring(page, 0) ? WAKE_DONE : WAKE_NOT;
		u32 turns = 0;
		u64 left_at = 1;

		left += how == WAKE_LEFT;
		if (how == WAKE_NOT)
			eventfd_written();
		while (__atomic_load_n(&taken, __ATOMIC_ACQUIRE) <= i) {
			sched_yield();
			if (how == WAKE_LEFT && ++turns == i % 512 && wake_overdue(page, 0, &left_at, true))
				eventfd_written();
		}
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	pthread_join(t[1], NULL);
	rouse();
	pthread_join(t[0], NULL);
	alarm(0);
	assert_true(taken >= ROUNDS); /* one that the VMM saw to may come twice */
	assert_true(by_eventfd < ROUNDS);
	printf("%u of %u came by the page, %u were left there, %u came while it looked\n", ROUNDS - MIN(by_eventfd, (u32)ROUNDS), ROUNDS, left,
	       (u32)fake_cpu(0)->stats.spared);
	free(fake_cpu(0)->chan);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refusals),
		cmocka_unit_test(who_is_woken),
		cmocka_unit_test(none_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
