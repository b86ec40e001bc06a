/* Several threads post to vCPUs that take and end interrupts all the time: none may be lost, none invented.
 */
#include <pthread.h>
#include <sched.h>
#include "irq_fakes.h"

#define CPUS    3
#define SENDERS 3
#define ROUNDS  20000

/* A sender owns a vector per target and posts it again only once it was taken: then the counts must agree. */
static u32 posted[CPUS][SENDERS], taken[CPUS][SENDERS];
static u32 nmis_seen, stop;

/* Each CPU has its own: an EOI frees all pins of its vector (SDM 3A 11.8.5), and a line still up interrupts again. */
static unsigned vector_of(unsigned sender, unsigned cpu)
{
	return 0x40 + sender * 0x23 + cpu;
}

static void *sender(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned to = i % CPUS;

		while (__atomic_load_n(&taken[to][me], __ATOMIC_ACQUIRE) != posted[to][me])
			sched_yield();
		posted[to][me]++;
		if (me == 2) { /* a level line: through IOAPIC and EOI broadcast */
			irq_set_gsi(the_vm(), 16 + to, true);
		} else {
			irq_send_msi(the_vm(), 0xfee00000 | to << 12, vector_of(me, to));
		}
	}
	return NULL;
}

/* Acts only when it was kicked, as the run loop does: a lost kick hangs the test. */
static void *vcpu(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		unsigned att = __atomic_exchange_n(&fake_kicks[me], 0, __ATOMIC_SEQ_CST);
		int v = -1;

		if (!att) {
			sched_yield();
			continue;
		}
		lapic_take_events(fake_cpu(me));
		if (fake_cpu(me)->nmi_pending) {
			fake_cpu(me)->nmi_pending = false;
			__atomic_fetch_add(&nmis_seen, 1, __ATOMIC_RELAXED);
		}
		while ((v = take(me)) >= 0) {
			unsigned s = 0;

			while (s < SENDERS && vector_of(s, me) != (unsigned)v)
				s++;
			assert_true(s < SENDERS);
			if (s == 2) /* before the EOI, else the line that is still up interrupts again */
				irq_set_gsi(the_vm(), 16 + me, false);
			eoi(me);
			__atomic_fetch_add(&taken[me][s], 1, __ATOMIC_RELEASE);
		}
	}
	return NULL;
}

static void stress(void **state)
{
	pthread_t c[CPUS], s[SENDERS];

	fake_vm(CPUS, false);
	enable_all();
	for (unsigned i = 0; i < CPUS; i++)
		ioapic_redirect(16 + i, (u64)i << 56 | BIT64(15) | vector_of(2, i));
	for (uintptr_t i = 0; i < CPUS; i++)
		pthread_create(&c[i], NULL, vcpu, (void *)i);
	for (uintptr_t i = 0; i < SENDERS; i++)
		pthread_create(&s[i], NULL, sender, (void *)i);
	for (unsigned i = 0; i < 200; i++) {
		irq_send_msi(the_vm(), 0xfee00000, DM_NMI << 8);
		sched_yield();
	}
	for (unsigned i = 0; i < SENDERS; i++)
		pthread_join(s[i], NULL);
	while (__atomic_load_n(&fake_kicks[0], __ATOMIC_ACQUIRE) || fake_lapic(0)->events)
		sched_yield();
	for (unsigned i = 0; i < CPUS; i++)
		for (unsigned j = 0; j < SENDERS; j++)
			while (__atomic_load_n(&taken[i][j], __ATOMIC_ACQUIRE) != posted[i][j])
				sched_yield();
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < CPUS; i++)
		pthread_join(c[i], NULL);
	assert_in_range(nmis_seen, 1, 200);
	for (unsigned i = 0; i < CPUS; i++)
		assert_int_equal(take(i), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(stress)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
