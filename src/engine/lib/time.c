/*
 * Clocks. CLOCK_MONOTONIC by system call: the vDSO is unmapped with everything else above ENG_TOP. The rate
 * of the host's TSC is read from CPUID where it is told, but believed only if a short measurement agrees.
 */
#include <cpuid.h>
#include <sys/syscall.h>
#include <time.h>
#include "engine/lib/lib.h"

/* Facts of the host, written once by eng_time_init() before other threads exist. */
static struct {
	u64 khz;
	u64 mult; /* ns = ticks * mult >> 32 */
	u64 base_tsc, base_ns;
} host_tsc;

static u64 clock_ns(int clock)
{
	struct timespec ts = {0};

	sys_call(SYS_clock_gettime, clock, &ts);
	return (u64)ts.tv_sec * 1000000000ull + (u64)ts.tv_nsec;
}

u64 eng_now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

u64 eng_thread_ns(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

u64 eng_realtime_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}

struct sample {
	u64 tsc, ns;
};

/* TSC and clock at one instant: of several tries the one with the shortest bracket, so a preemption between
 * the readings does not spoil it. */
static struct sample sample_take(void)
{
	struct sample best = {0};
	u64 width = ~0ull;

	for (int i = 0; i < 16; i++) {
		u64 before = eng_rdtsc();
		u64 ns = eng_now_ns();
		u64 after = eng_rdtsc();

		if (after - before < width) {
			width = after - before;
			best = (struct sample){before + width / 2, ns};
		}
	}
	return best;
}

static u64 khz_measure(u64 period_ns)
{
	struct sample a = sample_take(), b = {0};
	struct timespec ts = {.tv_nsec = (long)period_ns};

	do {
		sys_call(SYS_nanosleep, &ts, 0);
		b = sample_take();
	} while (b.ns - a.ns < period_ns);
	return (u64)((unsigned __int128)(b.tsc - a.tsc) * 1000000 / (b.ns - a.ns));
}

/* SDM 3A 18.18.3: leaf 15H with its crystal; leaf 40000010H is the convention of hypervisors. 0: not told. */
static u64 khz_cpuid(void)
{
	u32 a = 0, b = 0, c = 0, d = 0;

	if (__get_cpuid_count(0x15, 0, &a, &b, &c, &d) && a && b && c)
		return (u64)c * b / a / 1000;
	__cpuid(1, a, b, c, d);
	if (!(c & BIT(31)))
		return 0;
	__cpuid(0x40000000, a, b, c, d);
	if (a < 0x40000010 || a > 0x400000ff)
		return 0;
	__cpuid(0x40000010, a, b, c, d);
	return a;
}

static bool khz_agree(u64 told, u64 measured)
{
	u64 diff = told > measured ? told - measured : measured - told;

	return told && diff <= measured / 100;
}

void eng_time_init(void)
{
	struct sample s = {0};
	u64 told = khz_cpuid();

	if (told && khz_agree(told, khz_measure(2000000)))
		host_tsc.khz = told;
	else
		host_tsc.khz = khz_measure(20000000);
	host_tsc.mult = (1000000ull << 32) / host_tsc.khz;
	s = sample_take();
	host_tsc.base_tsc = s.tsc;
	host_tsc.base_ns = s.ns;
}

u64 eng_tsc_khz(void)
{
	if (unlikely(!host_tsc.khz))
		eng_time_init();
	return host_tsc.khz;
}

u64 eng_tsc_ns(void)
{
	u64 ticks = eng_rdtsc() - host_tsc.base_tsc;

	return host_tsc.base_ns + (u64)((unsigned __int128)ticks * host_tsc.mult >> 32);
}
