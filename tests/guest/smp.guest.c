/* Four processors: start, locked counters, exchanges, TLB shootdown, and the orders that x86 forbids. */
#include "rt.h"

#define CPUS   4
#define ROUNDS 2000
#define LITMUS 60
static volatile u32 phase, done, counter, plain_lock, plain_counter;
static volatile u64 pair[2] __attribute__((aligned(16)));
static volatile u32 flushed, stale, ready;
static struct { volatile u32 v; u32 pad[31]; } x, y, r[2], gate[2] __attribute__((aligned(128)));
static volatile u32 litmus_on;
static volatile u32 msg_data, msg_flag, msg_bad, msg_stop;

static void add16(void)
{
	u64 lo = pair[0], hi = pair[1];
	u8 ok;

	do {
		u64 nl = lo + 1, nh = hi + (nl == 0) + 3;

		__asm__ volatile("lock cmpxchg16b %1; sete %0" : "=q"(ok), "+m"(pair), "+a"(lo), "+d"(hi) : "b"(nl), "c"(nh) : "cc");
	} while (!ok);
}

static void work(void)
{
	for (u32 i = 0; i < ROUNDS; i++) {
		__asm__ volatile("lock incl %0" : "+m"(counter)::"cc");
		add16();
		for (;;) {
			u32 v = 1;

			__asm__ volatile("xchg %0, %1" : "+r"(v), "+m"(plain_lock)::"memory");
			if (!v)
				break;
			pause();
		}
		plain_counter++;
		__asm__ volatile("" ::: "memory");
		plain_lock = 0;
	}
	__atomic_fetch_add(&done, 1, __ATOMIC_SEQ_CST);
}

static int shootdown(struct frame *f)
{
	(void)f;
	WRITE_CR(3, READ_CR(3));
	__atomic_fetch_add(&flushed, 1, __ATOMIC_SEQ_CST);
	apic_write(APIC_EOI, 0);
	return 1;
}

#define TARGET (PAGE_OF_TESTS + 0x1000)
static void read_target(void)
{
	u64 seen = 0, now;

	__atomic_fetch_add(&ready, 1, __ATOMIC_SEQ_CST);
	sti_nop();
	do {
		now = *(volatile u64 *)TARGET; /* the pages hold growing numbers: going back is a stale translation */
		if (now < seen)
			stale = 1;
		seen = now;
	} while (phase == 2);
	cli();
	__atomic_fetch_add(&done, 1, __ATOMIC_SEQ_CST);
}

/* Store buffering (allowed to see 0,0 without fences, forbidden with them). */
static void litmus(u32 me, volatile u32 *mine, volatile u32 *other)
{
	for (u32 i = 1; i <= LITMUS; i++) {
		while (gate[me].v != i)
			pause();
		*mine = 1;
		__asm__ volatile("mfence" ::: "memory");
		r[me].v = *other;
		__asm__ volatile("" ::: "memory");
		__atomic_fetch_add(&litmus_on, 1, __ATOMIC_SEQ_CST);
	}
	__atomic_fetch_add(&done, 1, __ATOMIC_SEQ_CST);
}

static void message_reader(void)
{
	while (!msg_stop) {
		u32 f = msg_flag;
		u32 d = msg_data;

		if (d < f) /* the flag is stored after the data */
			msg_bad = 1;
	}
	__atomic_fetch_add(&done, 1, __ATOMIC_SEQ_CST);
}

static void ap(u64 index)
{
	for (u32 seen = 0;;) {
		while (phase == seen)
			pause();
		seen = phase;
		if (seen == 1)
			work();
		else if (seen == 2)
			read_target();
		else if (seen == 3 && index <= 2)
			index == 1 ? litmus(0, &x.v, &y.v) : litmus(1, &y.v, &x.v);
		else if (seen == 4)
			message_reader();
	}
}

static void wait_done(u32 n)
{
	while (done < n)
		pause();
	done = 0;
}

static void shootdowns(void)
{
	u64 *p = pte_of(TARGET);
	u32 wrong = 0;

	handlers[0x40] = shootdown;
	for (u64 i = 0; i < 100; i++)
		*(u64 *)(PAGE_OF_TESTS + 0x10000 + i * 4096) = i;
	*p = (PAGE_OF_TESTS + 0x10000) | 7;
	invlpg(TARGET);
	phase = 2;
	while (ready < CPUS - 1)
		pause();
	for (u64 i = 1; i < 40; i++) {
		*p = (PAGE_OF_TESTS + 0x10000 + i * 4096) | 7;
		flushed = 0;
		apic_write(APIC_ICR, 0xc4040);
		while (flushed < CPUS - 1)
			pause();
		*(volatile u64 *)(PAGE_OF_TESTS + 0x10000 + (i - 1) * 4096) = 0; /* nobody may look there any more */
		invlpg(TARGET);
		wrong += *(volatile u64 *)TARGET != i;
	}
	phase = 100;
	wait_done(CPUS - 1);
	check("shootdown: wrong here", wrong, 0);
	check("shootdown: stale elsewhere", stale, 0);
}

static void store_buffer(void)
{
	u32 both_zero = 0;

	phase = 3;
	for (u32 i = 1; i <= LITMUS; i++) {
		x.v = y.v = 0;
		litmus_on = 0;
		__asm__ volatile("mfence" ::: "memory");
		gate[0].v = gate[1].v = i;
		while (litmus_on < 2)
			pause();
		both_zero += !r[0].v && !r[1].v;
	}
	wait_done(2);
	check("store buffer with fences: both zero", both_zero, 0);
}

void guest_main(void)
{
	check("processors started", start_aps(ap), CPUS - 1);
	phase = 1;
	work();
	wait_done(CPUS);
	check("lock inc", counter, CPUS * ROUNDS);
	check("cmpxchg16b low", pair[0], CPUS * ROUNDS);
	check("cmpxchg16b high", pair[1], CPUS * ROUNDS * 3);
	check("xchg lock", plain_counter, CPUS * ROUNDS);
	shootdowns();
	store_buffer();
	phase = 4;
	for (u32 i = 1; i < 20000; i++) {
		msg_data = i;
		__asm__ volatile("" ::: "memory");
		msg_flag = i;
	}
	msg_stop = 1;
	wait_done(CPUS - 1);
	check("message passing: flag before data", msg_bad, 0);
}
