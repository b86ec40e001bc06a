/* The APIC timer against a clock the test moves; the host timer against the real one. */
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include "irq_fakes.h"

#define MS 1000000ull

static struct lapic *start(u32 lvt, u32 tdcr)
{
	fake_vm(1, false);
	enable_all();
	mmio_put(0, AR_TDCR, tdcr);
	mmio_put(0, AR_LVT_TIMER, lvt);
	return fake_lapic(0);
}

static void oneshot(void **state)
{
	struct lapic *l = start(0x40, 0xb);

	mmio_put(0, AR_TMICT, 5 * MS);
	assert_true(l->timer.armed == fake_now + 5 * MS);
	fake_now += 2 * MS;
	assert_int_equal(mmio_get(0, AR_TMCCT), 3 * MS);
	lapic_timer_run(fake_cpu(0)); /* too early: armed again */
	assert_int_equal(take(0), -1);
	assert_true(l->timer.armed == fake_now + 3 * MS);
	fake_now += 3 * MS;
	assert_int_equal(mmio_get(0, AR_TMCCT), 0);
	lapic_timer_run(fake_cpu(0));
	assert_int_equal(take(0), 0x40);
	eoi(0);
	assert_int_equal(l->timer.armed, 0);
	fake_now += 50 * MS;
	lapic_timer_run(fake_cpu(0));
	assert_int_equal(take(0), -1);
	assert_int_equal(mmio_get(0, AR_TMICT), 5 * MS);
	mmio_put(0, AR_TMICT, 5 * MS);
	mmio_put(0, AR_TMICT, 0); /* stops */
	assert_int_equal(l->timer.armed, 0);
}

static void divisors(void **state)
{
	static const struct {
		u32 tdcr, div;
	} t[] = {{0, 2}, {1, 4}, {2, 8}, {3, 16}, {8, 32}, {9, 64}, {10, 128}, {11, 1}};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		struct lapic *l = start(0x40, t[i].tdcr);

		mmio_put(0, AR_TMICT, 1000000);
		assert_true(l->timer.target - fake_now == 1000000ull * t[i].div);
		fake_now += 250000ull * t[i].div;
		assert_int_equal(mmio_get(0, AR_TMCCT), 750000);
	}
}

static void divisor_change(void **state)
{
	struct lapic *l = start(0x40, 0xb);

	mmio_put(0, AR_TMICT, 1000000);
	fake_now += 400000;
	mmio_put(0, AR_TDCR, 0); /* by two */
	assert_int_equal(mmio_get(0, AR_TMCCT), 600000);
	assert_true(l->timer.target == fake_now + 1200000);
}

static void periodic(void **state)
{
	struct lapic *l = start(TIMER_PERIODIC << 17 | 0x40, 0xb);
	u64 t0 = fake_now;

	mmio_put(0, AR_TMICT, MS);
	for (unsigned i = 1; i <= 3; i++) {
		fake_now = t0 + i * MS + 10;
		lapic_timer_run(fake_cpu(0));
		assert_int_equal(take(0), 0x40);
		eoi(0);
		assert_true(l->timer.armed == t0 + (i + 1) * MS);
	}
	/* starved for 100 periods: one interrupt, phase kept */
	fake_now = t0 + 103 * MS + 400000;
	assert_int_equal(mmio_get(0, AR_TMCCT), 600000);
	lapic_timer_run(fake_cpu(0));
	assert_int_equal(take(0), 0x40);
	eoi(0);
	assert_int_equal(take(0), -1);
	assert_true(l->timer.armed == t0 + 104 * MS);
	assert_int_equal(mmio_get(0, AR_TMCCT), 600000);
}

static void periodic_minimum(void **state)
{
	struct lapic *l = start(TIMER_PERIODIC << 17 | 0x40, 0xb);

	mmio_put(0, AR_TMICT, 10);
	assert_true(l->timer.period == 200000);
	mmio_put(0, AR_LVT_TIMER, 0x40); /* one-shot goes on, unbounded from its next start */
	mmio_put(0, AR_TMICT, 10);
	assert_true(l->timer.target == fake_now + 10);
}

static void masked(void **state)
{
	start(LVT_MASKED | 0x40, 0xb);
	mmio_put(0, AR_TMICT, MS);
	fake_now += 2 * MS;
	lapic_timer_run(fake_cpu(0));
	assert_int_equal(take(0), -1);
	assert_int_equal(fake_lapic(0)->timer.target, 0);
}

static void mode_switch_disarms(void **state)
{
	struct lapic *l = start(0x40, 0xb);

	mmio_put(0, AR_TMICT, MS);
	mmio_put(0, AR_LVT_TIMER, TIMER_DEADLINE << 17 | 0x40);
	assert_int_equal(l->timer.armed, 0);
	assert_int_equal(mmio_get(0, AR_TMICT), 0);
	mmio_put(0, AR_TMICT, MS); /* ignored */
	assert_int_equal(mmio_get(0, AR_TMICT), 0);
	lapic_set_tsc_deadline(fake_cpu(0), ~0ull);
	assert_true(lapic_get_tsc_deadline(fake_cpu(0)) == ~0ull);
	assert_true(l->timer.armed > fake_now + (1ull << 60)); /* clamped, not wrapped */
	mmio_put(0, AR_LVT_TIMER, 0x40);
	assert_int_equal(lapic_get_tsc_deadline(fake_cpu(0)), 0);
	assert_int_equal(l->timer.armed, 0);
	lapic_set_tsc_deadline(fake_cpu(0), 5); /* not in this mode */
	assert_int_equal(lapic_get_tsc_deadline(fake_cpu(0)), 0);
}

static void deadline(void **state)
{
	struct lapic *l = start(TIMER_DEADLINE << 17 | 0x40, 0xb);
	struct vcpu *cpu = fake_cpu(0);
	u64 tsc = 0;

	cpu->tsc_offset = 1000 - eng_rdtsc(); /* guest TSC is about 1000 */
	tsc = eng_rdtsc() + cpu->tsc_offset;
	/* minutes away: this thread may not be scheduled for a while */
	lapic_set_tsc_deadline(cpu, tsc + 1000000 * MS);
	assert_true(l->timer.armed > fake_now && l->timer.armed <= fake_now + 1000000 * MS + 1);
	assert_int_equal(take(0), -1);
	lapic_timer_run(cpu);
	assert_int_equal(take(0), -1);
	cpu->tsc_offset += 2000000 * MS; /* the guest's TSC jumps past */
	lapic_timer_rearm(cpu);
	assert_int_equal(take(0), 0x40);
	eoi(0);
	assert_int_equal(lapic_get_tsc_deadline(cpu), 0);
	lapic_set_tsc_deadline(cpu, 1); /* long past: at once */
	assert_int_equal(take(0), 0x40);
	eoi(0);
	lapic_set_tsc_deadline(cpu, ~0ull >> 1);
	lapic_set_tsc_deadline(cpu, 0);
	assert_int_equal(l->timer.armed, 0);
}

static volatile sig_atomic_t fired;
static void on_timer(int sig)
{
	fired++;
}

static u64 monotonic(void)
{
	struct timespec ts = {0};

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000 * MS + (u64)ts.tv_nsec;
}

/* The signal may come before, in or after the call that sets the timer: it is blocked but for the wait for it. */
static bool fires_within(const sigset_t *blocked, unsigned ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000 * MS)};

	return sigtimedwait(blocked, NULL, &t) == ENG_SIG_TIMER;
}

static void host_timer(void **state)
{
	struct timespec wait = {.tv_sec = 20};
	sigset_t s;
	u64 due = 0;

	fake_vm(1, false);
	signal(ENG_SIG_TIMER, on_timer);
	sigemptyset(&s);
	sigaddset(&s, ENG_SIG_TIMER);
	sigprocmask(SIG_BLOCK, &s, NULL);
	due = monotonic() + 5 * MS;
	vtimer_arm(fake_cpu(0), due); /* before the thread's timer exists: kept */
	assert_int_equal(vtimer_init(fake_cpu(0)), 0);
	assert_int_equal(vtimer_init(fake_cpu(0)), 0);
	assert_true(fires_within(&s, 20000));
	assert_true(monotonic() >= due);
	vtimer_arm(fake_cpu(0), 1); /* past: at once */
	assert_true(fires_within(&s, 20000));
	vtimer_arm(fake_cpu(0), monotonic() + 60000 * MS);
	vtimer_arm(fake_cpu(0), 0);
	assert_false(fires_within(&s, 30));
	assert_int_equal(fired, 0);
	sigprocmask(SIG_UNBLOCK, &s, NULL);
	vtimer_arm(fake_cpu(0), monotonic() + 300 * MS); /* interrupts a sleep */
	while (!fired && wait.tv_sec--)
		nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
	assert_int_equal(fired, 1);
	sys_call(SYS_timer_delete, fake_lapic(0)->timer.host_id);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(oneshot),
	    cmocka_unit_test(divisors),
	    cmocka_unit_test(divisor_change),
	    cmocka_unit_test(periodic),
	    cmocka_unit_test(periodic_minimum),
	    cmocka_unit_test(masked),
	    cmocka_unit_test(mode_switch_disarms),
	    cmocka_unit_test(deadline),
	    cmocka_unit_test(host_timer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
