/*
 * Motorola MC146818 real-time clock with 128 bytes of CMOS RAM (Motorola data sheet ADI-856; PC use of the
 * RAM: IBM AT Technical Reference, section 1, "CMOS RAM"). The clock is the host's wall clock plus an offset,
 * in UTC; a guest that sets the time moves the offset, so the registers are computed when they are read and
 * nothing ticks while nobody listens.
 *
 * Flags are lazy as well: UF and AF follow from the seconds that passed since they were last looked at. A
 * timer runs only while the guest has asked for an interrupt (PIE, or UIE or AIE once a second). A tick that
 * comes late is one tick: the interrupt is level-like through IRQF, so a starved host never makes a burst.
 */
#include "devices/cmos.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { CMOS_SIZE = 128, NS = 1000000000 };
enum {
	R_SEC,
	R_SEC_ALARM,
	R_MIN,
	R_MIN_ALARM,
	R_HOUR,
	R_HOUR_ALARM,
	R_WDAY,
	R_MDAY,
	R_MONTH,
	R_YEAR,
	R_A,
	R_B,
	R_C,
	R_D,
	R_CENTURY = 0x32
};
enum { A_UIP = 0x80, A_DV = 0x70, A_DV_RUN = 0x20, A_RS = 0x0f };
enum { B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_BINARY = 0x04, B_24H = 0x02 };
enum { C_IRQF = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10 };
enum { D_VRT = 0x80 };
enum { UIP_NS = 244000 + 1984000 }; /* data sheet, table 6: UIP rises 244 us before an update of 1984 us */
enum { ALARM_ANY = 0xc0 };
#define SEC_MAX 8000000000ll /* the year 2223 */

struct cmos {
	struct device dev;
	struct region region;
	struct cmos_config config;
	pthread_mutex_t lock;
	u8 ram[CMOS_SIZE]; /* time registers are valid only while B_SET is on */
	u8 index;
	u8 c;          /* register C */
	s64 offset_ns; /* guest's time - host's time */
	s64 seen_sec;  /* guest's second up to which UF and AF have been worked out */
	int timer_fd;  /* periodic interrupt, or one tick per second */
	bool irq_level;
};

static u64 host_now(void *arg)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (u64)ts.tv_sec * NS + (u64)ts.tv_nsec;
}

static s64 guest_now(const struct cmos *k)
{
	return (s64)k->config.now_ns(k->config.now_arg) + k->offset_ns;
}

static s64 guest_sec(const struct cmos *k)
{
	s64 t = guest_now(k);
	return t >= 0 ? t / NS : 0;
}

/* ---- number formats: BCD or binary, 12 or 24 hours ---- */
static u8 encode(const struct cmos *k, unsigned v)
{
	return k->ram[R_B] & B_BINARY ? v : (v / 10 % 10) << 4 | v % 10;
}

static unsigned decode(const struct cmos *k, u8 v)
{
	return k->ram[R_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15);
}

static u8 encode_hour(const struct cmos *k, unsigned h)
{
	if (k->ram[R_B] & B_24H)
		return encode(k, h);
	return encode(k, h % 12 ? h % 12 : 12) | (h >= 12 ? 0x80 : 0);
}

static unsigned decode_hour(const struct cmos *k, u8 v)
{
	if (k->ram[R_B] & B_24H)
		return decode(k, v);
	return decode(k, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

static void load_time(struct cmos *k)
{
	time_t t = guest_sec(k);
	struct tm tm;
	if (!gmtime_r(&t, &tm))
		return;
	k->ram[R_SEC] = encode(k, tm.tm_sec);
	k->ram[R_MIN] = encode(k, tm.tm_min);
	k->ram[R_HOUR] = encode_hour(k, tm.tm_hour);
	k->ram[R_WDAY] = encode(k, tm.tm_wday + 1);
	k->ram[R_MDAY] = encode(k, tm.tm_mday);
	k->ram[R_MONTH] = encode(k, tm.tm_mon + 1);
	k->ram[R_YEAR] = encode(k, tm.tm_year % 100);
	k->ram[R_CENTURY] = encode(k, (tm.tm_year + 1900) / 100);
}

static void store_time(struct cmos *k)
{
	struct tm tm = {
	    .tm_sec = (int)decode(k, k->ram[R_SEC]),
	    .tm_min = (int)decode(k, k->ram[R_MIN]),
	    .tm_hour = (int)decode_hour(k, k->ram[R_HOUR]),
	    .tm_mday = (int)decode(k, k->ram[R_MDAY]),
	    .tm_mon = (int)decode(k, k->ram[R_MONTH]) - 1,
	    .tm_year = (int)(decode(k, k->ram[R_CENTURY]) * 100 + decode(k, k->ram[R_YEAR])) - 1900,
	};
	s64 sec = MIN(MAX((s64)timegm(&tm), 0),
		      SEC_MAX); /* nonsense in the registers must not overflow nanoseconds */
	k->offset_ns = sec * NS - (s64)k->config.now_ns(k->config.now_arg);
	k->seen_sec = sec;
}

/* ---- flags and the interrupt ---- */
static void update_irq_locked(struct cmos *k)
{
	bool level =
	    (k->c & k->ram[R_B] & (C_PF | C_AF | C_UF)) != 0; /* flag and enable bits have the same places */
	k->c = (k->c & ~C_IRQF) | (level ? C_IRQF : 0);
	if (level == k->irq_level)
		return;
	k->irq_level = level;
	machine_irq(k->dev.machine, k->config.gsi, level);
}

static bool alarm_field(u8 alarm, u8 now)
{
	return (alarm & ALARM_ANY) == ALARM_ANY || alarm == now;
}

static bool alarm_matches(const struct cmos *k, s64 sec)
{
	unsigned day = (unsigned)(sec % 86400);
	return alarm_field(k->ram[R_SEC_ALARM], encode(k, day % 60)) &&
	       alarm_field(k->ram[R_MIN_ALARM], encode(k, day / 60 % 60)) &&
	       alarm_field(k->ram[R_HOUR_ALARM], encode_hour(k, day / 3600));
}

/* Works out UF and AF for the seconds since the last look. An alarm repeats daily, so one day's worth is
 * enough. */
static void catch_up_locked(struct cmos *k)
{
	if (k->ram[R_B] & B_SET)
		return;
	s64 now = guest_sec(k);
	s64 from = k->seen_sec;
	k->seen_sec = now;
	if (now == from)
		return;
	k->c |= C_UF;
	if (from > now || now - from > 86400) /* the host's clock was set, or a long sleep */
		from = now > 86400 ? now - 86400 : 0;
	for (s64 s = from + 1; s <= now && !(k->c & C_AF); s++)
		if (alarm_matches(k, s))
			k->c |= C_AF;
}

/* Data sheet table 5, 32.768 kHz time base: 0 off, 1 and 2 like 8 and 9. */
static u64 period_ns(const struct cmos *k)
{
	unsigned rs = k->ram[R_A] & A_RS;
	if (!rs)
		return 0;
	return (u64)NS * (1u << ((rs < 3 ? rs + 7 : rs) - 1)) / 32768;
}

static void arm_timer_locked(struct cmos *k)
{
	struct itimerspec t = {0};
	u64 ns = 0, first = 0;
	if ((k->ram[R_B] & B_PIE) && (k->ram[R_A] & A_DV) == A_DV_RUN)
		ns = first = period_ns(k);
	if (!ns && (k->ram[R_B] & (B_AIE | B_UIE)) && !(k->ram[R_B] & B_SET)) {
		s64 now = guest_now(k);
		ns = NS;
		first = (u64)(NS - (now >= 0 ? now % NS : 0)); /* at the guest's next second */
	}
	t.it_interval = (struct timespec){.tv_sec = (time_t)(ns / NS), .tv_nsec = (long)(ns % NS)};
	t.it_value = (struct timespec){.tv_sec = (time_t)(first / NS), .tv_nsec = (long)(first % NS)};
	timerfd_settime(k->timer_fd, 0, &t, NULL);
}

static void cmos_tick(void *arg, u32 events)
{
	struct cmos *k = arg;
	u64 n;
	if (read(k->timer_fd, &n, sizeof(n)) != sizeof(n))
		return;
	pthread_mutex_lock(&k->lock);
	if (k->ram[R_B] & B_PIE)
		k->c |= C_PF;
	catch_up_locked(k);
	update_irq_locked(k);
	pthread_mutex_unlock(&k->lock);
}

/* ---- registers ---- */
static u8 read_a(struct cmos *k)
{
	s64 now = guest_now(k);
	bool uip = !(k->ram[R_B] & B_SET) && now >= 0 && now % NS >= NS - UIP_NS;
	return (k->ram[R_A] & ~A_UIP) | (uip ? A_UIP : 0);
}

static u8 read_c(struct cmos *k)
{
	catch_up_locked(k);
	update_irq_locked(k);
	u8 v = k->c;
	k->c = 0;
	update_irq_locked(k);
	return v;
}

static bool is_time(u8 reg)
{
	return reg == R_SEC || reg == R_MIN || reg == R_HOUR || (reg >= R_WDAY && reg <= R_YEAR) ||
	       reg == R_CENTURY;
}

static u8 read_reg(struct cmos *k, u8 reg)
{
	if (is_time(reg) && !(k->ram[R_B] & B_SET))
		load_time(k);
	switch (reg) {
	case R_A:
		return read_a(k);
	case R_C:
		return read_c(k);
	case R_D:
		return D_VRT;
	}
	return k->ram[reg];
}

static void write_b(struct cmos *k, u8 v)
{
	u8 old = k->ram[R_B];
	catch_up_locked(k);
	if (!(old & B_SET) && (v & B_SET))
		load_time(k);                     /* freeze: the guest edits the registers */
	k->ram[R_B] = v & B_SET ? v & ~B_UIE : v; /* SET clears UIE */
	if ((old & B_SET) && !(v & B_SET))
		store_time(k);
	update_irq_locked(k);
	arm_timer_locked(k);
}

static void write_time(struct cmos *k, u8 reg, u8 v)
{
	bool running = !(k->ram[R_B] & B_SET);
	if (running)
		load_time(k);
	k->ram[reg] = v;
	if (running)
		store_time(k);
}

static void write_reg(struct cmos *k, u8 reg, u8 v)
{
	if (is_time(reg)) {
		write_time(k, reg, v);
	} else if (reg == R_A) {
		k->ram[R_A] = v & ~A_UIP;
		arm_timer_locked(k);
	} else if (reg == R_B) {
		write_b(k, v);
	} else if (reg != R_C && reg != R_D) {
		if (reg == R_SEC_ALARM || reg == R_MIN_ALARM || reg == R_HOUR_ALARM)
			catch_up_locked(k); /* the past belongs to the old alarm */
		k->ram[reg] = v;
	}
}

static u64 cmos_read(void *dev, u64 offset, unsigned size)
{
	struct cmos *k = dev;
	if (offset == 0)
		return 0xff; /* the index is write-only */
	pthread_mutex_lock(&k->lock);
	u8 v = read_reg(k, k->index);
	pthread_mutex_unlock(&k->lock);
	return v;
}

static void cmos_write(void *dev, u64 offset, unsigned size, u64 value)
{
	struct cmos *k = dev;
	pthread_mutex_lock(&k->lock);
	if (offset == 0)
		k->index = value & (CMOS_SIZE - 1); /* bit 7 masks NMI, which nothing here raises */
	else
		write_reg(k, k->index, value);
	pthread_mutex_unlock(&k->lock);
}

static const struct region_ops cmos_ops = {.read = cmos_read, .write = cmos_write};

static void put_le(u8 *p, unsigned n, u64 v)
{
	for (unsigned i = 0; i < n; i++)
		p[i] = (u8)(v >> 8 * i);
}

static void set_memory_size(struct cmos *k)
{
	const u64 kib = 1024, mib = 1024 * kib, lo = k->config.ram_below_4g;
	u64 ext = lo > mib ? MIN((lo - mib) / kib, 0xffff) : 0;
	put_le(k->ram + 0x15, 2, MIN(lo / kib, 640));
	put_le(k->ram + 0x17, 2, ext);
	put_le(k->ram + 0x30, 2, ext);
	put_le(k->ram + 0x34, 2, lo > 16 * mib ? MIN((lo - 16 * mib) / (64 * kib), 0xffff) : 0);
	put_le(k->ram + 0x5b, 3, k->config.ram_above_4g / (64 * kib));
}

/* The chip has a battery: a reset clears the interrupt enables and flags (data sheet, RESET pin), nothing
 * else. */
static void cmos_reset(struct device *d)
{
	struct cmos *k = container_of(d, struct cmos, dev);
	pthread_mutex_lock(&k->lock);
	if (k->ram[R_B] & B_SET)
		store_time(k);
	k->ram[R_B] = B_24H;
	k->ram[R_A] = A_DV_RUN | 6;
	k->c = 0;
	k->index = 0;
	update_irq_locked(k);
	arm_timer_locked(k);
	pthread_mutex_unlock(&k->lock);
}

static void cmos_destroy(struct device *d)
{
	struct cmos *k = container_of(d, struct cmos, dev);
	bus_del(machine_pio(d->machine), &k->region);
	loop_del(machine_loop(d->machine), k->timer_fd);
	close(k->timer_fd);
	pthread_mutex_destroy(&k->lock);
	free(k);
}

static const struct device_class cmos_class = {.name = "cmos", .reset = cmos_reset, .destroy = cmos_destroy};

int cmos_create(struct machine *m, const struct cmos_config *c, struct cmos **out)
{
	struct cmos *k = calloc(1, sizeof(*k));
	if (!k)
		return -ENOMEM;
	int r = 0;
	k->dev = (struct device){.cls = &cmos_class, .machine = m};
	k->config = *c;
	if (!k->config.now_ns)
		k->config.now_ns = host_now;
	pthread_mutex_init(&k->lock, NULL);
	tzset(); /* gmtime_r opens the zone file at its first use: now, while files may still be opened */
	k->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (k->timer_fd < 0) {
		r = -errno;
		goto fail;
	}
	k->region = (struct region){.name = "cmos",
				    .base = 0x70,
				    .size = 2,
				    .min_size = 1,
				    .max_size = 1,
				    .ops = &cmos_ops,
				    .dev = k,
				    .enabled = true};
	k->seen_sec = guest_sec(k);
	set_memory_size(k);
	cmos_reset(&k->dev);
	r = loop_add(machine_loop(m), k->timer_fd, EPOLLIN, cmos_tick, k);
	if (r)
		goto fail_timer;
	r = bus_add(machine_pio(m), &k->region);
	if (r)
		goto fail_loop;
	machine_add_device(m, &k->dev);
	*out = k;
	return 0;
fail_loop:
	loop_del(machine_loop(m), k->timer_fd);
fail_timer:
	close(k->timer_fd);
fail:
	pthread_mutex_destroy(&k->lock);
	free(k);
	return r;
}
